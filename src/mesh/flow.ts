import type { Endpoint } from './address.ts';
import type { SpiffeId } from './identity.ts';
import type { NetnsCookie } from './pod.ts';
import type { PolicyName } from './policy.ts';

/** How a connection travels. */
export type FlowPath = 'kernel' | 'tunnel' | 'plain' | 'passthrough';

export const FLOW_PATHS = ['kernel', 'tunnel', 'plain', 'passthrough'] as const satisfies readonly FlowPath[];

/**
 * Names one connection: 32 lower-case hexadecimal digits. The two agents of a tunnelled connection know it by the same one,
 * the trace id of its `traceparent` (wire contract, section 9.3); so do both pods of a connection on the kernel path.
 */
export type FlowId = string;

/** One of the two who are connected, as far as it is known; what is not known is undefined. */
export interface FlowParty {
  /** The workload's name: in Kubernetes the pod's. */
  readonly workload: string | undefined;
  readonly namespace: string | undefined;
  readonly cluster: string | undefined;
  /** Of the deployment, job or pod behind it. */
  readonly workloadName: string | undefined;
  readonly canonicalName: string | undefined;
  readonly canonicalRevision: string | undefined;
  readonly region: string | undefined;
  readonly zone: string | undefined;
  /** That of the mesh's record of it, whether or not anybody has proven it. */
  readonly identity: SpiffeId | undefined;
}

export interface FlowService {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
}

/** What secures a connection: mutual TLS, the node's own kernel, or nothing. */
export type FlowSecurity = 'mutual_tls' | 'kernel' | 'none';

/** What policy answered last. */
export interface FlowDecision {
  readonly allowed: boolean;
  /** Of src/policy's DecisionReason; `kubelet-probe`: nobody was asked. */
  readonly reason: string;
  readonly policy: PolicyName | undefined;
  readonly text: string;
}

export interface FlowDryRun {
  readonly policy: PolicyName;
  readonly would: 'deny' | 'allow' | 'not-allow';
}

/** What a connection is: known as soon as it is known where it goes. */
export interface FlowSubject {
  readonly direction: 'inbound' | 'outbound';
  readonly path: FlowPath;
  /** Undefined: the client was gone before anybody asked. Port 0: not known. */
  readonly client: Endpoint | undefined;
  /** As the app asked for it; of the way in, the pod's own address and port. */
  readonly asked: Endpoint;
  /** Where the server is: the endpoint that was chosen; of the way in, the pod's own address and port. */
  readonly server: Endpoint;
  /** The address that this agent has really dialled, or was dialled at (`dst.addr`; wire contract, section 9.2). */
  readonly dialled: Endpoint;
  /** The CONNECT's authority; undefined: no HBONE. */
  readonly authority: string | undefined;
  readonly source: FlowParty | undefined;
  readonly destination: FlowParty | undefined;
  /** Proven, by a certificate or by the kernel; undefined: nobody has proven one. */
  readonly sourceIdentity: SpiffeId | undefined;
  readonly destinationIdentity: SpiffeId | undefined;
  /** The destination service, where one was asked for. */
  readonly service: FlowService | undefined;
  /** Name of the waypoint that it is led through: `namespace/name`, or its address; undefined: none. */
  readonly waypoint: string | undefined;
  readonly security: FlowSecurity;
}

/**
 * How far a connection came. `early`: it never became known where it goes (no metric counts it); `addressed`: it did, but
 * nothing was connected; `connected`: both legs were.
 */
export type FlowStage = 'early' | 'addressed' | 'connected';

/** One connection of an enrolled pod, at its end: what log, metrics, `culvert flows` and `culvert explain` all read. */
export interface FlowRecord extends FlowSubject {
  readonly id: FlowId;
  /** The pod of this node that it is of. */
  readonly pod: NetnsCookie;
  readonly stage: FlowStage;
  /** Milliseconds since the epoch. */
  readonly endedAt: number;
  readonly durationMs: number;
  /** `clean`, or the reason why it ended or never was (docs/errors.md). */
  readonly ended: string;
  /** What there is to say of an end that is not clean (texts: wire contract, section 9.4); undefined: `ended` says it. */
  readonly error: string | undefined;
  /** What policy said last; undefined: it was not asked here. */
  readonly decision: FlowDecision | undefined;
  /** What dry-run policies would have done. */
  readonly dryRun: readonly FlowDryRun[];
  /** Endpoints that were tried. */
  readonly attempts: number;
  /** Payload from client to server; on the kernel path what the kernel has counted. */
  readonly bytesSent: number;
  /** Payload from server to client. */
  readonly bytesReceived: number;
  /** From the client's connect, or its arrival here, until the other leg was connected; undefined: it never was, or not measured. */
  readonly connectMs: number | undefined;
  /** Until the server's first byte; undefined: there was none, or not measured. */
  readonly firstByteMs: number | undefined;
  /** Smoothed, of the leg to the server; undefined: not measured. */
  readonly roundTripUs: number | undefined;
  /** Segments sent again, of the leg to the server; undefined: not measured. */
  readonly retransmits: number | undefined;
  /** Kernel path only: `local`, `outside`, `plain` or `probe`. */
  readonly kind: string | undefined;
}

/** Whoever wants to know of connections that have ended. Never throws, never waits. */
export interface FlowSink {
  add(records: readonly FlowRecord[]): void;
}
