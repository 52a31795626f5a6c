import type { Address, NetnsCookie } from '../../mesh/index.ts';
import type { Clock } from '../ports.ts';

/** After this a pair is tried again: the rule that rewrote it may be gone. */
const TUNNEL_ONLY_MS = 600_000;
const MOST_PAIRS = 4096;

/** Pods and addresses between which somebody rewrites the source of what comes directly: they use the tunnel for a while. */
export class MasqueradedPairs {
  readonly #clock: Pick<Clock, 'now'>;
  /** Until when, milliseconds; the oldest first. */
  readonly #until = new Map<string, number>();

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  add(source: NetnsCookie, destination: Address): void {
    const key = keyOf(source, destination);
    this.#until.delete(key);
    this.#until.set(key, this.#clock.now() + TUNNEL_ONLY_MS);
    if (this.#until.size <= MOST_PAIRS) return;
    for (const oldest of this.#until.keys()) {
      this.#until.delete(oldest);
      return;
    }
  }

  has(source: NetnsCookie, destination: Address): boolean {
    const key = keyOf(source, destination);
    const until = this.#until.get(key);
    if (until === undefined) return false;
    if (this.#clock.now() < until) return true;
    this.#until.delete(key);
    return false;
  }
}

function keyOf(source: NetnsCookie, destination: Address): string {
  return `${source} ${destination}`;
}
