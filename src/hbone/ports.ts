import type { Socket } from 'node:net';
import type { Certificate, Endpoint, SpiffeId } from '../mesh/index.ts';

/** Certificates of the identities that this process speaks for. */
export interface Certificates {
  /**
   * The current one.
   *
   * @throws HboneError IDENTITY_UNAVAILABLE: there is none, and none could be had within the store's own bound
   */
  certificate(identity: SpiffeId): Promise<Certificate>;
}

/** Where the tunnel leads to, and who must be there: the pool's key (wire contract, section 2.8). */
export interface TunnelTarget {
  readonly sourceIdentity: SpiffeId;
  /** Any one of them will do. */
  readonly acceptable: readonly SpiffeId[];
  /** Address and HBONE port of the peer. */
  readonly nextHop: Endpoint;
}

/** Opens an unconnected socket (allowHalfOpen) towards a peer; throws if it cannot. */
export type OpenSocket = (nextHop: Endpoint) => Socket;
