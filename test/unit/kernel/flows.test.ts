/** Flows of the kernel path: listed, ended, swept. The entries are made by hand, the sockets are real. */
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import net from 'node:net';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import * as addon from '../../../native/addon/index.js';
import {
  encodeConnection,
  encodeEndpoint,
  encodeFlow,
  encodeFlowRecord,
  type Flow,
  flowEnd,
  flowKind,
  flowState,
} from '../../../src/gen/layout.ts';
import { readU64 } from '../../../src/kernel/bytes.ts';
import { SOL_SOCKET } from '../../../src/kernel/constants.ts';
import { descriptorOf } from '../../../src/kernel/descriptor.ts';
import { EndpointReader } from '../../../src/kernel/endpoint-reader.ts';
import { readFlowEnds } from '../../../src/kernel/flow-records.ts';
import { FlowSamples } from '../../../src/kernel/flow-samples.ts';
import { FlowSweep } from '../../../src/kernel/flow-sweep.ts';
import { Flows } from '../../../src/kernel/flows.ts';
import { type Address, type Endpoint, encodeAddress, type NetnsCookie } from '../../../src/mesh/index.ts';
import { TestMaps } from './maps.ts';

const SO_COOKIE = 57;
const second = 1_000_000_000n;

let kernel: TestMaps;
test.before(() => {
  kernel = new TestMaps();
});
test.beforeEach(() => kernel.empty());
test.after.always(() => kernel?.close());

const at = (address: string, port: number): Endpoint => ({ address: address as Address, port });
const structOf = ({ address, port }: Endpoint) => ({ address: { bytes: encodeAddress(address) }, port });

/** Two pods' namespaces, which for the sockets' sake are one: they meet on its loopback. */
class Pods {
  readonly netnsFd = addon.netnsCreate();
  readonly enrolled = new Set<bigint>();
  readonly open = new Set<bigint>();
  readonly swept = new Map<bigint, number>();

  namespaceOf(cookie: NetnsCookie): number | undefined {
    return this.open.has(cookie) ? this.netnsFd : undefined;
  }

  hasPod(cookie: NetnsCookie): boolean {
    return this.enrolled.has(cookie);
  }

  countSweptFlows(cookie: NetnsCookie, count: number): void {
    this.swept.set(cookie, (this.swept.get(cookie) ?? 0) + count);
  }
}

const [source, destination] = [1001n, 1002n];

function podsOf(t: ExecutionContext): Pods {
  const pods = new Pods();
  t.teardown(() => closeSync(pods.netnsFd));
  for (const cookie of [source, destination]) {
    pods.enrolled.add(cookie);
    pods.open.add(cookie);
  }
  return pods;
}

function put(client: Endpoint, server: Endpoint, flow: Partial<Flow>): void {
  const value: Flow = {
    source,
    destination,
    sourceEpoch: 3n,
    destinationEpoch: 4n,
    sinceNs: process.hrtime.bigint() - 60n * second,
    clientSocket: 0n,
    serverSocket: 0n,
    kind: flowKind.LOCAL,
    state: flowState.ESTABLISHED,
    asked: structOf(at('0.0.0.0', 0)),
    ...flow,
  };
  const netns = value.kind === flowKind.OUTSIDE ? value.source : value.destination;
  const key = { netns, client: structOf(client), server: structOf(server) };
  addon.mapUpdate(kernel.maps.flows, encodeConnection(key), encodeFlow(value));
}

interface Pair {
  readonly client: net.Socket;
  readonly accepted: net.Socket;
  readonly ends: [Endpoint, Endpoint];
}

const cookieOf = (socket: net.Socket): bigint =>
  readU64(addon.socketOption(descriptorOf(socket), SOL_SOCKET, SO_COOKIE, 8));

async function pair(t: ExecutionContext, netnsFd: number | undefined, address = '127.0.0.1'): Promise<Pair> {
  const place = { family: address.includes(':') ? 6 : 4, ...(netnsFd === undefined ? {} : { netnsFd }) } as const;
  const bind = { address: encodeAddress(address as Address), port: 0 };
  const server = net.createServer().listen({ fd: addon.socketOpen({ ...place, bind, backlog: 4 }) });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const client = new net.Socket({ fd: addon.socketOpen(place) });
  client.connect({ host: address, port });
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[net.Socket], []];
  for (const socket of [client, accepted]) socket.on('error', () => undefined).resume();
  t.teardown(() => {
    client.destroy();
    accepted.destroy();
    server.close();
  });
  return { client, accepted, ends: [at(address, client.localPort ?? 0), at(address, port)] };
}

