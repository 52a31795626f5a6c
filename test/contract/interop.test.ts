/** Our server and our pool with peers that are not our code: Python's h2, which uses Huffman and the dynamic table. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  type HboneError,
  type IncomingRequest,
  type TunnelConnection,
  TunnelPool,
  type TunnelStream,
} from '../../src/hbone/index.ts';
import type { Address } from '../../src/mesh/index.ts';
import { apps } from '../lab/index.ts';
import { CLIENT, makeAuthority, SERVER, writePem } from '../pki.ts';
import { collect, echo, type FarEnd, farEnd } from '../unit/hbone/world.ts';
import { exchange } from './exchange.ts';
import { FakeCertificates } from './fakes/certificates.ts';
import { openLoopback } from './fakes/open-socket.ts';
import { H2Peer } from './h2-peer.ts';

const directory = mkdtempSync(join(tmpdir(), 'culvert-interop-'));

const authority = await makeAuthority();
const ours = {
  client: await authority.issue({ identity: CLIENT }),
  server: await authority.issue({ identity: SERVER }),
};
const files = {
  client: writePem(directory, 'client', await authority.issue({ identity: CLIENT })),
  server: writePem(directory, 'server', await authority.issue({ identity: SERVER })),
  stranger: writePem(directory, 'stranger', await (await makeAuthority()).issue()),
};
const certificates = new FakeCertificates(ours.client, ours.server);
const never = new AbortController().signal;
test.after.always(() => rmSync(directory, { recursive: true }));
const TARGET = '10.0.0.9:8080';

type ClientOptions = Omit<Parameters<typeof apps.h2Client>[0], 'to' | 'port'>;
type ServerOptions = Omit<Parameters<typeof apps.h2Server>[0], 'port'>;

/** Their client at our server. */
async function ourServer(
  options: ClientOptions,
  onRequest: (request: IncomingRequest) => void = echo,
): Promise<{ far: FarEnd; peer: H2Peer } & Disposable> {
  const far = await farEnd(certificates, onRequest);
  const { chain, key, roots } = files.client;
  const { address: to, port } = far.endpoint;
  const peer = new H2Peer(apps.h2Client({ to, port, cert: chain, key, roots, authority: TARGET, ...options }));
  const dispose = (): void => {
    peer[Symbol.dispose]();
    far.close();
  };
  return { far, peer, [Symbol.dispose]: dispose };
}

/** Our pool at their server. */
async function ourPool(
  options: ServerOptions = {},
): Promise<{ peer: H2Peer; connect(): Promise<TunnelConnection> } & Disposable> {
  const { chain, key, roots } = files.server;
  const peer = new H2Peer(
    apps.h2Server({ bind: '127.0.0.1', port: 0, cert: chain, key, roots, header: ['x-answer: yes'], ...options }),
  );
  const { port } = await peer.next({ event: 'listening' });
  const pool = new TunnelPool({ certificates, open: openLoopback, now: () => performance.now() });
  const nextHop = { address: '127.0.0.1' as Address, port: Number(port) };
  const target = { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop };
  const connect = (): Promise<TunnelConnection> =>
    pool.connect(target, TARGET, [['baggage', 'k8s.namespace.name=shop']], never);
  const dispose = (): void => {
    pool.close();
    peer[Symbol.dispose]();
  };
  return { peer, connect, [Symbol.dispose]: dispose };
}

function headersOf({ headers }: IncomingRequest): Record<string, string> {
  return Object.fromEntries(headers);
}

async function over(t: ExecutionContext, peer: H2Peer): Promise<void> {
  const last = await peer.next({ event: 'over' });
  t.is(last.error, undefined, JSON.stringify(last));
  t.is(await peer.exit(), 0);
}

const BAGGAGE = 'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=web-%,service.version=v2';
const HEADERS = [
  `baggage: ${BAGGAGE}`,
  'forwarded: for="10.0.0.1:4000%";host=web.shop.svc',
  `x-long: ${'^~"{}\\%'.repeat(90)}`,
];

test.serial(`a server announces the settings of the wire contract, over TLS 1.3`, async (t) => {
  using world = await ourServer({});
  const { peer } = world;
  t.like(await peer.next({ event: 'connected' }), { tls: 'TLSv1.3' });
  t.like(await peer.next({ event: 'settings' }), {
    INITIAL_WINDOW_SIZE: 4 * 2 ** 20,
    MAX_FRAME_SIZE: 2 ** 20,
    MAX_HEADER_LIST_SIZE: 65_536,
    MAX_CONCURRENT_STREAMS: 200,
  });
  t.like(await peer.next({ event: 'answer' }), { status: 200, headers: { 'x-answer': 'yes' } });
  t.like(await peer.next({ event: 'ended' }), { text: 'hello\n' });
  await over(t, peer);
});

