import type { SessionOptions } from '../hbone/index.ts';
import type { CertificateChange, Endpoint, FlowId, FlowSubject, MeshUpdate, SpiffeId } from '../mesh/index.ts';
import type { FlowBatch, SeriesLabels } from '../telemetry/index.ts';
import type { ListedConnection } from './connection-lists.ts';
import type { ZtunnelErrorCode } from './errors.ts';
import type { PodName } from './node-view.ts';
import type { LogLine } from './worker-log.ts';

/** A duplicate of a pod's listener, on its way to a worker. */
export interface HandedListener {
  readonly port: number;
  readonly fd: number;
}

/** What a worker of a mesh needs to know beside what is sent. */
export interface WorkerMesh {
  readonly node: string;
  /** What the endpoints of services cost, of all workers of the node. */
  readonly endpointCosts: SharedArrayBuffer;
  /** Workers of the node. */
  readonly workers: number;
  /** How long a session of the pool may be idle. */
  readonly poolIdleMs: number;
  /** Of every session, of both ends. */
  readonly session: SessionOptions;
  /** The main thread wants `path` messages. */
  readonly asksForPaths: boolean;
}

/** What a worker is born with. */
export interface TunnelWorkerData {
  readonly slot: number;
  /** The worker's Ledger. */
  readonly ledger: SharedArrayBuffer;
  /** Its series table (src/telemetry/series-table.ts). */
  readonly series: SharedArrayBuffer;
  readonly seriesIdleSeconds: number;
  /** The main thread wants `opened` messages. */
  readonly tellsOpened: boolean;
  /** Its ring of records (src/telemetry/flow-ring.ts). */
  readonly flows: SharedArrayBuffer;
  /** Descriptors that this worker may have open. */
  readonly descriptorLimit: number;
  /** Backlog of every listener; adopting a listener sets it again. */
  readonly backlog: number;
  /** Undefined: there is no mesh, everything is relayed in plain. */
  readonly mesh: WorkerMesh | undefined;
  /** What the composition gives its own worker entry, untouched. */
  readonly composition: unknown;
}

export type ToWorker =
  /** What is open, at most so many: answered by `connections`. */
  | { readonly kind: 'list-connections'; readonly list: number; readonly most: number }
  | {
      readonly kind: 'serve';
      readonly id: number;
      /** The netns cookie in decimal. */
      readonly cookie: string;
      readonly pod: PodName;
      /** Main's own duplicate, open until this worker has `left` the pod. */
      readonly netnsFd: number;
      /** The pod's line in the ledger. */
      readonly line: number;
      readonly listeners: readonly HandedListener[];
      /** One cell, set to 1 by the worker when the descriptors are its own to close. */
      readonly taken: SharedArrayBuffer;
    }
  | { readonly kind: 'stop-accepting'; readonly id: number; readonly cookie: string }
  | { readonly kind: 'drop'; readonly id: number; readonly cookie: string }
  | { readonly kind: 'drain'; readonly id: number; readonly deadlineMs: number }
  /** Done when it is in force, and what it forbids has been reset. `id` 0: nobody waits for that. */
  | { readonly kind: 'mesh'; readonly id: number; readonly update: MeshUpdate }
  /** Not answered. */
  | { readonly kind: 'certificate'; readonly change: CertificateChange }
  /** What an idle slot had counted has been put aside. Not answered. */
  | { readonly kind: 'series-freed'; readonly slot: number };

/** What is answered by `done` or `failed`. */
export type Question = Extract<ToWorker, { readonly id: number }>;

export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number }
  | { readonly kind: 'failed'; readonly id: number; readonly code: ZtunnelErrorCode; readonly message: string }
  /** Accepting stopped: no descriptors. With a cookie: for this pod only, which has its share. */
  | { readonly kind: 'full'; readonly used: number; readonly limit: number; readonly cookie?: string }
  /** Accepting may begin again, for this pod or for all: new duplicates, please. Asked again until they come. */
  | { readonly kind: 'room'; readonly cookie?: string }
  /**
   * Nothing of the pod is open or accepted here any more, no session either: its namespace is not used. `served`: the last
   * `serve` of it that the worker had heard.
   */
  | { readonly kind: 'left'; readonly cookie: string; readonly served: number }
  /** A connection waits for a certificate. */
  | { readonly kind: 'certificate-wanted'; readonly identity: SpiffeId }
  /**
   * A connection of the pod has been connected to a pod of this node, or to a destination that takes no tunnel: the next ones
   * might need no agent. At most once a second for each destination.
   */
  | { readonly kind: 'path'; readonly cookie: string; readonly destination: Endpoint }
  /** It has become known where a connection goes. */
  | { readonly kind: 'opened'; readonly subject: FlowSubject; readonly id: FlowId }
  /** Records of connections that have ended are in the ring. */
  | { readonly kind: 'flows'; readonly batch: FlowBatch }
  /** See `SeriesReader`; `series-freed` answers the second. */
  | { readonly kind: 'series-added'; readonly slot: number; readonly labels: SeriesLabels }
  | { readonly kind: 'series-idle'; readonly slot: number }
  | { readonly kind: 'connections'; readonly list: number; readonly connections: readonly ListedConnection[] }
  | { readonly kind: 'log'; readonly line: LogLine }
  /** A connection met a fault of our own. */
  | { readonly kind: 'fault'; readonly message: string; readonly stack: string | undefined }
  /** An exception that nobody caught; everything open has been reset and the worker ends. */
  | { readonly kind: 'crashed'; readonly message: string; readonly stack: string | undefined };
