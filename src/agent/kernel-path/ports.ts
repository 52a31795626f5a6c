/**
 * What the kernel path asks of other rooms. The adapters live in src/kernel (the tables, the flows, the signals) and
 * src/ztunnel (routing) and fit by shape. Every method of the kernel's may throw an error with a closed `code`.
 */
import type { Endpoint, NetnsCookie, ReadModel, Service, Workload } from '../../mesh/index.ts';
import type { SeriesLabels } from '../../telemetry/index.ts';

/** Whose epoch: a pod's, or 0 for everything outside. */
export type Place = NetnsCookie | 0n;

/** A yes that is written down for the kernel. It counts as long as both epochs are the present ones. */
export interface KernelVerdict {
  /** `local`: to a pod of this node; `outside`: to a destination that takes no tunnel. */
  readonly kind: 'local' | 'outside';
  readonly source: NetnsCookie;
  /** As it is connected to: a backend, never a service. */
  readonly destination: Endpoint;
  /** The destination pod; 0 outside. */
  readonly to: Place;
  /** Epochs of `source` and `to` as they were before the decision was made. */
  readonly sourceEpoch: bigint;
  readonly destinationEpoch: bigint;
}

/** The kernel's verdicts and epochs. */
export interface VerdictTable {
  /** 0: it has none, so no verdict that names it counts. */
  epochOf(place: Place): bigint;
  /** Every verdict, and every connection half-way, that names the epoch before is void. Returns the new one, above 0. */
  raiseEpoch(place: Place): bigint;
  /** Replaces the verdict for the same source and destination. False: there is no room. */
  putVerdict(verdict: KernelVerdict): boolean;
  /** Idempotent. */
  deleteVerdict(source: NetnsCookie, destination: Endpoint): void;
  /** Deletes all verdicts, services and open ports, whoever wrote them, and raises every epoch that there is, also that of outside. */
  clearPaths(): void;
}

/** A backend of a service as the kernel chooses it. */
export interface KernelBackend {
  readonly endpoint: Endpoint;
  /** A whole number above 0. */
  readonly weight: number;
}

/** The services of which the kernel chooses a backend itself. */
export interface ServiceTable {
  /** Replaces what was there. Backends (1 to 64) are of the address' own family. False: there is no room. */
  putService(at: Endpoint, backends: readonly KernelBackend[]): boolean;
  /** Idempotent. */
  deleteService(at: Endpoint): void;
}

/** Whether plaintext of anybody is let in: by port, and on the ports that have no entry. */
export interface OpenPorts {
  readonly others: boolean;
  readonly ports: ReadonlyMap<number, boolean>;
}

/** What each pod may do on the kernel path. Of a pod that is not captured both do nothing. */
export interface PodPaths {
  /** Whether its connects may be answered by verdicts and services, and plaintext to it by open ports. */
  setKernelPath(pod: NetnsCookie, on: boolean): void;
  /** Replaces what was there; undefined: nothing is let past the agent. False: nothing is, for want of room. */
  setOpenPorts(pod: NetnsCookie, open: OpenPorts | undefined): boolean;
}

/** `outside`: from a pod to a destination that takes no tunnel; `plain`: from anybody to an open port; `probe`: of the kubelet. */
export type FlowKind = 'local' | 'outside' | 'plain' | 'probe';

/** A connection on the kernel path. */
export interface KernelFlow {
  readonly kind: FlowKind;
  readonly state: 'approved' | 'arrived' | 'established';
  /** 0: not a pod. */
  readonly source: Place;
  /** 0: outside. */
  readonly destination: Place;
  readonly client: Endpoint;
  readonly server: Endpoint;
  readonly sourceEpoch: bigint;
  readonly destinationEpoch: bigint;
  /** CLOCK_MONOTONIC, nanoseconds. */
  readonly sinceNs: bigint;
  /** Socket cookies; 0: not known. */
  readonly clientSocket: bigint;
  readonly serverSocket: bigint;
}

/** Who and what a connection of the kernel path is about. */
export interface FlowBetween {
  readonly kind: FlowKind;
  readonly source: Place;
  readonly destination: Place;
  readonly client: Endpoint;
  readonly server: Endpoint;
  /** The service that the client asked for; undefined: `server` itself. */
  readonly asked: Endpoint | undefined;
}

/** A connection of the kernel path that is over. */
export interface FlowEnd extends FlowBetween {
  /** 32 hexadecimal digits; the second half is the `sinceNs` that it had as a `KernelFlow`. */
  readonly id: string;
  /** `refused`: the server answered with a reset; `aborted`: the client gave up before there was a connection. */
  readonly end: 'clean' | 'reset-by-client' | 'reset-by-server' | 'refused' | 'timed-out' | 'aborted';
  /** How long ago it ended, when it was read. */
  readonly agoMs: number;
  readonly durationMs: number;
  /** From the connect until it was established; undefined: it never was, or (kind `plain`) was not measured. */
  readonly connectMs: number | undefined;
  /** By the client. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Smoothed; 0: not measured. */
  readonly roundTripUs: number;
  readonly retransmits: number;
}

