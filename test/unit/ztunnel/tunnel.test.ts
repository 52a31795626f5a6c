import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type TunnelConnection, TunnelPool } from '../../../src/hbone/index.ts';
import { type Endpoint, formatEndpoint, identityOf, type SpiffeId } from '../../../src/mesh/index.ts';
import type { EndReason } from '../../../src/ztunnel/errors.ts';
import { HBONE_PORT, type PodSockets } from '../../../src/ztunnel/ports.ts';
import { ending } from './loopback.ts';
import { memberOf, service, workload } from './mesh.ts';
import { World, type WorldApp, type WorldPod } from './mesh-world.ts';

interface Two {
  readonly world: World;
  readonly client: WorldPod;
  readonly server: WorldPod;
  readonly app: WorldApp;
}

interface Ends {
  /** The socket of the client's app. */
  readonly near: Socket;
  /** The socket of the server's app. */
  readonly far: Socket;
}

const law = (title: string, run: (t: ExecutionContext) => Promise<void>): void =>
  test(title, async (t) => {
    t.timeout(60_000);
    await run(t);
  });

const two = async (t: ExecutionContext, wish: { server?: Parameters<World['pod']>[1] } = {}): Promise<Two> => {
  const world = await World.create(t);
  const client = await world.pod('client');
  const server = await world.pod('server', wish.server);
  const app = await world.app(server);
  world.tell();
  return { world, client, server, app };
};

law('a connection between two pods of the mesh goes through the tunnel, and is counted at both ends', async (t) => {
  const all = await two(t);
  const { near, far } = await echo(all);
  const endings = Promise.all([ending(near), ending(far)]);
  near.end('bye');
  far.end('bye bye');
  t.deepEqual(await endings, [
    { bytes: Buffer.from('bye bye'), how: 'end' },
    { bytes: Buffer.from('bye'), how: 'end' },
  ]);
  const [atClient, atServer] = await records(all);
  t.like(atClient, { ended: 'clean', bytesSent: 7, bytesReceived: 11, error: undefined });
  t.like(atServer, { ended: 'clean', bytesSent: 7, bytesReceived: 11, error: undefined });
  t.deepEqual([all.client.paths, all.server.paths], [['outboundTunnel'], ['inboundTunnel']]);
  t.deepEqual([all.client.faults, all.server.faults], [[], []]);
});

law('connections to one peer share a session, and an end of the tunnel costs one descriptor', async (t) => {
  const all = await two(t);
  const open: Ends[] = [];
  for (let at = 0; at < 5; at += 1) open.push(await echo(all));
  t.is(all.client.sessionsOpened, 1);
  t.is(all.server.sessionsOpened, 1);
  t.is(all.client.held, 1 + 5);
  t.is(all.server.held, 1 + 5);
  for (const { near, far } of open) {
    near.destroy();
    far.destroy();
  }
  await all.client.until(() => all.client.records.length === 5);
  await all.server.until(() => all.server.records.length === 5);
  t.is(all.client.held, 1);
  t.is(all.server.held, 1);
});

for (const first of ['near', 'far'] as const) {
  law(`a half-close of the ${first} end crosses the tunnel, and the other direction goes on`, async (t) => {
    const all = await two(t);
    const ends = await echo(all);
    const [early, late] = first === 'near' ? [ends.near, ends.far] : [ends.far, ends.near];
    const earlyEnding = ending(early);
    const lateEnding = ending(late);
    early.end('first');
    t.deepEqual(await lateEnding, { bytes: Buffer.from('first'), how: 'end' });
    for (let at = 0; at < 10; at += 1) {
      late.write(`${at}`);
      await turn();
    }
    late.end('done');
    t.deepEqual(await earlyEnding, { bytes: Buffer.from('0123456789done'), how: 'end' });
    t.deepEqual(
      (await records(all)).map((record) => record?.ended),
      ['clean', 'clean'],
    );
  });

  law(`a reset of the ${first} end crosses the tunnel as a reset`, async (t) => {
    const all = await two(t);
    const ends = await echo(all);
    const [breaker, other] = first === 'near' ? [ends.near, ends.far] : [ends.far, ends.near];
    const otherEnding = ending(other);
    breaker.resetAndDestroy();
    t.is((await otherEnding).how, 'ECONNRESET');
    const reason = first === 'near' ? 'reset-by-client' : 'reset-by-server';
    t.deepEqual(
      (await records(all)).map((record) => record?.ended),
      [reason, reason],
    );
  });

  law(`a slow reader at the ${first} end slows the writer at the other, and gets every byte`, async (t) => {
    const all = await two(t);
    const ends = await echo(all);
    const [slow, writer] = first === 'near' ? [ends.near, ends.far] : [ends.far, ends.near];
    slow.pause();
    let sent = 0;
    const chunk = Buffer.alloc(65_536, 5);
    for (let still = 0; still < 200; ) {
      if (writer.writableLength < chunk.length) {
        writer.write(chunk);
        sent += chunk.length;
        still = 0;
      } else still += 1;
      await turn();
    }
    // What two agents, two windows and the kernel's buffers hold; far less than a writer would have sent meanwhile.
    t.true(sent < 64 * 2 ** 20, `${sent}`);
    writer.end();
    const { bytes, how } = await ending(slow);
    t.deepEqual([bytes.length, how], [sent, 'end']);
  });
}

