import type { FlowRecord } from '../mesh/index.ts';

/**
 * What the dashboard's pages are told: JSON of GET /api/..., of which the pages and the agent know no more than these types.
 * Times are milliseconds since the epoch, rates per second, sizes bytes unless a name says otherwise.
 */

/** One sample of the node, every 5 s; the last hour is kept. Numbers but `open` are per second since the sample before. */
export interface OverviewSample {
  readonly at: number;
  /** New connections of enrolled pods, by path; one between two of them counts for both. */
  readonly opened: Readonly<Record<'kernel' | 'tunnel' | 'plain' | 'passthrough', number>>;
  readonly open: number;
  /** Those that policy denied among them. */
  readonly failed: number;
  readonly denied: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Time to connect of what was connected since the sample before; undefined: nothing was. */
  readonly connectP50Ms: number | undefined;
  readonly connectP99Ms: number | undefined;
}

/** GET /api/overview; also each event of GET /api/live has the newest sample and what is new of the rest. */
export interface Overview {
  readonly node: string;
  readonly version: string;
  readonly state: string;
  readonly startedAt: number;
  readonly pods: { readonly enrolled: number; readonly notServed: number };
  readonly control: { readonly connected: boolean; readonly since: number; readonly reason?: string } | null;
  /** What somebody should look at, the worst first. */
  readonly alerts: ReadonlyArray<{ readonly severity: 'critical' | 'warning'; readonly text: string }>;
  readonly samples: readonly OverviewSample[];
}

/** A service or a workload that is no service's, or what is outside the mesh. */
export interface MapNode {
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly kind: 'workload' | 'service' | 'outside';
  /** Whether pods of it are on this node. */
  readonly isHere: boolean;
}

export interface MapEdge {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  /** Those that have ended in the last minute. */
  readonly connectionsPerSecond: number;
  /** Over the last minute; of connections that are open, over the last seconds. */
  readonly bytesPerSecond: number;
  readonly open: number;
  readonly failedPerSecond: number;
  readonly deniedPerSecond: number;
  readonly p50Ms: number | undefined;
  readonly p99Ms: number | undefined;
  /** How most of it is secured. */
  readonly security: 'mutual_tls' | 'kernel' | 'none' | 'mixed';
  readonly health: 'good' | 'degraded' | 'bad' | 'idle';
}

/** GET /api/map. */
export interface MapView {
  readonly nodes: readonly MapNode[];
  readonly edges: readonly MapEdge[];
  /** There were more than are shown. */
  readonly isCut: boolean;
}

/** GET /api/edge?id=: an edge's details. */
export interface EdgeDetails {
  readonly edge: MapEdge;
  readonly from: MapNode;
  readonly to: MapNode;
  /** How connections of the last 10 minutes ended, by reason. */
  readonly ended: Readonly<Record<string, number>>;
  readonly paths: Readonly<Record<string, number>>;
  readonly identities: ReadonlyArray<{ readonly source: string; readonly destination: string; readonly count: number }>;
  readonly flows: readonly FlowView[];
}

export interface PodView {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly string[];
  readonly state: string;
  /** Why it is not served. */
  readonly error?: string;
  readonly identity?: string;
  readonly openConnections: number;
  readonly openedPerSecond: number;
  readonly bytesPerSecond: number;
  readonly failedPerSecond: number;
  /** Traffic that went past the mesh, by reason. */
  readonly uncaptured: Readonly<Record<string, number>>;
}

/** A flow record as JSON: the pod's cookie is replaced by its name. */
export type FlowView = Omit<FlowRecord, 'pod'> & {
  /** Grows by one with each record of this node: the cursor of `culvert flows --follow`. */
  readonly sequence: number;
  readonly podUid: string;
  readonly podName: string;
  readonly podNamespace: string;
};

/** GET /api/policies. */
export interface PolicyView {
  readonly name: string;
  readonly namespace: string;
  readonly action: string;
  readonly scope: string;
  readonly dryRun: boolean;
  /** Not enforced as written; undefined: it is. */
  readonly condition?: string;
  /** Connections of this node's pods that it has allowed, denied, or, as a dry run, would have denied, since the agent started. */
  readonly allowed: number;
  readonly denied: number;
  readonly wouldDeny: number;
  readonly lastDenied?: number;
}

/** GET /api/node. */
export interface NodeView {
  readonly workers: ReadonlyArray<{
    readonly slot: number;
    readonly state: string;
    readonly openConnections: number;
    readonly delayP99Ms: number;
    readonly cpuShare: number;
  }>;
  readonly namespaces: ReadonlyArray<{
    readonly namespace: string;
    readonly cpuSeconds: number;
    readonly memoryBytes: number;
    readonly bytes: number;
    readonly connections: number;
  }>;
  readonly maps: ReadonlyArray<{ readonly name: string; readonly entries: number; readonly capacity: number }>;
  readonly programs: ReadonlyArray<{ readonly name: string; readonly state: string }>;
  readonly certificates: ReadonlyArray<{
    readonly identity: string;
    readonly state: string;
    readonly expires?: number;
    readonly lastError?: string;
  }>;
  readonly memoryBytes: number;
  readonly descriptors: { readonly open: number; readonly limit: number };
}

/** GET /api/explain?from=&to= or ?flow=. */
export interface Explanation {
  /** Whether it would connect. */
  readonly connects: boolean;
  readonly steps: readonly ExplainStep[];
  /** One sentence. */
  readonly conclusion: string;
}

export interface ExplainStep {
  /** E.g. `source`, `capture`, `route`, `waypoint`, `endpoint`, `policy`, `certificates`, `path`, `flows`. */
  readonly topic: string;
  readonly state: 'good' | 'bad' | 'unknown' | 'note';
  readonly text: string;
  /** More about it, a line each. */
  readonly details: readonly string[];
}

/** What of the flows is wanted; all that is given must be so. */
export interface FlowFilter {
  /** `namespace/name`, a name, or a UID. */
  readonly pod?: string;
  /** Matches a workload's name, `namespace/name`, `namespace/`, a service's host, or an address. */
  readonly from?: string;
  readonly to?: string;
  /** `allowed`, `denied`, `failed`, `clean`, or a reason of docs/errors.md. */
  readonly verdict?: string;
}

/** GET /api/flows?after=&limit=&pod=&from=&to=&verdict=. */
export interface FlowPage {
  readonly flows: readonly FlowView[];
  /** Ask for what comes `after` this. */
  readonly next: number;
  /** Records that are gone already between `after` and the first one here. */
  readonly missed: number;
}

/** Whom the dashboard asks; the agent fits. Every method answers from memory, within milliseconds. */
export interface DashboardSource {
  overview(): Overview;
  map(): MapView;
  edge(id: string): EdgeDetails | undefined;
  pods(): readonly PodView[];
  flows(filter: FlowFilter & { readonly after: number; readonly limit: number }): FlowPage;
  policies(): readonly PolicyView[];
  node(): NodeView;
  /** @throws Error with a text for the user when a name means nothing */
  explain(question: { readonly from: string; readonly to: string } | { readonly flow: string }): Explanation;
}
