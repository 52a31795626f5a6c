import type { X509Certificate } from 'node:crypto';
import { parseSpiffeId, type SpiffeId } from '../../mesh/index.ts';
import { HboneError } from '../errors.ts';

/** Names of a peer that a message shows at most, and characters of each. */
const MAX_SHOWN = 8;
const MAX_NAME_SHOWN = 256;

/**
 * The URI names of a certificate, in order.
 *
 * Node writes the names as `TYPE:name, TYPE:name`. A name with a character that could deceive (quote, backslash, comma,
 * anything that is not visible ASCII) is written as a JSON string in which the comma is escaped too, so that the separator
 * never is part of a name.
 */
export function uriNames(certificate: Pick<X509Certificate, 'subjectAltName'>): string[] {
  const names: string[] = [];
  for (const entry of certificate.subjectAltName?.split(', ') ?? []) {
    if (!entry.startsWith('URI:')) continue;
    const name = readName(entry.slice('URI:'.length));
    if (name !== undefined) names.push(name);
  }
  return names;
}

function readName(text: string): string | undefined {
  if (!text.startsWith('"')) return text;
  try {
    const name: unknown = JSON.parse(text);
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The client's test: any of the peer's URI names is acceptable (wire contract, section 3.2).
 *
 * @returns who the peer is: its first SPIFFE id
 * @throws HboneError PEER_IDENTITY
 */
export function acceptedPeer(names: readonly string[], acceptable: readonly SpiffeId[]): SpiffeId {
  const accepted = acceptable.find((identity) => names.includes(identity));
  if (accepted === undefined)
    throw new HboneError(
      'PEER_IDENTITY',
      `identity verification error: peer did not present the expected SAN (${show(acceptable)}), got ${show(names)}`,
    );
  return firstSpiffeId(names) ?? accepted;
}

/**
 * The server's test: one of the peer's URI names is of the own trust domain (wire contract, section 3.2).
 *
 * @returns who the peer is: its first SPIFFE id
 * @throws HboneError PEER_TRUST_DOMAIN
 */
export function peerOfTrustDomain(names: readonly string[], trustDomain: string): SpiffeId {
  const first = firstSpiffeId(names);
  if (first === undefined || !names.some((name) => parseSpiffeId(name)?.trustDomain === trustDomain))
    throw new HboneError(
      'PEER_TRUST_DOMAIN',
      `identity verification error: peer did not present the expected trustdomain (${trustDomain}), got ${show(names)}`,
    );
  return first;
}

function firstSpiffeId(names: readonly string[]): SpiffeId | undefined {
  return names.find((name): name is SpiffeId => parseSpiffeId(name) !== undefined);
}

/** Names for a log: bounded, and none can pass for two or break the line. */
function show(names: readonly string[]): string {
  const shown = names.slice(0, MAX_SHOWN).map((name) => {
    const text = name.slice(0, MAX_NAME_SHOWN);
    return /^[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]*$/.test(text) ? text : JSON.stringify(text);
  });
  return names.length > MAX_SHOWN ? `${shown.join(',')},...` : shown.join(',');
}
