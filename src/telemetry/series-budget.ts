/** How many series may be exposed in all: label sets that workloads bring into being take of it, and give back when they leave. */
export class SeriesBudget {
  readonly limit: number;
  #used = 0;
  #reserved = 0;
  #evicted = 0;
  #overflowed = 0;

  /** @param limit default: 20,000 */
  constructor(limit = 20_000) {
    this.limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /** Series that have left for being idle. */
  get evicted(): number {
    return this.#evicted;
  }

  /** Label sets for which there was no room. */
  get overflowed(): number {
    return this.#overflowed;
  }

  /** Keeps room for what must never want for it. */
  reserve(series: number): void {
    this.#reserved += series;
  }

  /** Of what was reserved. */
  takeReserved(series: number): void {
    this.#reserved -= series;
    this.#used += series;
  }

  hasRoom(series: number): boolean {
    return this.#used + this.#reserved + series <= this.limit;
  }

  /** False: there is no room for them, which is counted. */
  take(series: number): boolean {
    if (!this.hasRoom(series)) {
      this.#overflowed += 1;
      return false;
    }
    this.#used += series;
    return true;
  }

  giveBack(series: number): void {
    this.#used -= series;
    this.#evicted += series;
  }
}
