import { once } from 'node:events';
import type { Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { type FlowSubject, identityOf, type Workload } from '../../../src/mesh/index.ts';
import type { SeriesLabels } from '../../../src/telemetry/index.ts';
import { deny } from '../policy/policies.ts';
import { ending } from './loopback.ts';
import { byName, endpoint, memberOf, service, workload } from './mesh.ts';
import { World, type WorldApp, type WorldPod } from './mesh-world.ts';

interface Two {
  readonly world: World;
  readonly client: WorldPod;
  readonly server: WorldPod;
  readonly app: WorldApp;
}

async function two(t: ExecutionContext): Promise<Two> {
  t.timeout(60_000);
  const world = await World.create(t);
  const client = await world.pod('client');
  const server = await world.pod('server', { workload: { services: memberOf('shop') } });
  const app = await world.app(server);
  world.tell([service('shop', { addresses: ['10.9.0.1'], ports: { 80: app.endpoint.port } })]);
  return { world, client, server, app };
}

test('the record of a connection through the tunnel says at each end who it was', async (t) => {
  const { client, server, app } = await two(t);
  await conversation(app, client.open(endpoint('10.9.0.1:80')));
  const identities = {
    sourceIdentity: identityOf(client.workload),
    destinationIdentity: identityOf(server.workload),
    server: app.endpoint,
    path: 'tunnel',
    service: { name: 'shop', namespace: 'shop', hostname: 'shop.shop.svc.cluster.local' },
  };
  t.like(await record1(client), { ...identities, direction: 'outbound' });
  const inbound = await record1(server);
  t.like(inbound, { ...identities, direction: 'inbound' });
  t.is(inbound?.client?.address, client.records[0]?.subject?.client?.address);
  t.is(server.records[0]?.decision?.reason, 'no-policy');
});

test('the record of plaintext names nobody', async (t) => {
  const { server, app } = await two(t);
  await conversation(app, server.openPlain(app.endpoint));
  t.like(await record1(server), {
    direction: 'inbound',
    path: 'plain',
    sourceIdentity: undefined,
    service: undefined,
  });
});

test('the record of a connection that policy refused says at each end what was wanted', async (t) => {
  const { world, client, server, app } = await two(t);
  world.rule(deny([]));
  await ending(client.open(app.endpoint));
  const wanted = { path: 'tunnel', sourceIdentity: identityOf(client.workload), server: app.endpoint };
  t.like(await record1(client), { ...wanted, direction: 'outbound', destinationIdentity: undefined });
  t.like(await record1(server), { ...wanted, direction: 'inbound' });
  t.is(client.records[0]?.ended, 'tunnel-refused');
  t.is(server.records[0]?.decision?.policy, 'shop/deny');
});

test('the record of what leaves the mesh, or goes nowhere, says where to', async (t) => {
  const { world, client } = await two(t);
  const outside = await world.app({ address: world.address() });
  await conversation(outside, client.open(outside.endpoint));
  t.like(await record1(client), {
    direction: 'outbound',
    path: 'passthrough',
    server: outside.endpoint,
    sourceIdentity: undefined,
  });
  world.tell([service('empty', { addresses: ['10.9.0.7'] })]);
  await ending(client.open(endpoint('10.9.0.7:80')));
  await client.until(() => client.records.length === 2);
  t.like(client.records[1], { ended: 'no-endpoint', subject: { server: endpoint('10.9.0.7:80') } });
});

test('a record says how long it took, what the kernel has measured, and by what name both agents know it', async (t) => {
  const { client, server, app } = await two(t);
  await conversation(app, client.open(app.endpoint));
  await client.until(() => client.records.length === 1);
  await server.until(() => server.records.length === 1);
  const [near, far] = [client.records[0], server.records[0]];
  t.regex(near?.id ?? '', /^[0-9a-f]{32}$/);
  t.is(far?.id, near?.id);
  const wanted = { stage: 'connected', ended: 'clean', error: undefined, attempts: 1, bytesSent: 4, bytesReceived: 4 };
  for (const record of [near, far]) {
    t.like(record, wanted);
    const { connectMs = Number.NaN, firstByteMs = Number.NaN, durationMs = Number.NaN } = record ?? {};
    t.true(0 < connectMs && connectMs <= firstByteMs && firstByteMs <= durationMs);
  }
  t.is(near?.roundTripUs, undefined, "a session's socket is not asked");
  t.like(far, { roundTripUs: 42, retransmits: 1 });
});

test('a connection is counted while it is open, its bytes too, at both ends', async (t) => {
  const { client, server, app } = await two(t);
  const near = client.open(endpoint('10.9.0.1:80'));
  near.write('ping');
  const far = (await app.accepted()).resume();
  await once(far, 'data');
  far.write('pong!');
  await once(near, 'data');
  for (const [pod, reporter] of [
    [client, 'source'],
    [server, 'destination'],
  ] as const) {
    const [counted, ...more] = pod.series.counted();
    t.deepEqual(more, []);
    t.deepEqual(counted?.counts, { opened: 1, closed: 0, failed: 0, received: 4, sent: 5 });
    t.like(counted?.labels, {
      reporter,
      source_workload: client.workload.workloadName,
      source_principal: identityOf(client.workload),
      destination_workload: server.workload.workloadName,
      destination_principal: identityOf(server.workload),
      destination_service: 'shop.shop.svc.cluster.local',
      connection_security_policy: 'mutual_tls',
      response_flags: '-',
    });
  }
  t.deepEqual(
    [client.sockets, server.sockets],
    [
      { outboundSockets: 1, inboundSockets: 0 },
      { outboundSockets: 0, inboundSockets: 1 },
    ],
  );
  near.resetAndDestroy();
  await client.until(() => client.records.length === 1);
  await server.until(() => server.records.length === 1);
  for (const { series } of [client, server]) {
    t.deepEqual([series.sum('opened'), series.sum('closed'), series.sum('failed')], [1, 1, 1]);
    t.is(series.sum('closed', { response_flags: 'CONNECT' }), 1);
    t.deepEqual([series.sum('received'), series.sum('sent')], [4, 5]);
  }
  t.is(client.sockets.outboundSockets, 0);
});

test('what is passed through is counted, to nobody that is known, and what goes nowhere is not', async (t) => {
  const { world, client } = await two(t);
  const outside = await world.app({ address: world.address() });
  await conversation(outside, client.open(outside.endpoint));
  await client.until(() => client.records.length === 1);
  t.like(client.records[0], { stage: 'connected', roundTripUs: 42 });
  const [counted] = client.series.counted();
  t.like(counted?.labels, {
    source_workload: client.workload.workloadName,
    source_principal: 'unknown',
    destination_workload: 'unknown',
    destination_service: 'unknown',
    connection_security_policy: 'unknown',
  });
  t.deepEqual(counted?.counts, { opened: 1, closed: 1, failed: 0, received: 4, sent: 4 });
  world.tell([service('empty', { addresses: ['10.9.0.7'] })]);
  await ending(client.open(endpoint('10.9.0.7:80')));
  await client.until(() => client.records.length === 2);
  t.like(client.records[1], { ended: 'no-endpoint', stage: 'early', attempts: 0, connectMs: undefined });
  t.regex(client.records[1]?.error ?? '', /^no healthy upstream/);
  t.deepEqual([client.series.sum('opened'), client.series.sum('closed')], [1, 1]);
});

test('who goes to a further endpoint is counted there, and as failed at the one before', async (t) => {
  const { client, gone, app } = await withOneGone(t, { protocol: 'tcp' });
  await conversation(app, client.open(endpoint('10.9.0.1:80'), gone));
  await client.until(() => client.records.length === 1);
  t.like(client.records[0], { ended: 'clean', attempts: 2 });
  const counted = (labels: SeriesLabels) =>
    (['opened', 'closed', 'failed', 'sent'] as const).map((cell) => client.series.sum(cell, labels));
  t.deepEqual(counted({ connection_security_policy: 'unknown' }), [1, 1, 1, 0]);
  t.deepEqual(counted({ connection_security_policy: 'mutual_tls' }), [1, 1, 0, 4]);
});

test('who goes to a further endpoint with the same labels is one connection', async (t) => {
  const { client, gone, app } = await withOneGone(t, {});
  await conversation(app, client.open(endpoint('10.9.0.1:80'), gone));
  await client.until(() => client.records.length === 1);
  t.like(client.records[0], { ended: 'clean', attempts: 2 });
  t.deepEqual(
    client.series.counted().map(({ counts }) => counts),
    [{ opened: 1, closed: 1, failed: 0, received: 4, sent: 4 }],
  );
});

test('a connection is told to be direct where no encryption is due, and not where it is', async (t) => {
  const { world, client, server, app } = await two(t);
  const outside = await world.app({ address: world.address() });
  const tcp = await world.app({ address: world.address() });
  const far = await world.pod('far', { workload: { node: 'n2' } });
  const farApp = await world.app(far);
  const own = await world.app(client);
  world.tell([], [workload('tcp', { addresses: [tcp.endpoint.address], protocol: 'tcp' })]);

  await conversation(farApp, client.open(farApp.endpoint));
  await conversation(own, client.open(own.endpoint));
  t.deepEqual(client.direct, []);
  await conversation(app, client.open(endpoint('10.9.0.1:80')));
  await conversation(outside, client.open(outside.endpoint));
  await conversation(tcp, client.open(tcp.endpoint));
  t.deepEqual(client.direct, [app.endpoint, outside.endpoint, tcp.endpoint]);

  world.tell([service('gate')]);
  world.change({ workloads: [{ ...server.workload, waypoint: byName('gate') }] });
  await ending(client.open(app.endpoint));
  t.is(client.direct.length, 3, 'nothing is told of what could not be connected');
});

test('the endpoint that the kernel has drawn gets the connection, unless it is none of the service', async (t) => {
  const { world, client, server, app } = await two(t);
  const other = await world.pod('other', { workload: { services: memberOf('shop') } });
  world.tell();
  const vip = endpoint('10.9.0.1:80');
  const there = await world.app({ address: other.address }, app.endpoint.port);
  for (const [picked, pod] of [
    [app, server],
    [there, other],
    [there, other],
  ] as const) {
    const before = pod.paths.length;
    await conversation(picked, client.open(vip, picked.endpoint));
    t.is(pod.paths.length, before + 1);
  }
  const stray = { address: world.address(), port: app.endpoint.port };
  const ended = ending(client.open(vip, stray).end());
  const far = await Promise.race([app.accepted(), there.accepted()]);
  far.resume().end('somebody');
  t.is((await ended).bytes.toString(), 'somebody');
});

/** A service of two endpoints, which differ in nothing but the wish; nobody is at the first. */
async function withOneGone(t: ExecutionContext, wish: Pick<Partial<Workload>, 'protocol'>) {
  t.timeout(60_000);
  const world = await World.create(t);
  const client = await world.pod('client');
  const alike = { services: memberOf('shop'), workloadName: 'cart', canonicalName: 'cart', serviceAccount: 'cart' };
  const server = await world.pod('server', { workload: alike });
  const app = await world.app(server);
  const away = workload('away', { ...alike, protocol: 'hbone', ...wish, addresses: [world.address()] });
  world.tell([service('shop', { addresses: ['10.9.0.1'], ports: { 80: app.endpoint.port } })], [away]);
  return { client, app, gone: { address: away.addresses[0] ?? server.address, port: app.endpoint.port } };
}

/** Both ends say something and finish. */
async function conversation(app: WorldApp, near: Socket): Promise<void> {
  near.end('ping');
  const far = await app.accepted();
  far.resume();
  await once(far, 'end');
  far.end('pong');
  await ending(near);
}

/** What the first connection of a pod was. */
async function record1(pod: WorldPod): Promise<FlowSubject | undefined> {
  await pod.until(() => pod.records.length > 0);
  return pod.records[0]?.subject;
}
