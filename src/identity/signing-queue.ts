/** Why a certificate is asked for, the most urgent last (wire contract, section 3.5). */
export const PRIORITIES = ['background', 'warm-up', 'real-time'] as const;
export type Priority = (typeof PRIORITIES)[number];

/** Carries out a bounded number of attempts at a time, the most urgent first, and among equals the oldest. */
export class SigningQueue<Item> {
  readonly #run: (item: Item) => Promise<() => void>;
  readonly #maxInFlight: number;
  /** By urgency; a Set keeps the order of arrival. */
  readonly #waiting = PRIORITIES.map(() => new Set<Item>());
  readonly #inFlight = new Set<Item>();

  /** @param run does not reject; what it resolves with is called when the item may be added again */
  constructor(run: (item: Item) => Promise<() => void>, maxInFlight: number) {
    this.#run = run;
    this.#maxInFlight = maxInFlight;
  }

  /** Queues an item, or raises one that waits with less urgency. Nothing if it is being carried out. */
  add(item: Item, priority: Priority): void {
    if (this.#inFlight.has(item)) return;
    const urgency = PRIORITIES.indexOf(priority);
    const current = this.#waiting.findIndex((items) => items.has(item));
    if (current >= urgency) return;
    this.#waiting[current]?.delete(item);
    this.#waiting[urgency]?.add(item);
    this.#fill();
  }

  has(item: Item): boolean {
    return this.#inFlight.has(item) || this.#waiting.some((items) => items.has(item));
  }

  /** Takes a waiting item out; one that is being carried out keeps its place until it is done. */
  remove(item: Item): void {
    for (const items of this.#waiting) items.delete(item);
  }

  #fill(): void {
    while (this.#inFlight.size < this.#maxInFlight) {
      const item = this.#takeMostUrgent();
      if (item === undefined) return;
      this.#inFlight.add(item);
      void this.#run(item).then((conclude) => {
        this.#inFlight.delete(item);
        conclude();
        this.#fill();
      });
    }
  }

  #takeMostUrgent(): Item | undefined {
    for (const items of this.#waiting.toReversed()) {
      for (const item of items) {
        items.delete(item);
        return item;
      }
    }
    return undefined;
  }
}
