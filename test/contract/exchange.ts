import { createHash, type Hash } from 'node:crypto';
import type { HboneError, StreamSink, TunnelConnection } from '../../src/hbone/index.ts';

/** Hashes what comes, and tells of the end. */
class Digest implements StreamSink {
  readonly ends = Promise.withResolvers<string>();
  readonly #hash: Hash = createHash('sha256');
  drained: () => void = () => {};

  data(chunk: Buffer): void {
    this.#hash.update(chunk);
  }

  ended(): void {
    this.ends.resolve(this.#hash.digest('hex'));
  }

  closed(error: HboneError | undefined): void {
    if (error !== undefined) this.ends.reject(error);
  }
}

/** Sends bytes as fast as they are taken, then the end. @returns their hash, and that of what came back */
export async function exchange(
  { stream }: Pick<TunnelConnection, 'stream'>,
  seed: number,
  bytes: number,
): Promise<readonly [string, string]> {
  const sink = new Digest();
  const hash = createHash('sha256');
  const chunk = Buffer.alloc(50_000);
  let left = bytes;
  sink.drained = () => {
    while (left > 0 && !stream.isFull) {
      const next = Buffer.from(chunk.subarray(0, Math.min(left, chunk.length)).fill((seed * 31 + left) & 255));
      hash.update(next);
      left -= next.length;
      stream.write(next);
    }
    if (left === 0) stream.end();
  };
  stream.attach(sink);
  sink.drained();
  const came = await sink.ends.promise;
  return [hash.digest('hex'), came];
}
