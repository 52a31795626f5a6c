import {
  type AuthorizationPolicy,
  type FlowRecord,
  type FlowSink,
  type NetnsCookie,
  policyName,
} from '../../mesh/index.ts';
import type {
  DashboardSource,
  EdgeDetails,
  Explanation,
  FlowPage,
  FlowView,
  MapNode,
  MapView,
  NodeView,
  Overview,
  PodView,
  PolicyView,
} from '../../telemetry/index.ts';
import type { Clock, WorkerStatus } from '../ports.ts';
import type { StatusReply } from '../protocol.ts';
import type { RecentFlows } from '../recent-flows.ts';
import type { NamespaceUse } from '../tunnel-use.ts';
import type { LiveSeries } from './live-series.ts';
import { destinationEnd, edgeId, type MapEnd, sourceEnd } from './map-names.ts';
import { PodRates } from './pod-rates.ts';
import { PolicyTally } from './policy-hits.ts';
import { Samples } from './samples.ts';
import { TrafficMap } from './traffic-map.ts';

export interface NodeViewsDeps {
  /** Of the agent itself. */
  status(): StatusReply;
  /** What of it somebody should look at, the worst first. */
  alerts(status: StatusReply, now: number): Overview['alerts'];
  /** @throws AgentError with a text for the user */
  explain(question: { readonly from: string; readonly to: string } | { readonly flow: string }): Explanation;
  /** Undefined: the agent follows no control process. */
  readonly flows: Pick<RecentFlows, 'page'> | undefined;
  readonly policies: (() => Iterable<AuthorizationPolicy>) | undefined;
  /** Who a pod is. */
  identityOf(pod: {
    readonly namespace: string;
    readonly name: string;
    readonly addresses: readonly string[];
  }): string | undefined;
  readonly series: Pick<LiveSeries, 'totals' | 'edges'>;
  readonly costs: { costs(): Readonly<Record<string, { readonly cpuSeconds: number; readonly memoryBytes: number }>> };
  use(): ReadonlyMap<string, NamespaceUse>;
  workers(): readonly WorkerStatus[];
  memoryBytes(): number;
  readonly clock: Pick<Clock, 'now' | 'every'>;
}

export interface NodeViewsOptions {
  /** This node's name. */
  readonly node: string;
}

const SAMPLE_MS = 5_000;
/** What is gone is forgotten once a minute. */
const TICKS_A_SWEEP = 12;
/** One page asks for several things at once. */
const STATUS_MS = 1_000;
/** Thousands of edges cost some 10 ms, which several pages shall not cost several times. */
const MAP_MS = 1_000;
const FLOWS_OF_AN_EDGE = 10;
/** That are looked at to find those of an edge. */
const FLOWS_LOOKED_AT = 500;
const SCOPES: Readonly<Record<AuthorizationPolicy['scope'], string>> = {
  global: 'mesh',
  namespace: 'namespace',
  'workload-selector': 'workload',
};

/** What the dashboard shows of this node. Reads only, and keeps no more than it says. A service of the agent. */
export class NodeViews implements DashboardSource, FlowSink {
  readonly #deps: NodeViewsDeps;
  readonly #node: string;
  readonly #samples = new Samples();
  readonly #traffic: TrafficMap;
  readonly #pods: PodRates;
  readonly #policies = new PolicyTally();
  readonly #sinks: readonly FlowSink[];
  #ticker: { stop(): void } | undefined;
  #ticks = 0;
  #map: { readonly at: number; readonly view: MapView } | undefined;
  #status: { readonly at: number; readonly status: StatusReply } | undefined;
  #cpu: { readonly at: number; readonly seconds: ReadonlyMap<number, number> } | undefined;
  #cpuShares: ReadonlyMap<number, number> = new Map();

  constructor(deps: NodeViewsDeps, options: NodeViewsOptions) {
    this.#deps = deps;
    this.#node = options.node;
    const now = (): number => deps.clock.now();
    this.#traffic = new TrafficMap({ now });
    this.#pods = new PodRates({ now });
    this.#sinks = [this.#samples, this.#traffic, this.#pods, this.#policies];
  }

  async start(): Promise<void> {
    this.#tick();
    this.#ticker = this.#deps.clock.every(SAMPLE_MS, () => this.#tick());
  }

  async close(): Promise<void> {
    this.#ticker?.stop();
  }

  add(records: readonly FlowRecord[]): void {
    for (const sink of this.#sinks) sink.add(records);
  }

  overview(): Overview {
    const now = this.#deps.clock.now();
    const status = this.#statusNow();
    const { agent, pods, unclaimed, mesh } = status;
    return {
      node: this.#node,
      version: agent.version,
      state: agent.state,
      startedAt: Date.parse(agent.startedAt),
      pods: {
        enrolled: pods.length,
        notServed: pods.filter(({ path }) => path === 'failed').length + unclaimed.length,
      },
      control:
        mesh === null
          ? null
          : {
              connected: mesh.connected,
              since: Date.parse(mesh.since),
              ...(mesh.reason === undefined ? {} : { reason: mesh.reason }),
            },
      alerts: this.#deps.alerts(status, now),
      samples: this.#samples.read(),
    };
  }

  map(): MapView {
    const at = this.#deps.clock.now();
    if (this.#map === undefined || Math.abs(at - this.#map.at) >= MAP_MS) this.#map = { at, view: this.#mapNow() };
    return this.#map.view;
  }

  edge(id: string): EdgeDetails | undefined {
    const found = this.#traffic.details(id, this.#deps.series.edges());
    if (found === undefined) return undefined;
    const { edge, from, to, isFromHere, isToHere, ended, paths, identities } = found;
    return {
      edge,
      from: { ...from, isHere: isFromHere },
      to: { ...to, isHere: isToHere },
      ended,
      paths,
      identities: Object.entries(identities).map(([both, count]) => {
        const [source = '', destination = ''] = both.split(' ');
        return { source: source || 'not proven', destination: destination || 'not proven', count };
      }),
      flows: this.#flowsOf(id),
    };
  }

  pods(): readonly PodView[] {
    return this.#statusNow().pods.map((pod): PodView => {
      const identity = this.#deps.identityOf(pod);
      return {
        uid: pod.uid,
        name: pod.name,
        namespace: pod.namespace,
        addresses: pod.addresses,
        state: pod.path,
        ...(pod.error === undefined ? {} : { error: pod.error }),
        ...(identity === undefined ? {} : { identity }),
        openConnections: pod.openConnections,
        ...this.#pods.of(cookieOf(pod)),
        uncaptured: pod.uncaptured,
      };
    });
  }

