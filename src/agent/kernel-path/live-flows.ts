import { type Address, type Endpoint, formatEndpoint } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { type FlowFault, judgeFlow, type PathWorld, plaintextRulesOf } from './decide.ts';
import { JoinedDestinations } from './destinations.ts';
import type { LimitedLog } from './limited-log.ts';
import type { FlowEnd, FlowTable, KernelFlow, PathEvent, Place } from './ports.ts';

interface LiveFlowsDeps {
  readonly table: FlowTable;
  readonly world: PathWorld;
  /** A connection outside leads there. */
  found(address: Address): void;
  readonly log: Log;
  readonly limited: Pick<LimitedLog, 'error'>;
}

/** Why a flow was ended is remembered until its end is told; so long, and of so many. */
const MOST_ENDED = 8192;
/** Flows in no table that could not be ended yet. */
const MOST_UNLISTED = 4096;
/** Looks that are left out at most between two that found that something which was ended lives. */
const MOST_IDLE_LOOKS = 30;

/** What of the flows is to be looked at. */
export interface FlowScope {
  readonly all: boolean;
  /** Those from or to these. */
  readonly places: ReadonlySet<Place>;
  /** Those that lead outside, to one of these. */
  readonly addresses: ReadonlySet<Address>;
}

type Forbidden = readonly [KernelFlow, FlowFault];

const NOWHERE: ReadonlySet<Address> = new Set();

/** The connections that are on the kernel path at present: judged anew after a change, and ended if they are forbidden. */
export class LiveFlows {
  readonly #deps: LiveFlowsDeps;
  readonly #joined: JoinedDestinations;
  /** The oldest first. */
  readonly #ended = new Map<string, { readonly fault: FlowFault; readonly sinceNs: bigint }>();
  /** Pods with flows that were ended, or should have been: whether they are is still to be seen. */
  #unsure = new Set<Place>();
  #unlisted: PathEvent[] = [];
  /** Looks to be left out before the next, and then before the one after it. */
  #idle = 0;
  #nextIdle = 0;
  #closed = 0;

  constructor(deps: LiveFlowsDeps) {
    this.#deps = deps;
    this.#joined = new JoinedDestinations(deps.world);
  }

  /** Flows ended since the start, because they were forbidden. */
  get closed(): number {
    return this.#closed;
  }

  /** Addresses outside that have joined the mesh, and whose flows live by other rules than apply now; undefined: it may be any. */
  outdated(): ReadonlySet<Address> | undefined {
    return this.#joined.changed();
  }

