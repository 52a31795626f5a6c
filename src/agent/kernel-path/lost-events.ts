import type { NetnsCookie } from '../../mesh/index.ts';
import type { PathCount, PathEvent } from './ports.ts';

/** The kernel says these of connections that the agent must look at. */
const ASKS = ['flow_forbidden', 'flow_unrecorded'] as const;
type Asks = (typeof ASKS)[number];

/** A pod of which the kernel asked more than was heard. */
export interface LostEvent {
  readonly cookie: NetnsCookie;
  readonly reason: Asks;
  readonly count: number;
}

interface Tally {
  readonly cookie: NetnsCookie;
  readonly reason: Asks;
  heard: number;
  /** By how much the kernel's count is known to be ahead. */
  ahead: number;
}

/**
 * Tells how much of what the kernel asks was lost: a full ring takes no event, but the counters are exact.
 *
 * An event is counted first and written down afterwards, so one may be taken for lost that only comes late. Then something
 * is looked at once too often, and the difference is less at the next look.
 */
export class LostEvents {
  readonly #tallies = new Map<string, Tally>();

  /** What was counted before is nobody's concern. */
  begin(counts: readonly PathCount[]): void {
    this.look(counts);
  }

  heard({ cookie, reason }: PathEvent): void {
    if (isAsking(reason)) this.#tallyOf(cookie, reason).heard += 1;
  }

  /**
   * What was lost since the last look.
   *
   * @param counts as they were before the events were taken that have been heard last
   */
  look(counts: readonly PathCount[]): readonly LostEvent[] {
    const lost: LostEvent[] = [];
    const counted = new Set<Tally>();
    for (const { cookie, reason, count } of counts) {
      if (!isAsking(reason)) continue;
      const tally = this.#tallyOf(cookie, reason);
      counted.add(tally);
      const ahead = count - tally.heard;
      if (ahead > tally.ahead) lost.push({ cookie, reason, count: ahead - tally.ahead });
      tally.ahead = ahead;
    }
    // The kernel no longer counts for them: their pods are gone.
    for (const [key, tally] of this.#tallies) if (!counted.has(tally)) this.#tallies.delete(key);
    return lost;
  }

  #tallyOf(cookie: NetnsCookie, reason: Asks): Tally {
    const key = `${cookie} ${reason}`;
    const found = this.#tallies.get(key) ?? { cookie, reason, heard: 0, ahead: 0 };
    this.#tallies.set(key, found);
    return found;
  }
}

function isAsking(reason: string): reason is Asks {
  return ASKS.some((each) => each === reason);
}
