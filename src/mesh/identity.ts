/** A SPIFFE id in its text form: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export type SpiffeId = string & { readonly brand: 'spiffe-id' };

/** What a SPIFFE id names (wire contract, section 3.1). */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The trust domain of whoever names none. */
export const DEFAULT_TRUST_DOMAIN = 'cluster.local';

const FORM = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/;

/**
 * Reads a SPIFFE id: exactly the five parts, none empty.
 *
 * @returns undefined if it has any other form
 */
export function parseSpiffeId(text: string): Identity | undefined {
  const [, trustDomain, namespace, serviceAccount] = FORM.exec(text) ?? [];
  if (trustDomain === undefined || namespace === undefined || serviceAccount === undefined) return undefined;
  return { trustDomain, namespace, serviceAccount };
}

export function formatSpiffeId({ trustDomain, namespace, serviceAccount }: Identity): SpiffeId {
  return `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}` as SpiffeId;
}
