/** By namespace of the pod of this node. */
type ByNamespace<Value> = Readonly<Record<string, Value>>;

/** Why traffic of an enrolled pod went past the mesh. */
export type UncapturedReason =
  | 'udp'
  | 'excluded-outbound'
  | 'excluded-inbound'
  | 'raw-socket'
  | 'nested-netns'
  | 'rerouted'
  | 'host-probe'
  | 'opened-before-enrolment';

/**
 * Numbers that others keep; asked for whenever the metrics are read. Counts are since the agent started unless a source says
 * otherwise. Of what has no source there is no sample.
 */
export interface MetricSources {
  enrolledPods?(): number;
  /** Pods that should be served, but are not. */
  podsNotServed?(): number;
  openConnections?(): number;
  workers?(): number;
  /** Times that a worker stopped accepting for want of descriptors. */
  descriptorStops?(): number;
  descriptors?(): { readonly open: number; readonly limit: number };
  /** Connections relayed. */
  openedConnections?(): number;
  /** Connections ended, by reason. */
  endedConnections?(): Readonly<Record<string, number>>;
  /** Connections relayed, by direction and path. */
  relayedConnections?(): Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Of the tunnel. */
  sessions?(): { readonly open: number; readonly opened: number; readonly handshakesFailed: number };
  /** Bytes of connections that have ended, by the side that sent them. */
  bytes?(): { readonly client: number; readonly server: number };
  /** The kernel's counters summed over pods, by reason. */
  kernelEvents?(): Readonly<Record<string, number>>;
  /** What policy has answered, by reason. */
  policyDecisions?(): Readonly<Record<string, number>>;
  /** What dry-run policies would have done, by result. */
  policyDryRun?(): Readonly<Record<string, number>>;
  /** Connections ended because policy changed, by path. */
  policyClosed?(): Readonly<Record<string, number>>;
  /** Policies, by whether they are known. */
  policies?(): Readonly<Record<string, number>>;
  kernelPath?(): {
    readonly isOn: boolean;
    readonly verdicts: number;
    readonly services: number;
    readonly flows: number;
  };
  /** Verdicts asked for, by what became of it. */
  kernelPathRequests?(): Readonly<Record<string, number>>;
  /** Accepted sockets that are open: on 15001 (`source`), on 15006 and 15008 (`destination`). */
  socketsOpen?(): { readonly source: number; readonly destination: number };
  /** The pods' proxies, as Istio's node agent calls what serves a pod. */
  proxies?(): {
    readonly active: number;
    readonly pending: number;
    readonly started: number;
    readonly stopped: number;
  };
  /** Ends of the link to the control process. */
  controlTerminations?(): Readonly<Partial<Record<'ConnectionError' | 'Error' | 'Reconnect' | 'Complete', number>>>;
  /** Messages of that link that came in, by their type's URL. */
  controlMessages?(): Readonly<Record<string, { readonly messages: number; readonly bytes: number }>>;
  /** The link itself; `lastUpdateAt`: milliseconds since the epoch, undefined: none has come yet. */
  control?(): { readonly connected: boolean; readonly lastUpdateAt: number | undefined };
  /** `expiresAt`: milliseconds since the epoch; undefined: there is none to expire. */
  certificates?(): ReadonlyArray<{
    readonly identity: string;
    readonly state: string;
    readonly expiresAt: number | undefined;
  }>;
  /** Connections or packets that went past the mesh; survives a restart where the kernel counts it. */
  uncaptured?(): ByNamespace<Readonly<Partial<Record<UncapturedReason, number>>>>;
  /** Connections open that were there before their pod was enrolled. */
  connectionsBeforeEnrolment?(): ByNamespace<number>;
  /** Records for which the kernel had no room in a ring. */
  kernelRecordsLost?(): { readonly flows: number; readonly events: number };
  /** Flow records for which a worker had no room in its ring. */
  workerRecordsLost?(): number;
  /** The kernel's maps. */
  maps?(): ReadonlyArray<{ readonly name: string; readonly entries: number; readonly capacity: number }>;
  /** The kernel's programs by state, e.g. `attached`. */
  programs?(): Readonly<Record<string, number>>;
  /** Each namespace's share of what the tunnel costs. `cpuSeconds` only grows. */
  tunnelCosts?(): ByNamespace<{ readonly cpuSeconds: number; readonly memoryBytes: number }>;
  /** How late a worker's event loop is, in seconds, by quantile (`0.5`, `0.99`, `1`). */
  workerDelay?(): ReadonlyArray<{
    readonly worker: number;
    readonly quantiles: Readonly<Record<string, number>>;
  }>;
  endpointsEjected?(): number;
  /** Series of connections that are exposed; `evicted`: series that left for being idle; `overflowed`: label sets for which there was no room. */
  series?(): {
    readonly series: number;
    readonly budget: number;
    readonly evicted: number;
    readonly overflowed: number;
  };
  /** Lines of the access log by what became of them. */
  accessLogLines?(): Readonly<Record<string, number>>;
  /** Requests to the scrape port by what became of them. */
  scrapes?(): Readonly<Record<string, number>>;
  /** Live streams of the dashboard by what became of them. */
  dashboardClients?(): Readonly<Record<string, number>>;
}
