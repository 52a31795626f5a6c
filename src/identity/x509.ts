/**
 * The only door to @peculiar/x509, which must find reflect-metadata loaded, and the choices that hold for every key
 * and certificate here: ECDSA P-256 with SHA-256 (wire contract, section 3.3).
 */
import 'reflect-metadata';

export type { Extension } from '@peculiar/x509';
export {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

export const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
export const SIGNATURE_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const;
/** Object identifier of the subject alternative name extension. */
export const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17';

const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** The certificates of PEM texts one by one, each ending with a newline; a text may hold several. */
export function splitCertificates(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.match(CERTIFICATE_BLOCK) ?? []).map((block) => `${block}\n`);
}
