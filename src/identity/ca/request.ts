/** What an agent asks for, held to what we sign (wire contract, section 3.4). */
import { parseSpiffeId, type SpiffeId } from '../../mesh/index.ts';
import { IdentityError } from '../errors.ts';
import { Pkcs10CertificateRequest, SUBJECT_ALTERNATIVE_NAME, SubjectAlternativeNameExtension } from './x509.ts';

/** Longest CSR that is looked at. One of ours is about 400 characters; RSA keys and long names do not need more. */
const MAX_CSR_CHARACTERS = 8192;
const CSR_BLOCK = /^\s*-----BEGIN CERTIFICATE REQUEST-----([\w+/=\s]+)-----END CERTIFICATE REQUEST-----\s*$/;
/** Object identifier of the attribute that holds the extensions asked for. */
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
/** What can stand in a certificate's URI: other characters would not survive the encoding as they are. */
const PRINTABLE = /^[!-~]+$/;
const CURVES: ReadonlySet<string> = new Set(['P-256', 'P-384', 'P-521']);
const HASHES: ReadonlySet<string> = new Set(['SHA-256', 'SHA-384', 'SHA-512']);

/**
 * Holds a CSR to what we sign: an ECDSA key, P-256 or stronger, that signed it with SHA-256 or stronger, and exactly
 * one name, the identity. Whatever else it asks for is not looked at, and not given.
 *
 * @returns the public key to certify
 * @throws IdentityError BAD_CSR
 */
export async function readSigningRequest(
  csr: string,
  identity: SpiffeId,
): Promise<Pkcs10CertificateRequest['publicKey']> {
  if (csr.length > MAX_CSR_CHARACTERS) throw badCsr(`is longer than ${MAX_CSR_CHARACTERS} characters`);
  if (parseSpiffeId(identity) === undefined || !PRINTABLE.test(identity))
    throw badCsr(`is for ${JSON.stringify(identity)}, which is no SPIFFE id`);
  let request: Pkcs10CertificateRequest;
  let names: readonly { type: string; value: string }[];
  let signed: boolean;
  try {
    request = new Pkcs10CertificateRequest(Buffer.from(CSR_BLOCK.exec(csr)?.[1] ?? '', 'base64'));
    names = namesOf(request);
    requireStrength(request);
    signed = await request.verify();
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause;
    throw badCsr('is not understood', cause);
  }
  if (names.length !== 1 || names[0]?.type !== 'url' || names[0].value !== identity) {
    throw badCsr(`must have exactly one subject alternative name, the URI ${identity}`);
  }
  if (!signed) throw badCsr('is not signed by its own key');
  return request.publicKey;
}

/** Every name asked for; none if it asks for extensions twice. */
function namesOf(request: Pkcs10CertificateRequest): readonly { type: string; value: string }[] {
  if (request.attributes.filter(({ type }) => type === EXTENSION_REQUEST).length !== 1) return [];
  return request.extensions
    .filter(({ type }) => type === SUBJECT_ALTERNATIVE_NAME)
    .flatMap(({ rawData }) => new SubjectAlternativeNameExtension(rawData).names.items);
}

function requireStrength(request: Pkcs10CertificateRequest): void {
  const key: { name: string; namedCurve?: string } = request.publicKey.algorithm;
  if (key.name !== 'ECDSA' || !CURVES.has(key.namedCurve ?? '')) {
    throw badCsr('must have an ECDSA key on P-256, P-384 or P-521');
  }
  if (!HASHES.has(request.signatureAlgorithm.hash.name)) {
    throw badCsr('must be signed with SHA-256, SHA-384 or SHA-512');
  }
}

function badCsr(fault: string, cause?: unknown): IdentityError {
  return new IdentityError('BAD_CSR', `the certificate signing request ${fault}`, { cause });
}