const closed = (socket: net.Socket): Promise<unknown> =>
  socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', resolve));

test.serial('flows are listed as they were written', (t) => {
  const flows = new Flows(kernel.maps.flows, new Pods());
  t.deepEqual(flows.list(), []);
  const [client, server] = [at('10.0.0.1', 40_000), at('fd00::2', 8080)];
  put(client, server, { sinceNs: 5n, clientSocket: 6n, serverSocket: 7n });
  t.deepEqual(flows.list(), [
    {
      kind: 'local',
      state: 'established',
      source: source as NetnsCookie,
      destination: destination as NetnsCookie,
      client,
      server,
      sourceEpoch: 3n,
      destinationEpoch: 4n,
      sinceNs: 5n,
      clientSocket: 6n,
      serverSocket: 7n,
    },
  ]);
  put(client, at('10.0.0.9', 80), { kind: flowKind.OUTSIDE, destination: 0n, state: flowState.APPROVED });
  put(at('192.0.2.1', 1), server, { kind: flowKind.PLAIN, source: 0n, state: flowState.ARRIVED });
  put(at('10.0.0.254', 1), server, { kind: flowKind.PROBE, source: 0n, destination: 1003n });
  const told = (of?: bigint[]) =>
    flows
      .list(of && new Set(of as NetnsCookie[]))
      .map(({ kind, state }) => `${kind} ${state}`)
      .sort();
  t.deepEqual(told(), ['local established', 'outside approved', 'plain arrived', 'probe established']);
  t.deepEqual(told([source]), ['local established', 'outside approved']);
  t.deepEqual(told([1003n, destination]), ['local established', 'plain arrived', 'probe established']);
  t.deepEqual(told([1n]), []);
});

for (const address of ['127.0.0.1', '::1'])
  test.serial(`a flow that is destroyed resets both of its sockets and is over, ${address}`, async (t) => {
    const pods = podsOf(t);
    const flows = new Flows(kernel.maps.flows, pods);
    const { client, accepted, ends } = await pair(t, pods.netnsFd, address);
    const other = await pair(t, pods.netnsFd, address);
    put(...ends, { clientSocket: cookieOf(client), serverSocket: cookieOf(accepted) });
    put(...other.ends, { clientSocket: cookieOf(other.client) });
    const forbidden = flows.list().filter((flow) => flow.client.port === ends[0].port);
    t.true(flows.destroy(forbidden) >= 1);
    await Promise.all([closed(client), closed(accepted)]);
    t.deepEqual(
      flows.list().map((flow) => flow.client),
      [other.ends[0]],
    );
    t.false(other.client.closed);
    t.deepEqual([...pods.swept], [[source, 1]]);
    t.is(flows.destroy(forbidden), 0);
    t.deepEqual([...pods.swept], [[source, 1]]);
  });

test.serial('flows of every kind are ended by the sockets that are on this node', async (t) => {
  const pods = podsOf(t);
  const flows = new Flows(kernel.maps.flows, pods);
  const outside = await pair(t, pods.netnsFd);
  put(...outside.ends, { kind: flowKind.OUTSIDE, destination: 0n });
  const plain = await pair(t, pods.netnsFd);
  put(...plain.ends, { kind: flowKind.PLAIN, source: 0n, serverSocket: cookieOf(plain.accepted) });
  // The host's own namespace is here that of the test.
  const probe = await pair(t, undefined);
  put(...probe.ends, { kind: flowKind.PROBE, source: 0n, clientSocket: cookieOf(probe.client) });
  t.is(flows.destroy(flows.list()), 3);
  await Promise.all([outside, plain, probe].flatMap(({ client, accepted }) => [closed(client), closed(accepted)]));
  t.is(kernel.count('flows'), 0);
  t.deepEqual([pods.swept.get(source), pods.swept.get(destination)], [1, 2]);
});

test.serial('an approval whose SYN is under way is taken back, with its socket', async (t) => {
  const pods = podsOf(t);
  const flows = new Flows(kernel.maps.flows, pods);
  const place = { family: 4, netnsFd: pods.netnsFd } as const;
  const address = encodeAddress('127.0.0.1' as Address);
  // The only place of its queue is taken, so nobody answers the next.
  const listener = addon.socketOpen({ ...place, bind: { address, port: 9191 }, backlog: 0 });
  t.teardown(() => closeSync(listener));
  const taker = new net.Socket({ fd: addon.socketOpen(place) }).connect({ host: '127.0.0.1', port: 9191 });
  t.teardown(() => void taker.destroy());
  await once(taker, 'connect');
  const client = new net.Socket({ fd: addon.socketOpen({ ...place, bind: { address, port: 9192 } }) });
  t.teardown(() => void client.destroy());
  const error = once(client, 'error');
  client.connect({ host: '127.0.0.1', port: 9191 });
  await setImmediate(); // Node connects in its next turn.
  put(at('127.0.0.1', 9192), at('127.0.0.1', 9191), { state: flowState.APPROVED, clientSocket: cookieOf(client) });
  t.is(flows.destroy(flows.list()), 1);
  t.is(Reflect.get((await error)[0], 'code'), 'ECONNABORTED');
  t.is(kernel.count('flows'), 0);
});

