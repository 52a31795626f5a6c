import { generateKeyPair, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { SpiffeId } from '../mesh/index.ts';
import * as der from './der.ts';
import { IdentityError } from './errors.ts';
import { encodePem } from './pem.ts';

const makeKeys = promisify(generateKeyPair);

/** What can stand in a certificate's URI as it is. */
const PRINTABLE = /^[!-~]+$/;
const ECDSA_WITH_SHA256 = der.objectIdentifier('1.2.840.10045.4.3.2');
/** The attribute that holds the extensions asked for. */
const EXTENSION_REQUEST = der.objectIdentifier('1.2.840.113549.1.9.14');
const SUBJECT_ALTERNATIVE_NAME = der.objectIdentifier('2.5.29.17');
/** Of the kinds of alternative names. */
const URI = 6;

/**
 * Makes a new key and asks for a certificate for it (wire contract, section 3.3): ECDSA P-256 with SHA-256, empty
 * subject, one subject alternative name.
 *
 * @returns the private key (PKCS#8) and the CSR (PKCS#10), both PEM
 * @throws IdentityError BAD_CSR: no certificate can hold the identity
 */
export async function makeSigningRequest(identity: SpiffeId): Promise<{ key: string; csr: string }> {
  if (!PRINTABLE.test(identity))
    throw new IdentityError('BAD_CSR', `${JSON.stringify(identity)} has characters that no certificate can hold`);
  const { publicKey, privateKey: key } = await makeKeys('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const asked = requestInfo(publicKey, identity);
  const signature = sign('sha256', asked, key);
  return {
    key,
    csr: encodePem(
      'CERTIFICATE REQUEST',
      der.sequence(asked, der.sequence(ECDSA_WITH_SHA256), der.bitString(signature)),
    ),
  };
}

/** CertificationRequestInfo (RFC 2986, section 4.1): version, subject, key, attributes. */
function requestInfo(publicKey: Uint8Array, identity: SpiffeId): Buffer {
  const extensions = der.sequence(alternativeName(identity));
  const attribute = der.sequence(EXTENSION_REQUEST, der.set(extensions));
  return der.sequence(der.smallInteger(0), der.sequence(), publicKey, der.contextSpecific(0, attribute, true));
}

/** Critical, because the subject is empty (RFC 5280, section 4.2.1.6). */
function alternativeName(identity: SpiffeId): Buffer {
  const names = der.sequence(der.contextSpecific(URI, Buffer.from(identity, 'latin1'), false));
  return der.sequence(SUBJECT_ALTERNATIVE_NAME, der.trueValue(), der.octetString(names));
}
