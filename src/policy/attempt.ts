import type { Address, Endpoint, SpiffeId } from '../mesh/index.ts';

/** A connection that somebody wants to make to a workload: all that policy looks at (wire contract, section 5.3). */
export interface Attempt {
  /** The proven identity; undefined: none has been proven. */
  readonly source: SpiffeId | undefined;
  /** The other end of the connection as it arrives: the client's, or that of the proxy before it. */
  readonly sourceAddress: Address;
  /** What is dialled in the end: after service ports and application tunnels have been translated. */
  readonly destination: Endpoint;
  /**
   * Whether `source` is a waypoint of the destination: its own, or that of one of its services. Read anew for each decision,
   * so it may be a getter.
   */
  readonly throughWaypoint: boolean;
}
