import { Buffer } from 'node:buffer';

/** Two sizes: most turns have a few small messages, some have a lot. */
export const SMALL_GATHER_BYTES = 16 * 1024;
/**
 * What one write takes at most. Larger ones gain nothing: Node hands the kernel at most ten records of 16 KiB at a time.
 */
export const GATHER_BYTES = 128 * 1024;
const SMALL_KEPT = 128;
const LARGE_KEPT = 16;

/** Who is told that a write is over. */
export interface GatherOwner {
  written(gather: Gather, error: unknown): void;
}

/** A buffer for what one write takes, or for what waits. It is its taker's from `take` to `giveBack`. */
export class Gather {
  readonly buffer: Buffer;
  owner: GatherOwner | undefined;
  /** The write's callback: made once, for all writes of this buffer. */
  readonly written = (error?: Error | null): void => this.owner?.written(this, error);

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(bytes);
  }
}

/** The buffers of a worker that are not in use: at most 4 MiB. */
export class GatherPool {
  readonly #small: Gather[] = [];
  readonly #large: Gather[] = [];

  /**
   * @param bytes that are wanted, if there is such a large buffer
   * @param owner told when it has been written; undefined: it will not be
   */
  take(bytes: number, owner?: GatherOwner): Gather {
    const large = bytes > SMALL_GATHER_BYTES;
    const gather = (large ? this.#large : this.#small).pop() ?? new Gather(large ? GATHER_BYTES : SMALL_GATHER_BYTES);
    gather.owner = owner;
    return gather;
  }

  /** After a write only if that has ended well: otherwise somebody may still look at the bytes. */
  giveBack(gather: Gather): void {
    gather.owner = undefined;
    const large = gather.buffer.length === GATHER_BYTES;
    const kept = large ? this.#large : this.#small;
    if (kept.length < (large ? LARGE_KEPT : SMALL_KEPT)) kept.push(gather);
  }
}
