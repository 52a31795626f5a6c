/**
 * The only door to @peculiar/x509, which must find reflect-metadata loaded. Only what the CA makes and reads needs it; it is
 * loaded with the first of that, so that agents never load it (docs/decisions/0009). And the choices that hold for every key
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
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

export const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
export const SIGNATURE_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const;
/** Object identifier of the subject alternative name extension. */
export const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17';
