/** What a CA has answered, held to what was asked (wire contract, section 3.3). */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { type Certificate, parseSpiffeId, type SpiffeId } from '../mesh/index.ts';
import { IdentityError } from './errors.ts';
import { splitCertificates } from './pem.ts';

/** Extended key usages. */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** More intermediates than anybody has; bounds what a CA can make us hold and check. */
const MAX_CHAIN = 8;
const MAX_ROOTS = 64;
const MAX_NAME_SHOWN = 256;

/**
 * The certificate that the answer makes, if all is well with it: the leaf is for the identity and our key, may serve and
 * call, is valid now, and leads to a trusted root.
 *
 * @param answer PEM, leaf first; several in one text are taken apart
 * @param roots as `readBundle` gives them
 * @throws IdentityError BAD_RESPONSE
 */
export function acceptCertificate(
  asked: { readonly identity: SpiffeId; readonly key: string },
  answer: readonly string[],
  roots: readonly string[],
  now: number,
): Certificate {
  const texts = splitCertificates(answer);
  if (texts.length === 0) throw badResponse('holds no certificate');
  if (texts.length > MAX_CHAIN) throw badResponse(`holds a chain of more than ${MAX_CHAIN} certificates`);
  const chain = texts.map(parse);
  const [leaf] = chain as [X509Certificate];
  const names = spiffeIdsOf(leaf);
  if (names.length === 0 || names.some((name) => name !== asked.identity)) {
    throw badResponse(`is for ${names.join(', ') || 'no SPIFFE id'} instead of ${asked.identity}`);
  }
  if (!leaf.checkPrivateKey(createPrivateKey(asked.key))) throw badResponse('is for another key than ours');
  const usages: readonly string[] = leaf.keyUsage ?? [];
  if (!usages.includes(SERVER_AUTH) || !usages.includes(CLIENT_AUTH)) {
    throw badResponse('does not allow both to serve and to call');
  }
  const fault = pathFault(chain, roots.map(parse), now);
  if (fault !== undefined) throw badResponse(fault);
  return {
    identity: asked.identity,
    chain: withoutRoots(texts, roots).join(''),
    key: asked.key,
    roots,
    notBefore: leaf.validFromDate.getTime(),
    // Of no use to anybody once one of them has expired.
    notAfter: Math.min(...chain.map((certificate) => certificate.validToDate.getTime())),
  };
}

/** True if peers that trust `roots` accept the certificate at this moment. */
export function leadsToRoot(certificate: Certificate, roots: readonly string[], now: number): boolean {
  return pathFault(splitCertificates([certificate.chain]).map(parse), roots.map(parse), now) === undefined;
}

/**
 * A trust bundle, one PEM text per root.
 *
 * @throws IdentityError BAD_RESPONSE: it is empty, too long, or a certificate in it is not one
 */
export function readBundle(texts: readonly string[]): readonly string[] {
  const roots = [...new Set(splitCertificates(texts))];
  if (roots.length === 0) throw badResponse('holds no root');
  if (roots.length > MAX_ROOTS) throw badResponse(`holds more than ${MAX_ROOTS} roots`);
  for (const root of roots) parse(root);
  return roots;
}

/** Why the chain does not lead to one of the roots. */
function pathFault(
  chain: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  now: number,
): string | undefined {
  for (const [at, certificate] of chain.entries()) {
    if (certificate.validFromDate.getTime() > now) {
      return `is not valid before ${certificate.validFromDate.toISOString()}; does this node's clock agree with the CA's?`;
    }
    if (certificate.validToDate.getTime() <= now) return `expired at ${certificate.validToDate.toISOString()}`;
    const next = chain[at + 1];
    if (next !== undefined && !isIssuer(next, certificate)) return 'has a chain whose links do not fit';
  }
  const last = chain.at(-1);
  const trusted = roots.some(
    (root) =>
      root.validToDate.getTime() > now &&
      last !== undefined &&
      (root.fingerprint256 === last.fingerprint256 || isIssuer(root, last)),
  );
  return trusted ? undefined : 'does not lead to a trusted root';
}

function isIssuer(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/**
 * Node writes the names as `TYPE:name, TYPE:name`. A name with a character that could deceive is written as a JSON string in
 * which commas are escaped, so that the separator never is part of a name.
 */
function spiffeIdsOf({ subjectAltName = '' }: X509Certificate): string[] {
  return subjectAltName
    .split(', ')
    .filter((entry) => entry.startsWith('URI:'))
    .map((entry) => readName(entry.slice('URI:'.length)))
    .filter((name) => parseSpiffeId(name) !== undefined);
}

function readName(text: string): string {
  if (!text.startsWith('"')) return text;
  try {
    const name: unknown = JSON.parse(text);
    if (typeof name === 'string') return name;
  } catch {
    // Said below.
  }
  throw badResponse(`has a name that is not understood: ${text.slice(0, MAX_NAME_SHOWN)}`);
}

function withoutRoots(chain: readonly string[], roots: readonly string[]): readonly string[] {
  const trusted = new Set(roots);
  return chain.filter((certificate, at) => at === 0 || !trusted.has(certificate));
}

function parse(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw badResponse('holds a certificate that is not understood', cause);
  }
}

function badResponse(fault: string, cause?: unknown): IdentityError {
  return new IdentityError('BAD_RESPONSE', `what the CA answered ${fault}`, { cause });
}
