import type { Endpoint } from './address.ts';
import type { SpiffeId } from './identity.ts';
import type { NetnsCookie } from './pod.ts';

/** How a connection travels. */
export type FlowPath = 'kernel' | 'tunnel' | 'plain' | 'passthrough';

/** One connection of an enrolled pod, at its end. */
export interface FlowRecord {
  /** The pod of this node that it is of. */
  readonly pod: NetnsCookie;
  /** Milliseconds since the epoch. */
  readonly endedAt: number;
  readonly direction: 'inbound' | 'outbound';
  readonly path: FlowPath;
  /** Undefined: the client was gone before anybody asked. Port 0: not known. */
  readonly client: Endpoint | undefined;
  /** Where the server is: of the kernel path and the way in, the pod's own address and port. */
  readonly server: Endpoint;
  /** Proven; undefined: nobody has proven one. */
  readonly sourceIdentity: SpiffeId | undefined;
  readonly destinationIdentity: SpiffeId | undefined;
  /** The destination service's host, where one was asked for. */
  readonly service: string | undefined;
  /** `clean`, or the reason why it ended or never was. */
  readonly ended: string;
  /** What policy said, where it was asked. */
  readonly decision: string | undefined;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
}
