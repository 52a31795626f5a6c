/**
 * Certificates of every kind, for tests: good ones by default, faulty ones by saying what is wrong with them.
 * Made without src/identity, so that a fault there does not hide itself.
 */
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import type { Certificate, SpiffeId } from '../src/mesh/index.ts';

const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' };
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Whom a certificate names if nothing else is said. */
export const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client' as SpiffeId;
export const SERVER = 'spiffe://cluster.local/ns/shop/sa/server' as SpiffeId;
const OF = { client: CLIENT, server: SERVER } as const;

export interface Validity {
  /** Milliseconds since the epoch. Default: a minute ago. */
  readonly notBefore?: number;
  /** Milliseconds since the epoch. Default: in an hour (a CA: in a day). */
  readonly notAfter?: number;
}

export interface LeafOptions extends Validity {
  /** Default: CLIENT. */
  readonly identity?: SpiffeId;
  /** The subject alternative names. Default: the identity, alone. Empty: no such extension. */
  readonly names?: ReadonlyArray<{ readonly type: 'url' | 'dns' | 'ip' | 'email'; readonly value: string }>;
  /** Extended key usage. Default: both. Empty: no such extension. */
  readonly usages?: ReadonlyArray<'server' | 'client'>;
}

export interface AuthorityOptions extends Validity {
  /** Default: a root and one intermediate. */
  readonly intermediate?: boolean;
}

/** A certificate authority in memory. */
export interface TestAuthority {
  /** PEM. */
  readonly root: string;
  /** The root's key, PKCS#8 PEM: with it the built-in CA can sign under the same root. */
  readonly rootKey: string;
  /** PEM, between leaf and root; may be empty. */
  readonly intermediates: readonly string[];
  /** A key pair and its certificate. */
  issue(options?: LeafOptions): Promise<Certificate>;
  /** A certificate, PEM, for somebody else's key. */
  certify(key: x509.PublicKeyType, options?: LeafOptions): Promise<string>;
}

export async function makeAuthority(options: AuthorityOptions = {}): Promise<TestAuthority> {
  const root = await makeIssuer(options, undefined);
  const issuer = options.intermediate === false ? root : await makeIssuer(options, root);
  const intermediates = issuer === root ? [] : [issuer.certificate.toString('pem')];
  const certify = async (key: x509.PublicKeyType, leaf: LeafOptions = {}): Promise<string> => {
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: '',
      issuer: issuer.certificate.subject,
      ...dates(leaf, HOUR),
      publicKey: key,
      signingKey: issuer.keys.privateKey,
      signingAlgorithm: SIGNATURE,
      extensions: [...leafExtensions(leaf), await x509.AuthorityKeyIdentifierExtension.create(issuer.keys.publicKey)],
    });
    return certificate.toString('pem');
  };
  return {
    root: root.certificate.toString('pem'),
    rootKey: await pem('pkcs8', root.keys.privateKey, 'PRIVATE KEY'),
    intermediates,
    certify,
    async issue(leaf = {}) {
      const keys = await makeKeys();
      const chain = [await certify(keys.publicKey, leaf), ...intermediates];
      return await asCertificate(chain, keys, [root.certificate.toString('pem')], leaf);
    },
  };
}

/** A leaf that nobody but itself vouches for; its roots hold it alone. */
export async function selfSigned(leaf: LeafOptions = {}): Promise<Certificate> {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: '',
    ...dates(leaf, HOUR),
    keys,
    signingAlgorithm: SIGNATURE,
    extensions: leafExtensions(leaf),
  });
  const pem = certificate.toString('pem');
  return await asCertificate([pem], keys, [pem], leaf);
}

/**
 * Certificates that a peer must refuse, by what is wrong with them. Each holds the good authority's root in its
 * `roots`, so that whoever presents it would itself accept a good peer.
 */
export const FAULTY: Readonly<
  Record<string, (good: TestAuthority, role: 'client' | 'server') => Promise<Certificate>>
> = {
  'of another trust domain': (good) =>
    good.issue({ identity: 'spiffe://elsewhere.example/ns/shop/sa/client' as SpiffeId }),
  expired: (good, role) =>
    good.issue({ identity: OF[role], notBefore: Date.now() - 2 * HOUR, notAfter: Date.now() - HOUR }),
  'not yet valid': (good, role) =>
    good.issue({ identity: OF[role], notBefore: Date.now() + HOUR, notAfter: Date.now() + 2 * HOUR }),
  'without a SPIFFE id': (good, role) =>
    good.issue({ identity: OF[role], names: [{ type: 'dns', value: `${role}.shop.example` }] }),
  'without any name': (good, role) => good.issue({ identity: OF[role], names: [] }),
  'with a malformed SPIFFE id': (good, role) =>
    good.issue({ identity: OF[role], names: [{ type: 'url', value: `${OF[role]}/more` }] }),
  'of the wrong usage': (good, role) =>
    good.issue({ identity: OF[role], usages: [role === 'client' ? 'server' : 'client'] }),
  'self-signed': async (good, role) => ({ ...(await selfSigned({ identity: OF[role] })), roots: [good.root] }),
  'under another root': async (good, role) => {
    const other = await makeAuthority();
    return { ...(await other.issue({ identity: OF[role] })), roots: [good.root] };
  },
};