test.serial('an approval without a socket is taken back alone', (t) => {
  const pods = podsOf(t);
  const flows = new Flows(kernel.maps.flows, pods);
  put(at('127.0.0.1', 1), at('127.0.0.1', 2), { state: flowState.APPROVED });
  t.is(flows.destroy(flows.list()), 0);
  t.is(kernel.count('flows'), 0);
});

test.serial('a flow whose socket cannot be looked for stays listed, an approval does not', (t) => {
  const pods = podsOf(t);
  pods.open.clear();
  const flows = new Flows(kernel.maps.flows, pods);
  const kinds = [flowKind.LOCAL, flowKind.OUTSIDE, flowKind.PLAIN];
  for (const [port, kind] of kinds.entries())
    for (const state of [flowState.APPROVED, flowState.ESTABLISHED])
      put(at('127.0.0.1', 1 + port), at('127.0.0.1', 100 + state), { kind, state });
  t.is(flows.destroy(flows.list()), 0);
  t.deepEqual(
    flows
      .list()
      .map(({ kind, state }) => `${kind} ${state}`)
      .sort(),
    ['local established', 'outside approved', 'outside established', 'plain established'],
  );
});

test.serial('a newer connection of the same addresses keeps its entry', (t) => {
  const pods = podsOf(t);
  const flows = new Flows(kernel.maps.flows, pods);
  const ends = [at('127.0.0.1', 1), at('127.0.0.1', 2)] as const;
  put(...ends, { sinceNs: 1n, clientSocket: 1n });
  const listed = flows.list();
  put(...ends, { sinceNs: 2n, clientSocket: 2n });
  flows.destroy(listed);
  t.is(flows.list()[0]?.sinceNs, 2n);
  t.is(pods.swept.size, 0);
});

test.serial('a namespace whose sockets cannot be ended keeps no others alive, and is tried again', async (t) => {
  const pods = podsOf(t);
  let sourceFd = 999_999;
  const flows = new Flows(kernel.maps.flows, {
    namespaceOf: (cookie) => (cookie === source ? sourceFd : pods.netnsFd),
    countSweptFlows: () => undefined,
  });
  const local = await pair(t, pods.netnsFd);
  const outside = await pair(t, pods.netnsFd);
  put(...local.ends, {});
  put(...outside.ends, { kind: flowKind.OUTSIDE, destination: 0n, clientSocket: cookieOf(outside.client) });
  t.is(flows.destroy(flows.list()), 1);
  await closed(local.client);
  t.is(kernel.count('flows'), 2);
  sourceFd = pods.netnsFd;
  t.false(outside.client.closed);
  flows.retry();
  await closed(outside.client);
  t.is(kernel.count('flows'), 0);
  flows.retry();
});

test.serial('where no namespace’s sockets can be ended, that is told', async (t) => {
  const pods = podsOf(t);
  let isBroken = true;
  const flows = new Flows(kernel.maps.flows, {
    namespaceOf: (cookie) => (isBroken ? 999_000 + Number(cookie) : pods.netnsFd),
    countSweptFlows: () => undefined,
  });
  const { client, ends } = await pair(t, pods.netnsFd);
  put(...ends, {});
  const error = t.throws(() => flows.destroy(flows.list()), { code: 'KERNEL_REFUSED' });
  t.is(Reflect.get(Object(error?.cause), 'code'), 'EBADF');
  flows.retry();
  isBroken = false;
  flows.retry();
  await closed(client);
});

test.serial('a connection that no table knows is found and ended by its addresses alone', async (t) => {
  const pods = podsOf(t);
  const flows = new Flows(kernel.maps.flows, pods);
  const { accepted, ends } = await pair(t, pods.netnsFd);
  const [client, server] = ends;
  const flow = { kind: 'plain', state: 'established', source: 0n, destination, client, server } as const;
  const unknown = { sourceEpoch: 0n, destinationEpoch: 0n, sinceNs: 0n, clientSocket: 0n, serverSocket: 0n };
  const unrecorded = { ...flow, ...unknown, destination: destination as NetnsCookie };
  t.is(flows.destroy([unrecorded]), 1);
  await closed(accepted);
  t.is(flows.destroy([unrecorded]), 0);
  t.is(pods.swept.size, 0);
});

