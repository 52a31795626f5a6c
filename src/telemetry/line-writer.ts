import { close, open, write } from 'node:fs';

/** Where lines go: a descriptor that somebody else opened and closes, or a file that is appended to. */
export type LineTarget = { readonly fd: number } | { readonly path: string };

export interface LineWriterOptions {
  /** What may wait to be written. Default: 8 MiB. */
  readonly maxBytes?: number;
  /** Wait before a failed write is tried again. Default: 1,000 ms. */
  readonly retryMs?: number;
}

export interface LineWriterDeps {
  /** It cannot be written; said once until it can be again. */
  failed(error: Error): void;
}

type State =
  | { readonly kind: 'idle' }
  /** A turn of the loop gathers lines, so that they are written together. */
  | { readonly kind: 'gathering' }
  | { readonly kind: 'opening' }
  | { readonly kind: 'writing' }
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'closed' };

/** What is written at once. */
interface Piece {
  readonly bytes: Buffer;
  readonly lines: number;
  /** Bytes that are written already. */
  done: number;
}

/** A pipe takes so much in one piece, so that lines of two writers never meet in the middle. */
const PIPE_BYTES = 4096;
const FILE_BYTES = 65_536;
const EAGAIN_MS = 50;

/**
 * Writes lines without ever waiting or throwing: what cannot be written is tried again for as long as it fits into a bounded
 * buffer. A line is written whole, or not at all.
 *
 * Not pino's own destination: that one stops for good at EPIPE, never ends while a disk is full, and cannot tell how many
 * lines it has written.
 */
export class LineWriter {
  readonly #deps: LineWriterDeps;
  readonly #target: LineTarget;
  readonly #maxBytes: number;
  readonly #retryMs: number;
  readonly #pieceBytes: number;
  #state: State = { kind: 'idle' };
  #fd: number | undefined;
  #wantsReopen = false;
  #lines: string[] = [];
  /** Of lines and of what is being written. */
  #bytes = 0;
  #piece: Piece | undefined;
  #isFailing = false;
  #written = 0;
  #dropped = 0;
  #failed = 0;
  #onDrained: (() => void) | undefined;

  constructor(deps: LineWriterDeps, target: LineTarget, options: LineWriterOptions = {}) {
    this.#deps = deps;
    this.#target = target;
    this.#maxBytes = options.maxBytes ?? 8 * 1024 * 1024;
    this.#retryMs = options.retryMs ?? 1000;
    this.#pieceBytes = 'fd' in target ? PIPE_BYTES : FILE_BYTES;
    this.#fd = 'fd' in target ? target.fd : undefined;
  }

  /** Lines written and dropped, and writes that failed. */
  counts(): { readonly written: number; readonly dropped: number; readonly failed: number } {
    return { written: this.#written, dropped: this.#dropped, failed: this.#failed };
  }

  /** @param line with its newline */
  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#state.kind === 'closed' || this.#bytes + bytes > this.#maxBytes) {
      this.#dropped += 1;
      return;
    }
    this.#lines.push(line);
    this.#bytes += bytes;
    if (this.#state.kind !== 'idle') return;
    this.#state = { kind: 'gathering' };
    setImmediate(() => this.#step());
  }

  /** What comes from now on goes to the file that has the path then. */
  reopen(): void {
    this.#wantsReopen = true;
  }

  /**
   * Writes what there is, but waits no longer than that for it. Nothing is taken afterwards.
   *
   * @param withinMs default: 2,000
   */
  async close(withinMs = 2000): Promise<void> {
    if (this.#state.kind === 'closed') return;
    if (this.#bytes > 0) {
      const drained = Promise.withResolvers<void>();
      this.#onDrained = drained.resolve;
      if (this.#state.kind === 'waiting') this.#retry(0);
      const timer = setTimeout(drained.resolve, withinMs);
      await drained.promise;
      clearTimeout(timer);
    }
    this.#closed();
  }

  #closed(): void {
    if (this.#state.kind === 'waiting') clearTimeout(this.#state.timer);
    // A write that is under way has the descriptor; the process is about to end.
    const isBusy = this.#state.kind === 'writing';
    this.#state = { kind: 'closed' };
    this.#dropped += this.#lines.length;
    this.#lines = [];
    if (!isBusy) this.#leave();
  }

  #leave(): void {
    this.#dropped += this.#piece?.lines ?? 0;
    this.#piece = undefined;
    this.#closeFile();
  }

  #step(): void {
    if (this.#state.kind === 'closed') {
      this.#leave();
      return;
    }
    if (this.#wantsReopen && this.#piece === undefined) this.#closeFile();
    if (this.#fd === undefined) {
      this.#open();
      return;
    }
    this.#piece ??= this.#nextPiece();
    if (this.#piece === undefined) {
      this.#state = { kind: 'idle' };
      this.#onDrained?.();
      return;
    }
    const { bytes, done } = this.#piece;
    this.#state = { kind: 'writing' };
    write(this.#fd, bytes, done, bytes.length - done, null, (error, count) => this.#wrote(error, count));
  }

  #open(): void {
    if (!('path' in this.#target)) return;
    this.#state = { kind: 'opening' };
    open(this.#target.path, 'a', 0o640, (error, fd) => {
      if (this.#state.kind === 'closed') {
        if (error === null) close(fd, () => undefined);
        return;
      }
      if (error !== null) {
        this.#fail(error);
        return;
      }
      this.#fd = fd;
      this.#step();
    });
  }

  #wrote(error: NodeJS.ErrnoException | null, count: number): void {
    if (error?.code === 'EAGAIN') {
      this.#retry(EAGAIN_MS);
      return;
    }
    if (error !== null) {
      this.#fail(error);
      return;
    }
    this.#isFailing = false;
    this.#bytes -= count;
    const piece = this.#piece;
    if (piece !== undefined) {
      piece.done += count;
      if (piece.done === piece.bytes.length) {
        this.#written += piece.lines;
        this.#piece = undefined;
      }
    }
    this.#step();
  }

  #fail(error: Error): void {
    this.#failed += 1;
    if (!this.#isFailing) this.#deps.failed(error);
    this.#isFailing = true;
    this.#retry(this.#retryMs);
  }

  #retry(afterMs: number): void {
    if (this.#state.kind === 'closed') {
      this.#leave();
      return;
    }
    if (this.#state.kind === 'waiting') clearTimeout(this.#state.timer);
    const timer = setTimeout(() => this.#step(), afterMs);
    timer.unref();
    this.#state = { kind: 'waiting', timer };
  }

  /** As many lines as are written in one piece; at least one. */
  #nextPiece(): Piece | undefined {
    let text = '';
    let bytes = 0;
    let lines = 0;
    for (const line of this.#lines) {
      bytes += Buffer.byteLength(line);
      if (lines > 0 && bytes > this.#pieceBytes) break;
      text += line;
      lines += 1;
    }
    if (lines === 0) return undefined;
    this.#lines.splice(0, lines);
    return { bytes: Buffer.from(text), lines, done: 0 };
  }

  #closeFile(): void {
    this.#wantsReopen = false;
    if (this.#fd === undefined || !('path' in this.#target)) return;
    close(this.#fd, () => undefined);
    this.#fd = undefined;
  }
}
