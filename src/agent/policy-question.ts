/** "May this one connect to that one?" as people write it. Pure. */
import {
  type Address,
  formatSpiffeId,
  type MeshSettings,
  parseAddress,
  parseSpiffeId,
  type SpiffeId,
} from '../mesh/index.ts';
import { AgentError } from './errors.ts';

/** Who connects. */
export type QuestionSource =
  | { readonly kind: 'identity'; readonly identity: SpiffeId }
  /** A pod, else a service account. */
  | { readonly kind: 'name'; readonly namespace: string; readonly name: string }
  /** Plaintext from there: nobody proves who it is. */
  | { readonly kind: 'address'; readonly address: Address }
  /** Plaintext from anywhere. */
  | { readonly kind: 'none' };

/** Where to. */
export interface QuestionTarget {
  readonly pod:
    | { readonly kind: 'name'; readonly namespace: string; readonly name: string }
    | { readonly kind: 'address'; readonly address: Address };
  readonly port: number;
}

/** Longest text of either; a SPIFFE id has at most 2,048 bytes. */
export const MAX_QUESTION_LENGTH = 2_200;

const NAME = /^([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\/([a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)$/;
const TARGET = /^(.+):([^:]*)$/;
const BRACKETED = /^\[(.*)\]$/;

/** @throws AgentError BAD_REQUEST */
export function parseQuestionSource(text: string): QuestionSource {
  if (text === 'none') return { kind: 'none' };
  if (text.startsWith('spiffe://')) {
    const identity = parseSpiffeId(text);
    if (identity !== undefined) return { kind: 'identity', identity: formatSpiffeId(identity) };
    throw bad(`from: ${quote(text)} is not a SPIFFE id of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`);
  }
  const address = parseAddress(BRACKETED.exec(text)?.[1] ?? text);
  if (address !== undefined) return { kind: 'address', address };
  const named = parseName(text);
  if (named !== undefined) return named;
  throw bad(
    `from: ${quote(text)} is none of: NAMESPACE/POD, NAMESPACE/SERVICE-ACCOUNT, a SPIFFE id, an IP address, "none"`,
  );
}

/** @throws AgentError BAD_REQUEST */
export function parseQuestionTarget(text: string): QuestionTarget {
  const [, host = '', portText = ''] = TARGET.exec(text) ?? [];
  const bracketed = BRACKETED.exec(host)?.[1];
  if (parseAddress(text)?.includes(':') === true || (bracketed === undefined && host.includes(':')))
    throw bad(`to: ${quote(text)}: write an IPv6 address in brackets and then the port, such as [fd00::7]:8080`);
  if (host === '') throw bad(`to: ${quote(text)} has no port; write POD:PORT, such as shop/web-0:8080`);
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : 0;
  if (port < 1 || port > 65_535) throw bad(`to: ${quote(portText)} is not a port, a whole number from 1 to 65535`);
  const address = parseAddress(bracketed ?? host);
  if (address !== undefined) return { pod: { kind: 'address', address }, port };
  const named = bracketed === undefined ? parseName(host) : undefined;
  if (named !== undefined) return { pod: named, port };
  throw bad(
    `to: ${quote(host)} is neither NAMESPACE/POD nor an IP address; write POD:PORT, such as shop/web-0:8080 or [fd00::7]:8080`,
  );
}

/** The identity of a service account of the mesh's own trust domain. */
export function identityOfAccount(
  settings: Pick<MeshSettings, 'trustDomain'>,
  { namespace, name }: { namespace: string; name: string },
): SpiffeId {
  return formatSpiffeId({ trustDomain: settings.trustDomain, namespace, serviceAccount: name });
}

function parseName(text: string): { kind: 'name'; namespace: string; name: string } | undefined {
  const [, namespace, name] = NAME.exec(text) ?? [];
  return namespace === undefined || name === undefined ? undefined : { kind: 'name', namespace, name };
}

function bad(message: string): AgentError {
  return new AgentError('BAD_REQUEST', message);
}

/** Text of a stranger, shortened and escaped for a message. */
function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}...` : text);
}