test.serial('a flow whose end nobody reported is swept once its socket is gone, and counted off once', async (t) => {
  const pods = podsOf(t);
  const sweep = new FlowSweep(kernel.maps.flows, pods);
  const local = await pair(t, pods.netnsFd);
  const plain = await pair(t, pods.netnsFd);
  const probe = await pair(t, undefined);
  put(...local.ends, { clientSocket: cookieOf(local.client) });
  put(...plain.ends, { kind: flowKind.PLAIN, source: 0n, serverSocket: cookieOf(plain.accepted) });
  put(...probe.ends, { kind: flowKind.PROBE, source: 0n });
  t.is(sweep.run(), 0);
  t.is(kernel.count('flows'), 3);
  for (const { client, accepted } of [local, plain, probe]) {
    // The client ends first, so that its socket waits in TIME_WAIT.
    client.end();
    await once(accepted, 'end');
    accepted.end();
    await Promise.all([closed(client), closed(accepted)]);
  }
  t.is(sweep.run(), 3);
  t.is(sweep.run(), 0);
  t.is(kernel.count('flows'), 0);
  t.deepEqual([pods.swept.get(source), pods.swept.get(destination)], [1, 2]);
});

test.serial('only what is old enough is swept', (t) => {
  const pods = podsOf(t);
  const nowNs = process.hrtime.bigint();
  const rows: Array<[what: string, ageSeconds: bigint, flow: Partial<Flow>, swept: boolean]> = [
    ['young', 9n, {}, false],
    ['old', 11n, {}, true],
    ['an approval without a socket', 11n, { state: flowState.APPROVED }, true],
    ['of a pod whose namespace is not open yet', 11n, { source: 1005n }, false],
    ['the same, for ever in approval', 151n, { source: 1005n, state: flowState.APPROVED }, true],
    ['the same, arrived', 151n, { source: 1005n, state: flowState.ARRIVED }, true],
    ['the same, established', 151n, { source: 1005n }, false],
    ['of a pod that is not enrolled', 11n, { source: 1006n }, true],
  ];
  pods.enrolled.add(1005n);
  for (const [what, age, flow, swept] of rows) {
    kernel.empty();
    put(at('127.0.0.1', 1), at('127.0.0.1', 2), { ...flow, sinceNs: nowNs - age * second });
    t.is(new FlowSweep(kernel.maps.flows, pods).run(nowNs), swept ? 1 : 0, what);
    t.is(kernel.count('flows'), swept ? 0 : 1, what);
  }
});

test.serial('what cannot be asked after is not swept, and keeps nothing else from it', (t) => {
  const pods = podsOf(t);
  const sweep = new FlowSweep(kernel.maps.flows, {
    namespaceOf: (cookie) => (cookie === source ? 999_999 : pods.netnsFd),
    hasPod: () => true,
    countSweptFlows: () => undefined,
  });
  put(at('127.0.0.1', 1), at('127.0.0.1', 2), {});
  put(at('127.0.0.1', 3), at('127.0.0.1', 2), { source: 1005n });
  t.is(sweep.run(), 1);
  t.is(kernel.count('flows'), 1);
});

test.serial('a sweep looks at a bounded number of flows in a call, and at all in the end', (t) => {
  const pods = podsOf(t);
  const sweep = new FlowSweep(kernel.maps.flows, pods);
  const count = 1300;
  for (let port = 1; port <= count; port += 1) put(at('127.0.0.1', port), at('127.0.0.1', 2), {});
  const swept = [sweep.run(), sweep.run(), sweep.run()];
  t.deepEqual(swept, [512, 512, 276]);
  t.is(kernel.count('flows'), 0);
  t.is(pods.swept.get(source), count);
});

/** Everything that one round tells. */
function sampled(samples: FlowSamples, nowNs: bigint) {
  return samples.take(nowNs).samples.map(({ id, kind, bytes }) => ({ id: id.slice(-16), kind, bytes }));
}

