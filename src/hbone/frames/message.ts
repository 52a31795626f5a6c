import type { HeaderFields } from '../session.ts';

/** What a request's header block says. */
export interface RequestHead {
  /** '' if it was not sent. */
  readonly method: string;
  readonly authority: string | undefined;
  readonly fields: HeaderFields;
}

/** What an answer's header block says. */
export interface AnswerHead {
  readonly status: number;
  readonly fields: HeaderFields;
}

/** Names that may stand in a field line (RFC 9113, section 8.2.1); upper case may not. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
const BAD_CHARACTER = /[\0\r\n]/;
/** Names that nearly every request or answer has: they need no look. */
const USUAL: ReadonlySet<string> = new Set(['baggage', 'forwarded', 'traceparent']);
/** Fields that speak of a connection, which HTTP/2 does not have (section 8.2.2). */
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
]);
const REQUEST_PSEUDO: ReadonlySet<string> = new Set([':method', ':authority', ':scheme', ':path']);
const ANSWER_PSEUDO: ReadonlySet<string> = new Set([':status']);
const NO_PSEUDO: ReadonlySet<string> = new Set();
const STATUS = /^[1-9][0-9][0-9]$/;

/**
 * Reads a request. Other methods than CONNECT, and missing pseudo fields, are let through: the server answers them.
 *
 * @returns undefined: it is malformed, the stream ends with PROTOCOL_ERROR
 */
export function readRequest(list: HeaderFields): RequestHead | undefined {
  const split = splitFields(list, REQUEST_PSEUDO);
  if (split === undefined) return undefined;
  const method = split.pseudo.get(':method') ?? '';
  // Section 8.5. `:protocol` (extended CONNECT) is no name we know.
  if (method === 'CONNECT' && (split.pseudo.has(':scheme') || split.pseudo.has(':path'))) return undefined;
  return { method, authority: split.pseudo.get(':authority'), fields: split.fields };
}

/** Reads an answer; undefined: it is malformed. */
export function readAnswer(list: HeaderFields): AnswerHead | undefined {
  const split = splitFields(list, ANSWER_PSEUDO);
  const status = split?.pseudo.get(':status');
  if (split === undefined || status === undefined || !STATUS.test(status)) return undefined;
  return { status: Number(status), fields: split.fields };
}

/** Trailers are of no use to a tunnel; they must be well-formed nevertheless. */
export function areTrailers(list: HeaderFields): boolean {
  return splitFields(list, NO_PSEUDO) !== undefined;
}

/** Takes the pseudo fields from the front; undefined: something is malformed. */
function splitFields(
  list: HeaderFields,
  allowed: ReadonlySet<string>,
): { pseudo: ReadonlyMap<string, string>; fields: HeaderFields } | undefined {
  const pseudo = new Map<string, string>();
  let at = 0;
  for (const [name, value] of list) {
    if (!name.startsWith(':')) break;
    if (!allowed.has(name) || pseudo.has(name) || isBadValue(value)) return undefined;
    pseudo.set(name, value);
    at += 1;
  }
  const fields = list.slice(at);
  for (const [name, value] of fields) if (!isRegular(name, value)) return undefined;
  return { pseudo, fields };
}

function isRegular(name: string, value: string): boolean {
  if (isBadValue(value)) return false;
  if (USUAL.has(name)) return true;
  if (!NAME.test(name) || CONNECTION_SPECIFIC.has(name)) return false;
  return name !== 'te' || value === 'trailers';
}

function isBadValue(value: string): boolean {
  return BAD_CHARACTER.test(value) || isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(value.length - 1));
}

/** Space or tab. */
function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
