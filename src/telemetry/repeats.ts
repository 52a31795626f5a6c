import type { FlowRecord, NetnsCookie } from '../mesh/index.ts';

/** One line of a kind in so long. */
const EVERY_MS = 1000;
/** Kinds that are told apart; of each pod and reason, all others beyond count as one. */
const MOST_KINDS = 4096;
/** Kinds of one pod: one that fails everywhere must not keep others from being told apart. */
const MOST_OF_A_POD = 256;

interface Kind {
  readonly pod: NetnsCookie;
  saidAt: number;
  /** Kept back since, the last one included. */
  count: number;
  last: FlowRecord | undefined;
}

/** Keeps a failure that repeats from flooding the log: the first is said, then one a second, which stands for all since. */
export class Repeats {
  readonly #say: (record: FlowRecord, repeated: number) => void;
  readonly #kinds = new Map<string, Kind>();
  /** How many kinds there are of each pod. */
  readonly #pods = new Map<NetnsCookie, number>();

  /** @param say writes the record; `repeated`: how many others it stands for */
  constructor(say: (record: FlowRecord, repeated: number) => void) {
    this.#say = say;
  }

  /** A failure; those alike have pod, client, destination and reason in common. */
  add(record: FlowRecord, nowMs: number): void {
    const kind = this.#kindOf(record);
    if (nowMs - kind.saidAt >= EVERY_MS) {
      this.#say(record, kind.count);
      kind.saidAt = nowMs;
      kind.count = 0;
      kind.last = undefined;
      return;
    }
    kind.count += 1;
    kind.last = record;
  }

  /** Says what was kept back for long enough, and forgets what has stopped. To be called each second. */
  sweep(nowMs: number): void {
    for (const [key, kind] of this.#kinds) {
      if (nowMs - kind.saidAt < EVERY_MS) continue;
      if (kind.last === undefined) {
        this.#forget(key, kind);
        continue;
      }
      this.#say(kind.last, kind.count - 1);
      kind.saidAt = nowMs;
      kind.count = 0;
      kind.last = undefined;
    }
  }

  /** Says all that was kept back. */
  flush(): void {
    for (const { last, count } of this.#kinds.values()) if (last !== undefined) this.#say(last, count - 1);
    this.#kinds.clear();
    this.#pods.clear();
  }

  #kindOf({ pod, asked, direction, ended, source, client }: FlowRecord): Kind {
    const who = source === undefined ? client?.address : `${source.namespace}/${source.workload}`;
    const own = `${pod} ${direction} ${who} ${asked.address}:${asked.port} ${ended}`;
    const ofPod = this.#pods.get(pod) ?? 0;
    const hasRoom = this.#kinds.size < MOST_KINDS && ofPod < MOST_OF_A_POD;
    const key = hasRoom || this.#kinds.has(own) ? own : `${pod} ${ended}`;
    const known = this.#kinds.get(key);
    if (known !== undefined) return known;
    const made: Kind = { pod, saidAt: Number.NEGATIVE_INFINITY, count: 0, last: undefined };
    this.#kinds.set(key, made);
    this.#pods.set(pod, ofPod + 1);
    return made;
  }

  #forget(key: string, { pod }: Kind): void {
    this.#kinds.delete(key);
    const left = (this.#pods.get(pod) ?? 1) - 1;
    if (left > 0) this.#pods.set(pod, left);
    else this.#pods.delete(pod);
  }
}