law('a stalled connection does not stop another one of the same session', async (t) => {
  const all = await two(t);
  const stalled = await echo(all);
  const chunk = Buffer.alloc(65_536);
  stalled.near.pause();
  for (let at = 0; at < 400; at += 1) {
    if (stalled.far.writableLength < chunk.length) stalled.far.write(chunk);
    await turn();
  }
  await echo(all);
  t.is(all.client.sessionsOpened, 1);
});

law('what the client sends before the app has answered arrives, its end too', async (t) => {
  const all = await two(t);
  const near = all.client.open(all.app.endpoint);
  near.end('early');
  const far = await all.app.accepted();
  t.deepEqual(await ending(far), { bytes: Buffer.from('early'), how: 'end' });
  far.end('late');
  t.deepEqual(await ending(near), { bytes: Buffer.from('late'), how: 'end' });
});

law('a port on which no app listens: 503, and the client is reset', async (t) => {
  const all = await two(t);
  all.app.server.close();
  t.is((await ending(all.client.open(all.app.endpoint))).how, 'ECONNRESET');
  const [atClient, atServer] = await records(all);
  t.is(atClient?.ended, 'tunnel-refused');
  t.regex(atClient?.error ?? '', /503/);
  t.is(atServer?.ended, 'dial-refused');
  t.is(atClient?.id, atServer?.id);
  for (const record of [atClient, atServer]) t.like(record, { stage: 'addressed', attempts: 1 });
  t.is(atServer?.subject?.sourceIdentity, identityOf(all.client.workload));
});

law('a destination that nobody in the mesh has is passed through', async (t) => {
  const all = await two(t);
  const outside = await all.world.app({ address: all.world.address() });
  await echo({ ...all, app: outside });
  t.deepEqual(all.client.paths, ['outboundPassthrough']);
  t.is(all.client.sessionsOpened, 0);
  t.is(all.client.held, 2);
});

law('a workload that takes no tunnel is connected to in plain', async (t) => {
  const all = await two(t);
  const outside = await all.world.app({ address: all.world.address() });
  all.world.tell([], [workload('outsider', { addresses: [outside.endpoint.address], protocol: 'tcp' })]);
  await echo({ ...all, app: outside });
  t.deepEqual(all.client.paths, ['outboundPlain']);
});

law('a connection waits for the mesh to be known', async (t) => {
  const world = await World.create(t);
  const client = await world.pod('client');
  const server = await world.pod('server');
  const app = await world.app(server);
  const near = client.open(app.endpoint);
  near.write('early');
  await client.until(() => client.held === 2);
  t.is(client.proxy.openConnections, 1);
  world.tell();
  const far = await app.accepted();
  far.resume();
  t.deepEqual(await once(far, 'data'), [Buffer.from('early')]);
});

law('a client that goes away while it waits for the mesh is forgotten', async (t) => {
  const world = await World.create(t);
  const client = await world.pod('client');
  const near = client.open({ address: world.address(), port: 80 });
  await client.until(() => client.held === 2);
  near.resetAndDestroy();
  const timer = setInterval(() => client.proxy.probeAll(), 5);
  await client.until(() => client.records.length === 1);
  clearInterval(timer);
  t.like(client.records[0], { ended: 'client-gone', error: undefined });
  t.is(client.held, 0);
});

