import type { Socket } from 'node:net';
import type { Address, Endpoint } from '../mesh/index.ts';

/** Sockets in a pod's network namespace, as a worker needs them. */
export interface PodSockets {
  /** What the captured client asked for, and whether it had bound its source address; undefined: nobody led this connection here. */
  originalDestination(socket: Socket): { endpoint: Endpoint; boundSource: boolean } | undefined;
  /** An unconnected socket (allowHalfOpen) in the pod's namespace that is not captured. `source`: bind the client's own source address. */
  openOutbound(netnsFd: number, destination: Endpoint, source: Address | undefined): Socket;
  /** The same for the app's side of an inbound connection; the app will see `client` as its peer. */
  openInbound(netnsFd: number, destination: Endpoint, client: Endpoint): Socket;
  /**
   * Whether the socket's peer is reset when this process dies with it open: an app must not take a killed agent for the
   * end of what it was reading. Opened sockets begin with it, accepted ones without.
   */
  setResetOnDeath(socket: Socket, on: boolean): void;
  /** Whether the app that a connected socket of `openInbound` leads to sees the client, not the agent, as its peer. */
  isSpokenFor(socket: Socket): boolean;
}

/** Where the room says what an operator should know. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The agent's ports in every enrolled pod (wire contract, section 1.1). */
export const OUTBOUND_PORT = 15001;
export const INBOUND_PORT = 15006;
export const AGENT_PORTS: ReadonlySet<number> = new Set([OUTBOUND_PORT, INBOUND_PORT, 15008, 15053]);
