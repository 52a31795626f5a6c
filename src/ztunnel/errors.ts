import { HboneError } from '../hbone/index.ts';
import { messageOf } from '../mesh/index.ts';

/** What can go wrong in this room, as seen by whoever calls it. A connection's own failure is an EndReason, never thrown. */
export type ZtunnelErrorCode =
  /** A worker thread could not take over a pod's listeners. */
  | 'LISTEN_FAILED'
  /** The descriptor budget has no place for the pod's listeners and one connection. */
  | 'NO_DESCRIPTORS'
  /** A worker thread ended while it was asked something. */
  | 'WORKER_ENDED'
  /** The tunnel is shutting down, or has. */
  | 'SHUT_DOWN';

export const ZTUNNEL_ERROR_CODES: readonly ZtunnelErrorCode[] = [
  'LISTEN_FAILED',
  'NO_DESCRIPTORS',
  'WORKER_ENDED',
  'SHUT_DOWN',
];

export class ZtunnelError extends Error {
  readonly code: ZtunnelErrorCode;

  constructor(code: ZtunnelErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ZtunnelError';
    this.code = code;
  }
}

/** Why a connection ended; closed, and the order is the ledger's. */
export const END_REASONS = [
  /** Both sides said that they had finished, and everything was passed on. */
  'clean',
  'reset-by-client',
  'reset-by-server',
  /** Keepalive or retransmission gave up, or the network did. */
  'client-lost',
  'server-lost',
  /** The session that carried it broke: the peer or its agent ended, or broke the protocol. */
  'tunnel-lost',
  /** The session's peer answered no PING. */
  'peer-silent',
  /** Outbound: nobody led this connection here. */
  'no-original-destination',
  /** Its destination is a port of the agent. */
  'recursive-call',
  /** Inbound: the app would have seen the agent in place of the client. */
  'client-hidden',
  /** The mesh, or the pod's own workload in it, was not known in time. */
  'mesh-unknown',
  /** Outbound: the service has no endpoint that may be used. */
  'no-endpoint',
  /** Outbound: the destination asks for a waypoint that cannot be found. */
  'unknown-waypoint',
  /** Outbound: the destination is on another network. */
  'other-network',
  /** Inbound: a request that is no CONNECT, names no address and port, or an address that is not the pod's (400). */
  'bad-request',
  /** Inbound: nothing is known by the name that the request asks for, or no port of it (503). */
  'unknown-target',
  /** Policy lets nobody like this client in (401). */
  'policy-denied',
  /** It had been let in, and policy or what it is about has changed since. */
  'policy-changed',
  'dial-refused',
  'dial-unreachable',
  'dial-timed-out',
  'dial-failed',
  /** The peer answered CONNECT with another status than 200, or by a reset. */
  'tunnel-refused',
  /** There is no way to the peer's HBONE port, or nobody listens there. */
  'tunnel-unreachable',
  /** The peer's HBONE port, or the peer, did not answer in time. */
  'tunnel-timed-out',
  /** No TLS with the peer: its certificate or ours is not valid, or it speaks another version. */
  'tunnel-tls',
  /** The pod has no certificate of its own. */
  'tunnel-identity',
  /** The peer is somebody else than who is expected there. */
  'tunnel-peer-identity',
  /** The client reset before the server answered. */
  'client-gone',
  /** No descriptor was left for the other leg. */
  'no-descriptors',
  /** The pod is gone. */
  'pod-dropped',
  /** Still open at the end of the drain. */
  'drain-deadline',
  /** A fault of our own; the log has it. */
  'internal',
  /** The worker thread ended under it. */
  'worker-ended',
] as const;

export type EndReason = (typeof END_REASONS)[number];

/** The errno name at the bottom of an error's causes, if there is one. */
export function errnoOf(error: unknown): string | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth += 1) {
    if ('syscall' in at && 'code' in at && typeof at.code === 'string') return at.code;
  }
  return undefined;
}

/** Why a connection cannot be: counted by its reason, logged with its text. */
export interface Failure {
  readonly reason: EndReason;
  readonly text: string;
  /** It failed at this endpoint and before a byte was passed on: another endpoint may be tried. */
  readonly isWorthAnother: boolean;
}