  flows(question: Parameters<DashboardSource['flows']>[0]): FlowPage {
    return this.#deps.flows?.page(question) ?? { flows: [], next: question.after, missed: 0 };
  }

  policies(): readonly PolicyView[] {
    const conditions = new Map(
      this.#statusNow().node?.policyConditions.map(({ policy, condition, text }) => [policy, { condition, text }]),
    );
    return Array.from(this.#deps.policies?.() ?? [], (policy): PolicyView => {
      const { namespace, name, action, scope, dryRun } = policy;
      const condition = conditions.get(policyName(policy));
      const { lastDenied, ...hits } = this.#policies.of(policyName(policy));
      return {
        ...{ name, namespace, action, scope: SCOPES[scope], dryRun },
        ...(condition === undefined || condition.condition === 'dry-run' ? {} : { condition: condition.text }),
        ...hits,
        ...(lastDenied === undefined ? {} : { lastDenied }),
      };
    });
  }

  node(): NodeView {
    const { node, mesh, descriptors } = this.#statusNow();
    const use = this.#deps.use();
    return {
      workers: this.#deps.workers().map(({ slot, state, openConnections, eventLoopDelayMs }) => ({
        slot,
        state,
        openConnections,
        delayP99Ms: eventLoopDelayMs.p99,
        cpuShare: this.#cpuShares.get(slot) ?? 0,
      })),
      namespaces: Object.entries(this.#deps.costs.costs()).map(([namespace, cost]) => ({
        namespace,
        ...cost,
        bytes: use.get(namespace)?.bytes ?? 0,
        connections: use.get(namespace)?.connections ?? 0,
      })),
      maps: node?.kernel.maps ?? [],
      programs: node?.kernel.programs ?? [],
      certificates: (mesh?.certificates ?? []).map(({ identity, state, expires, lastError }) => ({
        identity,
        state,
        ...(expires === undefined ? {} : { expires: Date.parse(expires) }),
        ...(lastError === undefined ? {} : { lastError }),
      })),
      memoryBytes: this.#deps.memoryBytes(),
      descriptors,
    };
  }

  explain(question: Parameters<DashboardSource['explain']>[0]): Explanation {
    return this.#deps.explain(question);
  }

  #mapNow(): MapView {
    const edges = this.#traffic.edges(this.#deps.series.edges());
    const nodes = new Map<string, MapNode>();
    const put = (end: MapEnd, isHere: boolean): void => {
      nodes.set(end.id, { ...end, isHere: isHere || nodes.get(end.id)?.isHere === true });
    };
    for (const { from, to, isFromHere, isToHere } of edges) {
      put(from, isFromHere && from.kind !== 'outside');
      put(to, isToHere && to.kind !== 'outside');
    }
    return { nodes: [...nodes.values()], edges: edges.map(({ edge }) => edge), isCut: this.#traffic.isCut };
  }

  #tick(): void {
    const now = this.#deps.clock.now();
    this.#samples.take(this.#deps.series.totals(), now);
    // So that rates are of the last seconds when somebody looks.
    this.#deps.series.edges();
    this.#takeCpu(now);
    this.#ticks += 1;
    if (this.#ticks % TICKS_A_SWEEP === 0) this.#sweep();
  }

  #sweep(): void {
    this.#map = undefined;
    this.#traffic.sweep();
    this.#pods.keep(new Set(this.#statusNow().pods.map(cookieOf)));
    const { policies } = this.#deps;
    if (policies !== undefined) this.#policies.keep(new Set(Array.from(policies(), policyName)));
  }

  #takeCpu(now: number): void {
    const before = this.#cpu;
    const seconds = new Map(this.#deps.workers().map(({ slot, cpuSeconds }) => [slot, cpuSeconds]));
    this.#cpu = { at: now, seconds };
    if (before === undefined || now <= before.at) return;
    this.#cpuShares = new Map(
      Array.from(seconds, ([slot, used]) => {
        const spent = used - (before.seconds.get(slot) ?? used);
        return [slot, Math.max(0, (spent * 1000) / (now - before.at))];
      }),
    );
  }

  #flowsOf(id: string): readonly FlowView[] {
    const { flows = [] } = this.#deps.flows?.page({ limit: FLOWS_LOOKED_AT }) ?? {};
    return flows
      .filter((flow) => edgeId(sourceEnd(flow), destinationEnd(flow)) === id)
      .slice(-FLOWS_OF_AN_EDGE)
      .reverse();
  }

  #statusNow(): StatusReply {
    const at = this.#deps.clock.now();
    if (this.#status === undefined || Math.abs(at - this.#status.at) >= STATUS_MS)
      this.#status = { at, status: this.#deps.status() };
    return this.#status.status;
  }
}

/** 0, which is nobody's: it has none yet. */
function cookieOf({ netnsCookie }: StatusReply['pods'][number]): NetnsCookie {
  return BigInt(netnsCookie ?? 0) as NetnsCookie;
}