law('no certificate of its own: reset, asked for, and said why', async (t) => {
  const all = await two(t);
  const identity = identityOf(all.client.workload);
  all.client.certificates.apply({ kind: 'forgotten', identity });
  const waiting = ending(all.client.open(all.app.endpoint));
  await until(() => all.client.wanted.length > 0);
  t.deepEqual(all.client.wanted, [identity]);
  all.client.certificates.apply({ kind: 'unavailable', identity, reason: 'the CA says no' });
  t.is((await waiting).how, 'ECONNRESET');
  await all.client.until(() => all.client.records.length === 1);
  t.is(all.client.records[0]?.ended, 'tunnel-identity');
  t.regex(all.client.records[0]?.error ?? '', /the CA says no/);
});

law('a certificate that comes while a connection waits is used at once', async (t) => {
  const all = await two(t);
  all.client.certificates.apply({ kind: 'forgotten', identity: identityOf(all.client.workload) });
  const echoed = echo(all);
  await until(() => all.client.wanted.length > 0);
  await all.world.certify(all.client);
  await echoed;
  t.is(all.client.sessionsOpened, 1);
});

law('a peer that is somebody else gets nothing of what the app sends', async (t) => {
  const all = await two(t);
  await all.world.certify(all.server, { identity: 'spiffe://cluster.local/ns/shop/sa/impostor' as SpiffeId });
  const near = all.client.open(all.app.endpoint);
  near.write('secret');
  t.is((await ending(near)).how, 'ECONNRESET');
  await all.client.until(() => all.client.records.length === 1);
  t.is(all.client.records[0]?.ended, 'tunnel-peer-identity');
  t.is(all.client.handshakesFailed, 1);
  t.is(all.server.records.length, 0);
});

law('a client of another trust domain is refused, counted and logged', async (t) => {
  const all = await two(t);
  await all.world.certify(all.client, { identity: 'spiffe://elsewhere.example/ns/shop/sa/client' as SpiffeId });
  t.is((await ending(all.client.open(all.app.endpoint))).how, 'ECONNRESET');
  await all.server.until(() => all.server.logged.length > 0);
  t.is(all.server.handshakesFailed, 1);
  t.like(all.server.logged[0], { message: 'peer refused', direction: 'inbound' });
  t.regex(String(all.server.logged[0]?.error), /trust ?domain/);
  t.is(all.server.records.length, 0);
  await all.server.until(() => all.server.held === 0);
});

law('without a further descriptor a request is refused, and what is open goes on', async (t) => {
  let hasOne = true;
  const all = await two(t, { server: { hasOne: () => hasOne } });
  const { near, far } = await echo(all);
  hasOne = false;
  t.is((await ending(all.client.open(all.app.endpoint))).how, 'ECONNRESET');
  await all.client.until(() => all.client.records.length === 1);
  t.is(all.client.records[0]?.ended, 'tunnel-refused');
  t.like(all.server.logged[0], { message: 'request refused' });
  far.write('still here');
  t.deepEqual(await once(near, 'data'), [Buffer.from('still here')]);
});

law('a connect that fails at one endpoint of a service goes to another', async (t) => {
  const all = await two(t);
  const other = await all.world.pod('other', { workload: { services: memberOf('shop', { 80: 8080 }) } });
  const shop = service('shop', { addresses: ['10.9.0.1'], ports: { 80: all.app.endpoint.port } });
  // Nobody listens at the first one's HBONE port, nor at the port of the second one's app.
  const gone = workload('gone', { addresses: [all.world.address()], services: memberOf('shop') });
  const good = { ...all.server.workload, services: memberOf('shop') };
  all.world.tell([shop], [gone, good]);
  const to: Endpoint = { address: '10.9.0.1' as Endpoint['address'], port: 80 };
  for (let at = 0; at < 10; at += 1) await echo({ ...all, app: { ...all.app, endpoint: to } });
  t.is(all.client.records.length, 0);
  t.deepEqual(new Set(all.client.paths), new Set(['outboundTunnel']));
  t.true(other.records.every(({ ended }) => ended === 'dial-refused'));
});

