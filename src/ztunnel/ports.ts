import type { Socket } from 'node:net';
import type { Address, Endpoint } from '../mesh/index.ts';

/** What an app has set on its socket about silence: keepalive, user time-out. Passed on, and not looked at. */
export interface Timeouts {
  readonly userMs: number;
  readonly keepAlive: boolean;
  readonly idleSeconds: number;
  readonly intervalSeconds: number;
  readonly probes: number;
}

/** What a captured client asked for. */
export interface OriginalDestination {
  readonly endpoint: Endpoint;
  /** Where `endpoint` is a service: the endpoint that the kernel has drawn for it by the published weights. Undefined: none. */
  readonly picked: Endpoint | undefined;
  /** It had bound its source address itself. */
  readonly boundSource: boolean;
  /** Undefined: it had set nothing. */
  readonly timeouts: Timeouts | undefined;
}

/** Sockets in a pod's network namespace, as a worker needs them. */
export interface PodSockets {
  /** Undefined: nobody led this connection here. */
  originalDestination(socket: Socket): OriginalDestination | undefined;
  /**
   * An unconnected socket (allowHalfOpen) in the pod's namespace that is not captured, with all its options set. `source`:
   * bind the client's own source address.
   */
  openOutbound(
    netnsFd: number,
    destination: Endpoint,
    source: Address | undefined,
    options?: {
      readonly timeouts?: Timeouts | undefined;
      readonly resetOnDeath?: boolean;
      /** To a peer's HBONE port: sockets of different lanes are led to different workers of the peer's. */
      readonly lane?: number;
    },
  ): Socket;
  /**
   * The same for the app's side of an inbound connection; the app will see `client` as its peer. With port 0 it will see the
   * socket's own port instead.
   */
  openInbound(netnsFd: number, destination: Endpoint, client: Endpoint): Socket;
  /**
   * Whether the socket's peer is reset when this process dies with it open: an app must not take a killed agent for the
   * end of what it was reading. Sockets accepted on 15001 and 15006 begin with it, and opened ones unless asked otherwise;
   * those accepted on 15008 begin without.
   */
  setResetOnDeath(socket: Socket, on: boolean): void;
  /** Whether the app that a connected socket of `openInbound` leads to sees the client, not the agent, as its peer. */
  isSpokenFor(socket: Socket): boolean;
}

/** What the kernel has measured of a connected socket. */
export interface SocketMeasure {
  /** Smoothed. */
  readonly roundTripUs: number;
  /** Segments that it has sent again. */
  readonly retransmits: number;
}

export interface SocketMeter {
  /** Costs a microsecond. Undefined: the socket is gone. */
  measure(socket: Socket): SocketMeasure | undefined;
}

/** Passes on what apps set on their sockets while they are connected. */
export interface TimeoutFollower {
  /**
   * From now on, gives `far` what the app that `app` leads to sets on its own socket, until one of the two is closed.
   *
   * @param timeouts what `far` was opened with
   */
  followTimeouts(app: Socket, far: Socket, timeouts: Timeouts | undefined): void;
  /** Asks the kernel what apps have set meanwhile. To be called about four times a second. */
  pollTimeouts(): void;
}

/** Where the room says what an operator should know. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The agent's ports in every enrolled pod (wire contract, section 1.1). */
export const OUTBOUND_PORT = 15001;
export const INBOUND_PORT = 15006;
export const HBONE_PORT = 15008;
export const AGENT_PORTS: ReadonlySet<number> = new Set([OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT, 15053]);
