import type { ZtunnelErrorCode } from './errors.ts';

/** A duplicate of a pod's listener, on its way to a worker. */
export interface HandedListener {
  readonly port: number;
  readonly fd: number;
}

/** What a worker is born with. */
export interface TunnelWorkerData {
  readonly slot: number;
  /** The worker's Ledger. */
  readonly ledger: SharedArrayBuffer;
  /** Descriptors that this worker may have open. */
  readonly descriptorLimit: number;
  /** Backlog of every listener; adopting a listener sets it again. */
  readonly backlog: number;
  /** What the composition gives its own worker entry, untouched. */
  readonly composition: unknown;
}

export type ToWorker =
  | {
      readonly kind: 'serve';
      readonly id: number;
      /** The netns cookie in decimal. */
      readonly cookie: string;
      readonly netnsFd: number;
      /** The pod's line in the ledger. */
      readonly line: number;
      readonly listeners: readonly HandedListener[];
      /** One cell, set to 1 by the worker when the descriptors are its own to close. */
      readonly taken: SharedArrayBuffer;
    }
  | { readonly kind: 'stop-accepting'; readonly id: number; readonly cookie: string }
  | { readonly kind: 'drop'; readonly id: number; readonly cookie: string }
  | { readonly kind: 'drain'; readonly id: number; readonly deadlineMs: number };

export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number }
  | { readonly kind: 'failed'; readonly id: number; readonly code: ZtunnelErrorCode; readonly message: string }
  /** Accepting stopped: no descriptors. With a cookie: for this pod only, which has its share. */
  | { readonly kind: 'full'; readonly used: number; readonly limit: number; readonly cookie?: string }
  /** Accepting may begin again, for this pod or for all: new duplicates, please. Asked again until they come. */
  | { readonly kind: 'room'; readonly cookie?: string }
  /** A connection met a fault of our own. */
  | { readonly kind: 'fault'; readonly message: string; readonly stack: string | undefined }
  /** An exception that nobody caught; everything open has been reset and the worker ends. */
  | { readonly kind: 'crashed'; readonly message: string; readonly stack: string | undefined };
