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
  /** Outbound: nobody led this connection here. */
  'no-original-destination',
  /** Its destination is a port of the agent. */
  'recursive-call',
  /** Inbound: the app would have seen the agent in place of the client. */
  'client-hidden',
  'dial-refused',
  'dial-unreachable',
  'dial-timed-out',
  'dial-failed',
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
  const errno = errnoOf(error);
  if (errno === 'ECONNRESET' || errno === 'EPIPE' || errno === 'ECONNABORTED') return `reset-by-${side}`;
  return `${side}-lost`;
}
