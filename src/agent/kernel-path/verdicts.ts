import type { Address, Endpoint, NetnsCookie } from '../../mesh/index.ts';
import type { DecisionReason } from '../../policy/index.ts';
import { decideVerdict, type NoVerdictReason, type PathWorld } from './decide.ts';
import type { PathPods } from './pods.ts';
import type { KernelVerdict, Place, VerdictTable } from './ports.ts';
import { VerdictBook, type Written } from './verdict-book.ts';

interface VerdictsDeps {
  readonly table: VerdictTable;
  readonly world: PathWorld;
  readonly pods: PathPods;
  /** What policy has said of a connection that somebody wants to make. */
  decided(reason: DecisionReason): void;
  /** A verdict that led outside is no more; connections that it has let there may live on. */
  leftBehind(address: Address): void;
}

/** Why there is no verdict although one was asked for. */
type Unwritten = NoVerdictReason | 'no-room';

/**
 * The verdicts in the kernel's table; this is their only writer.
 *
 * What makes a change take effect is the epoch: as soon as it is raised, every verdict that names the one before is void, as
 * is every connection half-way. Writing those that are still right again is what takes time, and may take its time.
 */
export class Verdicts {
  readonly #deps: VerdictsDeps;
  readonly #book = new VerdictBook();
  /** Void, and perhaps right still: to be decided again. */
  readonly #stale = new Set<Written>();
  readonly #unwritten: Partial<Record<Unwritten, number>> = {};
  #given = 0;

  constructor(deps: VerdictsDeps) {
    this.#deps = deps;
  }

  get count(): number {
    return this.#book.size;
  }

  /** Verdicts that are to be decided again. */
  get staleCount(): number {
    return this.#stale.size;
  }

  /** Verdicts given since the start, and how often none was given, by reason. */
  totals(): { readonly given: number; readonly unwritten: Readonly<Partial<Record<Unwritten, number>>> } {
    return { given: this.#given, unwritten: this.#unwritten };
  }

  /** A connection to it has just been made through the tunnel: may the next go directly? */
  request(source: NetnsCookie, destination: Endpoint): void {
    const before = this.#book.find(source, destination);
    if (before !== undefined && !this.#stale.has(before)) return;
    const outcome = this.#write(source, destination, before, true);
    if (outcome === 'written') this.#given += 1;
    else this.#unwritten[outcome] = (this.#unwritten[outcome] ?? 0) + 1;
  }

  /** All verdicts and connections half-way that are from or to the place are void; those still right are written again. */
  revoke(place: Place): void {
    this.#deps.table.raiseEpoch(place);
    if (place !== 0n) for (const each of this.#book.from(place)) this.#stale.add(each);
    for (const each of this.#book.to(place)) this.#stale.add(each);
  }

  /** The pod that connections of `source` to the destination are let to; 0: outside; undefined: there is no verdict. */
  leadsTo(source: NetnsCookie, destination: Endpoint): Place | undefined {
    return this.#book.find(source, destination)?.to;
  }

  /** Whether one leads there, outside. */
  leadsOutside(address: Address): boolean {
    for (const { kind } of this.#book.at(address)) if (kind === 'outside') return true;
    return false;
  }

  /** Whether one that leads outside is no longer right, now that something has changed at its address. */
  leadsAstray(address: Address): boolean {
    for (const { kind, source, destination } of this.#book.at(address)) {
      if (kind !== 'outside') continue;
      const { world, pods } = this.#deps;
      if (decideVerdict(world, pods.get(source), destination).kind !== 'outside') return true;
    }
    return false;
  }

  /** Writes void ones again that are still right, for as long as `mayGoOn`. True: none is left. */
  renew(mayGoOn: () => boolean): boolean {
    for (const each of this.#stale) {
      if (!mayGoOn()) return false;
      this.#stale.delete(each);
      if (this.#book.has(each)) this.#write(each.source, each.destination, each, false);
    }
    return true;
  }

  /** The next connection goes through the tunnel, which decides anew. */
  forget(source: NetnsCookie, destination: Endpoint): void {
    const written = this.#book.find(source, destination);
    if (written !== undefined) this.#delete(written);
  }

  /** All from the pod to the address, whatever port. */
  forgetPair(source: NetnsCookie, address: Address): void {
    for (const each of [...this.#book.at(address)]) if (each.source === source) this.#delete(each);
  }

  /** All from it and to it. */
  forgetPod(cookie: NetnsCookie): void {
    for (const each of [...this.#book.from(cookie), ...this.#book.to(cookie)]) this.#delete(each);
  }

  /** The table has been cleared. */
  clear(): void {
    for (const { kind, destination } of this.#book.values())
      if (kind === 'outside') this.#deps.leftBehind(destination.address);
    this.#book.clear();
    this.#stale.clear();
  }

  #write(
    source: NetnsCookie,
    destination: Endpoint,
    before: Written | undefined,
    isAsked: boolean,
  ): 'written' | Unwritten {
    const verdict = this.#decide(source, destination, isAsked);
    if (typeof verdict === 'string') {
      if (before !== undefined) this.#delete(before);
      return verdict;
    }
    const oldest = before === undefined ? this.#book.oldestInTheWay(source) : undefined;
    if (oldest !== undefined) this.#delete(oldest);
    if (!this.#deps.table.putVerdict(verdict) && !this.#makeRoomFor(verdict, before)) {
      if (before !== undefined) this.#delete(before);
      return 'no-room';
    }
    const { kind, to } = verdict;
    if (before !== undefined) this.#stale.delete(before);
    if (before?.kind === kind && before.to === to) return 'written';
    if (before !== undefined) this.#strike(before);
    this.#book.add({ kind, source, destination, to });
    return 'written';
  }

  /** Nothing can change between the decision and the epochs: both are read in one turn, and nobody else writes them. */
  #decide(source: NetnsCookie, destination: Endpoint, isAsked: boolean): KernelVerdict | NoVerdictReason {
    const { table, world, pods, decided } = this.#deps;
    const outcome = decideVerdict(world, pods.get(source), destination);
    if (isAsked && outcome.kind !== 'outside' && outcome.decision !== undefined) decided(outcome.decision.reason);
    if (outcome.kind === 'none') return outcome.reason;
    const { kind } = outcome;
    const to = kind === 'local' ? outcome.to.cookie : 0n;
    const [sourceEpoch, destinationEpoch] = [table.epochOf(source), table.epochOf(to)];
    return { kind, source, destination, to, sourceEpoch, destinationEpoch };
  }

  /** One that stands already needs no room. */
  #makeRoomFor(verdict: KernelVerdict, before: Written | undefined): boolean {
    const oldest = before === undefined ? this.#book.oldestOfLargest(verdict.source) : undefined;
    if (oldest === undefined) return false;
    this.#delete(oldest);
    return this.#deps.table.putVerdict(verdict);
  }

  #delete(written: Written): void {
    this.#deps.table.deleteVerdict(written.source, written.destination);
    this.#strike(written);
    this.#stale.delete(written);
  }

  #strike(written: Written): void {
    if (this.#book.delete(written) && written.kind === 'outside') this.#deps.leftBehind(written.destination.address);
  }
}