for (const address of ['127.0.0.1', '::1'])
  test.serial(`a flow is measured while it runs, at the end that has its plan: ${address}`, async (t) => {
    const pods = podsOf(t);
    const { client, accepted, ends } = await pair(t, pods.netnsFd, address);
    const [clientSocket, serverSocket] = [cookieOf(client), cookieOf(accepted)];
    const samples = new FlowSamples(kernel.maps.flows, pods);
    const [id, now, sinceNs] = ['0000000000000005', process.hrtime.bigint(), 5n];
    // Half-closed: what a FIN counts is no payload.
    for (const socket of [client, accepted]) socket.allowHalfOpen = true;
    client.end('x'.repeat(70_000));
    await once(accepted, 'end');
    accepted.write('y'.repeat(30_000));
    while (client.bytesRead < 30_000) await once(client, 'data');
    const bytes = { sent: 70_000, received: 30_000 };
    put(...ends, { kind: flowKind.PLAIN, source: 0n, sinceNs, clientSocket, serverSocket });
    t.deepEqual(sampled(samples, now), [{ id, kind: 'plain', bytes }]);
    put(...ends, { sinceNs, clientSocket, serverSocket });
    t.deepEqual(sampled(samples, now + 5n * second), [{ id, kind: 'local', bytes }]);
    accepted.destroy();
    await closed(client);
    t.deepEqual(sampled(samples, now + 10n * second), [], 'its end has it');
  });

test.serial('a flow is sampled every 5 s at most, a bounded number in a call, and not in its first 5 s', (t) => {
  const pods = podsOf(t);
  pods.open.clear();
  const samples = new FlowSamples(kernel.maps.flows, pods);
  const now = process.hrtime.bigint();
  put(at('127.0.0.1', 3000), at('127.0.0.1', 2), { sinceNs: now - 4n * second });
  put(at('127.0.0.1', 3001), at('127.0.0.1', 2), { state: flowState.ARRIVED });
  t.deepEqual(samples.take(now), { round: 1, samples: [] });
  for (let port = 1; port <= 1500; port += 1) put(at('127.0.0.1', port), at('127.0.0.1', 2), {});
  t.is(samples.take(now + second).samples.length, 0);
  const counts = [5n, 5n, 6n].map((after) => samples.take(now + after * second));
  t.deepEqual(
    counts.map(({ round }) => round),
    [2, 2, 2],
  );
  const lengths = counts.map(({ samples: { length } }) => length);
  t.is(
    lengths.reduce((sum, length) => sum + length, 0),
    1501,
  );
  t.true(lengths.every((length) => length <= 1024));
  t.is(samples.take(now + 10n * second).round, 3);
  t.true(
    counts.every(({ samples: told }) => told.every(({ bytes }) => bytes === undefined)),
    'nobody has the namespace',
  );
});

test('a record tells of its flow what the kernel has written', (t) => {
  const [client, server] = [at('10.0.0.1', 40_000), at('10.0.0.2', 8080)];
  const record = {
    timeNs: 9n,
    socket: 0xabcn,
    sinceNs: 0x1_0000_0002n,
    source,
    destination,
    durationNs: 1_500_000n,
    connectNs: 250_000n,
    bytesSent: 5_000_000_000n,
    bytesReceived: 7n,
    client: structOf(client),
    server: structOf(server),
    asked: structOf(at('10.96.0.1', 80)),
    kind: flowKind.LOCAL,
    end: flowEnd.CLEAN,
    roundTripUs: 33,
    retransmits: 2,
  };
  const nobody = { address: { bytes: new Uint8Array(16) }, port: 0 };
  const unasked = { ...record, connectNs: 0n, kind: flowKind.PLAIN, end: flowEnd.RESET_BY_SERVER, asked: nobody };
  const ofLater = { ...record, kind: 99 };
  const told = {
    id: '0000000000000abc0000000100000002',
    agoMs: 3,
    connectMs: 0.25,
    kind: 'local',
    end: 'clean',
    source: source as NetnsCookie,
    destination: destination as NetnsCookie,
    client,
    server,
    asked: at('10.96.0.1', 80),
    durationMs: 1.5,
    bytesSent: 5_000_000_000,
    bytesReceived: 7,
    roundTripUs: 33,
    retransmits: 2,
  } as const;
  const bytes = Buffer.concat([record, ofLater, unasked].map(encodeFlowRecord));
  t.deepEqual(readFlowEnds(bytes, new EndpointReader(), 3_000_009), [
    told,
    { ...told, connectMs: undefined, kind: 'plain', end: 'reset-by-server', asked: undefined },
  ]);
});

test('endpoints are read alike however many have been read before', (t) => {
  const reader = new EndpointReader();
  for (let round = 0; round < 2; round += 1)
    for (let index = 0; index < 20_000; index += 1) {
      const address = index % 2 === 0 ? `10.${index >> 8}.0.${index & 255}` : `fd00::${index.toString(16)}`;
      const bytes = encodeEndpoint(structOf(at(address, index)));
      t.deepEqual(reader.read(new DataView(bytes.buffer), 0), at(address, index));
    }
});