law('a service whose endpoints all fail is tried at each of them once, then the client is reset', async (t) => {
  const all = await two(t);
  const shop = service('shop', { addresses: ['10.9.0.1'] });
  const gone = ['a', 'b'].map((each) =>
    workload(each, { addresses: [all.world.address()], services: memberOf('shop') }),
  );
  all.world.tell([shop], gone);
  const opened = all.client.sessionsOpened;
  t.is(
    (await ending(all.client.open({ address: shop.addresses[0]?.address ?? all.client.address, port: 80 }))).how,
    'ECONNRESET',
  );
  await all.client.until(() => all.client.records.length === 1);
  t.is(all.client.records[0]?.ended, 'tunnel-unreachable');
  t.is(all.client.sessionsOpened - opened, 2);
});

law('a client that goes away while the tunnel is being made takes its attempt with it', async (t) => {
  const all = await two(t);
  all.client.certificates.apply({ kind: 'forgotten', identity: identityOf(all.client.workload) });
  const near = all.client.open(all.app.endpoint);
  await until(() => all.client.wanted.length > 0);
  near.resetAndDestroy();
  const timer = setInterval(() => all.client.proxy.probeAll(), 5);
  await all.client.until(() => all.client.records.length === 1);
  clearInterval(timer);
  t.is(all.client.records[0]?.ended, 'client-gone');
});

law('a request that is taken back while the app is dialled cancels the dial', async (t) => {
  const opened: Socket[] = [];
  const hang = (sockets: PodSockets): PodSockets => ({
    ...sockets,
    openInbound: (...args) => {
      const socket = sockets.openInbound(...args);
      // It never answers.
      socket.connect = () => socket;
      opened.push(socket);
      return socket;
    },
  });
  const all = await two(t, { server: { sockets: hang } });
  const near = all.client.open(all.app.endpoint);
  await until(() => opened.length === 1);
  near.resetAndDestroy();
  const timer = setInterval(() => all.client.proxy.probeAll(), 5);
  const [atClient, atServer] = await records(all);
  clearInterval(timer);
  t.deepEqual([atClient?.ended, atServer?.ended], ['client-gone', 'client-gone'] satisfies EndReason[]);
  t.true(opened[0]?.destroyed);
});

law('a pod that leaves finishes what it has begun, and its peers go to nobody', async (t) => {
  const all = await two(t);
  const { near, far } = await echo(all);
  all.server.proxy.leave();
  far.write('still here');
  t.deepEqual(await once(near, 'data'), [Buffer.from('still here')]);
  t.is((await ending(all.client.open(all.app.endpoint))).how, 'ECONNRESET');
  const endings = Promise.all([ending(near), ending(far)]);
  near.end();
  far.end();
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['end', 'end'],
  );
  await all.server.proxy.emptied();
  t.is(all.server.sessions, 0);
  t.is(all.server.held, 0);
});

law('a request that crosses the leave of its pod is refused, and nothing is dialled for it', async (t) => {
  let dials = 0;
  const counting = (sockets: PodSockets): PodSockets => ({
    ...sockets,
    openInbound: (...args) => {
      dials += 1;
      return sockets.openInbound(...args);
    },
  });
  const all = await two(t, { server: { sockets: counting } });
  const ask = askFrom(t, all);
  const first = await ask();
  const far = await all.app.accepted();
  first.stream.reset();
  far.on('error', () => {});
  await all.server.until(() => all.server.records.length === 1);
  // On its way before the pod leaves, read after it.
  const crossing = ask();
  all.server.proxy.leave();
  t.false(all.server.proxy.isEmpty);
  t.is(Number(Reflect.get(Object(await t.throwsAsync(crossing)), 'status')), 503);
  t.is(dials, 1);
  t.like(all.server.logged[0], { message: 'request refused', error: 'the pod is leaving' });
  await all.server.proxy.emptied();
  t.is(all.server.sessions, 0);
});

law('a peer that waits for the workload of a pod that leaves is reset, whatever becomes known', async (t) => {
  const world = await World.create(t);
  const server = await world.pod('server');
  const peers = [1, 2].map(() => connect(HBONE_PORT, server.address));
  const endings = Promise.all(peers.map(ending));
  await server.until(() => server.sessions === 2);
  server.proxy.leave();
  world.tell();
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  await server.proxy.emptied();
  t.is(server.held, 0);
});

