import type { FlowRecord, FlowSink, NetnsCookie } from '../../mesh/index.ts';
import { SlidingCounts } from './sliding-counts.ts';

const FIELD = { ended: 0, bytes: 1, failed: 2 } as const;
/** More pods than a node can have. */
const MOST_PODS = 2_048;

export interface PodRate {
  readonly openedPerSecond: number;
  readonly bytesPerSecond: number;
  readonly failedPerSecond: number;
}

const NONE: PodRate = { openedPerSecond: 0, bytesPerSecond: 0, failedPerSecond: 0 };

/** What each pod of this node has done in the last minute, by the connections that have ended. */
export class PodRates implements FlowSink {
  readonly #now: () => number;
  readonly #pods = new Map<NetnsCookie, SlidingCounts>();

  constructor(deps: { readonly now: () => number }) {
    this.#now = deps.now;
  }

  add(records: readonly FlowRecord[]): void {
    const now = this.#now();
    for (const { pod, bytesSent, bytesReceived, ended } of records) {
      const counts = this.#of(pod);
      if (counts === undefined) continue;
      counts.add(FIELD.ended, 1, now);
      counts.add(FIELD.bytes, bytesSent + bytesReceived, now);
      if (ended !== 'clean') counts.add(FIELD.failed, 1, now);
    }
  }

  of(pod: NetnsCookie): PodRate {
    const counts = this.#pods.get(pod);
    const now = this.#now();
    if (counts === undefined) return NONE;
    return {
      openedPerSecond: counts.rate(FIELD.ended, now),
      bytesPerSecond: counts.rate(FIELD.bytes, now),
      failedPerSecond: counts.rate(FIELD.failed, now),
    };
  }

  /** Those that are gone make room. */
  keep(pods: ReadonlySet<NetnsCookie>): void {
    for (const pod of this.#pods.keys()) if (!pods.has(pod)) this.#pods.delete(pod);
  }

  #of(pod: NetnsCookie): SlidingCounts | undefined {
    const known = this.#pods.get(pod);
    if (known !== undefined || this.#pods.size >= MOST_PODS) return known;
    const made = new SlidingCounts(3);
    this.#pods.set(pod, made);
    return made;
  }
}
