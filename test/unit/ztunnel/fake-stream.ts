import { Buffer } from 'node:buffer';
import type { HboneError, StreamSink, TunnelStream } from '../../../src/hbone/index.ts';

/** A stream of the tunnel without a tunnel: a test is its peer. */
export class FakeStream implements TunnelStream {
  readonly id = 1;
  readonly written: Buffer[] = [];
  isFull = false;
  isPaused = false;
  ends = 0;
  resets = 0;
  #sink: StreamSink | undefined;
  #changed: Array<() => void> = [];

  attach(sink: StreamSink): void {
    this.#sink = sink;
  }

  write(chunk: Buffer): void {
    this.written.push(Buffer.from(chunk));
    this.#tell();
  }

  end(): void {
    this.ends += 1;
    this.#tell();
  }

  reset(): void {
    this.resets += 1;
    this.#tell();
  }

  pause(): void {
    this.isPaused = true;
    this.#tell();
  }

  resume(): void {
    this.isPaused = false;
    this.#tell();
  }

  get text(): string {
    return this.written.map(String).join('');
  }

  /** What the peer does. */
  get peer(): StreamSink {
    if (this.#sink === undefined) throw new Error('nobody has attached');
    return this.#sink;
  }

  /** Both directions have ended, or it is cut. */
  close(error?: HboneError): void {
    this.peer.closed(error);
  }

  /** Resolves when something has been done with it and it is so. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  #tell(): void {
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}
