import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import {
  HboneError,
  TunnelPool,
  type TunnelPoolDeps,
  type TunnelPoolOptions,
  type TunnelTarget,
} from '../../../src/hbone/index.ts';
import type { Address, SpiffeId } from '../../../src/mesh/index.ts';
import { FakeCertificates } from '../../contract/fakes/certificates.ts';
import { openLoopback } from '../../contract/fakes/open-socket.ts';
import { CLIENT, makeAuthority, SERVER } from '../../pki.ts';
import { listening } from '../ztunnel/loopback.ts';
import { collect, echo, type FarEnd, farEnd } from './world.ts';

const authority = await makeAuthority();
const client = await authority.issue({ identity: CLIENT });
const server = await authority.issue({ identity: SERVER });
const never = new AbortController().signal;
const APP = '127.0.0.1:80';

interface World {
  readonly far: FarEnd;
  readonly certificates: FakeCertificates;
  readonly target: TunnelTarget;
  pool(options?: TunnelPoolOptions, deps?: Partial<TunnelPoolDeps>): TunnelPool;
  dispose(): void;
}

function law(title: string, run: (t: ExecutionContext, world: World) => Promise<void>, onRequest = echo): void {
  test(title, async (t) => {
    const world = await makeWorld(onRequest);
    try {
      await run(t, world);
    } finally {
      world.dispose();
    }
  });
}

async function makeWorld(onRequest = echo): Promise<World> {
  const certificates = new FakeCertificates(client);
  const far = await farEnd(new FakeCertificates(server), onRequest);
  const pools: TunnelPool[] = [];
  const deps = { certificates, open: openLoopback, now: () => performance.now() };
  return {
    far,
    certificates,
    target: { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop: far.endpoint },
    pool: (options, others) => {
      const pool = new TunnelPool({ ...deps, ...others }, options);
      pools.push(pool);
      return pool;
    },
    dispose: () => {
      for (const pool of pools) pool.close();
      far.close();
    },
  };
}

