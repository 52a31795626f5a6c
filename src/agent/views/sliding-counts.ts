/**
 * Numbers that are added up over the last minute or so, in buckets: what is older than the window falls out of it by itself.
 * Arrays of numbers, made once, so that adding costs nothing but the addition.
 */
export class SlidingCounts {
  readonly #fields: number;
  readonly #buckets: number;
  readonly #bucketMs: number;
  readonly #cells: Float64Array;
  /** The number of the bucket that each place holds now. */
  readonly #held: Float64Array;

  /**
   * @param fields numbers in a bucket
   * @param buckets of `bucketMs` each, that are whole; the one that is being filled counts beside them
   */
  constructor(fields: number, buckets = 6, bucketMs = 10_000) {
    this.#fields = fields;
    this.#buckets = buckets + 1;
    this.#bucketMs = bucketMs;
    this.#cells = new Float64Array(this.#buckets * fields);
    this.#held = new Float64Array(this.#buckets).fill(-1);
  }

  add(field: number, amount: number, now: number): void {
    const place = this.#place(Math.floor(now / this.#bucketMs));
    const at = place * this.#fields + field;
    this.#cells[at] = (this.#cells[at] ?? 0) + amount;
  }

  /** Of the window that ends now. */
  sum(field: number, now: number): number {
    const newest = Math.floor(now / this.#bucketMs);
    let sum = 0;
    for (let place = 0; place < this.#buckets; place += 1) {
      const bucket = this.#held[place] ?? -1;
      if (bucket > newest - this.#buckets && bucket <= newest) sum += this.#cells[place * this.#fields + field] ?? 0;
    }
    return sum;
  }

  /** Per second, over the time that the buckets cover at this moment. */
  rate(field: number, now: number): number {
    const covered = (this.#buckets - 1) * this.#bucketMs + (now % this.#bucketMs);
    return (this.sum(field, now) * 1000) / covered;
  }

  #place(bucket: number): number {
    const place = bucket % this.#buckets;
    if (this.#held[place] !== bucket) {
      this.#held[place] = bucket;
      this.#cells.fill(0, place * this.#fields, (place + 1) * this.#fields);
    }
    return place;
  }
}
