/** `response_flags` of Istio's TCP metrics (wire contract, section 9.1). */
export type ResponseFlags =
  | '-'
  | 'DENY'
  | 'CONNECT'
  | 'TLS_FAILURE'
  | 'H2_HANDSHAKE_FAILURE'
  | 'NETWORK_POLICY'
  | 'IDENTITY_ERROR'
  | 'CERT_REVOKED';

/** Ends that have a flag of their own; what ends in another way than these and clean counts as CONNECT. */
const FLAGS: Readonly<Record<string, ResponseFlags>> = {
  clean: '-',
  'drain-deadline': '-',
  'pod-dropped': '-',
  'policy-denied': 'DENY',
  'policy-changed': 'DENY',
  'tunnel-tls': 'TLS_FAILURE',
  'tunnel-peer-identity': 'TLS_FAILURE',
  'tunnel-timed-out': 'NETWORK_POLICY',
  'tunnel-identity': 'IDENTITY_ERROR',
};

/** @param ended how the connection ended: a reason of docs/errors.md */
export function responseFlagsOf(ended: string): ResponseFlags {
  return FLAGS[ended] ?? 'CONNECT';
}
