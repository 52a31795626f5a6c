import { HboneError } from '../errors.ts';

/** The kernel's own probes, or its routes, found nobody. */
const UNREACHABLE: ReadonlySet<unknown> = new Set(['ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH']);

/** A session that is no more, and why. */
export function lost(message: string, cause?: unknown): HboneError {
  return new HboneError('SESSION_LOST', message, { cause });
}

/** What the end of a session's socket means. @param cause its error, if it had one */
export function brokenBy(cause: unknown): HboneError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (UNREACHABLE.has(code)) return new HboneError('PEER_SILENT', `the way to the peer is gone: ${code}`, { cause });
  return lost(code === undefined ? 'the connection was closed' : `the connection broke: ${code}`, cause);
}
