import type { Certificate, SpiffeId } from '../mesh/index.ts';
import { HboneError } from './errors.ts';
import type { Certificates } from './ports.ts';

/**
 * What we prove ourselves with.
 *
 * @throws HboneError IDENTITY_UNAVAILABLE, whatever else the store throws
 */
export async function ownCertificate(certificates: Certificates, identity: SpiffeId): Promise<Certificate> {
  try {
    return await certificates.certificate(identity);
  } catch (cause) {
    if (cause instanceof HboneError) throw cause;
    throw new HboneError('IDENTITY_UNAVAILABLE', `no certificate of ${identity}`, { cause });
  }
}
