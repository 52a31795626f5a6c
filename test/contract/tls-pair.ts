import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { connect, createServer as createSecureServer, type TLSSocket } from 'node:tls';
import { selfSigned } from '../pki.ts';

/** Both ends of one TLS connection over the loopback. */
export interface TlsPair {
  readonly client: TLSSocket;
  readonly server: TLSSocket;
}

const certificate = selfSigned();

/** Connects two TLS sockets with each other, as a session gets them: connected, and nobody has read from them. */
export async function tlsPair(): Promise<TlsPair> {
  const { chain, key } = await certificate;
  const [near, far] = await tcpPair();
  const accepting = createSecureServer({ cert: chain, key, ALPNProtocols: ['h2'] });
  const accepted = once(accepting, 'secureConnection');
  accepting.emit('connection', far);
  const client = connect({ socket: near, ca: chain, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined });
  const [[server]] = await Promise.all([accepted, once(client, 'secureConnect')]);
  return { client, server };
}

async function tcpPair(): Promise<[Socket, Socket]> {
  const listener = createServer({ pauseOnConnect: true, noDelay: true });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const near = connectTcp({ port, host: '127.0.0.1', noDelay: true });
  const [[far]] = await Promise.all([once(listener, 'connection'), once(near, 'connect')]);
  listener.close();
  return [near, far];
}
