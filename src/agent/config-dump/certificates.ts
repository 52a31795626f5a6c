/** Certificates as the admin endpoint writes them (wire contract, section 9.5): what everybody may see of them. */
import { X509Certificate } from 'node:crypto';
import { codeOf } from '../../mesh/index.ts';

/** What of an identity's certificate may be shown. There is no key here, so none can get out. */
export interface ShownCertificate {
  readonly identity: string;
  readonly state: 'initializing' | 'available' | 'renewing' | 'unavailable';
  /** Why there is none; undefined where there is one. */
  readonly reason: string | undefined;
  /** PEM, leaf first, without the root; undefined: there is none. */
  readonly chain: string | undefined;
  /** PEM, each one certificate. */
  readonly roots: readonly string[];
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/g;

export function certificateJson(shown: ShownCertificate): Record<string, unknown> {
  const { identity, chain, roots } = shown;
  return {
    identity,
    state: stateJson(shown),
    certChain: (chain?.match(PEM) ?? []).map(pemJson),
    rootCerts: roots.flatMap((root) => root.match(PEM) ?? []).map(pemJson),
  };
}

function stateJson({ state, reason }: ShownCertificate): string {
  switch (state) {
    case 'initializing':
      return 'Initializing';
    case 'available':
    case 'renewing':
      return 'Available';
    case 'unavailable':
      return `Unavailable: ${reason ?? 'not known why'}`;
  }
}

function pemJson(pem: string): Record<string, unknown> {
  const encoded = Buffer.from(pem).toString('base64');
  try {
    const certificate = new X509Certificate(pem);
    return {
      pem: encoded,
      serialNumber: BigInt(`0x${certificate.serialNumber}`).toString(),
      validFrom: seconds(certificate.validFromDate),
      expirationTime: seconds(certificate.validToDate),
    };
  } catch (error) {
    // Roots are as the control process gave them; one that Node does not understand must not cost the whole dump.
    return { pem: encoded, error: codeOf(error) ?? 'not understood' };
  }
}

/** RFC 3339 without a fraction. */
function seconds(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
