import type { Buffer } from 'node:buffer';
import { HboneError } from '../errors.ts';
import type { StreamSink, TunnelStream } from '../stream.ts';
import { ByteQueue } from './byte-queue.ts';
import type { Outbox } from './outbox.ts';
import type { ReceiveWindows } from './receive-windows.ts';
import { CANCEL, CONNECT_ERROR, errorName, MAX_INT31, NO_ERROR, REFUSED_STREAM } from './wire.ts';

/** The session of a stream, as the stream sees it. */
export interface StreamHost {
  readonly outbox: Outbox;
  readonly windows: ReceiveWindows;
  /** RST_STREAM. */
  sendReset(stream: FrameStream, code: number): void;
  /** The session has no more to do with it. */
  forget(stream: FrameStream): void;
  /** `settle` is to be called when no call to the stream is under way. */
  defer(stream: FrameStream): void;
}

/**
 * What a direction has come to. Sending: `ending` while END_STREAM waits behind bytes; `deaf` when the peer has stopped
 * the stream without having ended it: it takes no more, but the reader has yet to be told of an end.
 */
type Sending = 'open' | 'ending' | 'ended' | 'deaf';
type Receiving = 'open' | 'ended';

/** One CONNECT stream, from its request on. */
export class FrameStream implements TunnelStream {
  readonly id: number;
  /** Of the outbox's list. */
  next: FrameStream | undefined;
  listed = false;
  /** Of the session's list. */
  deferred = false;
  /** What may be sent and received before a WINDOW_UPDATE; negative after SETTINGS that lowered it. */
  sendWindow: number;
  receiveWindow: number;
  readonly #host: StreamHost;
  #sending: Sending = 'open';
  #receiving: Receiving = 'open';
  /** To the peer; made when first used: most streams are idle. */
  #queue: ByteQueue | undefined;
  /** From the peer, until somebody takes them. */
  #held: ByteQueue | undefined;
  /** Bytes taken, of which the peer has not been told yet. */
  #owed = 0;
  #sink: StreamSink | undefined;
  #paused = true;
  #delivering = false;
  #full = false;
  #drained = false;
  #toldEnd = false;
  #forgotten = false;
  /** Closed with it at once; an end is not told any more. */
  #failure: HboneError | undefined;
  /** Closed with it after the end: the peer took not everything. */
  #loss: HboneError | undefined;

  constructor(host: StreamHost, id: number, sendWindow: number) {
    this.#host = host;
    this.id = id;
    this.sendWindow = sendWindow;
    this.receiveWindow = host.windows.allowed;
  }

  get isFull(): boolean {
    return this.#full;
  }

  /** Bytes that may be sent now. */
  get sendable(): number {
    const queued = this.#queuedBytes();
    return queued < this.sendWindow ? queued : Math.max(0, this.sendWindow);
  }

  /** Whether the peer has ended, or is not listened to any more. */
  get hasEnded(): boolean {
    return this.#receiving === 'ended';
  }

  /** Whether nothing of it goes either way any more; its reader may not have taken everything. */
  get isComplete(): boolean {
    return this.#sending === 'ended' && this.#receiving === 'ended';
  }

  /** What ended it at once. */
  get failure(): HboneError | undefined {
    return this.#failure;
  }

