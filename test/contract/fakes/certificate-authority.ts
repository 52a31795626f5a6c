import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import {
  type CertificateAuthority,
  IdentityError,
  type SignedCertificate,
  type SigningRequest,
} from '../../../src/identity/index.ts';
import type { SpiffeId } from '../../../src/mesh/index.ts';
import type { LeafOptions, TestAuthority } from '../../pki.ts';

const MAX_VALIDITY_SECONDS = 90 * 86_400;

/** A CA that signs what it is told to, and fails or waits as a test wants it to. */
export class FakeAuthority implements CertificateAuthority {
  /** What it has been asked, the failed included. */
  readonly requests: SigningRequest[] = [];
  readonly refused = new Set<SpiffeId>();
  /** Who signs; a test may put another in its place. */
  issuer: TestAuthority;
  /** What is given as bundle; default: the issuer's root. */
  roots: readonly string[] | undefined;
  /** Changes the leaf that is made. */
  leaf: LeafOptions = {};
  readonly #now: () => number;
  readonly #failures: Error[] = [];
  readonly #watchers: { readonly count: number; readonly resolve: () => void }[] = [];
  #gate: Promise<void> | undefined;

  constructor(issuer: TestAuthority, now: () => number = Date.now) {
    this.issuer = issuer;
    this.#now = now;
  }

  /** The next requests fail, one after the other. */
  fail(...errors: Error[]): void {
    this.#failures.push(...errors);
  }

  /** Requests wait for their answer until the returned function is called. */
  hold(): () => void {
    const gate = Promise.withResolvers<void>();
    this.#gate = gate.promise;
    return () => {
      this.#gate = undefined;
      gate.resolve();
    };
  }

  /** Resolves when it has been asked this often. */
  async asked(count: number): Promise<void> {
    if (this.requests.length >= count) return;
    await new Promise<void>((resolve) => this.#watchers.push({ count, resolve }));
  }

  async sign(request: SigningRequest): Promise<SignedCertificate> {
    this.requests.push(request);
    for (const { count, resolve } of this.#watchers) if (this.requests.length >= count) resolve();
    await this.#gate;
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure;
    const { identity, csr, validitySeconds } = request;
    if (this.refused.has(identity)) throw new IdentityError('REFUSED', 'request impersonation authentication failure');
    const key = await publicKeyOf(csr, identity);
    const now = this.#now();
    const lifetimeMs = Math.min(validitySeconds, MAX_VALIDITY_SECONDS) * 1000;
    const leaf = { identity, notBefore: now, notAfter: now + lifetimeMs, ...this.leaf };
    return {
      chain: [await this.issuer.certify(key, leaf), ...this.issuer.intermediates],
      roots: this.roots ?? [this.issuer.root],
    };
  }
}

async function publicKeyOf(csr: string, identity: SpiffeId): Promise<x509.PublicKey> {
  try {
    const request = new x509.Pkcs10CertificateRequest(csr);
    const names = request.extensions.flatMap(({ rawData, type }) =>
      type === '2.5.29.17' ? new x509.SubjectAlternativeNameExtension(rawData).names.items : [],
    );
    if (names.length !== 1 || names[0]?.value !== identity) throw new Error('it names somebody else');
    if (!(await request.verify())) throw new Error('it is not signed by its own key');
    return request.publicKey;
  } catch (cause) {
    throw new IdentityError('BAD_CSR', 'the certificate signing request cannot be used', { cause });
  }
}
