import { type Address, type Endpoint, formatEndpoint } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { type FlowFault, judgeFlow, type PathWorld } from './decide.ts';
import type { FlowEnd, FlowTable, KernelFlow, PathEvent, Place } from './ports.ts';

interface LiveFlowsDeps {
  readonly table: FlowTable;
  readonly world: PathWorld;
  readonly log: Log;
}

/** Why a flow was ended is remembered until its end is told; so long, and of so many. */
const MOST_ENDED = 8192;
/** Addresses that connections lead to from here, beyond which none is told from another. */
const MOST_OUTSIDE = 16_384;

/** What of the flows is to be looked at. */
export interface FlowScope {
  readonly all: boolean;
  /** Those from or to these. */
  readonly places: ReadonlySet<Place>;
  /** Those that lead outside, to one of these. */
  readonly addresses: ReadonlySet<Address>;
}

/** The connections that are on the kernel path at present: judged anew after a change, and ended if they are forbidden. */
export class LiveFlows {
  readonly #deps: LiveFlowsDeps;
  /** The oldest first. */
  readonly #ended = new Map<string, FlowFault>();
  /** Wherever connections may lead that are outside; undefined: too many to remember. */
  #outside: Set<Address> | undefined = new Set();
  #closed = 0;

  constructor(deps: LiveFlowsDeps) {
    this.#deps = deps;
  }

  /** Flows ended since the start, because they were forbidden. */
  get closed(): number {
    return this.#closed;
  }

  /** Connections of the kernel path may lead there, outside. */
  mayLeadTo(address: Address): void {
    this.#outside?.add(address);
    if ((this.#outside?.size ?? 0) > MOST_OUTSIDE) this.#outside = undefined;
  }

  /** As far as is known, none leads to any of these. */
  leadToNoneOf(addresses: ReadonlySet<Address>): boolean {
    if (this.#outside === undefined) return addresses.size === 0;
    for (const address of addresses) if (this.#outside.has(address)) return false;
    return true;
  }

  /** Ends those that are forbidden now. */
  judge({ all, places, addresses }: FlowScope): void {
    const forbidden: Array<readonly [KernelFlow, FlowFault]> = [];
    const of = all ? undefined : new Set<Place>([...places, ...(addresses.size > 0 ? [0n as const] : [])]);
    for (const flow of this.#deps.table.flows(of)) {
      if (all && flow.kind === 'outside') this.mayLeadTo(flow.server.address);
      const isConcerned =
        all ||
        places.has(flow.source) ||
        places.has(flow.destination) ||
        (flow.kind === 'outside' && addresses.has(flow.server.address));
      const fault = isConcerned ? judgeFlow(this.#deps.world, flow) : undefined;
      if (fault !== undefined) forbidden.push([flow, fault]);
    }
    this.#end(forbidden);
  }

  /**
   * Established although the verdict no longer counts, or the port is no longer open. What the table does not know ends in any
   * case, if it has not yet: nobody would ever judge it again.
   */
  lookAgain(events: readonly PathEvent[]): void {
    const asked = new Map(events.map((event) => [keyOf(event.client, event.server), event]));
    const forbidden: Array<readonly [KernelFlow, FlowFault]> = [];
    const of = new Set<Place>(events.map(({ cookie }) => cookie));
    for (const flow of this.#deps.table.flows(of)) {
      if (!asked.delete(keyOf(flow.client, flow.server))) continue;
      const fault = judgeFlow(this.#deps.world, flow);
      if (fault !== undefined) forbidden.push([flow, fault]);
    }
    this.#end(forbidden);
    const unknown = [...asked.values()].map((event) => this.#flowOf(event));
    if (unknown.length > 0 && this.#deps.table.destroyFlows(unknown) > 0)
      this.#deps.log.info(
        { count: unknown.length },
        'connections ended: they were let in by a verdict that no longer counts',
      );
  }

  /** There was no room to write them down, so they end: nobody could end them later. */
  endUnrecorded(events: readonly PathEvent[]): void {
    const flows = events.map((event) => this.#flowOf(event));
    this.#deps.table.destroyFlows(flows);
    this.#deps.log.warn({ count: flows.length }, 'connections ended: the map of flows is full');
  }

  /** Why this flow was ended by us; undefined: it was not. Tells it once. */
  takeFault({ client, server }: Pick<FlowEnd, 'client' | 'server'>): FlowFault | undefined {
    if (this.#ended.size === 0) return undefined;
    const key = keyOf(client, server);
    const fault = this.#ended.get(key);
    this.#ended.delete(key);
    return fault;
  }

  /** Deletes what was lost half-way. */
  sweep(): void {
    const swept = this.#deps.table.sweepFlows();
    if (swept > 0) this.#deps.log.debug({ count: swept }, 'flows swept');
  }

  #end(forbidden: ReadonlyArray<readonly [KernelFlow, FlowFault]>): void {
    if (forbidden.length === 0) return;
    const byText = new Map<string, { readonly fault: FlowFault; count: number }>();
    for (const [{ client, server }, fault] of forbidden) {
      this.#remember(keyOf(client, server), fault);
      const found = byText.get(fault.text);
      if (found === undefined) byText.set(fault.text, { fault, count: 1 });
      else found.count += 1;
    }
    this.#deps.table.destroyFlows(forbidden.map(([flow]) => flow));
    this.#closed += forbidden.length;
    for (const { fault, count } of byText.values())
      this.#deps.log.info({ policy: fault.policy, decision: fault.text, count }, 'flows ended by a policy change');
  }

  #remember(key: string, fault: FlowFault): void {
    this.#ended.set(key, fault);
    if (this.#ended.size <= MOST_ENDED) return;
    for (const oldest of this.#ended.keys()) {
      this.#ended.delete(oldest);
      return;
    }
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