  attach(sink: StreamSink): void {
    if (this.#sink !== undefined) throw new Error('a stream has one sink');
    this.#sink = sink;
    this.#paused = false;
    this.#deliver();
    this.#host.defer(this);
  }

  write(chunk: Buffer): void {
    if (chunk.length === 0) return;
    if (this.#sending === 'deaf') this.close(wentDeaf());
    if (this.#sending !== 'open') return;
    const { outbox } = this.#host;
    this.#queue ??= new ByteQueue(outbox.pool);
    const queue = this.#queue;
    queue.lend(chunk);
    outbox.queuedBytes += chunk.length;
    if (queue.length >= outbox.streamLimit) this.#full = true;
    if (this.sendWindow > 0) outbox.offer(this);
    queue.keep();
  }

  end(): void {
    if (this.#sending === 'deaf') {
      this.#sending = 'ended';
      this.#host.defer(this);
    } else if (this.#sending === 'open') {
      if (this.#queuedBytes() > 0) this.#sending = 'ending';
      else {
        this.#host.outbox.control.endStream(this.id);
        this.#host.outbox.touch();
        this.#sent();
      }
    }
  }

  reset(): void {
    this.abort(CONNECT_ERROR, new HboneError('CLOSED', 'the stream was reset on this side'));
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (this.#sink === undefined || !this.#paused) return;
    this.#paused = false;
    this.#deliver();
    this.credit();
  }

  /** Ends it with RST_STREAM, if anything of it is left. */
  abort(code: number, error: HboneError): void {
    if (this.#isOver()) return;
    if (!this.#forgotten) this.#host.sendReset(this, code);
    this.close(error);
  }

  /** Nothing of it is left; the reader is told later. */
  close(error: HboneError): void {
    if (this.#isOver()) return;
    this.#failure = error;
    this.#dropQueue();
    this.#dropHeld();
    this.#sending = 'ended';
    this.#receiving = 'ended';
    this.#leave();
    this.#host.defer(this);
  }

  /** The session is lost. What both sides have ended is complete, and only waits for its reader: it goes on. */
  lose(error: HboneError): void {
    if (!this.isComplete) this.close(error);
  }

  /** A piece of DATA. */
  receive(piece: Buffer): void {
    if (this.#receiving === 'ended') return;
    const size = piece.length;
    if (this.#paused || this.#delivering || this.#sink === undefined || this.#heldBytes() > 0) {
      this.#held ??= new ByteQueue(this.#host.outbox.pool);
      this.#held.push(piece);
      this.#host.windows.hold(size);
      return;
    }
    this.#owed += size;
    this.#sink.data(piece);
    if (this.#owed >= this.#host.windows.creditAt) this.credit();
  }

  /** Bytes that count against the window and are no payload. */
  receivePadding(bytes: number): void {
    this.#owed += bytes;
    this.credit();
  }

  /** END_STREAM. */
  receiveEnd(): void {
    if (this.#receiving === 'ended') return;
    this.#receiving = 'ended';
    this.settle();
  }

  /** RST_STREAM: a reset, an end, or nothing new (wire contract, section 2.7). */
  receiveReset(code: number): void {
    if (code !== NO_ERROR && code !== CANCEL) {
      this.close(resetError(code));
      this.settle();
      return;
    }
    // An end for the reader. What the peer has not taken is lost, unless it had said everything it had to say.
    const unsaid = this.#receiving === 'open';
    if (unsaid && this.#queuedBytes() > 0) this.#loss = resetError(code);
    else if (unsaid && this.#sending === 'open') this.#sending = 'deaf';
    if (this.#sending !== 'deaf') this.#sending = 'ended';
    this.#dropQueue();
    this.#receiving = 'ended';
    this.settle();
  }

  /** Opens the window again, when enough of it has been taken. */
  credit(): void {
    if (this.#paused || this.#receiving === 'ended' || this.#owed < this.#host.windows.creditAt) return;
    const { outbox } = this.#host;
    outbox.control.windowUpdate(this.id, this.#owed);
    outbox.touch();
    this.receiveWindow += this.#owed;
    this.#owed = 0;
  }

  /** The peer's window has grown, or changed by its SETTINGS; false: beyond what there can be. */
  widen(bytes: number): boolean {
    this.sendWindow += bytes;
    if (this.sendable > 0) this.#host.outbox.offer(this);
    return this.sendWindow <= MAX_INT31;
  }

  /** Moves bytes that wait to `to[at...]`. Returns whether they are the last. */
  take(to: Buffer, at: number, size: number): boolean {
    const queue = this.#queue;
    if (queue === undefined) return false;
    queue.copy(to, at, size);
    this.sendWindow -= size;
    if (this.#full && queue.length <= this.#host.outbox.streamLimit / 2) {
      this.#full = false;
      this.#drained = true;
      this.#host.defer(this);
    }
    if (this.#sending !== 'ending' || queue.length > 0) return false;
    this.#sent();
    return true;
  }

  /** Tells the reader what it has not been told yet. Never from within a call to the stream. */
  settle(): void {
    this.deferred = false;
    if (this.#drained && this.#failure === undefined) {
      this.#drained = false;
      if (this.#sending === 'open' || this.#sending === 'deaf') this.#sink?.drained();
    }
    if (this.#receiving === 'open' || this.#heldBytes() > 0) return;
    if (!this.#toldEnd && this.#failure === undefined && this.#sink !== undefined) {
      this.#toldEnd = true;
      this.#sink.ended();
    }
    if (this.#sending === 'ended' || this.#sending === 'deaf') this.#leave();
    const sink = this.#sink;
    if (sink === undefined || !this.#isOver()) return;
    this.#sink = undefined;
    sink.closed(this.#failure ?? this.#loss);
  }

  #queuedBytes(): number {
    return this.#queue === undefined ? 0 : this.#queue.length;
  }

  #heldBytes(): number {
    return this.#held === undefined ? 0 : this.#held.length;
  }

  /** Gives what is held to the reader, until it pauses. */
  #deliver(): void {
    const held = this.#held;
    if (held === undefined || this.#delivering || held.length === 0) return;
    this.#delivering = true;
    // A reader may also reset the stream meanwhile: then nothing is held any more.
    while (!this.#paused && this.#held === held) {
      const piece = held.begin();
      if (piece === undefined) break;
      this.#host.windows.release(piece.length);
      this.#owed += piece.length;
      this.#sink?.data(piece);
      held.done();
    }
    this.#delivering = false;
    if (this.#held !== held || held.length > 0) return;
    this.#held = undefined;
    if (this.#receiving === 'ended') this.#host.defer(this);
  }

  /** END_STREAM is on its way. */
  #sent(): void {
    this.#sending = 'ended';
    if (this.#receiving === 'ended') this.#host.defer(this);
  }

  /** Both directions have ended; the reader may not know yet. */
  #isOver(): boolean {
    return this.isComplete && this.#heldBytes() === 0;
  }

  #leave(): void {
    if (this.#forgotten) return;
    this.#forgotten = true;
    this.#host.forget(this);
  }

  #dropQueue(): void {
    this.#host.outbox.queuedBytes -= this.#queuedBytes();
    this.#queue?.clear();
    this.#queue = undefined;
    if (this.#full) this.#drained = true;
    this.#full = false;
  }

  #dropHeld(): void {
    this.#host.windows.release(this.#heldBytes());
    this.#held?.clear();
    this.#held = undefined;
  }
}

/** An RST_STREAM as an error. */
export function resetError(code: number): HboneError {
  const name = errorName(code);
  return code === REFUSED_STREAM
    ? new HboneError('STREAM_REFUSED', `the peer refused the stream (${name})`)
    : new HboneError('STREAM_RESET', `the peer reset the stream (${name})`);
}

/** The peer broke a rule that concerns one stream. */
export function breakStream(stream: FrameStream, code: number, message: string): void {
  stream.abort(code, new HboneError('PROTOCOL', `${errorName(code)}: ${message}`));
}

function wentDeaf(): HboneError {
  return new HboneError('STREAM_RESET', 'the peer takes no more of the stream (CANCEL)');
}
