import { type Certificates, HboneError } from '../../../src/hbone/index.ts';
import type { Certificate, SpiffeId } from '../../../src/mesh/index.ts';

/** Certificates that a test puts there itself. */
export class FakeCertificates implements Certificates {
  /** Who was asked for, in order. */
  readonly asked: SpiffeId[] = [];
  readonly #certificates = new Map<SpiffeId, Certificate>();

  constructor(...certificates: readonly Certificate[]) {
    for (const certificate of certificates) this.issue(certificate);
  }

  /** It is the current one of its identity from now on. */
  issue(certificate: Certificate): void {
    this.#certificates.set(certificate.identity, certificate);
  }

  forget(identity: SpiffeId): void {
    this.#certificates.delete(identity);
  }

  async certificate(identity: SpiffeId): Promise<Certificate> {
    this.asked.push(identity);
    const certificate = this.#certificates.get(identity);
    if (certificate === undefined) throw new HboneError('IDENTITY_UNAVAILABLE', `no certificate of ${identity}`);
    return certificate;
  }
}