  /** Tells of all that lead outside. */
  collect(): void {
    for (const { kind, server } of this.#deps.table.flows(new Set([0n])))
      if (kind === 'outside') this.#deps.found(server.address);
  }

  /** Ends those that are forbidden now. */
  judge({ all, places, addresses }: FlowScope): void {
    if (all) this.#joined.clear();
    else this.#joined.forget(addresses);
    const forbidden: Forbidden[] = [];
    const of = all ? undefined : new Set<Place>([...places, ...(addresses.size > 0 ? [0n as const] : [])]);
    for (const flow of this.#deps.table.flows(of)) {
      if (all && flow.kind === 'outside') this.#deps.found(flow.server.address);
      const isConcerned =
        all ||
        places.has(flow.source) ||
        places.has(flow.destination) ||
        (flow.kind === 'outside' && addresses.has(flow.server.address));
      if (isConcerned) this.#judge(flow, forbidden);
    }
    this.#end(forbidden);
  }

  /**
   * Established although the verdict no longer counts, or the port is no longer open. What the table does not know ends in any
   * case, if it has not yet: nobody would ever judge it again.
   */
  lookAgain(events: readonly PathEvent[]): void {
    const asked = new Map(events.map((event) => [keyOf(event.client, event.server), event]));
    const forbidden: Forbidden[] = [];
    const of = new Set<Place>(events.map(({ cookie }) => cookie));
    for (const flow of this.#deps.table.flows(of))
      if (asked.delete(keyOf(flow.client, flow.server))) this.#judge(flow, forbidden);
    this.#end(forbidden);
    if (this.#endUnlisted([...asked.values()]) > 0)
      this.#deps.log.info(
        { count: asked.size },
        'connections ended: they were let in by a verdict that no longer counts',
      );
  }

  /** There was no room to write them down, so they end: nobody could end them later. */
  endUnrecorded(events: readonly PathEvent[]): void {
    this.#endUnlisted(events);
    this.#deps.log.warn({ count: events.length }, 'connections ended: the map of flows is full');
  }

  /** Somebody has answered, and it did not come to the pod that the verdict names: nothing proves who it is. */
  endUnproven(event: PathEvent): void {
    this.#endUnlisted([event]);
  }

  /**
   * To be called each second. What was forbidden and is listed still is ended again: its pod was not served yet, or the
   * kernel could not end it. Seldom when that does not help.
   */
  lookBack(): void {
    if (this.#unsure.size + this.#unlisted.length === 0) return;
    this.#idle -= 1;
    if (this.#idle >= 0) return;
    const [places, unlisted, idle] = [this.#unsure, this.#unlisted, this.#nextIdle];
    this.#unsure = new Set();
    this.#unlisted = [];
    if (unlisted.length > 0) this.lookAgain(unlisted);
    if (places.size > 0) this.judge({ all: false, places, addresses: NOWHERE });
    const isHelpless = this.#unsure.size + this.#unlisted.length > 0;
    this.#nextIdle = isHelpless ? Math.min(2 * idle + 1, MOST_IDLE_LOOKS) : 0;
    this.#idle = this.#nextIdle;
  }

  /** Why this flow was ended by us; undefined: it was not. Tells it once. Another with the same ends is not meant. */
  takeFault({ id, client, server }: Pick<FlowEnd, 'id' | 'client' | 'server'>): FlowFault | undefined {
    if (this.#ended.size === 0) return undefined;
    const key = keyOf(client, server);
    const ended = this.#ended.get(key);
    if (ended === undefined || !id.endsWith(beginningOf(ended.sinceNs))) return undefined;
    this.#ended.delete(key);
    return ended.fault;
  }

  /** Deletes what was lost half-way. */
  sweep(): void {
    const swept = this.#deps.table.sweepFlows();
    if (swept > 0) this.#deps.log.debug({ count: swept }, 'flows swept');
  }

  #judge(flow: KernelFlow, forbidden: Forbidden[]): void {
    const { world } = this.#deps;
    const fault = judgeFlow(world, flow);
    if (fault !== undefined) forbidden.push([flow, fault]);
    else if (flow.kind === 'outside') {
      const found = plaintextRulesOf(world, flow);
      if (found !== undefined) this.#joined.add(found.network, flow.server.address, found.rules);
    }
  }

  #end(forbidden: readonly Forbidden[]): void {
    if (forbidden.length === 0) return;
    this.#idle = 0;
    this.#nextIdle = 0;
    for (const [{ source, destination }] of forbidden)
      for (const place of [source, destination]) if (place !== 0n) this.#unsure.add(place);
    const left = this.#destroy(forbidden.map(([flow]) => flow));
    const byText = new Map<string, { readonly fault: FlowFault; count: number }>();
    for (const [flow, fault] of forbidden) {
      if (left.has(idOf(flow)) || !this.#remember(flow, fault)) continue;
      this.#closed += 1;
      const found = byText.get(fault.text);
      if (found === undefined) byText.set(fault.text, { fault, count: 1 });
      else found.count += 1;
    }
    for (const { fault, count } of byText.values())
      this.#deps.log.info({ policy: fault.policy, decision: fault.text, count }, 'flows ended by a policy change');
  }

  /** Returns those that live on; they are tried again. Throws if it is not the fault of one pod that they do. */
  #destroy(flows: readonly KernelFlow[]): ReadonlySet<string> {
    const { table, limited } = this.#deps;
    try {
      table.destroyFlows(flows);
      return new Set();
    } catch (error) {
      const wanted = new Set(flows.map(idOf));
      const places = new Set(flows.flatMap(({ source, destination }) => [source, destination]));
      places.delete(0n);
      const left = table.flows(places).filter((flow) => wanted.has(idOf(flow)));
      const owners = new Set(left.map(({ source, destination }) => source || destination));
      if (left.length === flows.length && owners.size > 1) throw error;
      limited.error({ error, count: left.length }, 'flows that are forbidden could not be ended; trying again');
      return new Set(left.map(idOf));
    }
  }

  /** Returns how many of their sockets were there. Those of pods that are not served yet are tried again. */
  #endUnlisted(events: readonly PathEvent[]): number {
    if (events.length === 0) return 0;
    const { table, world, limited } = this.#deps;
    const early = events.filter(({ cookie }) => world.pods.get(cookie)?.state === 'captured');
    this.#unlisted.push(...early);
    try {
      return table.destroyFlows(events.map((event) => this.#flowOf(event)));
    } catch (error) {
      limited.error({ error, count: events.length }, 'flows that are in no table could not be ended; trying again');
      this.#unlisted.push(...events.filter((event) => !early.includes(event)));
      return 0;
    } finally {
      this.#unlisted = this.#unlisted.slice(-MOST_UNLISTED);
    }
  }

  /** False: it was known before. */
  #remember({ client, server, sinceNs }: KernelFlow, fault: FlowFault): boolean {
    const key = keyOf(client, server);
    if (this.#ended.get(key)?.sinceNs === sinceNs) return false;
    this.#ended.set(key, { fault, sinceNs });
    if (this.#ended.size <= MOST_ENDED) return true;
    for (const oldest of this.#ended.keys()) {
      this.#ended.delete(oldest);
      break;
    }
    return true;
  }

  /** What an event tells of a flow that no table holds. Whose event it is says which end is meant. */
  #flowOf({ cookie, client, server }: PathEvent): KernelFlow {
    const { pods } = this.#deps.world;
    const there = pods.at(server.address);
    const to = there === undefined || there === 'several' ? 0n : there.cookie;
    const isClients = pods.get(cookie)?.pod.addresses.includes(client.address) ?? false;
    const ends = isClients
      ? ({ kind: to === 0n ? 'outside' : 'local', source: cookie, destination: to } as const)
      : ({ kind: 'plain', source: 0n, destination: cookie } as const);
    const unknown = { sourceEpoch: 0n, destinationEpoch: 0n, sinceNs: 0n, clientSocket: 0n, serverSocket: 0n };
    return { ...ends, ...unknown, state: 'established', client, server };
  }
}

function keyOf(client: Endpoint, server: Endpoint): string {
  return `${formatEndpoint(client)} ${formatEndpoint(server)}`;
}

/** As the second half of a flow's id has it. */
function beginningOf(sinceNs: bigint): string {
  return sinceNs.toString(16).padStart(16, '0');
}

function idOf({ client, server, sinceNs }: KernelFlow): string {
  return `${keyOf(client, server)} ${sinceNs}`;
}
