/** Our server and our pool with node:http2, whose frames are nghttp2's: CONNECT, both ways. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  createSecureServer,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { connect as connectTls } from 'node:tls';
import test from 'ava';
import { type TunnelConnection, TunnelPool } from '../../src/hbone/index.ts';
import type { Address } from '../../src/mesh/index.ts';
import { CLIENT, makeAuthority, SERVER } from '../pki.ts';
import { collect, type FarEnd, farEnd } from '../unit/hbone/world.ts';
import { exchange } from './exchange.ts';
import { FakeCertificates } from './fakes/certificates.ts';
import { openLoopback } from './fakes/open-socket.ts';

const authority = await makeAuthority();
const client = await authority.issue({ identity: CLIENT });
const server = await authority.issue({ identity: SERVER });
const certificates = new FakeCertificates(client, server);
const TARGET = '10.0.0.9:8080';
const MANY_BYTES = 6_000_000;

/** Node's client at our server. */
async function theirClient(far: FarEnd): Promise<ClientHttp2Session> {
  const { address: host, port } = far.endpoint;
  const { chain: cert, key, roots } = client;
  const socket = connectTls({
    host,
    port,
    cert,
    key,
    ca: [...roots],
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  await once(socket, 'secureConnect');
  const session = connectHttp2('https://peer.invalid', { createConnection: () => socket });
  session.on('error', () => {});
  return session;
}

function ask(session: ClientHttp2Session, baggage: string): ClientHttp2Stream {
  return session.request({ ':method': 'CONNECT', ':authority': TARGET, baggage }, { endStream: false });
}

/** Our pool at Node's server. */
async function ourPool(
  onStream: (stream: ServerHttp2Stream, headers: Readonly<Record<string, unknown>>) => void,
): Promise<{ connect(): Promise<TunnelConnection> } & Disposable> {
  const { chain: cert, key, roots } = server;
  const theirs = createSecureServer({ cert, key, ca: [...roots], requestCert: true });
  theirs.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => {});
    onStream(stream, headers);
  });
  theirs.listen(0, '127.0.0.1');
  await once(theirs, 'listening');
  const nextHop = { address: '127.0.0.1' as Address, port: (theirs.address() as AddressInfo).port };
  const pool = new TunnelPool({ certificates, open: openLoopback, now: () => performance.now() });
  const target = { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop };
  const connect = (): Promise<TunnelConnection> =>
    pool.connect(target, TARGET, [['baggage', 'a=b']], new AbortController().signal);
  const dispose = (): void => {
    pool.close();
    theirs.close();
  };
  return { connect, [Symbol.dispose]: dispose };
}

test("a server of ours serves Node's client: every byte there and back, and an end is an end", async (t) => {
  const far = await farEnd(certificates);
  const session = await theirClient(far);
  const streams = Array.from({ length: 10 }, (_, at) => ask(session, `stream=${at}`));
  await Promise.all(
    streams.map(async (stream, at) => {
      const [answer] = await once(stream, 'response');
      t.like(answer, { ':status': 200, 'x-answer': 'yes' });
      const sent = Buffer.alloc(MANY_BYTES / 10, at);
      stream.end(sent);
      t.true(Buffer.concat(await stream.toArray()).equals(sent));
    }),
  );
  t.deepEqual(
    far.requests.map(({ request }) => [request.method, request.authority, request.headers]),
    streams.map((_, at) => ['CONNECT', TARGET, [['baggage', `stream=${at}`]]]),
  );
  t.true(far.requests.every(({ peer }) => peer.identity === CLIENT));
  session.close();
  await far.server.emptied();
  far.close();
});

test("a server of ours refuses and resets Node's streams, and its session lives", async (t) => {
  let count = 0;
  const far = await farEnd(certificates, (request) => {
    count += 1;
    if (count === 1) request.refuse(401);
    else request.accept([]).reset();
  });
  const session = await theirClient(far);
  const refused = ask(session, 'refused=yes');
  t.like((await once(refused, 'response'))[0], { ':status': 401 });
  const reset = ask(session, 'reset=yes');
  await t.throwsAsync(once(reset, 'close'), { message: /NGHTTP2_CONNECT_ERROR/ });
  t.false(session.destroyed);
  session.destroy();
  far.close();
});

test("a pool of ours is served by Node's server: every byte there and back, and an end is an end", async (t) => {
  const asked: unknown[] = [];
  using world = await ourPool((stream, headers) => {
    asked.push([headers[':method'], headers[':authority'], headers.baggage]);
    stream.respond({ ':status': 200, 'x-answer': 'yes' });
    stream.pipe(stream);
  });
  const first = await world.connect();
  t.deepEqual(
    first.headers.filter(([name]) => name !== 'date'),
    [['x-answer', 'yes']],
  );
  t.is(first.peer, SERVER);
  t.deepEqual(asked, [['CONNECT', TARGET, 'a=b']]);
  const [sent, came] = await exchange(first, 7, MANY_BYTES);
  t.is(came, sent);
});

test("a reset of Node's server is one of ours", async (t) => {
  using world = await ourPool((stream) => {
    stream.respond({ ':status': 200 });
    stream.on('data', () => stream.close(constants.NGHTTP2_CONNECT_ERROR));
  });
  const { stream } = await world.connect();
  const collector = collect(stream);
  stream.write(Buffer.from('something'));
  t.like(await collector.closes.promise, { code: 'STREAM_RESET' });
});
