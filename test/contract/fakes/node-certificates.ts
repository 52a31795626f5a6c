import type { CertificateStatus, NodeCertificates } from '../../../src/agent/index.ts';
import type { Certificate, CertificateChange, SpiffeId } from '../../../src/mesh/index.ts';

/** Certificates without keys: issued when a test says so. */
export class FakeNodeCertificates implements NodeCertificates {
  readonly requests: SpiffeId[] = [];
  wanted: ReadonlySet<SpiffeId> = new Set();
  roots: readonly string[] = [];
  isClosed = false;
  readonly #issued = new Map<SpiffeId, Certificate>();
  #listener: ((change: CertificateChange) => void) | undefined;

  want(identities: ReadonlySet<SpiffeId>): void {
    for (const identity of this.wanted)
      if (!identities.has(identity)) this.#listener?.({ kind: 'forgotten', identity });
    this.wanted = new Set(identities);
  }

  request(identity: SpiffeId): void {
    this.requests.push(identity);
    if (!this.wanted.has(identity)) this.#listener?.({ kind: 'forgotten', identity });
  }

  trust(roots: readonly string[]): void {
    this.roots = roots;
  }

  onChange(listener: (change: CertificateChange) => void): void {
    this.#listener = listener;
  }

  status(): CertificateStatus[] {
    return [...this.wanted].map((identity) => {
      const { notBefore, notAfter, chain, roots = [] } = this.#issued.get(identity) ?? {};
      const waits = notAfter === undefined;
      return {
        identity,
        state: waits ? 'unavailable' : 'available',
        notBefore,
        notAfter,
        chain,
        roots,
        lastError: waits ? 'the CA is away' : undefined,
      };
    });
  }

  close(): void {
    this.isClosed = true;
    this.#listener = undefined;
  }

  issue(identity: SpiffeId, notAfter: number): Certificate {
    const certificate = { identity, chain: 'chain', key: 'key', roots: this.roots, notBefore: 0, notAfter };
    this.#issued.set(identity, certificate);
    this.#listener?.({ kind: 'issued', certificate });
    return certificate;
  }
}
