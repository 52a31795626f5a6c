import type { FlowRecord, NetnsCookie, Pod } from '../mesh/index.ts';
import type { FlowFilter, FlowPage, FlowView } from '../telemetry/index.ts';
import { FlowValues, idPrefix } from './flow-columns.ts';
import { FlowQuery } from './flow-query.ts';
import { KeptFlows } from './kept-flows.ts';

export interface RecentFlowsOptions {
  /** Records kept of each pod. Default: 1,000. */
  readonly perPod?: number;
}

/** Which flows are wanted, and from where on. */
export interface FlowQuestion extends FlowFilter {
  /** Sequence number; 0: the newest that match. Default: 0. */
  readonly after?: number;
  /** At most so many. Default: 100. */
  readonly limit?: number;
}

/**
 * When so many records have been looked at for one answer, that is the answer: it takes some milliseconds. What follows is
 * asked for again and again; for the newest, which nobody asks for so often, more is looked at (25 ms).
 */
const MOST_LOOKED_AT = 20_000;
const MOST_LOOKED_BACK = 200_000;
/** Sequence numbers that are gone through first; twice as many whenever they do not suffice. */
const FIRST_STEP = 2_000;

interface PodFlows {
  readonly pod: Pod;
  readonly kept: KeptFlows;
}

type Chosen = ReadonlyArray<readonly [NetnsCookie, PodFlows]>;

/** A record that is wanted. */
interface Hit extends PodFlows {
  readonly cookie: NetnsCookie;
  readonly at: number;
  readonly sequence: number;
}

/**
 * The connections that ended last, of each pod of this node that is captured, with all that was decided about them. Each
 * record has a number of its own, one above that of the record before it, whatever its pod.
 */
export class RecentFlows {
  readonly #perPod: number;
  readonly #values = new FlowValues();
  readonly #pods = new Map<NetnsCookie, PodFlows>();
  readonly #waiting = new Set<() => void>();
  #last = 0;

  constructor(options: RecentFlowsOptions = {}) {
    this.#perPod = options.perPod ?? 1_000;
  }

  /** A pod is captured, or no longer: then it is forgotten, and what its open connections still tell is not taken. */
  podChanged(pod: Pod, cookie: NetnsCookie, state: 'enrolled' | 'captured' | 'left'): void {
    const known = this.#pods.get(cookie);
    if (state === 'left') {
      known?.kept.clear();
      this.#pods.delete(cookie);
    } else this.#pods.set(cookie, { pod, kept: known?.kept ?? new KeptFlows(this.#perPod, this.#values) });
  }

