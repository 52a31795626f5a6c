import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls';
import type { Certificate } from '../../mesh/index.ts';
import { HboneError } from '../errors.ts';
import { certificateError } from './errors.ts';

/** Wire contract, section 2.10: no ChaCha20. */
const SUITES = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384';

/** In order of preference. The stars: both keys are sent at once, so a peer without ML-KEM need not ask again. */
const GROUPS = '*X25519MLKEM768:*X25519:P-256:P-384';

/** What both ends offer and ask for. */
export const ALPN = 'h2';

/** Who waits for the handshake over an accepted socket. */
export interface Accepting {
  resolve(secure: TLSSocket): void;
  reject(error: unknown): void;
}

const contexts = new WeakMap<Certificate, SecureContext>();
const acceptors = new WeakMap<Certificate, Server>();
const accepting = new WeakMap<object, Accepting>();

/**
 * What a client needs to speak for an identity. Made once for each certificate.
 *
 * @throws HboneError IDENTITY_UNAVAILABLE: the certificate, its key or its roots cannot be used
 */
export function contextOf(certificate: Certificate): SecureContext {
  return made(contexts, certificate, createSecureContext);
}

/**
 * Begins the server's handshake over an accepted socket. A client without a certificate is told by an alert; one whose
 * certificate is not good finds the connection closed (Node has no way to send another alert).
 *
 * @throws HboneError as contextOf
 */
export function accept(socket: Socket, certificate: Certificate, by: Accepting): void {
  const acceptor = made(acceptors, certificate, makeAcceptor);
  accepting.set(socket, by);
  // Documented: sockets may be given to a server so, and it need not listen.
  acceptor.emit('connection', socket);
}

function makeAcceptor(options: SecureContextOptions): Server {
  const acceptor = createServer({ ...options, ALPNProtocols: [ALPN], requestCert: true, rejectUnauthorized: true });
  acceptor.on('secureConnection', (secure) => {
    const by = waiting(secure);
    if (by === undefined) secure.destroy();
    else by.resolve(secure);
  });
  acceptor.on('tlsClientError', (error, secure) => {
    // Where OpenSSL finds fault with the certificate, Node closes, and the error is only that.
    const fault: unknown = secure.authorizationError;
    waiting(secure)?.reject(typeof fault === 'string' ? certificateError(fault, error) : error);
  });
  return acceptor;
}

/** Node does not say otherwise which accepted socket a TLS socket is of. If this ever fails, no handshake ends well. */
function waiting(secure: TLSSocket): Accepting | undefined {
  const socket: unknown = Reflect.get(secure, '_parent');
  if (typeof socket !== 'object' || socket === null) return undefined;
  const by = accepting.get(socket);
  accepting.delete(socket);
  return by;
}

function made<T>(
  known: WeakMap<Certificate, T>,
  certificate: Certificate,
  make: (options: SecureContextOptions) => T,
): T {
  const before = known.get(certificate);
  if (before !== undefined) return before;
  // No roots at all would mean Node's own, which are the web's.
  if (certificate.roots.length === 0)
    throw new HboneError('IDENTITY_UNAVAILABLE', `the certificate of ${certificate.identity} comes without roots`);
  try {
    const now = make({
      cert: certificate.chain,
      key: certificate.key,
      ca: [...certificate.roots],
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      ciphers: SUITES,
      ecdhCurve: GROUPS,
      // Nobody resumes a session with us; a client that would (Envoy does) has its whole handshake.
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
    known.set(certificate, now);
    return now;
  } catch (cause) {
    throw new HboneError('IDENTITY_UNAVAILABLE', `the certificate of ${certificate.identity} cannot be used`, {
      cause,
    });
  }
}
