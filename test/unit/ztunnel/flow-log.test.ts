import { once } from 'node:events';
import type { Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { type FlowRecord, identityOf, type NetnsCookie } from '../../../src/mesh/index.ts';
import { FlowLog, type FlowSubject } from '../../../src/ztunnel/flow-log.ts';
import type { ConnectionRecord } from '../../../src/ztunnel/open-connection.ts';
import { deny } from '../policy/policies.ts';
import { ending } from './loopback.ts';
import { byName, endpoint, memberOf, service, workload } from './mesh.ts';
import { World, type WorldApp, type WorldPod } from './mesh-world.ts';

const pod = 7n as NetnsCookie;
const subject: FlowSubject = {
  direction: 'inbound',
  path: 'plain',
  client: endpoint('10.1.0.1:4000'),
  server: endpoint('10.1.0.2:80'),
  sourceIdentity: undefined,
  destinationIdentity: undefined,
  service: undefined,
};
const record: ConnectionRecord = {
  ended: 'clean',
  refusal: undefined,
  facts: undefined,
  subject,
  decision: undefined,
  bytesFromClient: 1,
  bytesFromServer: 2,
  durationMs: 3,
};

function flowLog(): { batches: Array<readonly [readonly FlowRecord[], number]>; it: FlowLog } {
  const batches: Array<readonly [readonly FlowRecord[], number]> = [];
  return { batches, it: new FlowLog((records, dropped) => batches.push([records, dropped])) };
}

test('connections that have ended are told in batches, and how many had no room', (t) => {
  const { batches, it } = flowLog();
  it.flush();
  t.deepEqual(batches, [], 'nothing has ended');
  for (let count = 0; count < 300; count += 1) it.add(pod, record);
  it.flush();
  it.add(pod, { ...record, ended: 'policy-denied' });
  it.flush();
  it.flush();
  t.deepEqual(
    batches.map(([records, dropped]) => [records.length, dropped]),
    [
      [256, 44],
      [1, 0],
    ],
  );
  t.like(batches[1]?.[0][0], {
    pod,
    ...subject,
    ended: 'policy-denied',
    bytesSent: 1,
    bytesReceived: 2,
    durationMs: 3,
  });
});

test('a connection that nobody wants a record of is not told', (t) => {
  const { batches, it } = flowLog();
  it.add(pod, { ...record, subject: undefined });
  it.flush();
  t.deepEqual(batches, []);
});

interface Two {
  readonly world: World;
  readonly client: WorldPod;
  readonly server: WorldPod;
  readonly app: WorldApp;
}

async function two(t: ExecutionContext): Promise<Two> {
  t.timeout(60_000);
  const world = await World.create(t);
  const client = await world.pod('client', { recordsFlows: true });
  const server = await world.pod('server', { recordsFlows: true, workload: { services: memberOf('shop') } });
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
    service: 'shop.shop.svc.cluster.local',
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
