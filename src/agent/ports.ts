/**
 * What the agent asks of other rooms. The adapters live in src/kernel, src/ztunnel, src/control and src/identity and fit by shape;
 * test/contract holds one suite per port.
 */
import type { Socket } from 'node:net';
import type { CertificateChange, Endpoint, MeshUpdate, NetnsCookie, Pod, SpiffeId } from '../mesh/index.ts';

/** A pod made ready: its listeners exist, nothing is captured yet. */
export interface PreparedPod {
  readonly cookie: NetnsCookie;
  /** Open descriptor of the pod's network namespace; belongs to the kernel room. */
  readonly netnsFd: number;
  /** The listeners' descriptors belong to the kernel room; whoever serves one duplicates it. */
  readonly listeners: ReadonlyArray<{ readonly port: number; readonly slot: number; readonly fd: number }>;
}

/** The kernel's side of a pod. Every method throws an error with a closed `code`. */
export interface PodKernel {
  /** Opens the pod's namespace and listeners. Idempotent; on failure everything it made is undone. */
  prepare(pod: Pod): PreparedPod;
  /** Captures the pod's new connections; for a pod already captured, replaces its addresses and exclusions. */
  capture(pod: Pod, cookie: NetnsCookie): void;
  /** New connections are no longer captured; resolves when the hand-overs under way have finished. Idempotent. */
  release(cookie: NetnsCookie): Promise<void>;
  /** Of a pod that is no longer captured: closes listeners and the namespace's descriptor and deletes what maps still hold. Idempotent. */
  close(cookie: NetnsCookie): void;
  /**
   * `gone`: the path no longer leads to this namespace; `reopened`: something in it had been taken away and is back, the tunnel must serve again.
   * May be asked for a pod that this process has not prepared: then `live` or `gone`.
   */
  check(pod: Pod, cookie: NetnsCookie): 'live' | 'gone' | 'reopened';
}

/** The kernel's side of the node as a whole. */
export interface KernelUpkeep {
  /** Which of our programs do not run any more. Empty when all is well. */
  faults(): ReadonlyArray<{ readonly name: string; readonly fault: string }>;
  /** Attaches again what `faults` names. */
  mend(): void;
  /** Deletes what was lost half-way. */
  sweep(): void;
  /** What an operator should be told of, since the last call. */
  events(): ReadonlyArray<{
    readonly cookie: NetnsCookie;
    readonly reason: string;
    readonly client: Endpoint;
    readonly server: Endpoint;
  }>;
  /** How often the kernel did something, by pod and reason. */
  counts(): ReadonlyArray<{ readonly cookie: NetnsCookie; readonly reason: string; readonly count: number }>;
}

/** What of ours is in the kernel, for people. */
export interface KernelInventory {
  /** `running` is as it should be. */
  programs(): ReadonlyArray<{ readonly name: string; readonly state: string }>;
  /** Maps that could fill up. */
  maps(): ReadonlyArray<{ readonly name: string; readonly entries: number; readonly capacity: number }>;
  /** Records that a full ring has not taken. */
  lostRecords(): { readonly flows: number; readonly events: number; readonly alarms: number };
  /** By captured pod: connections that were open before it was enrolled, and still are. */
  earlierConnections(): ReadonlyMap<bigint, number>;
}

/** The pods that are captured, by this agent or still by an earlier one. */
export interface CapturedPods {
  /** Closes the listeners of all of them: what is captured is refused, until an agent listens again. */
  refuseAll(): void;
  captured(): readonly NetnsCookie[];
}

/** Credentials of a unix socket's other end (SO_PEERCRED). */
export interface PeerCredentials {
  peerUid(socket: Socket): number;
}

/** The workers that relay, seen from the main thread. */
export interface Tunnel {
  /** Idempotent; resolves when every worker listens for the pod. A changed pod or listener replaces the old one. */
  serve(pod: Pod, prepared: PreparedPod): Promise<void>;
  /**
   * No further connection is accepted for the pod; open ones live on. Resolves when nothing more will be dialled
   * through the pod's `netnsFd`, which is closed next. Idempotent.
   */
  stopAccepting(cookie: NetnsCookie): Promise<void>;
  /** Stops accepting and resets what is open: the namespace is gone. Idempotent. */
  drop(cookie: NetnsCookie): Promise<void>;
  status(): TunnelStatus;
  /** Stops accepting, waits at most `deadlineMs` for open connections, then resets the rest. */
  shutdown(deadlineMs: number): Promise<void>;
}

export interface WorkerStatus {
  readonly slot: number;
  /** `paused`: accepts nothing for want of descriptors. */
  readonly state: 'starting' | 'serving' | 'paused' | 'stopped';
  readonly openConnections: number;
  /** How often this slot's worker has been started again. */
  readonly restarts: number;
  /** How often it stopped accepting, at all or for one pod, for want of descriptors. */
  readonly descriptorStops: number;
  /** How late its event loop was in the last second. */
  readonly eventLoopDelayMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** CPU time of this slot's threads since the agent started. */
  readonly cpuSeconds: number;
  /** That the thread's JavaScript uses. */
  readonly heapBytes: number;
}

