/** What stands between the rest of the control plane and whatever it reads the mesh from. */
import type { MeshUpdate } from '../mesh/index.ts';

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
  | 'CanarySameAsPrimary';
