/** Time that only the test moves; fits every room's Clock that has `now` and `after`. */
export class FakeClock {
  #now: number;
  #made = 0;
  readonly #timers = new Map<number, { readonly at: number; readonly run: () => void }>();

  /** @param now default: the machine's time, so that certificates made by others are valid */
  constructor(now = Date.now()) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  after(ms: number, run: () => void): { cancel(): void } {
    this.#made += 1;
    const id = this.#made;
    this.#timers.set(id, { at: this.#now + ms, run });
    return { cancel: () => this.#timers.delete(id) };
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Time passes; what is due by then runs at its time, one after the other, and may set further timers. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      const [id, timer] = next;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, timer.at);
      timer.run();
    }
    this.#now = end;
  }

  #next(end: number): [number, { readonly at: number; readonly run: () => void }] | undefined {
    let first: [number, { readonly at: number; readonly run: () => void }] | undefined;
    for (const entry of this.#timers) {
      if (entry[1].at <= end && (first === undefined || entry[1].at < first[1].at)) first = entry;
    }
    return first;
  }
}