export interface TunnelStatus {
  readonly workers: readonly WorkerStatus[];
  /** Open connections by pod. */
  readonly openConnections: ReadonlyMap<NetnsCookie, number>;
  /** Since the agent started. */
  readonly totals: {
    readonly accepted: number;
    readonly closed: number;
    /** Accepted, but the other leg could not be dialled. */
    readonly failed: number;
    /** Accepted without an original destination, so reset. */
    readonly unattributed: number;
    /** Of connections that have ended. */
    readonly bytesFromClients: number;
    readonly bytesFromServers: number;
  };
  /** How many connections ended for which reason, since the agent started. */
  readonly ended: Readonly<Record<string, number>>;
  /** How many connections were relayed on which path, since the agent started. */
  readonly paths: {
    /** `plain`: to a workload that takes no tunnel; `passthrough`: to what is not of the mesh. */
    readonly outbound: { readonly tunnel: number; readonly plain: number; readonly passthrough: number };
    readonly inbound: { readonly tunnel: number; readonly plain: number };
  };
  /** TCP connections of the tunnel's sessions, of both directions. */
  readonly sessions: {
    readonly open: number;
    /** Since the agent started. */
    readonly opened: number;
    /** Since the agent started: one end did not prove to be who it should, or could not. */
    readonly handshakesFailed: number;
  };
  /** Since the agent started, of the connections that the tunnel carries to pods of this node. */
  readonly policy: {
    /** What was answered to new connections, by reason (src/policy, `DecisionReason`). */
    readonly decisions: Readonly<Record<string, number>>;
    /** What dry-run policies would have done; a no of ALLOW policies is a denial. */
    readonly dryRun: { readonly denies: number; readonly allows: number };
    /** Open connections that were reset because policy, or what it is about, changed. */
    readonly closed: number;
  };
  readonly descriptors: { readonly open: number; readonly limit: number };
}

/** Whoever has to act on an update of the mesh in the turn of the loop in which it is applied. `KernelPath` fits. */
export interface MeshFollower {
  /**
   * Calls `run`, which applies the update, in between what it must see before and after. What the update forbids is in force
   * when this returns; the promise is kept when all of it is.
   */
  apply(update: MeshUpdate, run: () => void): Promise<void>;
  status(): { readonly unknownPolicies: readonly string[] };
}

/** Told what becomes of this node's pods. */
export interface PodFollower {
  /** `enrolled`: served; `captured`: not served, so its connections are refused; `left`: no longer captured. */
  podChanged(pod: Pod, cookie: NetnsCookie, state: 'enrolled' | 'captured' | 'left'): void;
}

/** Time, so that tests need not wait for it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `run` every `ms` until `stop`. Does not keep the process alive. */
  every(ms: number, run: () => void): { stop(): void };
}

/** Tells of names that appear in or vanish from a directory. May miss some: only a hint. */
export interface DirectoryWatch {
  watch(directory: string, changed: (name: string | undefined) => void): { close(): void };
}

/** Where the mesh is learned from: the control process. Connects by itself, again and again. */
export interface MeshSource {
  /** Begins. Called once. */
  follow(listener: {
    /** The first is complete. After the source was away: only what has changed meanwhile. */
    updated(update: MeshUpdate): void;
    /** PEM, every root that peers may be signed under. */
    trusted(roots: readonly string[]): void;
  }): void;
  status():
    | { readonly connected: true; readonly since: number }
    | { readonly connected: false; readonly since: number; readonly reason: string };
  /** For good. Idempotent. */
  close(): void;
}

/** What the tunnel is told of the mesh and of this node's certificates. */
export interface TunnelFeed {
  /** Resolves when it is in force in every worker, and what it forbids has been reset. */
  updateMesh(update: MeshUpdate): Promise<void>;
  updateCertificate(change: CertificateChange): void;
}

/** The certificates of this node's identities. */
export interface NodeCertificates {
  /** Has these issued and renewed, and forgets all others. */
  want(identities: ReadonlySet<SpiffeId>): void;
  /** A connection waits for it. Answered by a change; `forgotten` if it is not wanted. */
  request(identity: SpiffeId): void;
  /** The roots have changed: every certificate is issued again with them. */
  trust(roots: readonly string[]): void;
  onChange(listener: (change: CertificateChange) => void): unknown;
  status(): readonly CertificateStatus[];
  /** For good: forgets every key. Idempotent. */
  close(): void;
}

export interface CertificateStatus {
  readonly identity: SpiffeId;
  /** `renewing`: there is one that is valid still. */
  readonly state: 'initializing' | 'available' | 'renewing' | 'unavailable';
  /** Its validity, milliseconds since the epoch. */
  readonly notBefore: number | undefined;
  readonly notAfter: number | undefined;
  /** PEM, leaf first, without the root; undefined: there is none. */
  readonly chain: string | undefined;
  /** PEM, those that go with it. */
  readonly roots: readonly string[];
  /** Why the last attempt failed; undefined if it did not. */
  readonly lastError: string | undefined;
}
