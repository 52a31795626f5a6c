import { createHash } from 'node:crypto';
import type { HboneError, StreamSink, TunnelStream } from '../../src/hbone/index.ts';

/** What came out of a stream. */
export class RecordingSink implements StreamSink {
  readonly events: Array<'drained' | 'ended' | 'closed'> = [];
  bytes = 0;
  error: HboneError | undefined;
  /** How often something was said while `silently` was being called. */
  outOfTurn = 0;
  readonly #stream: TunnelStream;
  readonly #hash = createHash('sha256');
  readonly #pieces: Buffer[] | undefined;
  #listening = true;
  #waiting: Array<{ until: () => boolean; resolve: () => void }> = [];

  /** @param keep whether `text` is wanted */
  constructor(stream: TunnelStream, keep = true) {
    this.#stream = stream;
    this.#pieces = keep ? [] : undefined;
    stream.attach(this);
  }

  get stream(): TunnelStream {
    return this.#stream;
  }

  get text(): string {
    return Buffer.concat(this.#pieces ?? []).toString('latin1');
  }

  digest(): string {
    return this.#hash.copy().digest('hex');
  }

  /** Resolves as soon as something happens after which it is true. */
  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push({ until: condition, resolve });
    });
  }

  whenEnded(): Promise<void> {
    return this.until(() => this.events.includes('ended'));
  }

  /** With what it was closed. */
  async whenClosed(): Promise<HboneError | undefined> {
    await this.until(() => this.events.includes('closed'));
    return this.error;
  }

  /** Calls the stream, and counts what is said meanwhile. */
  silently(call: () => void): void {
    this.#listening = false;
    call();
    this.#listening = true;
  }

  data(chunk: Buffer): void {
    this.bytes += chunk.length;
    this.#hash.update(chunk);
    this.#pieces?.push(Buffer.from(chunk));
    this.#happened();
  }

  drained(): void {
    this.#say('drained');
  }

  ended(): void {
    this.#say('ended');
  }

  closed(error: HboneError | undefined): void {
    this.error = error;
    this.#say('closed');
  }

  #say(event: 'drained' | 'ended' | 'closed'): void {
    if (!this.#listening) this.outOfTurn += 1;
    this.events.push(event);
    this.#happened();
  }

  #happened(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const each of waiting) {
      if (each.until()) each.resolve();
      else this.#waiting.push(each);
    }
  }
}
