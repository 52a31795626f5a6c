import { STATUS_CODES } from 'node:http';

/** What can go wrong with a tunnel, as seen by whoever asked for it or holds a stream of it. */
export type HboneErrorCode =
  /** No certificate for the own identity. */
  | 'IDENTITY_UNAVAILABLE'
  /** TCP to the peer's HBONE port failed, or broke during the TLS handshake; the cause has the errno. */
  | 'CONNECT_FAILED'
  /** TCP to the peer's HBONE port, or the TLS handshake, took too long: maybe a NetworkPolicy blocks port 15008. */
  | 'CONNECT_TIMED_OUT'
  /** The TLS handshake failed: no, wrong, expired or untrusted certificate, TLS 1.2, no common suite. */
  | 'TLS_FAILED'
  /** The peer proved to be somebody else than was expected. */
  | 'PEER_IDENTITY'
  /** The client's certificate is of another trust domain, or has no SPIFFE id. */
  | 'PEER_TRUST_DOMAIN'
  /** The peer broke HTTP/2 or HPACK. */
  | 'PROTOCOL'
  /** The peer asks for more than we hold for one peer: a flood. */
  | 'EXCESS'
  /** The answer to CONNECT was another status than 200. */
  | 'STATUS'
  /** The peer reset the stream. */
  | 'STREAM_RESET'
  /** The peer never began with the stream (REFUSED_STREAM, or above a GOAWAY's last stream): safe to try again. */
  | 'STREAM_REFUSED'
  /** The session broke under the stream: connection reset or ended. */
  | 'SESSION_LOST'
  /** No answer to a PING, or to the kernel's own probes: the peer, or the way to it, is gone. */
  | 'PEER_SILENT'
  /** No answer to CONNECT in time. */
  | 'ANSWER_TIMED_OUT'
  /** We ended it ourselves: drain deadline, pod gone. */
  | 'CLOSED';

export const HBONE_ERROR_CODES: readonly HboneErrorCode[] = [
  'IDENTITY_UNAVAILABLE',
  'CONNECT_FAILED',
  'CONNECT_TIMED_OUT',
  'TLS_FAILED',
  'PEER_IDENTITY',
  'PEER_TRUST_DOMAIN',
  'PROTOCOL',
  'EXCESS',
  'STATUS',
  'STREAM_RESET',
  'STREAM_REFUSED',
  'SESSION_LOST',
  'PEER_SILENT',
  'ANSWER_TIMED_OUT',
  'CLOSED',
];

export class HboneError extends Error {
  readonly code: HboneErrorCode;
  /** The answer, where the code is STATUS. */
  readonly status: number | undefined;

  constructor(code: HboneErrorCode, message: string, options?: { cause?: unknown; status?: number }) {
    super(message, options);
    this.name = 'HboneError';
    this.code = code;
    this.status = options?.status;
  }
}

/** The error of an answer other than 200, in the words of wire contract, section 2.4. */
export function statusError(status: number): HboneError {
  return new HboneError('STATUS', `http status: ${status} ${STATUS_CODES[status] ?? ''}`.trimEnd(), { status });
}