for (const when of ['before', 'after'] as const)
  law(`a pod whose names make no identity refuses peers, when it is known ${when} they come too`, async (t) => {
    const world = await World.create(t);
    const server = await world.pod('server', { workload: { serviceAccount: 'a/b' } });
    if (when === 'before') world.tell();
    const ended = ending(connect(HBONE_PORT, server.address));
    if (when === 'after') await server.until(() => server.sessions === 1);
    if (when === 'after') world.tell();
    t.is((await ended).how, 'ECONNRESET');
    await server.until(() => server.logged.length > 0);
    t.like(server.logged[0], { message: 'peer refused', direction: 'inbound' });
    t.regex(String(server.logged[0]?.error), /a\/b is no SPIFFE id/);
    t.truthy(server.logged[0]?.['src.addr']);
  });

law('a client that leaves closes its sessions when its last connection has ended', async (t) => {
  const all = await two(t);
  const { near, far } = await echo(all);
  all.client.proxy.leave();
  t.is(all.client.sessions, 1);
  const endings = Promise.all([ending(near), ending(far)]);
  near.end();
  far.end();
  await endings;
  await all.client.proxy.emptied();
  t.is(all.client.sessions, 0);
});

for (const dropped of ['client', 'server'] as const)
  law(`dropping the ${dropped} resets everything at once, at both ends`, async (t) => {
    const all = await two(t);
    const { near, far } = await echo(all);
    const endings = Promise.all([ending(near), ending(far)]);
    all[dropped].proxy.stopAccepting();
    all[dropped].proxy.resetAll('pod-dropped');
    t.deepEqual(
      (await endings).map(({ how }) => how),
      ['ECONNRESET', 'ECONNRESET'],
    );
    await all[dropped].proxy.emptied();
    t.is(all[dropped].records[0]?.ended, 'pod-dropped');
    t.is(all[dropped].held, 0);
  });

law('a request that is no CONNECT to this pod is answered as the wire contract says', async (t) => {
  const all = await two(t);
  const foreign = all.world.address();
  const connectTo = askFrom(t, all);
  const ask = async (authority: string): Promise<number | undefined> =>
    Number(Reflect.get(Object(await t.throwsAsync(connectTo(authority))), 'status'));
  t.is(await ask(`${foreign}:80`), 400);
  t.is(await ask('no-port'), 400);
  t.is(await ask('unknown.shop.svc.cluster.local:80'), 503);
  t.is(await ask(`${all.server.address}:15008`), 503);
  t.is(await ask(`${all.server.address}:1`), 503);
  await all.server.until(() => all.server.records.length === 5);
  t.deepEqual(
    all.server.records.map(({ ended }) => ended),
    ['bad-request', 'bad-request', 'unknown-target', 'recursive-call', 'dial-refused'],
  );
  t.regex(all.server.records[0]?.error ?? '', /^ip mismatch: /);
});

/** The client's agent without its proxy: asks the server's for what it likes, by default for its app. */
function askFrom(t: ExecutionContext, all: Two): (authority?: string) => Promise<TunnelConnection> {
  const pool = new TunnelPool({
    certificates: all.client.certificates,
    open: (nextHop) => all.client.socket(nextHop),
    now: () => performance.now(),
  });
  t.teardown(() => pool.close());
  const target = {
    sourceIdentity: identityOf(all.client.workload),
    acceptable: [identityOf(all.server.workload)],
    nextHop: { address: all.server.address, port: HBONE_PORT },
  };
  return (authority = formatEndpoint(all.app.endpoint)) =>
    pool.connect(target, authority, [], new AbortController().signal);
}

/** Sends something through and waits for the answer. */
async function echo({ client, app }: Pick<Two, 'client' | 'app'>): Promise<Ends> {
  const near = client.open(app.endpoint);
  near.write('ping');
  const far = await app.accepted();
  far.resume();
  const [asked] = await once(far, 'data');
  far.write(asked);
  await once(near, 'data');
  return { near, far };
}

/** The first record of each end. */
async function records({
  client,
  server,
}: Two): Promise<[WorldPod['records'][0] | undefined, WorldPod['records'][0] | undefined]> {
  await Promise.all([client.until(() => client.records.length > 0), server.until(() => server.records.length > 0)]);
  return [client.records[0], server.records[0]];
}

/** Resolves when it is so; nothing tells of it. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn();
}
