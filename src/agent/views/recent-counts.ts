const MINUTE_MS = 60_000;
const MINUTES = 10;
const OTHER = 'other';

/** How often something was seen in the last 10 minutes, by a text. Of many texts the further ones count as `other`. */
export class RecentCounts {
  readonly #most: number;
  readonly #minutes = new Map<string, { readonly held: Float64Array; readonly counts: Float64Array }>();

  /** @param most texts that are counted apart. Default: 16 */
  constructor(most = 16) {
    this.#most = most;
  }

  add(text: string, now: number): void {
    const key = this.#minutes.has(text) || this.#minutes.size < this.#most ? text : OTHER;
    let row = this.#minutes.get(key);
    if (row === undefined) {
      row = { held: new Float64Array(MINUTES), counts: new Float64Array(MINUTES) };
      this.#minutes.set(key, row);
    }
    const minute = Math.floor(now / MINUTE_MS);
    const place = minute % MINUTES;
    if (row.held[place] !== minute) row.counts[place] = 0;
    row.held[place] = minute;
    row.counts[place] = (row.counts[place] ?? 0) + 1;
  }

  /** The most frequent first. What was not seen for 10 minutes makes room for others. */
  read(now: number): Record<string, number> {
    const minute = Math.floor(now / MINUTE_MS);
    const sums: Array<[string, number]> = [];
    for (const [text, { held, counts }] of this.#minutes) {
      let sum = 0;
      for (let place = 0; place < MINUTES; place += 1)
        if ((held[place] ?? 0) > minute - MINUTES) sum += counts[place] ?? 0;
      if (sum === 0) this.#minutes.delete(text);
      else sums.push([text, sum]);
    }
    return Object.fromEntries(sums.sort((a, b) => b[1] - a[1]));
  }
}