test.serial(`a client announces the settings of the wire contract`, async (t) => {
  using world = await ourPool();
  const { peer, connect } = world;
  const { stream } = await connect();
  t.like(await peer.next({ event: 'settings' }), {
    ENABLE_PUSH: 0,
    INITIAL_WINDOW_SIZE: 4 * 2 ** 20,
    MAX_FRAME_SIZE: 2 ** 20,
    MAX_HEADER_LIST_SIZE: 16_384,
  });
  const { headers } = await peer.next({ event: 'request' });
  t.deepEqual(headers, { ':method': 'CONNECT', ':authority': TARGET, baggage: 'k8s.namespace.name=shop' });
  stream.reset();
});

const WAYS: Readonly<Record<string, ClientOptions>> = {
  'with Huffman and the dynamic table': {},
  'with CONTINUATION': { split: 150 },
  'with a dynamic table that changes its size': { tables: '4096,0,200,4096,64,1000' },
};
for (const [way, options] of Object.entries(WAYS))
  test.serial(`a server reads header fields ${way}`, async (t) => {
    const streams = 40;
    using world = await ourServer({ streams, header: HEADERS, ...options });
    const { far, peer } = world;
    await over(t, peer);
    const read = far.requests.map(({ request }) => headersOf(request));
    const sent = HEADERS.map((header) => header.split(': ', 2));
    t.deepEqual(
      read,
      Array.from({ length: streams }, (_, index) =>
        Object.fromEntries(sent.map(([name = '', value = '']) => [name, value.replaceAll('%', `${index}`)])),
      ),
    );
    t.true(far.requests.every(({ request }) => request.method === 'CONNECT' && request.authority === TARGET));
    t.true(far.requests.every(({ peer: { identity } }) => identity === CLIENT));
  });

test.serial(`what crosses a server arrives whole, with small windows and padding, many streams at once`, async (t) => {
  using world = await ourServer({ streams: 20, bytes: 150_000, window: 1000, padding: true });
  const { peer } = world;
  await over(t, peer);
  const ended = peer.all('ended');
  t.is(ended.length, 20);
  for (const { sent, sentHash, receivedHash } of ended) {
    t.is(sent, 150_000);
    t.is(receivedHash, sentHash);
  }
});

test.serial(`what crosses a client arrives whole, with small windows and padding, many streams at once`, async (t) => {
  using world = await ourPool({ window: 1000, padding: true });
  const { peer, connect } = world;
  await Promise.all(
    Array.from({ length: 20 }, async (_, seed) => {
      const [sent, came] = await exchange(await connect(), seed, 150_000);
      t.is(came, sent);
    }),
  );
  t.is(peer.all('session').length, 1);
  t.true(peer.all('ended').every(({ received }) => received === 150_000));
});

test.serial(`long frames are used where the peer takes them, and short ones where it does not`, async (t) => {
  for (const options of [{ window: 2 ** 20, frame: 2 ** 18 }, { window: 2 ** 20 }, { window: 1 }]) {
    using world = await ourPool(options);
    const [sent, came] = await exchange(await world.connect(), 1, options.window === 1 ? 200 : 3_000_000);
    t.is(came, sent);
  }
});

test.serial(`an end is the end of one direction only`, async (t) => {
  // Ours first: theirs comes only when they have seen it.
  using first = await ourServer({ endLast: true }, (request) => {
    const stream = request.accept([]);
    stream.attach({ data: () => {}, drained: () => {}, ended: () => {}, closed: () => {} });
    stream.write(Buffer.from('all there is'));
    stream.end();
  });
  t.like(await first.peer.next({ event: 'ended' }), { text: 'all there is', sent: 6 });
  await over(t, first.peer);
  // Theirs first: ours may still send.
  using second = await ourServer({}, (request) => {
    const stream = request.accept([]);
    stream.attach({
      data: () => {},
      drained: () => {},
      ended: () => {
        stream.write(Buffer.from('afterwards'));
        stream.end();
      },
      closed: () => {},
    });
  });
  t.like(await second.peer.next({ event: 'ended' }), { text: 'afterwards', sent: 6 });
  await over(t, second.peer);
});

const RESETS = { CONNECT_ERROR: 'STREAM_RESET', INTERNAL_ERROR: 'STREAM_RESET', CANCEL: 'end', NO_ERROR: 'end' };
for (const [code, meaning] of Object.entries(RESETS))
  test.serial(`RST_STREAM ${code} is read as ${meaning}, at both ends`, async (t) => {
    const outcome = async (stream: TunnelStream): Promise<string> => {
      const collector = collect(stream);
      stream.write(Buffer.from('something'));
      const closed = collector.closes.promise.then((error) => (error as HboneError | undefined)?.code ?? 'end');
      return await Promise.race([closed, collector.ends.promise.then(() => 'end')]);
    };
    const accepted = Promise.withResolvers<string>();
    using theirs = await ourServer({ reset: code }, (request) => {
      accepted.resolve(outcome(request.accept([])));
    });
    t.is(await accepted.promise, meaning);
    await theirs.peer.exit();
    using mine = await ourPool({ resetAfter: 5, reset: code });
    t.is(await outcome((await mine.connect()).stream), meaning);
  });