/** What there is to say of an end that comes from outside (wire contract, sections 5.6 and 9.4). */
const TEXTS: Readonly<Partial<Record<EndReason, string>>> = {
  'policy-changed': 'connection closed due to policy change',
  'drain-deadline': 'connection closed due to connection drain',
};

/** @param text default: of `reason`, or `reason` itself */
export function failure(reason: EndReason, text: string = TEXTS[reason] ?? reason): Failure {
  return { reason, text, isWorthAnother: false };
}

/** What a failed dial is counted and logged as. */
export function failureOfDial(error: unknown): Failure {
  const reason = reasonOfDial(error);
  return { reason, text: `connection failed: ${messageOf(error)}`, isWorthAnother: reason !== 'no-descriptors' };
}

/** What a failed attempt to get a stream of the tunnel is counted and logged as (texts: wire contract, section 9.4). */
export function failureOfTunnel(error: unknown): Failure {
  if (!(error instanceof HboneError)) return failureOfDial(error);
  return { reason: reasonOfTunnel(error), text: messageOf(error), isWorthAnother: isWorthAnother(error) };
}

/** The reason that a failed dial is counted and logged under. */
export function reasonOfDial(error: unknown): EndReason {
  switch (errnoOf(error)) {
    case 'ECONNREFUSED':
    case 'ECONNRESET':
      return 'dial-refused';
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'EHOSTDOWN':
    case 'ENETDOWN':
      return 'dial-unreachable';
    case 'ETIMEDOUT':
      return 'dial-timed-out';
    case 'EMFILE':
    case 'ENFILE':
      return 'no-descriptors';
    default:
      return 'dial-failed';
  }
}

/** The reason that a broken leg is counted and logged under. */
export function reasonOfLeg(side: 'client' | 'server', error: unknown): EndReason {
  if (error instanceof HboneError) return error.code === 'STREAM_RESET' ? `reset-by-${side}` : reasonOfTunnel(error);
  const errno = errnoOf(error);
  if (errno === undefined || errno === 'ECONNRESET' || errno === 'EPIPE' || errno === 'ECONNABORTED')
    return `reset-by-${side}`;
  return `${side}-lost`;
}

/** What there is to say of a broken leg beside its reason; undefined: nothing. */
export function textOfLeg(side: 'client' | 'server', error: unknown): string | undefined {
  return reasonOfLeg(side, error) === `reset-by-${side}` ? undefined : messageOf(error);
}

/** The one place where hbone's codes become reasons. */
function reasonOfTunnel(error: HboneError): EndReason {
  switch (error.code) {
    case 'IDENTITY_UNAVAILABLE':
      return 'tunnel-identity';
    case 'CONNECT_FAILED':
      return reasonOfDial(error) === 'no-descriptors' ? 'no-descriptors' : 'tunnel-unreachable';
    case 'CONNECT_TIMED_OUT':
    case 'ANSWER_TIMED_OUT':
      return 'tunnel-timed-out';
    case 'TLS_FAILED':
      return 'tunnel-tls';
    case 'PEER_IDENTITY':
    case 'PEER_TRUST_DOMAIN':
      return 'tunnel-peer-identity';
    case 'STATUS':
    case 'STREAM_RESET':
    case 'STREAM_REFUSED':
      return 'tunnel-refused';
    case 'PEER_SILENT':
      return 'peer-silent';
    case 'PROTOCOL':
    case 'EXCESS':
    case 'SESSION_LOST':
    case 'CLOSED':
      return 'tunnel-lost';
  }
}

/** What speaks against the endpoint, not against the request: who proves to be somebody else is never passed over. */
function isWorthAnother(error: HboneError): boolean {
  switch (error.code) {
    case 'CONNECT_FAILED':
      return reasonOfTunnel(error) !== 'no-descriptors';
    case 'CONNECT_TIMED_OUT':
    case 'ANSWER_TIMED_OUT':
    case 'STREAM_REFUSED':
    case 'SESSION_LOST':
    case 'PEER_SILENT':
      return true;
    case 'STATUS':
      return error.status === 503;
    default:
      return false;
  }
}