/** Events of the loop until it is so. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await setImmediate();
}

async function failure(t: ExecutionContext, promise: Promise<unknown>): Promise<HboneError> {
  const error = await t.throwsAsync(promise, { instanceOf: HboneError });
  return error ?? new HboneError('CLOSED', 'nothing thrown');
}

law('a tunnelled connection carries bytes both ways, ends, and knows its peer', async (t, { pool, target, far }) => {
  const { stream, headers, peer } = await pool().connect(target, APP, [['baggage', 'a=b']], never);
  const collector = collect(stream);
  t.is(peer, SERVER);
  t.deepEqual(
    headers.filter(([name]) => name === 'x-answer'),
    [['x-answer', 'yes']],
  );
  stream.write(Buffer.from('question'));
  stream.end();
  await collector.ends.promise;
  t.is(collector.text, 'question');
  t.is(await collector.closes.promise, undefined);
  const [{ request, peer: from } = { request: undefined, peer: undefined }] = far.requests;
  t.is(request?.method, 'CONNECT');
  t.is(request?.authority, APP);
  t.deepEqual(request?.headers, [['baggage', 'a=b']]);
  t.is(from?.identity, CLIENT);
  t.deepEqual(from?.local, far.endpoint);
  t.is(from?.endpoint.address, far.endpoint.address);
});

law('whoever asks while a session is made shares it', async (t, { pool, target, far, certificates }) => {
  const shared = pool();
  const all = await Promise.all(Array.from({ length: 20 }, () => shared.connect(target, APP, [], never)));
  t.is(all.length, 20);
  t.is(far.sockets.length, 1);
  t.is(shared.sessions, 1);
  t.deepEqual(certificates.asked, [CLIENT]);
  await shared.connect(target, APP, [], never);
  t.is(far.sockets.length, 1, 'and so does whoever asks later');
});

law('another source, another list of acceptable peers, another next hop: another session', async (t, world) => {
  const { pool, target, far, certificates } = world;
  const second = 'spiffe://cluster.local/ns/shop/sa/second' as SpiffeId;
  certificates.issue(await authority.issue({ identity: second }));
  const shared = pool();
  const targets: TunnelTarget[] = [
    target,
    { ...target, sourceIdentity: second },
    { ...target, acceptable: [SERVER, second] },
    { ...target, nextHop: { ...target.nextHop, address: '127.0.0.2' as Address } },
  ];
  // The listener is at 127.0.0.1 only, so the last of them is refused.
  const results = await Promise.allSettled(targets.map((each) => shared.connect(each, APP, [], never)));
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'rejected'],
  );
  t.is(far.sockets.length, 3);
  t.deepEqual(far.requests.map(({ peer }) => peer.identity).sort(), [CLIENT, CLIENT, second].sort());
});

law('a session that is full leaves the pool; one more is opened for the rest', async (t, { pool, target, far }) => {
  const shared = pool({ session: { maxStreams: 4 } });
  const connections = await Promise.all(Array.from({ length: 10 }, () => shared.connect(target, APP, [], never)));
  t.is(far.sockets.length, 3);
  t.is(shared.sessions, 3);
  for (const { stream } of connections) {
    collect(stream);
    stream.reset();
  }
  await until(() => shared.sessions === 1);
  t.pass('the full ones end with their last stream, and the one that has room stays');
});

law(
  'a session that a GOAWAY came for finishes its streams, and another is opened',
  async (t, { pool, target, far }) => {
    const shared = pool();
    const old = await shared.connect(target, APP, [], never);
    const collector = collect(old.stream);
    far.server.drain();
    const again = await farEnd(new FakeCertificates(server));
    t.teardown(() => again.close());
    // Reading something after the GOAWAY shows that it has been seen.
    old.stream.write(Buffer.from('still'));
    await until(() => collector.text === 'still');
    const error = await failure(t, shared.connect(target, APP, [], never));
    t.is(far.sockets.length, 2, 'another session is tried');
    t.not(error.code, 'STREAM_RESET');
    old.stream.end();
    t.is(await collector.closes.promise, undefined);
  },
);

test('a request that the peer did not begin with is tried on one more session', async (t) => {
  // Requests that are sent before the peer's SETTINGS have come: it takes one of them in each session.
  const far = await farEnd(new FakeCertificates(server), echo, { session: { maxStreams: 1 } });
  const certificates = new FakeCertificates(client);
  const pool = new TunnelPool({ certificates, open: openLoopback, now: () => performance.now() });
  const target = { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop: far.endpoint };
  const [first, second, third] = [1, 2, 3].map(() => pool.connect(target, APP, [], never));
  const failed = failure(t, Promise.resolve(third));
  await Promise.all([first, second]);
  t.is((await failed).code, 'STREAM_REFUSED');
  t.is(far.sockets.length, 2);
  t.is(far.requests.length, 2);
  pool.close();
  far.close();
});

law('a session that was lost while idle is replaced', async (t, { pool, target, far }) => {
  const shared = pool();
  const { stream } = await shared.connect(target, APP, [], never);
  const collector = collect(stream);
  stream.end();
  await collector.closes.promise;
  far.sockets[0]?.destroy();
  await until(() => shared.sessions === 0);
  await shared.connect(target, APP, [], never);
  t.is(far.sockets.length, 2);
});

law('a session that the peer ends without GOAWAY is lost to all its streams', async (t, { pool, target, far }) => {
  const shared = pool();
  const all = await Promise.all([1, 2, 3].map(() => shared.connect(target, APP, [], never)));
  const collectors = all.map(({ stream }) => collect(stream));
  far.sockets[0]?.destroy();
  for (const { closes } of collectors) t.like(await closes.promise, { code: 'SESSION_LOST' });
  t.is(shared.sessions, 0);
});

law('an idle session is released, one with a stream is not', async (t, { pool, target, far }) => {
  const clock = { now: 0 };
  const shared = pool({ idleMs: 20 }, { now: () => clock.now });
  const { stream } = await shared.connect(target, APP, [], never);
  const collector = collect(stream);
  clock.now = 1000;
  stream.write(Buffer.from('a'));
  await until(() => collector.text === 'a');
  t.is(shared.sessions, 1);
  stream.end();
  await collector.closes.promise;
  await until(() => {
    clock.now += 10;
    return shared.sessions === 0;
  });
  await until(() => far.server.sessions === 0);
  await shared.connect(target, APP, [], never);
  t.is(far.sockets.length, 2);
});

law('of too many sessions the one used longest ago gives way, and finishes its streams', async (t, world) => {
  const { pool, target, far } = world;
  const shared = pool({ maxSessions: 2 });
  const to = (name: string): TunnelTarget => ({ ...target, acceptable: [SERVER, name as SpiffeId] });
  const oldest = await shared.connect(to('a'), APP, [], never);
  await shared.connect(to('b'), APP, [], never);
  await shared.connect(to('a'), APP, [], never);
  await shared.connect(to('c'), APP, [], never);
  t.is(far.sockets.length, 3);
  await shared.connect(to('a'), APP, [], never);
  t.is(far.sockets.length, 3, 'a was used after b');
  await shared.connect(to('b'), APP, [], never);
  t.is(far.sockets.length, 4);
  const collector = collect(oldest.stream);
  oldest.stream.write(Buffer.from('alive'));
  await until(() => collector.text === 'alive');
});

law('all who wait are told that the peer cannot be reached', async (t, { pool, target, far }) => {
  far.listener.close();
  const shared = pool();
  const waiting = [1, 2, 3].map(() => shared.connect(target, APP, [], never));
  for (const each of waiting) {
    const error = await failure(t, each);
    t.is(error.code, 'CONNECT_FAILED');
    t.regex(error.message, /^connecting to 127\.0\.0\.1:\d+ failed: ECONNREFUSED$/);
    t.like(error.cause, { code: 'ECONNREFUSED' });
  }
  t.is(shared.sessions, 0);
});

test('all who wait are told that the peer is somebody else, and nothing was asked of it', async (t) => {
  const far = await farEnd(new FakeCertificates(server));
  const pool = new TunnelPool({ certificates: new FakeCertificates(client), open: openLoopback, now: Date.now });
  const target = { sourceIdentity: CLIENT, acceptable: [CLIENT], nextHop: far.endpoint };
  for (const each of [1, 2].map(() => pool.connect(target, APP, [], never)))
    t.is((await failure(t, each)).code, 'PEER_IDENTITY');
  t.is(pool.sessions, 0);
  t.deepEqual(far.requests, []);
  far.close();
});

law('a peer that does not answer in time may be behind a NetworkPolicy', async (t, { pool, target }) => {
  // A test network (RFC 5737): nobody answers, or there is no way there.
  const nowhere = { ...target, nextHop: { address: '192.0.2.1' as Address, port: 15008 } };
  const error = await failure(t, pool({ connectTimeoutMs: 1 }).connect(nowhere, APP, [], never));
  if (error.code === 'CONNECT_FAILED') return t.log('there is no way to the test network here') as undefined;
  t.is(error.code, 'CONNECT_TIMED_OUT');
  t.is(
    error.message,
    'connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: 192.0.2.1:15008 did not answer within 1 ms',
  );
});

law('a peer that accepts and says nothing fails the handshake in time', async (t, { pool, target }) => {
  const silent = await listening({ pauseOnConnect: true });
  const nextHop = { address: '127.0.0.1' as Address, port: silent.port };
  const error = await failure(t, pool({ handshakeTimeoutMs: 1 }).connect({ ...target, nextHop }, APP, [], never));
  t.is(error.code, 'CONNECT_TIMED_OUT');
  t.is(error.message, 'TLS handshake failed: it took longer than 1 ms');
  const socket = await silent.accepted();
  socket.resume();
  await once(socket, 'end').catch(() => undefined);
  socket.destroy();
  silent.server.close();
});

law(
  'no answer to CONNECT in time ends that request alone',
  async (t, { pool, target, far }) => {
    const shared = pool({ answerTimeoutMs: 1 });
    const error = await failure(t, shared.connect(target, APP, [], never));
    t.is(error.code, 'ANSWER_TIMED_OUT');
    t.is(error.message, `no answer to CONNECT ${APP} within 1 ms`);
    t.is(shared.sessions, 1);
    await until(() => far.requests.length === 1);
  },
  () => {},
);

law(
  'another status than 200 is the error, and the session stays',
  async (t, { pool, target, far }) => {
    const shared = pool();
    for (let time = 0; time < 2; time += 1) {
      const error = await failure(t, shared.connect(target, APP, [], never));
      t.is(error.code, 'STATUS');
      t.is(error.status, 401);
      t.is(error.message, 'http status: 401 Unauthorized');
    }
    t.is(far.sockets.length, 1);
  },
  (request) => request.refuse(401),
);

test('who gives up leaves the session to those who still wait; the last of them ends it', async (t) => {
  const gate = Promise.withResolvers<void>();
  const far = await farEnd(new FakeCertificates(server));
  const asked: string[] = [];
  const certificates = {
    certificate: async (identity: SpiffeId) => {
      asked.push(identity);
      await gate.promise;
      return client;
    },
  };
  const pool = new TunnelPool({ certificates, open: openLoopback, now: Date.now });
  const target = { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop: far.endpoint };
  const aborts = [1, 2, 3].map(() => new AbortController());
  const waiting = aborts.map(({ signal }) => pool.connect(target, APP, [], signal));
  for (const [index, each] of waiting.entries()) {
    t.is(pool.sessions, 1);
    aborts[index]?.abort();
    t.is((await failure(t, each)).code, 'CLOSED');
  }
  t.is(pool.sessions, 0);
  t.is((await failure(t, pool.connect(target, APP, [], AbortSignal.abort()))).code, 'CLOSED');
  t.is(asked.length, 1);

  const given = new AbortController();
  const up = pool.connect(target, APP, [], given.signal);
  const stays = pool.connect(target, APP, [], never);
  given.abort();
  gate.resolve();
  t.is((await failure(t, up)).code, 'CLOSED');
  await stays;
  t.is(far.sockets.length, 1, 'what was given up before it connected never did');
  pool.close();
  far.close();
});

law(
  'who gives up while the peer considers takes the request back',
  async (t, { pool, target, far }) => {
    const abort = new AbortController();
    const taken = Promise.withResolvers<HboneError>();
    const shared = pool();
    const request = shared.connect(target, APP, [], abort.signal);
    await until(() => far.requests.length === 1);
    far.requests[0]?.request.onCancel(taken.resolve);
    abort.abort();
    t.is((await failure(t, request)).code, 'CLOSED');
    await taken.promise;
    t.is(shared.sessions, 1);
  },
  () => {},
);

law('without a certificate nothing is opened', async (t, { pool, target, far, certificates }) => {
  certificates.forget(CLIENT);
  t.is((await failure(t, pool().connect(target, APP, [], never))).code, 'IDENTITY_UNAVAILABLE');
  t.is(far.sockets.length, 0);
});

law('a socket that cannot be opened is told of', async (t, { pool, target }) => {
  const open = () => {
    throw new Error('no namespace');
  };
  const error = await failure(t, pool({}, { open }).connect(target, APP, [], never));
  t.is(error.code, 'CONNECT_FAILED');
  t.regex(error.message, /^no socket could be opened/);
});

law('a renewed certificate is used for new sessions, and old ones live on', async (t, world) => {
  const { pool, target, far, certificates } = world;
  const shared = pool({ session: { maxStreams: 1 } });
  const old = await shared.connect(target, APP, [], never);
  const collector = collect(old.stream);
  const root = await makeAuthority();
  // The server does not trust its root: that the session fails shows that it was used.
  certificates.issue({ ...(await root.issue({ identity: CLIENT })), roots: [authority.root] });
  const refusal = far.refused();
  const error = await failure(t, shared.connect(target, APP, [], never));
  t.is(error.code, 'SESSION_LOST');
  t.regex(error.message, /it may have refused our certificate\)$/);
  t.regex((await refusal).error.message, /trust/);
  certificates.issue(await authority.issue({ identity: CLIENT }));
  await shared.connect(target, APP, [], never);
  old.stream.write(Buffer.from('alive'));
  await until(() => collector.text === 'alive');
});

law('a draining pool takes nothing, finishes what waits and what is open', async (t, { pool, target }) => {
  const shared = pool();
  const { stream } = await shared.connect(target, APP, [], never);
  const collector = collect(stream);
  const waiting = shared.connect({ ...target, acceptable: [SERVER, CLIENT] }, APP, [], never);
  shared.drain();
  shared.drain();
  t.is((await failure(t, shared.connect(target, APP, [], never))).code, 'CLOSED');
  const late = await waiting;
  for (const each of [stream, late.stream]) {
    if (each !== stream) collect(each);
    each.end();
  }
  t.is(await collector.closes.promise, undefined);
  await until(() => shared.sessions === 0);
});

law('a closed pool ends what is open and what waits', async (t, { pool, target }) => {
  const shared = pool();
  const { stream } = await shared.connect(target, APP, [], never);
  const collector = collect(stream);
  const waiting = shared.connect({ ...target, acceptable: [SERVER, CLIENT] }, APP, [], never);
  shared.close();
  shared.close();
  t.like(await collector.closes.promise, { code: 'CLOSED' });
  t.is((await failure(t, waiting)).code, 'CLOSED');
  await until(() => shared.sessions === 0);
  t.is((await failure(t, shared.connect(target, APP, [], never))).code, 'CLOSED');
});