/** A certificate with two SPIFFE ids: the first that has the form counts as the peer's. */
export function withTwoNames(authority: TestAuthority, first: SpiffeId, second: SpiffeId): Promise<Certificate> {
  const names = [first, second].map((value) => ({ type: 'url' as const, value }));
  return authority.issue({ identity: first, names });
}

export interface CsrOptions {
  /** Default: CLIENT. */
  readonly identity?: SpiffeId;
  /** URIs to be named. Default: the identity. Empty: no such extension. */
  readonly names?: readonly string[];
  /** ECDSA curve. Default: P-256. */
  readonly curve?: 'P-256' | 'P-384' | 'P-521';
  /** Signed with SHA-1. Default: SHA-256. */
  readonly weak?: boolean;
  /** Carries the public key of a pair that did not sign it. */
  readonly forged?: boolean;
}

/** A certificate signing request and the key pair that it is for, PEM. */
export async function makeCsr(options: CsrOptions = {}): Promise<{ csr: string; key: string; publicKey: string }> {
  const keys = await makeKeys(options.curve);
  const publicKey = options.forged === true ? (await makeKeys(options.curve)).publicKey : keys.publicKey;
  const names = (options.names ?? [options.identity ?? CLIENT]).map((value) => ({ type: 'url' as const, value }));
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    keys: { privateKey: keys.privateKey, publicKey },
    signingAlgorithm: { ...SIGNATURE, hash: options.weak === true ? 'SHA-1' : SIGNATURE.hash },
    extensions: names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, true)],
  });
  return {
    csr: request.toString('pem'),
    key: await pem('pkcs8', keys.privateKey, 'PRIVATE KEY'),
    publicKey: await pem('spki', keys.publicKey, 'PUBLIC KEY'),
  };
}

/** PEM files for programs that want files. @returns their paths */
export function writePem(
  directory: string,
  name: string,
  certificate: Certificate,
): { readonly chain: string; readonly key: string; readonly roots: string } {
  const paths = {
    chain: join(directory, `${name}.crt`),
    key: join(directory, `${name}.key`),
    roots: join(directory, `${name}.roots`),
  };
  writeFileSync(paths.chain, certificate.chain);
  writeFileSync(paths.key, certificate.key, { mode: 0o600 });
  writeFileSync(paths.roots, certificate.roots.join('\n'));
  return paths;
}

// --- making them ------------------------------------------------------------------------------------------------------

interface Issuer {
  readonly keys: webcrypto.CryptoKeyPair;
  readonly certificate: x509.X509Certificate;
}

async function makeIssuer(validity: Validity, parent: Issuer | undefined): Promise<Issuer> {
  const keys = await makeKeys();
  const serialNumber = serial();
  const subject = `CN=test ${parent === undefined ? 'root' : 'intermediate'} ${serialNumber}`;
  const signer = parent?.keys ?? keys;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber,
    subject,
    issuer: parent?.certificate.subject ?? subject,
    ...dates(validity, 24 * HOUR),
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(signer.publicKey),
    ],
  });
  return { keys, certificate };
}

async function makeKeys(namedCurve = 'P-256'): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve }, true, ['sign', 'verify']);
}

async function pem(format: 'pkcs8' | 'spki', key: webcrypto.CryptoKey, tag: string): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey(format, key), tag);
}

function serial(): string {
  const bytes = randomBytes(16);
  // Positive and of full length.
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

function dates(validity: Validity, lifetimeMs: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return {
    notBefore: new Date(validity.notBefore ?? now - MINUTE),
    notAfter: new Date(validity.notAfter ?? now + lifetimeMs),
  };
}

function leafExtensions(leaf: LeafOptions): x509.Extension[] {
  const names = leaf.names ?? [{ type: 'url' as const, value: leaf.identity ?? CLIENT }];
  const usages = (leaf.usages ?? ['server', 'client']).map((usage) =>
    usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth,
  );
  return [
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
    ...(usages.length === 0 ? [] : [new x509.ExtendedKeyUsageExtension(usages)]),
    ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension([...names], true)]),
  ];
}

async function asCertificate(
  chain: readonly string[],
  keys: webcrypto.CryptoKeyPair,
  roots: readonly string[],
  leaf: LeafOptions,
): Promise<Certificate> {
  const { notBefore, notAfter } = new x509.X509Certificate(chain[0] ?? '');
  return {
    identity: leaf.identity ?? CLIENT,
    chain: chain.join('\n'),
    key: await pem('pkcs8', keys.privateKey, 'PRIVATE KEY'),
    roots,
    notBefore: notBefore.getTime(),
    notAfter: notAfter.getTime(),
  };
}
