/** What stands between the rest of the control plane and whatever it reads the mesh from. */
import type { AuthorizationPolicy, MeshUpdate } from '../mesh/index.ts';

/** Where the mesh is read from: a folder of manifests, or Kubernetes. */
export interface MeshSource {
  /**
   * Begins to follow. There is no update before everything has been read without a fault once. Rejects with a ControlError if
   * there is nothing to read from.
   */
  start(): Promise<void>;
  /**
   * The listener is called with a complete update (at once if there is one already), then with what changes. It must not
   * throw.
   */
  onUpdate(listener: (update: MeshUpdate) => void): void;
  /** What is wrong now with what is read. */
  problems(): readonly Problem[];
  /** Stops following. Idempotent. */
  close(): void;
}

/** Something that an operator should put right. What it names is left out, or stays as it was; the rest is in force. */
export interface Problem {
  readonly reason: ProblemReason;
  /** A sentence. */
  readonly text: string;
  /** The object's kind, namespace and name, e.g. `Service shop/cart`, if it came to that. */
  readonly object: string | undefined;
  /** Where in the object, e.g. `spec.ports[0].port`. */
  readonly field: string | undefined;
  readonly place: Place | undefined;
  /** Of a policy: the status condition that `text` is the message of. */
  readonly condition?: PolicyCondition;
}

/** What becomes of a policy, as its status says it (wire contract, section 12.8). */
export interface PolicyCondition {
  readonly type: 'ZtunnelAccepted';
  /** `False`: nothing that it says is enforced as it is written. With an ALLOW that means that nobody is allowed. */
  readonly status: 'True' | 'False';
  readonly reason: 'Accepted' | 'UnsupportedValue';
  /** A sentence. */
  readonly message: string;
  /** What of it is not enforced as it is written. */
  readonly ignored: readonly IgnoredPart[];
}

export interface IgnoredPart {
  /** Where in the object, e.g. `spec.rules[0].to[0].operation.paths`. */
  readonly field: string;
  /** Why, to go after the field's name. */
  readonly text: string;
}

/** Manifests, read once. */
export interface ManifestReading {
  /** What is wrong with files and objects. If there is anything, the mesh lacks what it names. */
  readonly problems: readonly Problem[];
  /** What is well formed, but does not fit the rest, or is not enforced as it is written. */
  readonly findings: readonly Problem[];
  /** Workloads, services, policies and settings, as one complete update. */
  readonly mesh: MeshUpdate;
  /** Each AuthorizationPolicy and PeerAuthentication, in the order of the files. */
  readonly policies: readonly ReadPolicy[];
}

/** An object that says who may connect, and what agents are told of it. */
export interface ReadPolicy {
  readonly kind: 'AuthorizationPolicy' | 'PeerAuthentication';
  readonly namespace: string;
  readonly name: string;
  readonly place: Place;
  /**
   * Undefined: it makes none. Of a PeerAuthentication that says STRICT and has no exceptions it is the one that all of
   * them share, `istio_converted_static_strict`.
   */
  readonly policy: AuthorizationPolicy | undefined;
  readonly condition: PolicyCondition;
  /** Labels of the workloads that it is for; none: all of its namespace, or of the mesh. */
  readonly selector: Readonly<Record<string, string>>;
  /** Pods and WorkloadEntries that have those labels; empty if it asks for none. */
  readonly selected: ReadonlyArray<{ readonly namespace: string; readonly name: string }>;
  /** Of a PeerAuthentication: its mode, exceptions for ports left aside. */
  readonly mtls: 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT' | undefined;
}

/** Where in a file; line and column begin with 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export type ProblemReason =
  /** A file or directory cannot be read. */
  | 'unreadable'
  /** A file is not YAML. */
  | 'syntax'
  /** A field is missing, of the wrong type, or makes no sense. */
  | 'field'
  /** There is another object of the same kind, namespace and name, or another workload of the same uid. */
  | 'duplicate'
  /** Another service has the hostname (wire contract, section 12.5). */
  | 'conflict'
  /** The next ones: of a waypoint reference (wire contract, section 12.8). */
  | 'WaypointIsNotReady'
  | 'AttachmentDenied'
  | 'UnsupportedTrafficType'
  | 'CrossNamespaceWaypointForbidden'
  | 'CanaryInvalidWeight'
  | 'CanarySameAsPrimary'
  /** A policy says what is not enforced as it is written; `condition` tells what of it. */
  | 'UnsupportedValue';
