/** Makes the built-in CA's certificates: root, intermediate, leaf. */
import { randomBytes, webcrypto } from 'node:crypto';
import type { SpiffeId } from '../../mesh/index.ts';
import type { readSigningRequest } from './request.ts';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KEY_ALGORITHM,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SIGNATURE_ALGORITHM,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from './x509.ts';

const DAY_MS = 86_400_000;
const ROOT_LIFETIME_MS = 3650 * DAY_MS;
/** At half of it there is another intermediate; what is left must cover the longest leaf, 90 days. */
const INTERMEDIATE_LIFETIME_MS = 365 * DAY_MS;
/** How far a verifier's clock may be behind ours; less for short lives, so that half of one is not over at once. */
const BACKDATE_MS = 120_000;
const BACKDATE_SHARE = 0.1;

/** Whoever signs. */
export interface Issuer {
  /** PEM. */
  readonly certificate: string;
  readonly key: webcrypto.CryptoKey;
}

/** @returns certificate and key (PKCS#8), PEM */
export async function makeRoot(now: number): Promise<{ certificate: string; key: string; serialNumber: string }> {
  const keys = await makeKeys(true);
  const serialNumber = makeSerialNumber();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber,
    name: nameOf('root', serialNumber),
    ...period(now, ROOT_LIFETIME_MS),
    keys,
    signingAlgorithm: SIGNATURE_ALGORITHM,
    extensions: await issuerExtensions(keys.publicKey, 1),
  });
  const key = PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return { certificate: `${certificate.toString('pem')}\n`, key: `${key}\n`, serialNumber };
}

/** An intermediate whose key is in this process's memory only. */
export async function makeIntermediate(root: Issuer, now: number): Promise<Issuer & { readonly renewAt: number }> {
  const keys = await makeKeys(false);
  const parent = new X509Certificate(root.certificate);
  const serialNumber = makeSerialNumber();
  const dates = period(now, INTERMEDIATE_LIFETIME_MS, parent.notAfter);
  const certificate = await X509CertificateGenerator.create({
    serialNumber,
    subject: nameOf('intermediate', serialNumber),
    issuer: parent.subjectName,
    ...dates,
    publicKey: keys.publicKey,
    signingKey: root.key,
    signingAlgorithm: SIGNATURE_ALGORITHM,
    extensions: [
      ...(await issuerExtensions(keys.publicKey, 0)),
      await AuthorityKeyIdentifierExtension.create(parent.publicKey),
    ],
  });
  return {
    certificate: `${certificate.toString('pem')}\n`,
    key: keys.privateKey,
    renewAt: now + (dates.notAfter.getTime() - now) / 2,
  };
}

/** A workload's certificate, PEM (wire contract, section 3.4). It does not outlive its issuer. */
export async function makeLeaf(
  issuer: Issuer,
  identity: SpiffeId,
  publicKey: Awaited<ReturnType<typeof readSigningRequest>>,
  lifetimeMs: number,
  now: number,
): Promise<string> {
  const parent = new X509Certificate(issuer.certificate);
  const certificate = await X509CertificateGenerator.create({
    serialNumber: makeSerialNumber(),
    issuer: parent.subjectName,
    ...period(now, lifetimeMs, parent.notAfter),
    publicKey,
    signingKey: issuer.key,
    signingAlgorithm: SIGNATURE_ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      // Critical, because the subject is empty (RFC 5280, section 4.2.1.6).
      new SubjectAlternativeNameExtension([{ type: 'url', value: identity }], true),
      await AuthorityKeyIdentifierExtension.create(parent.publicKey),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

function makeKeys(extractable: boolean): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY_ALGORITHM, extractable, ['sign', 'verify']);
}

async function issuerExtensions(key: webcrypto.CryptoKey, pathLength: number): Promise<Extension[]> {
  return [
    new BasicConstraintsExtension(true, pathLength, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    await SubjectKeyIdentifierExtension.create(key),
  ];
}

/** A name of its own for each issuer, so that a verifier with several roots need not try them all. */
function nameOf(rank: 'root' | 'intermediate', serialNumber: string): string {
  return `O=culvert, CN=culvert ${rank} ${serialNumber.slice(0, 8)}`;
}

/** 127 random bits, positive and not zero, hexadecimal. */
function makeSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString('hex');
}

function period(now: number, lifetimeMs: number, end?: Date): { notBefore: Date; notAfter: Date } {
  const backdate = Math.min(BACKDATE_MS, lifetimeMs * BACKDATE_SHARE);
  const notAfter = Math.min(now + lifetimeMs, end?.getTime() ?? Number.POSITIVE_INFINITY);
  return { notBefore: new Date(now - backdate), notAfter: new Date(notAfter) };
}
