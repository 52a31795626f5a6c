import { codeOf } from '../../mesh/index.ts';
import { HboneError } from '../errors.ts';

/** What OpenSSL finds wrong with a peer's certificate (X509_V_ERR_*). */
const CERTIFICATE_FAULTS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'has expired',
  CERT_NOT_YET_VALID: 'is not valid yet',
  UNABLE_TO_GET_ISSUER_CERT: 'is signed by nobody whom we trust',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'is signed by nobody whom we trust',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'is signed by nobody whom we trust',
  SELF_SIGNED_CERT_IN_CHAIN: 'is signed by a root that we do not trust',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'is signed by itself only',
  CERT_SIGNATURE_FAILURE: 'has a false signature',
  INVALID_PURPOSE: 'is not meant for this use (extended key usage)',
  INVALID_CA: 'is signed by a certificate that may not sign others',
  CERT_UNTRUSTED: 'is not trusted',
  CERT_REJECTED: 'is rejected',
  CERT_CHAIN_TOO_LONG: 'has too long a chain',
  PATH_LENGTH_EXCEEDED: 'has too long a chain',
};

/** What else goes wrong in a handshake; codes of Node, which are OpenSSL's reasons. */
const HANDSHAKE_FAULTS: Readonly<Record<string, string>> = {
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: 'the peer presented no certificate',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'the peer does not offer TLS 1.3',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: 'the peer does not speak TLS 1.3',
  ERR_SSL_NO_SHARED_CIPHER: 'the peer offers no cipher suite that we take',
  ERR_SSL_NO_SUITABLE_KEY_SHARE: 'the peer offers no key exchange group that we take',
  ERR_SSL_NO_SUITABLE_GROUPS: 'the peer offers no key exchange group that we take',
  ERR_SSL_NO_APPLICATION_PROTOCOL: 'the peer does not offer HTTP/2 (ALPN h2)',
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: 'the peer does not take HTTP/2 (ALPN h2)',
  ERR_SSL_WRONG_VERSION_NUMBER: 'the peer does not speak TLS',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'the peer does not speak TLS',
  ERR_SSL_HTTP_REQUEST: 'the peer speaks HTTP, not TLS',
};

/** The peer has gone in the middle of it. */
const BROKEN_OFF: ReadonlySet<unknown> = new Set(['ECONNRESET', 'EPIPE']);

/** An alert that the peer sent, in Node's code for it: which protocol version first had it, and its name. */
const ALERT = /^ERR_SSL_[A-Z0-9/]+_ALERT_([A-Z_]+)$/;

/** `cause` of `cause` that are looked at. */
const MAX_CAUSES = 5;

/** Why a certificate was not accepted, of its OpenSSL code. */
export function certificateError(code: string, cause?: unknown): HboneError {
  return new HboneError('TLS_FAILED', `the peer's certificate ${CERTIFICATE_FAULTS[code] ?? `is not good: ${code}`}`, {
    cause,
  });
}

/** Nothing is proven, for or against the peer: it has gone, or its agent stops. */
export function brokenOff(cause?: unknown): HboneError {
  return new HboneError('CONNECT_FAILED', 'TLS handshake failed: the peer broke the connection off', { cause });
}

/** Why a handshake failed. */
export function handshakeError(cause: unknown): HboneError {
  if (cause instanceof HboneError) return cause;
  const code = codeOf(cause);
  if (BROKEN_OFF.has(code)) return brokenOff(cause);
  if (code !== undefined && Object.hasOwn(CERTIFICATE_FAULTS, code)) return certificateError(code, cause);
  const fault = code === undefined ? undefined : HANDSHAKE_FAULTS[code];
  if (fault !== undefined) return new HboneError('TLS_FAILED', `TLS handshake failed: ${fault}`, { cause });
  return alertOf(cause) ?? new HboneError('TLS_FAILED', `TLS handshake failed: ${code ?? String(cause)}`, { cause });
}

/**
 * With TLS 1.3 a client is done before the server has looked at its certificate: that it was refused comes later, as an
 * alert that breaks the session.
 *
 * @param error what the session broke with
 * @returns undefined if no alert lies beneath it
 */
export function alertOf(error: unknown): HboneError | undefined {
  let cause = error;
  for (let depth = 0; depth < MAX_CAUSES && cause instanceof Error; depth += 1) {
    const alert = ALERT.exec(codeOf(cause) ?? '')?.[1];
    if (alert !== undefined)
      return new HboneError(
        'TLS_FAILED',
        `the peer refused us: TLS alert ${alert.toLowerCase().replaceAll('_', ' ')}`,
        {
          cause: error,
        },
      );
    cause = cause.cause;
  }
  return undefined;
}
