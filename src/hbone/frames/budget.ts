/** A session, as the budget sees it. */
export interface BudgetMember {
  /** Bytes received that nobody has taken yet. */
  readonly heldBytes: number;
  /** The budget is nearly used up, or no longer. */
  press(pressed: boolean): void;
  /** It holds the most, and the budget is used up. */
  evict(): void;
}

export interface MemoryBudgetOptions {
  /** From here on every session's streams get small windows. Default 64 MiB. */
  readonly pressureBytes?: number;
  /** Beyond it the session that holds the most is ended. Default 256 MiB. */
  readonly limitBytes?: number;
}

/**
 * What all sessions of a worker may hold together of received bytes that nobody takes: readers that stall, or peers that
 * count on it. Bound: `limitBytes` and one chunk of TLS (16 KiB).
 */
export class MemoryBudget {
  readonly #pressureBytes: number;
  readonly #limitBytes: number;
  readonly #members = new Set<BudgetMember>();
  #heldBytes = 0;
  #pressed = false;

  constructor(options: MemoryBudgetOptions = {}) {
    this.#pressureBytes = options.pressureBytes ?? 64 * 2 ** 20;
    this.#limitBytes = options.limitBytes ?? 256 * 2 ** 20;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get pressed(): boolean {
    return this.#pressed;
  }

  join(member: BudgetMember): void {
    this.#members.add(member);
  }

  leave(member: BudgetMember): void {
    this.#members.delete(member);
  }

  hold(bytes: number): void {
    this.#heldBytes += bytes;
    if (!this.#pressed && this.#heldBytes > this.#pressureBytes) this.#press(true);
    if (this.#heldBytes > this.#limitBytes) this.#largest()?.evict();
  }

  release(bytes: number): void {
    this.#heldBytes -= bytes;
    if (this.#pressed && this.#heldBytes < this.#pressureBytes / 2) this.#press(false);
  }

  #press(pressed: boolean): void {
    this.#pressed = pressed;
    for (const member of this.#members) member.press(pressed);
  }

  #largest(): BudgetMember | undefined {
    let largest: BudgetMember | undefined;
    for (const member of this.#members) if (member.heldBytes > (largest?.heldBytes ?? 0)) largest = member;
    return largest;
  }
}