test.serial(`a reset of ours is RST_STREAM CONNECT_ERROR, and hurts no other stream`, async (t) => {
  let count = 0;
  using server = await ourServer({ streams: 2 }, (request) => {
    count += 1;
    if (count === 1) request.accept([]).reset();
    else echo(request);
  });
  t.like(await server.peer.next({ event: 'reset' }), { code: 'CONNECT_ERROR' });
  await server.peer.exit();
  t.deepEqual(
    server.peer.all('ended').map(({ text }) => text),
    ['hello\n'],
  );

  using client = await ourPool();
  const [one, other] = [await client.connect(), await client.connect()];
  collect(one.stream);
  one.stream.reset();
  t.like(await client.peer.next({ event: 'reset' }), { code: 'CONNECT_ERROR' });
  const [sent, came] = await exchange(other, 3, 100_000);
  t.is(came, sent);
});

test.serial(`a refusal is a status without a body, and ends the stream`, async (t) => {
  using server = await ourServer({}, (request) => request.refuse(503));
  t.like(await server.peer.next({ event: 'answer' }), { status: 503, headers: {} });
  await server.peer.exit();
  const statuses = { 302: 'Found', 400: 'Bad Request', 401: 'Unauthorized', 503: 'Service Unavailable' };
  for (const [status, reason] of Object.entries(statuses)) {
    using client = await ourPool({ status: Number(status) });
    const message = `http status: ${status} ${reason}`;
    const error = await t.throwsAsync<HboneError>(client.connect(), { message });
    t.is(error?.code, 'STATUS');
    t.is(error?.status, Number(status));
  }
});

test.serial(`a drained server says GOAWAY, and the open streams finish`, async (t) => {
  using world = await ourServer({ hold: true });
  const { far, peer } = world;
  await peer.next({ event: 'answer', status: 200 });
  far.server.drain();
  t.like(await peer.next({ event: 'goaway' }), { code: 'NO_ERROR' });
  peer.tell('still there?');
  t.like(await peer.next({ event: 'data' }), { text: 'still there?\n' });
  peer.end();
  await over(t, peer);
  await far.server.emptied();
  t.pass();
});

test.serial(`after a GOAWAY the pool makes a new session, and the old one's streams finish`, async (t) => {
  using world = await ourPool({ goawayAfter: 2 });
  const { peer, connect } = world;
  const [first, second] = [await connect(), await connect()];
  const third = await connect();
  for (const [index, connection] of [first, second, third].entries()) {
    const [sent, came] = await exchange(connection, index, 70_000);
    t.is(came, sent);
  }
  t.deepEqual(
    peer.all('request').map(({ session }) => session),
    [1, 1, 2],
  );
  t.is((await peer.next({ event: 'closed' })).session, 1);
});

test.serial(`the pool holds to the peer's limit of streams, and makes another session`, async (t) => {
  using world = await ourPool({ maxStreams: 2 });
  const connections = [await world.connect(), await world.connect(), await world.connect()];
  await world.peer.next({ event: 'request', session: 2 });
  t.deepEqual(
    world.peer.all('request').map(({ session }) => session),
    [1, 1, 2],
  );
  for (const each of connections) t.is(...(await exchange(each, 5, 1000)));
});

test.serial(`a stream that the peer refused unbegun is tried on another session`, async (t) => {
  using refusing = await ourPool({ refuse: 1 });
  const error = await t.throwsAsync<HboneError>(refusing.connect());
  t.is(error?.code, 'STREAM_REFUSED');
  await refusing.peer.next({ event: 'request', session: 2 });
  t.deepEqual(
    refusing.peer.all('request').map(({ session }) => session),
    [1, 2],
  );
});

test.serial('a peer that refuses our certificate is asked anew by the next connection', async (t) => {
  using world = await ourPool({ roots: files.stranger.roots });
  for (let round = 0; round < 5; round += 1) {
    const error = await t.throwsAsync<HboneError>(world.connect());
    // It closes at once, so that our request may find the connection broken before its alert is read.
    t.regex(error?.message ?? '', /^the peer refused us: TLS alert unknown ca$|may have refused our certificate/);
    t.is((await world.peer.next({ event: 'refused' })).session, round + 1);
  }
});

test.serial(`a client reads an answer's header fields, in pieces or not`, async (t) => {
  for (const split of [undefined, 150]) {
    const options = { header: HEADERS, ...(split === undefined ? {} : { split }) };
    using world = await ourPool(options);
    for (let round = 0; round < 5; round += 1) {
      const { headers } = await world.connect();
      t.deepEqual(
        headers.map(([name, value]) => `${name}: ${value}`),
        HEADERS,
      );
    }
  }
});

test.serial(`a reader that stops stops the writer, and goes on where it stopped`, async (t) => {
  using world = await ourPool({ stall: true });
  const { peer, connect } = world;
  const { stream } = await connect();
  const collector = collect(stream);
  let written = 0;
  while (!stream.isFull) {
    written += 10_000;
    stream.write(Buffer.alloc(10_000, 1));
    await new Promise(setImmediate);
  }
  t.true(written < 3_000_000, `${written}`);
  stream.end();
  peer.tell('go');
  await collector.ends.promise;
  t.is(collector.text.length, written);
  const { received } = await peer.next({ event: 'ended' });
  t.is(received, written);
});
