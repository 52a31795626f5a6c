import type { Candidates } from './candidates.ts';
import { CostTable } from './cost-table.ts';

/** Failures in a row after which an endpoint is ejected. */
const FAILURES_TO_EJECT = 5;
/** How long the first ejection lasts; each further one twice as long as the one before. */
const EJECTION_MS = 10_000;
const MOST_EJECTION_MS = 300_000;
/** Ejections last up to this part longer or shorter, so that endpoints that failed together are not probed together. */
const EJECTION_JITTER = 0.1;
/** How long the result of a probe is waited for before another may be sent. */
const PROBE_MS = 30_000;
/** What a failure counts as, at least; a connect time. */
const FAILURE_MS = 100;
/** What an endpoint's connect time is taken for while its first connection has not been answered. */
const UNKNOWN_MS = 100;
/** Connect times below this are alike: they do not outweigh an even spread. */
const LEAST_MS = 1;
/** How often endpoints whose ejection is over are looked for. */
const PROBE_LOOK_MS = 250;
/** Of the endpoint that gets the most, where weights must be whole numbers. */
const MOST_WEIGHT = 1000;
/** Draws before an endpoint that has not been tried yet is looked for one by one. */
const MOST_DRAWS = 8;

interface EndpointCostsDeps {
  /** From `EndpointCosts.allocate`; the same for all workers of the node. */
  readonly memory: SharedArrayBuffer;
  /**
   * This worker's slot. Its predecessor in the slot has ended, and what it had open is forgotten. Undefined: the main thread,
   * which opens no connections, but reads the weights and may tell of connections that need no worker.
   */
  readonly worker: number | undefined;
  /** Milliseconds; the same clock in all threads. Default: the machine's monotonic clock. */
  readonly now?: () => number;
  /** 0 to below 1. Default: Math.random. */
  readonly random?: () => number;
}

/** What is known of some candidates, for as long as nobody is ejected or restored. */
interface View {
  readonly epoch: number;
  /** Indexes of those that connections may be given to. */
  readonly usable: readonly number[];
  /** Running sums of their weights; undefined: they all weigh the same. */
  readonly sums: readonly number[] | undefined;
  readonly averageWeight: number;
  /** Those that get none but a probe, at most half of all. */
  readonly ejected: ReadonlyArray<{ readonly index: number; readonly slot: number }>;
  /** When to look whether one of them may be tried. */
  probeAt: number;
}

/** How an endpoint does. */
export interface EndpointHealth {
  /** It gets no connections but a probe now and then, unless most of the others are ejected too. */
  readonly isEjected: boolean;
  /** In a row, up to now. */
  readonly failures: number;
  /** How long it takes to connect, averaged; undefined: not known. */
  readonly connectMs: number | undefined;
  /** Connections that are open or being made. */
  readonly open: number;
}

const NOTHING_TRIED: ReadonlySet<string> = new Set();

/**
 * Which endpoint gets a connection, by what all workers of the node have seen of it: how long a connect takes, how many
 * connections it has, how many failures in a row.
 *
 * Of two drawn at random, by weight, the one with the lower cost is taken: peak EWMA of the connect time, times the
 * connections that it has already (and this one), for its weight. An endpoint that fails five times in a row is ejected;
 * after that one connection in the whole node tries it, and only its success brings it back. At most half of the candidates
 * are ejected: of more than that, those with the fewest ejections get connections nevertheless, and if all have failed, all
 * do.
 *
 * Call `started` for each connection to an endpoint, then `connected` or `failed` (neither, if it was given up), then `ended`.
 */
export class EndpointCosts {
  readonly #table: CostTable;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #views = new WeakMap<Candidates, View>();
  /** Probes of this worker that have not been answered, by slot: until when they are waited for. */
  readonly #probes = new Map<number, number>();

  constructor({ memory, worker, now = monotonicMs, random = Math.random }: EndpointCostsDeps) {
    this.#table = new CostTable(memory, worker);
    this.#now = now;
    this.#random = random;
  }

  /**
   * Memory for all workers of a node.
   *
   * @param most endpoints that are remembered, a power of two; the least recently used ones are forgotten. Default 8,192
   */
  static allocate(workers: number, most = 8192, now = monotonicMs()): SharedArrayBuffer {
    return CostTable.allocate(workers, most, now);
  }

