import type { Address, NetnsCookie } from '../../mesh/index.ts';
import type { Clock } from '../ports.ts';

/** After this a pair is tried again: the rule that rewrote it may be gone. */
const TUNNEL_ONLY_MS = 600_000;
/** Of one pod's pairs; beyond that its oldest is tried again. */
const MOST_PER_SOURCE = 256;

/** Pods and addresses between which somebody rewrites the source of what comes directly: they use the tunnel for a while. */
export class MasqueradedPairs {
  readonly #clock: Pick<Clock, 'now'>;
  /** By source, then by destination: until when, milliseconds; the oldest first. */
  readonly #until = new Map<NetnsCookie, Map<string, number>>();

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  /** @param to the pod at `destination`: another that is given the same address is not meant */
  add(source: NetnsCookie, to: NetnsCookie, destination: Address): void {
    const pairs = this.#until.get(source) ?? new Map<string, number>();
    this.#until.set(source, pairs);
    const key = keyOf(to, destination);
    pairs.delete(key);
    pairs.set(key, this.#clock.now() + TUNNEL_ONLY_MS);
    if (pairs.size <= MOST_PER_SOURCE) return;
    for (const oldest of pairs.keys()) {
      pairs.delete(oldest);
      return;
    }
  }

  has(source: NetnsCookie, to: NetnsCookie, destination: Address): boolean {
    const pairs = this.#until.get(source);
    const key = keyOf(to, destination);
    const until = pairs?.get(key);
    if (until === undefined) return false;
    if (this.#clock.now() < until) return true;
    pairs?.delete(key);
    return false;
  }

  /** It has left. */
  forgetPod(source: NetnsCookie): void {
    this.#until.delete(source);
  }
}

function keyOf(to: NetnsCookie, destination: Address): string {
  return `${to} ${destination}`;
}
