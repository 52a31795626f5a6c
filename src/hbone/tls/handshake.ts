import type { Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { Certificate, SpiffeId } from '../../mesh/index.ts';
import { HboneError } from '../errors.ts';
import { ALPN, accept, contextOf } from './context.ts';
import { brokenOff, certificateError, handshakeError } from './errors.ts';
import { acceptedPeer, peerOfTrustDomain, uriNames } from './peer.ts';

/** A connection whose peer has proven who it is. Its errors are listened to, so that none is fatal before a session takes it. */
export interface SecuredSocket {
  readonly socket: TLSSocket;
  readonly peer: SpiffeId;
}

export interface HandshakeOptions {
  /** Ends it, with the HboneError that is its reason, or CLOSED. */
  readonly signal: AbortSignal;
}

/**
 * The client's handshake over a connected socket. No server name is sent; the peer is known by its SPIFFE id.
 *
 * @throws HboneError TLS_FAILED, CONNECT_FAILED, PEER_IDENTITY, IDENTITY_UNAVAILABLE, or the signal's. The socket is destroyed.
 */
export async function clientHandshake(
  socket: Socket,
  certificate: Certificate,
  acceptable: readonly SpiffeId[],
  { signal }: HandshakeOptions,
): Promise<SecuredSocket> {
  return await secured(socket, signal, (done) => {
    const secure = connect({
      socket,
      secureContext: contextOf(certificate),
      ALPNProtocols: [ALPN],
      rejectUnauthorized: true,
      checkServerIdentity: () => undefined,
    });
    secure.on('error', done.reject).on('close', () => done.reject(brokenOff()));
    secure.once('secureConnect', () => done.resolve(secure));
    return (names) => acceptedPeer(names, acceptable);
  });
}

/**
 * The server's handshake over an accepted socket.
 *
 * @param trustDomain the own one, which the peer must share
 * @throws HboneError TLS_FAILED, CONNECT_FAILED, PEER_TRUST_DOMAIN, IDENTITY_UNAVAILABLE, or the signal's. The socket is destroyed.
 */
export async function serverHandshake(
  socket: Socket,
  certificate: Certificate,
  trustDomain: string,
  { signal }: HandshakeOptions,
): Promise<SecuredSocket> {
  return await secured(socket, signal, (done) => {
    accept(socket, certificate, done);
    return (names) => peerOfTrustDomain(names, trustDomain);
  });
}

/**
 * Runs a handshake, then looks at who is there; whatever fails, the socket is destroyed and the error ours.
 *
 * @param begin returns the test of the peer's names
 */
async function secured(
  socket: Socket,
  signal: AbortSignal,
  begin: (done: PromiseWithResolvers<TLSSocket>) => (names: readonly string[]) => SpiffeId,
): Promise<SecuredSocket> {
  const done = Promise.withResolvers<TLSSocket>();
  const abort = (): void => done.reject(abortError(signal));
  signal.addEventListener('abort', abort);
  socket.on('error', ignore);
  // TLS has no half-open connections: the peer's end is the end.
  socket.allowHalfOpen = false;
  try {
    if (signal.aborted) throw abortError(signal);
    // Without its handle the socket would be wrapped as a mere stream, which is another and a slow way.
    if (socket.destroyed || socket.connecting) throw brokenOff();
    const test = begin(done);
    const secure = await done.promise;
    secure.on('error', ignore);
    return { socket: secure, peer: test(namesOf(secure)) };
  } catch (error) {
    done.promise.catch(ignore);
    socket.destroy();
    throw handshakeError(error);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function namesOf(secure: TLSSocket): string[] {
  if (!secure.authorized) throw certificateError(String(secure.authorizationError));
  if (secure.alpnProtocol !== ALPN) throw failed('the peer does not offer HTTP/2 (ALPN h2)');
  if (secure.isSessionReused()) throw failed('a session was resumed');
  const certificate = secure.getPeerX509Certificate();
  if (certificate === undefined) throw failed('the peer presented no certificate');
  return uriNames(certificate);
}

function failed(why: string): HboneError {
  return new HboneError('TLS_FAILED', `TLS handshake failed: ${why}`);
}

function abortError({ reason }: AbortSignal): HboneError {
  if (reason instanceof HboneError) return reason;
  return new HboneError('CLOSED', 'closed during the TLS handshake', { cause: reason });
}

function ignore(): void {}