  /**
   * Index of the one to be used, of at least one. Those that were tried already are avoided while usable ones are left.
   *
   * @param picked the one that somebody has drawn by `weights`; it is used if it may be
   */
  readonly choose = (candidates: Candidates, tried = NOTHING_TRIED, picked?: number): number => {
    const { keys } = candidates;
    if (keys.length <= 1) return 0;
    const view = this.#viewOf(candidates);
    const now = this.#now();
    const probe = view.ejected.length > 0 && now >= view.probeAt ? this.#probe(view, keys, tried, now) : undefined;
    if (probe !== undefined) return probe;
    if (picked !== undefined && isUsable(view, picked) && !tried.has(keys[picked] ?? '')) return picked;

    const first = this.#draw(view, keys, tried) ?? firstUntried(view, keys, tried);
    const second = this.#draw(view, keys, tried, view.sums === undefined ? first : undefined) ?? first;
    if (first === second) return first;
    return this.#cost(candidates, view, second, now) < this.#cost(candidates, view, first, now) ? second : first;
  };

  /**
   * How often each is to be drawn by whoever cannot ask `choose` for each connection: whole numbers, the largest 1,000 and in
   * proportion to capacity for connect time; 0 for those that are ejected. One whose ejection is over gets 1, so that it is
   * tried again. The same as long as nothing is measured and no time passes.
   */
  weights(candidates: Candidates): readonly number[] {
    const { keys, weights } = candidates;
    const now = this.#now();
    const shares = keys.map((key, index) => (weights[index] ?? 0) / this.#ms(key, now));
    const ejected = new Set<number>();
    const probed = new Set<number>();
    for (const { index, slot } of this.#viewOf(candidates).ejected)
      (this.#table.isPast(this.#table.ejectedUntil(slot), now) ? probed : ejected).add(index);
    const isOut = (index: number): boolean => ejected.has(index) || probed.has(index);
    const most = shares.reduce((max, share, index) => (isOut(index) ? max : Math.max(max, share)), 0);
    return shares.map((share, index) => {
      if (ejected.has(index)) return 0;
      return probed.has(index) ? 1 : Math.max(1, Math.round((MOST_WEIGHT * share) / most));
    });
  }

  /** How many are ejected. */
  get ejected(): number {
    return this.#table.ejected;
  }

  /** What is known of one, as all workers have seen it; undefined: nothing. */
  healthOf(key: string): EndpointHealth | undefined {
    const slot = this.#table.find(key);
    if (slot === undefined) return undefined;
    return {
      isEjected: this.#table.ejectedUntil(slot) !== 0,
      failures: this.#table.failures(slot),
      connectMs: this.#table.msOf(slot, this.#now()),
      open: this.#table.open(slot),
    };
  }

  /** A connection is about to be made. */
  started(key: string): void {
    const slot = this.#table.claim(key, this.#now());
    if (slot !== undefined) this.#table.addOpen(slot, 1);
  }

  /** It took so long. */
  connected(key: string, ms: number): void {
    const now = this.#now();
    const slot = this.#table.claim(key, now);
    if (slot === undefined) return;
    this.#probes.delete(slot);
    if (this.#table.clearFailures(slot)) this.#table.setMs(slot, ms, now);
    else this.#table.addMs(slot, ms, now);
    this.#table.restore(slot);
  }

  /** It could not be made, for a reason that speaks against the endpoint; it took so long to find out. */
  failed(key: string, ms = 0): void {
    const now = this.#now();
    const slot = this.#table.claim(key, now);
    if (slot === undefined) return;
    this.#table.setMs(slot, Math.max(ms, FAILURE_MS, this.#table.msOf(slot, now) ?? 0), now);
    const failures = this.#table.addFailure(slot);
    const until = this.#table.ejectedUntil(slot);
    const isProbe = until !== 0 && this.#probes.get(slot) === until;
    this.#probes.delete(slot);
    // Connections from before the ejection fail late: only the probe, or one after its time, says that nothing is better.
    if (isProbe || (until === 0 ? failures >= FAILURES_TO_EJECT : this.#table.isPast(until, now)))
      this.#table.eject(slot, until, this.#ejectionMs(this.#table.ejections(slot)), now);
  }

  /** Nothing of it is open any more. */
  ended(key: string): void {
    const slot = this.#table.find(key);
    if (slot !== undefined) this.#table.addOpen(slot, -1);
  }

  #ejectionMs(before: number): number {
    const jitter = 1 + EJECTION_JITTER * (2 * this.#random() - 1);
    return Math.min(EJECTION_MS * 2 ** before, MOST_EJECTION_MS) * jitter;
  }

  #probe(view: View, keys: readonly string[], tried: ReadonlySet<string>, now: number): number | undefined {
    for (const { index, slot } of view.ejected)
      if (!tried.has(keys[index] ?? '') && this.#claimProbe(slot, now)) return index;
    view.probeAt = now + PROBE_LOOK_MS;
    return undefined;
  }

  /** Moving the end of the ejection is the claim: of all workers one can, and if it ends meanwhile, the next may later. */
  #claimProbe(slot: number, now: number): boolean {
    const until = this.#table.ejectedUntil(slot);
    if (until === 0 || !this.#table.isPast(until, now)) return false;
    const claimed = this.#table.postpone(slot, until, PROBE_MS, now);
    if (claimed === undefined) return false;
    this.#probes.set(slot, claimed);
    return true;
  }

  #viewOf(candidates: Candidates): View {
    const epoch = this.#table.epoch;
    const before = this.#views.get(candidates);
    if (before?.epoch === epoch) return before;
    const view = this.#look(candidates, epoch);
    this.#views.set(candidates, view);
    return view;
  }

  #look({ keys, weights }: Candidates, epoch: number): View {
    const ejected = this.#ejectedOf(keys);
    const out = new Set(ejected.map(({ index }) => index));
    const usable = [...keys.keys()].filter((index) => !out.has(index));
    let sum = 0;
    const sums = usable.map((index) => {
      sum += weights[index] ?? 0;
      return sum;
    });
    const isEven = usable.every((index) => weights[index] === weights[usable[0] ?? 0]);
    return { epoch, usable, sums: isEven ? undefined : sums, averageWeight: sum / usable.length, ejected, probeAt: 0 };
  }

  #ejectedOf(keys: readonly string[]): Array<{ index: number; slot: number }> {
    if (this.#table.ejected === 0) return [];
    const failing: Array<{ index: number; slot: number; ejections: number }> = [];
    for (const [index, key] of keys.entries()) {
      const slot = this.#table.find(key);
      if (slot === undefined || this.#table.ejectedUntil(slot) === 0) continue;
      failing.push({ index, slot, ejections: this.#table.ejections(slot) });
    }
    if (failing.length === keys.length) return [];
    return failing.sort((a, b) => b.ejections - a.ejections).slice(0, Math.floor(keys.length / 2));
  }

  /**
   * A usable one that was not tried yet, and is another than `other`.
   *
   * Of candidates that weigh the same, two different ones are drawn. Where weights differ, the second is drawn as if there
   * had been no first: so a small share stays small, at most twice what its weight says.
   */
  #draw(view: View, keys: readonly string[], tried: ReadonlySet<string>, other?: number): number | undefined {
    for (let draw = 0; draw < MOST_DRAWS; draw += 1) {
      const index = view.usable[this.#position(view)] ?? 0;
      if (index !== other && !tried.has(keys[index] ?? '')) return index;
    }
    return undefined;
  }

  #position({ usable, sums }: View): number {
    if (sums === undefined) return Math.floor(this.#random() * usable.length);
    const drawn = this.#random() * (sums.at(-1) ?? 0);
    let low = 0;
    let high = sums.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] ?? 0) > drawn) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** What is not known yet counts as fast, so that it is tried. */
  #ms(key: string, now: number): number {
    const slot = this.#table.find(key);
    return Math.max((slot === undefined ? undefined : this.#table.msOf(slot, now)) ?? 0, LEAST_MS);
  }

  #cost({ keys, weights }: Candidates, { averageWeight }: View, index: number, now: number): number {
    const slot = this.#table.find(keys[index] ?? '');
    if (slot === undefined) return 0;
    const open = this.#table.open(slot);
    const ms = this.#table.msOf(slot, now);
    if (ms === undefined && open === 0) return 0;
    return Math.max(ms ?? UNKNOWN_MS, LEAST_MS) * (1 + (open * averageWeight) / (weights[index] ?? 1));
  }
}

function isUsable({ ejected }: View, index: number): boolean {
  for (const each of ejected) if (each.index === index) return false;
  return true;
}

function firstUntried(view: View, keys: readonly string[], tried: ReadonlySet<string>): number {
  return view.usable.find((index) => !tried.has(keys[index] ?? '')) ?? view.usable[0] ?? 0;
}

/** Milliseconds of the machine's monotonic clock, which all threads share. */
function monotonicMs(): number {
  return performance.now() + THREAD_BEGAN_MS;
}

/** What `performance.now` counts from in this thread. It costs less than to ask for the machine's time for each connection. */
const THREAD_BEGAN_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now();
