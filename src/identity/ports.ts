/** What this room asks of others. test/contract holds a suite for CertificateAuthority. */
import type { SpiffeId } from '../mesh/index.ts';

/** Who signs: the built-in CA, or any istio.v1.auth.IstioCertificateService (wire contract, section 3.3). */
export interface CertificateAuthority {
  /**
   * @throws IdentityError CA_UNREACHABLE, REFUSED, BAD_CSR
   */
  sign(request: SigningRequest): Promise<SignedCertificate>;
}

export interface SigningRequest {
  readonly identity: SpiffeId;
  /** PEM PKCS#10. */
  readonly csr: string;
  /** What is asked for; the CA may give less. */
  readonly validitySeconds: number;
}

export interface SignedCertificate {
  /** PEM, leaf first, then intermediates. */
  readonly chain: readonly string[];
  /** PEM, every root that is to be trusted. */
  readonly roots: readonly string[];
}

/** Which identities may be signed for a node: those of its pods. */
export interface NodeIdentities {
  isOnNode(node: string, identity: SpiffeId): boolean;
}

/** Time, so that tests need not wait for it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `run` once, after `ms`, however many that are. Does not keep the process alive. */
  after(ms: number, run: () => void): { cancel(): void };
}

/** Tells of names that appear in or vanish from a directory. May miss some: only a hint. */
export interface DirectoryWatch {
  watch(directory: string, changed: () => void): { close(): void };
}
