import type { SpiffeId } from './identity.ts';

/** A key pair with its certificate, in memory only. PEM texts. */
export interface Certificate {
  readonly identity: SpiffeId;
  /** Leaf first, then intermediates, without the root. */
  readonly chain: string;
  /** PKCS#8. */
  readonly key: string;
  /** Every root that peers may be signed under. */
  readonly roots: readonly string[];
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** What became of an identity's certificate. */
export type CertificateChange =
  /** A first or renewed one, or the same with other roots. */
  | { readonly kind: 'issued'; readonly certificate: Certificate }
  /** There is none that is valid, and the last attempt failed; attempts go on. */
  | { readonly kind: 'unavailable'; readonly identity: SpiffeId; readonly reason: string }
  /** Nobody on this node needs it any more. */
  | { readonly kind: 'forgotten'; readonly identity: SpiffeId };
