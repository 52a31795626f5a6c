const WINDOW_SECONDS = 10;
/** Retries for each connection of the window. */
const SHARE = 0.2;
/** Retries per second that a node may make whatever its connections. */
const FLOOR_PER_SECOND = 10;

interface RetryBudgetOptions {
  /** Workers of the node: each has its part of the floor. */
  readonly workers: number;
  /** Milliseconds of a clock that never goes back. Default: performance.now. */
  readonly now?: () => number;
}

/**
 * How many connections may be tried again at another endpoint, so that a service that fails is not asked twice as often as
 * before: over the last ten seconds at most 20 % of the connections, or 10 a second in the whole node if that is more.
 *
 * Each worker has its own: the kernel spreads connections evenly over workers, and so their shares add up to the node's.
 */
export class RetryBudget {
  readonly #now: () => number;
  readonly #floor: number;
  /** Of each of the window's seconds. */
  readonly #connections = new Array<number>(WINDOW_SECONDS).fill(0);
  readonly #retries = new Array<number>(WINDOW_SECONDS).fill(0);
  #second = 0;

  constructor({ workers, now = () => performance.now() }: RetryBudgetOptions) {
    this.#now = now;
    this.#floor = (FLOOR_PER_SECOND * WINDOW_SECONDS) / workers;
    this.#second = Math.floor(now() / 1000);
  }

  /** A connection was asked for; call it once for each. */
  connection(): void {
    const at = this.#advance();
    this.#connections[at] = (this.#connections[at] ?? 0) + 1;
  }

  /** Whether one more retry may be made; if so, it counts as made. */
  spend(): boolean {
    const at = this.#advance();
    if (sum(this.#retries) + 1 > Math.max(this.#floor, SHARE * sum(this.#connections))) return false;
    this.#retries[at] = (this.#retries[at] ?? 0) + 1;
    return true;
  }

  /** Empties the seconds that have left the window. */
  #advance(): number {
    const second = Math.floor(this.#now() / 1000);
    const passed = Math.min(second - this.#second, WINDOW_SECONDS);
    for (let step = 1; step <= passed; step += 1) {
      const at = (this.#second + step) % WINDOW_SECONDS;
      this.#connections[at] = 0;
      this.#retries[at] = 0;
    }
    this.#second = Math.max(second, this.#second);
    return this.#second % WINDOW_SECONDS;
  }
}

function sum(values: readonly number[]): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
