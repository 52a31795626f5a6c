import { SlidingCounts } from './sliding-counts.ts';

/** The first bound, in milliseconds; each further one is half as much again. The last: about 3 minutes. */
const FIRST_MS = 0.02;
const STEP = 1.5;
const BOUNDS = 40;

/** Distribution of durations over a window, of which quantiles are told as exactly as the bounds are apart. */
export class SlidingLatency {
  readonly #counts: SlidingCounts;

  /** @param buckets see `SlidingCounts` */
  constructor(buckets?: number, bucketMs?: number) {
    this.#counts = new SlidingCounts(BOUNDS, buckets, bucketMs);
  }

  add(ms: number, now: number): void {
    this.#counts.add(boundOf(ms), 1, now);
  }

  /** Undefined: there was none. */
  quantile(share: number, now: number): number | undefined {
    const counts = Array.from({ length: BOUNDS }, (_, bound) => this.#counts.sum(bound, now));
    return quantileOf(counts, share);
  }
}

/** The same for what was added since it was last taken. */
export class Latency {
  readonly #counts = new Float64Array(BOUNDS);

  add(ms: number): void {
    const bound = boundOf(ms);
    this.#counts[bound] = (this.#counts[bound] ?? 0) + 1;
  }

  take(...shares: readonly number[]): ReadonlyArray<number | undefined> {
    const quantiles = shares.map((share) => quantileOf(this.#counts, share));
    this.#counts.fill(0);
    return quantiles;
  }
}

function boundOf(ms: number): number {
  if (!(ms > FIRST_MS)) return 0;
  return Math.min(BOUNDS - 1, Math.ceil(Math.log(ms / FIRST_MS) / Math.log(STEP)));
}

/** Within the bounds it is taken to be spread evenly. */
function quantileOf(counts: ArrayLike<number>, share: number): number | undefined {
  let total = 0;
  for (let bound = 0; bound < BOUNDS; bound += 1) total += counts[bound] ?? 0;
  if (total === 0) return undefined;
  let left = total * share;
  for (let bound = 0; bound < BOUNDS; bound += 1) {
    const count = counts[bound] ?? 0;
    if (count > 0 && left <= count) {
      const upper = FIRST_MS * STEP ** bound;
      const lower = bound === 0 ? 0 : upper / STEP;
      return lower + ((upper - lower) * left) / count;
    }
    left -= count;
  }
  return FIRST_MS * STEP ** (BOUNDS - 1);
}
