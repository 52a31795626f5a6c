export type { BuiltInCaDeps, BuiltInCaOptions, RootStatus } from './ca/built-in-ca.ts';
export { BuiltInCa } from './ca/built-in-ca.ts';
export { addRoot } from './ca/root-files.ts';
export type { CertificateStatus, CertificateStoreDeps, CertificateStoreOptions } from './certificate-store.ts';
export { CertificateStore } from './certificate-store.ts';
export type { IdentityErrorCode } from './errors.ts';
export { IdentityError, identityErrorCodes } from './errors.ts';
export type {
  CertificateAuthority,
  Clock,
  DirectoryWatch,
  NodeIdentities,
  SignedCertificate,
  SigningRequest,
} from './ports.ts';
export { systemClock } from './system.ts';