  /** In the order in which they ended. Those of pods that are not known are left out. */
  add(records: readonly FlowRecord[]): void {
    for (const record of records) {
      const flows = this.#pods.get(record.pod);
      if (flows === undefined) continue;
      this.#last += 1;
      flows.kept.add(record, this.#last);
    }
    for (const added of [...this.#waiting]) added();
  }

  /** The newest sequence number. */
  get last(): number {
    return this.#last;
  }

  /** Calls `added` whenever there may be more, until the function that it returns is called. */
  onAdded(added: () => void): () => void {
    this.#waiting.add(added);
    return () => void this.#waiting.delete(added);
  }

  /** Of one pod, the newest last. */
  of(pod: NetnsCookie): readonly FlowRecord[] {
    const kept = this.#pods.get(pod)?.kept;
    return kept === undefined
      ? []
      : Array.from({ length: kept.count }, (_, index) => kept.read(pod, kept.place(index)));
  }

  /** Of every pod, the newest last; for those who look at all of them once. */
  *all(): Generator<FlowRecord> {
    for (const [cookie, { kept }] of this.#pods)
      for (let index = 0; index < kept.count; index += 1) yield kept.read(cookie, kept.place(index));
  }

  /**
   * Those whose id begins so, in the order in which they ended: one connection has one record for each pod of this node that
   * took part in it.
   *
   * @param prefix hexadecimal digits
   * @param most that are told
   */
  find(prefix: string, most = 100): readonly FlowView[] {
    if (!/^[0-9a-f]{1,32}$/.test(prefix)) return [];
    const wanted = idPrefix(prefix);
    const found: Hit[] = [];
    for (const [cookie, { pod, kept }] of this.#pods)
      for (const at of kept.withId(wanted)) found.push({ pod, kept, cookie, at, sequence: kept.sequence(at) });
    return found.sort(bySequence).slice(0, most).map(viewOf);
  }

  /** The pods whose flows are kept and that are called so: by uid, `namespace/name` or name. */
  podsCalled(text: string): readonly Pod[] {
    return [...this.#pods.values()].map(({ pod }) => pod).filter((pod) => isCalled(pod, text));
  }

  /** In the order in which they ended. Fewer than there are, if there is much to look at: `next` tells where to go on. */
  page({ after = 0, limit = 100, ...filter }: FlowQuestion = {}): FlowPage {
    const chosen = [...this.#pods].filter(([, { pod }]) => filter.pod === undefined || isCalled(pod, filter.pod));
    const query = new FlowQuery(this.#values, filter);
    // From before a restart: what this agent has seen since is all new.
    if (after > 0) return this.#following(chosen, after > this.#last ? 0 : after, limit, query);
    return { flows: this.#newest(chosen, limit, query), next: this.#last, missed: 0 };
  }

  /** Different values that are held, for tests. */
  get held(): number {
    const { texts, parties, services } = this.#values;
    return texts.count + parties.count + services.count;
  }

  #following(chosen: Chosen, after: number, limit: number, query: FlowQuery): FlowPage {
    const missed = this.#missed(chosen, after);
    const look = new Look(chosen, query, MOST_LOOKED_AT);
    let until = after;
    for (let step = FIRST_STEP; until < this.#last && look.mayGoOn(limit); step *= 2) {
      look.between(until, until + step);
      until += step;
    }
    const hits = look.hits.sort(bySequence);
    const next = hits.length > limit ? (hits[limit - 1]?.sequence ?? until) : Math.min(until, this.#last);
    return { flows: hits.slice(0, limit).map(viewOf), next, missed };
  }

  #newest(chosen: Chosen, limit: number, query: FlowQuery): FlowView[] {
    const look = new Look(chosen, query, MOST_LOOKED_BACK);
    let until = this.#last;
    for (let step = FIRST_STEP; until > 0 && look.mayGoOn(limit); step *= 2) {
      look.between(until - step, until);
      until -= step;
    }
    return look.hits.sort(bySequence).slice(-limit).map(viewOf);
  }

  /** Exact where it is about all pods; of some of them it may be fewer, since nobody counts whose the lost ones were. */
  #missed(chosen: Chosen, after: number): number {
    let kept = 0;
    for (const flows of this.#pods.values()) kept += flows.kept.count - flows.kept.firstAfter(after);
    let most = 0;
    for (const [, flows] of chosen) most += Math.min(flows.kept.gone, Math.max(0, flows.kept.lastGone - after));
    return Math.min(most, this.#last - after - kept);
  }
}

/** Finds what is wanted, a stretch of sequence numbers after the other. */
class Look {
  readonly #chosen: Chosen;
  readonly #query: FlowQuery;
  readonly #most: number;
  /** In no order between the pods. */
  readonly hits: Hit[] = [];
  #looked = 0;

  /** @param most records that are looked at, about */
  constructor(chosen: Chosen, query: FlowQuery, most: number) {
    this.#chosen = chosen;
    this.#query = query;
    this.#most = most;
  }

  mayGoOn(limit: number): boolean {
    return this.hits.length < limit && this.#looked < this.#most;
  }

  between(after: number, until: number): void {
    for (const [cookie, { pod, kept }] of this.#chosen)
      for (let index = kept.firstAfter(after); index < kept.count; index += 1) {
        const at = kept.place(index);
        const sequence = kept.sequence(at);
        if (sequence > until) break;
        this.#looked += 1;
        if (this.#query.matches(kept, at)) this.hits.push({ pod, kept, cookie, at, sequence });
      }
  }
}

function bySequence(a: Hit, b: Hit): number {
  return a.sequence - b.sequence;
}

function viewOf({ pod, kept, cookie, at, sequence }: Hit): FlowView {
  const { pod: _, ...record } = kept.read(cookie, at);
  return {
    ...record,
    sequence,
    podUid: pod.uid,
    podName: pod.name,
    podNamespace: pod.namespace,
  };
}

function isCalled({ uid, name, namespace }: Pod, text: string): boolean {
  return text === uid || text === name || text === `${namespace}/${name}`;
}