/** What a connection that is still open has moved so far. */
export interface FlowSample extends FlowBetween {
  /** As its end will have it. */
  readonly id: string;
  /** Never more than its end will tell. Undefined: it could not be measured this time. */
  readonly bytes: { readonly sent: number; readonly received: number } | undefined;
}

export interface FlowSampling {
  /** Grows by one whenever all flows have been gone through, and it begins anew. */
  readonly round: number;
  readonly samples: readonly FlowSample[];
}

/** The connections of the kernel path. */
export interface FlowTable {
  /** @param of only those with one of these for source or destination. Default: all */
  flows(of?: ReadonlySet<Place>): readonly KernelFlow[];
  /**
   * Ends these connections: resets both of their sockets, as far as they are on this node, and voids the approval of one
   * that is not established. A flow without socket cookies is found by its addresses. Returns how many sockets were ended.
   */
  destroyFlows(flows: readonly KernelFlow[]): number;
  /** Some of those that have ended since the last call, in the order of their ends; none: there are no more. */
  flowRecords(): readonly FlowEnd[];
  /**
   * What connections that have lived for some seconds have moved so far: some in each call, none of them more often than
   * every 5 s. One whose bytes are told was open at that moment, so its end is still to be told.
   */
  sampleFlows(): FlowSampling;
  /** Looks at some, and deletes those whose end nobody reported. Returns how many. */
  sweepFlows(): number;
  /** How many there are: cheaper than `flows`. */
  flowCount(): number;
}

/** Something that the kernel asks the agent to look at. */
export interface PathEvent {
  /** The pod that it is about. */
  readonly cookie: NetnsCookie;
  /** Of the kernel's reasons (docs/kernel.md). */
  readonly reason: string;
  readonly client: Endpoint;
  readonly server: Endpoint;
}

export interface PathCount {
  readonly cookie: NetnsCookie;
  /** Of the kernel's reasons. */
  readonly reason: string;
  readonly count: number;
}

/** Signs of life, and whose probes are let in. */
export interface PathSignals {
  /** The agent lives; verdicts count for another 5 s (layout.h, LIMIT_HEARTBEAT_MS). */
  beat(): void;
  /** The kubelet's cgroup: its id, and how deep it lies in the hierarchy (the root: 0). Undefined: nobody's probes are let in. */
  setKubelet(group: KubeletGroup | undefined): void;
  /** Some since the last call, in their order; none: there are no more. */
  events(): readonly PathEvent[];
  /** How often the kernel did something, by pod and reason: exact, also where an event found no room. */
  counts(): readonly PathCount[];
}

export interface KubeletGroup {
  readonly cgroup: bigint;
  readonly level: number;
}

/** All of the kernel's side. */
export type PathKernel = VerdictTable & ServiceTable & PodPaths & FlowTable & PathSignals;

/** What routing asks of the mesh. */
export type PathModel = Pick<
  ReadModel,
  | 'settings'
  | 'isComplete'
  | 'workload'
  | 'workloadAt'
  | 'service'
  | 'serviceAt'
  | 'endpoints'
  | 'gateway'
  | 'localWorkload'
>;

/** Where a connection goes that takes no tunnel, or could do without. */
export type Direct =
  /** A workload that takes the tunnel, addressed as such. */
  | { readonly kind: 'workload'; readonly workload: Workload }
  /** Nothing of the mesh (undefined), or a workload that takes no tunnel. */
  | { readonly kind: 'outside'; readonly workload: Workload | undefined }
  /** A service, a waypoint, another network, or nowhere. */
  | { readonly kind: 'tunnel' };

/** A backend of a service as the tunnel's balancer sees it. */
export interface ServiceBackend {
  readonly workload: Workload;
  readonly endpoint: Endpoint;
  /** A whole number; 0: it gets no connection. */
  readonly weight: number;
}

/** The tunnel's own routing, so that both paths go the same ways. */
export interface PathRouting {
  directTo(source: Workload, destination: Endpoint): Direct;
  /** Of one family, for connections of `source`. Undefined: the kernel cannot choose, or there is nothing to choose from. */
  backendsOf(service: Service, port: number, family: 4 | 6, source: Workload): readonly ServiceBackend[] | undefined;
  /** Whether an endpoint of it may be chosen by the kernel: no waypoint, a selection, and everybody sees it. */
  isChosenFreely(service: Service): boolean;
  /** Another number whenever connections have been made, so that weights may be others. */
  activity(): number;
}

/** Who exposes what is counted here: the book of all series. */
export interface PathSeriesBook {
  /**
   * @param cells of a `SeriesTable`
   * @param freed what a slot counted has been put aside
   */
  source(
    cells: Float64Array,
    freed: (slot: number) => void,
  ): { added(slot: number, labels: SeriesLabels): void; idle(slot: number): void };
}

/** Finds control groups. */
export interface ControlGroups {
  /** Undefined: there is none at the path. */
  find(path: string): KubeletGroup | undefined;
}
