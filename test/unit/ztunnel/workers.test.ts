import { once } from 'node:events';
import { closeSync, readdirSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import type { Tunnel } from '../../../src/agent/ports.ts';
import {
  type Address,
  type Endpoint,
  encodeAddress,
  type FlowRecord,
  type NetnsCookie,
  type Pod,
  parseAddress,
} from '../../../src/mesh/index.ts';
import {
  INBOUND_PORT,
  OUTBOUND_PORT,
  type ServablePod,
  TunnelWorkers,
  ZtunnelError,
} from '../../../src/ztunnel/index.ts';
import { FakeSeries } from '../../contract/fakes/series.ts';
import type { FakeComposition } from './fake-worker.ts';
import { ending, type Listening, listening } from './loopback.ts';

const LOOPBACK = parseAddress('127.0.0.1') as Address;
const pod = { uid: 'one' } as Pod;
const SOL_SOCKET = 1;
const SO_LINGER = 13;

interface TestListener {
  readonly fd: number;
  readonly port: number;
}

/** A listener as the kernel room makes them: nobody accepts from it but through a duplicate. */
async function openListener(): Promise<TestListener> {
  const fd = addon.socketOpen({
    family: 4,
    bind: { address: encodeAddress(LOOPBACK), port: 0 },
    reusePort: true,
    backlog: 128,
  });
  // Accepted sockets inherit it: they are reset when the process dies.
  addon.socketOption(fd, SOL_SOCKET, SO_LINGER, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  const server = createServer().listen({ fd: addon.duplicate(fd) });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return { fd, port };
}

interface Setup {
  readonly tunnel: TunnelWorkers;
  readonly prepared: ServablePod;
  readonly app: Listening;
  readonly logged: string[];
  /** One listener per worker. */
  readonly ports: readonly number[];
  readonly flows: readonly FlowRecord[];
  readonly series: FakeSeries;
  open(at?: number): Socket;
}

interface Wish {
  readonly workers?: number;
  readonly descriptors?: number;
  readonly destination?: Endpoint;
  readonly composition?: (ports: readonly number[]) => Partial<FakeComposition>;
  readonly port?: number;
  /** A listener's port whose clients want to go to the same destination. */
  readonly alsoFrom?: number;
}

let cookies = 0n;

async function setUp(t: { teardown(run: () => unknown): void }, wish: Wish = {}): Promise<Setup> {
  const workers = wish.workers ?? 2;
  const app = await listening();
  const listeners = await Promise.all(Array.from({ length: workers }, openListener));
  const ports = listeners.map(({ port }) => port);
  const endpoint = wish.destination ?? { address: LOOPBACK, port: app.port };
  const composition: FakeComposition = {
    destinations: Object.fromEntries([...ports, wish.alsoFrom ?? 0].map((port) => [port, endpoint])),
    crash: [],
    exit: [],
    fault: [],
    ...wish.composition?.(ports),
  };
  const logged: string[] = [];
  const log = (_: object, message: string): void => void logged.push(message);
  const flows: FlowRecord[] = [];
  const series = new FakeSeries();
  const tunnel = new TunnelWorkers(
    {
      log: { debug: log, info: log, warn: log, error: log },
      duplicate: addon.duplicate,
      meshSnapshot: () => ({
        complete: true,
        workloads: [],
        services: [],
        removed: [],
        policies: [],
        removedPolicies: [],
        settings: undefined,
      }),
      wantCertificate: () => undefined,
      flows: { add: (records) => void flows.push(...records) },
      series,
    },
    {
      entry: new URL('./fake-worker.ts', import.meta.url),
      workers,
      descriptorLimit: (wish.descriptors ?? 1000) * workers,
      descriptorReserve: 0,
      composition,
    },
  );
  cookies += 1n;
  const prepared: ServablePod = {
    cookie: cookies as NetnsCookie,
    netnsFd: 0,
    listeners: listeners.map(({ fd }, slot) => ({ port: wish.port ?? OUTBOUND_PORT, slot, fd })),
  };
  t.teardown(async () => {
    await tunnel.shutdown(0);
    for (const { fd } of listeners) closeSync(fd);
    app.server.close();
  });
  const open = (at = 0): Socket =>
    connect({ host: LOOPBACK, port: ports[at] ?? 0, allowHalfOpen: true }).on('error', () => {});
  return { tunnel, prepared, app, logged, ports, flows, series, open };
}

/** Sends something through and waits for the answer. */
async function echo(setup: Setup, at = 0): Promise<{ client: Socket; server: Socket }> {
  const client = setup.open(at);
  client.write('ping');
  const server = await setup.app.accepted();
  const [asked] = await once(server, 'data');
  server.write(asked);
  await once(client, 'data');
  return { client, server };
}

/** Resolves when the condition holds; the worker's numbers come without an event. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

test.serial('relays on every worker and counts it', async (t) => {
  const setup = await setUp(t);
  const tunnel: Tunnel = setup.tunnel;
  await tunnel.serve(pod, setup.prepared);
  const open = [await echo(setup, 0), await echo(setup, 1)];
  const busy = setup.tunnel.status();
  t.deepEqual(
    busy.workers.map(({ state, openConnections }) => ({ state, openConnections })),
    [
      { state: 'serving', openConnections: 1 },
      { state: 'serving', openConnections: 1 },
    ],
  );
  t.is(busy.openConnections.get(setup.prepared.cookie), 2);
  t.is(busy.descriptors.open, 6);
  t.deepEqual(busy.socketsOpen, { source: 2, destination: 0 });
  t.is(setup.series.sum('opened') - setup.series.sum('closed'), 2);
  for (const { client, server } of open) {
    client.end();
    server.end();
    server.resume();
    client.resume();
  }
  await until(() => setup.tunnel.status().ended.clean === 2);
  const { totals, openConnections } = setup.tunnel.status();
  t.like(totals, { accepted: 2, closed: 2, failed: 0, unattributed: 0, bytesFromClients: 8, bytesFromServers: 8 });
  t.is(openConnections.get(setup.prepared.cookie), 0);
  await until(() => setup.flows.length === 2);
  for (const record of setup.flows)
    t.like(record, { pod: setup.prepared.cookie, path: 'passthrough', bytesSent: 4, bytesReceived: 4 });
  const { series } = setup;
  t.deepEqual(
    (['opened', 'closed', 'failed', 'received', 'sent'] as const).map((cell) => series.sum(cell)),
    [2, 2, 0, 8, 8],
  );
  t.deepEqual(setup.tunnel.status().socketsOpen, { source: 0, destination: 0 });
});

test.serial('tells what a worker costs, its predecessors included', async (t) => {
  const fatal = await openListener();
  t.teardown(() => closeSync(fatal.fd));
  const setup = await setUp(t, { workers: 1, composition: () => ({ exit: [fatal.port] }) });
  const listeners = [...setup.prepared.listeners, { port: OUTBOUND_PORT, slot: 0, fd: fatal.fd }];
  await setup.tunnel.serve(pod, { ...setup.prepared, listeners });
  const worker = () => setup.tunnel.status().workers[0] ?? { cpuSeconds: 0, heapBytes: 0, restarts: 0 };
  await until(() => worker().cpuSeconds > 0);
  t.true(worker().heapBytes > 1_000_000);
  const before = worker().cpuSeconds;
  connect({ host: LOOPBACK, port: fatal.port }).on('error', () => {});
  await until(() => worker().restarts === 1);
  t.true(worker().cpuSeconds >= before);
});

test.serial('serving twice changes nothing, and no descriptor is left in the end', async (t) => {
  const setup = await setUp(t);
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup);
  const before = openDescriptors();
  await setup.tunnel.serve(pod, setup.prepared);
  t.is(openDescriptors(), before);
  await setup.tunnel.drop(setup.prepared.cookie);
  client.destroy();
  server.destroy();
  await setup.tunnel.serve(pod, setup.prepared);
  await setup.tunnel.stopAccepting(setup.prepared.cookie);
  await setup.tunnel.stopAccepting(setup.prepared.cookie);
  await until(() => openDescriptors() <= before - 6);
  t.pass();
});

test.serial('stops accepting without touching what is open, and who comes meanwhile is served later', async (t) => {
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup);
  await setup.tunnel.stopAccepting(setup.prepared.cookie);
  const waiting = setup.open();
  await once(waiting, 'connect');
  waiting.write('waited');
  server.write('still here');
  t.deepEqual(await once(client, 'data'), [Buffer.from('still here')]);
  t.is(setup.tunnel.status().totals.accepted, 1);
  await setup.tunnel.serve(pod, setup.prepared);
  const later = await setup.app.accepted();
  t.deepEqual(await once(later, 'data'), [Buffer.from('waited')]);
});

test.serial('resets what is open when the pod is dropped', async (t) => {
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup);
  const endings = Promise.all([ending(client), ending(server)]);
  await setup.tunnel.drop(setup.prepared.cookie);
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  t.is(setup.tunnel.status().ended['pod-dropped'], 1);
});

test.serial('a closed port is learned of by a reset', async (t) => {
  const closed = await listening();
  closed.server.close();
  const setup = await setUp(t, { workers: 1, destination: { address: LOOPBACK, port: closed.port } });
  await setup.tunnel.serve(pod, setup.prepared);
  t.is((await ending(setup.open())).how, 'ECONNRESET');
  await until(() => setup.tunnel.status().ended['dial-refused'] === 1);
  t.is(setup.tunnel.status().totals.failed, 1);
});

test.serial('a connection that nobody led here is reset and counted', async (t) => {
  const setup = await setUp(t, { workers: 1, composition: () => ({ destinations: {} }) });
  await setup.tunnel.serve(pod, setup.prepared);
  t.is((await ending(setup.open())).how, 'ECONNRESET');
  await until(() => setup.tunnel.status().totals.unattributed === 1);
  t.pass();
});

test.serial('a fault resets its own connection only', async (t) => {
  const setup = await setUp(t, { composition: ([first]) => ({ fault: [first ?? 0] }) });
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup, 1);
  t.is((await ending(setup.open(0))).how, 'ECONNRESET');
  await until(() => setup.logged.length > 0);
  t.deepEqual(setup.logged, ['tunnel worker: a fault']);
  server.write('fine');
  t.deepEqual(await once(client, 'data'), [Buffer.from('fine')]);
  await until(() => setup.tunnel.status().ended.internal === 1);
});

for (const how of ['crash', 'exit'] as const) {
  test.serial(`a worker's ${how} refuses nobody`, async (t) => {
    const fatal = await openListener();
    t.teardown(() => closeSync(fatal.fd));
    const setup = await setUp(t, { workers: 1, composition: () => ({ [how]: [fatal.port] }) });
    const listeners = [...setup.prepared.listeners, { port: OUTBOUND_PORT, slot: 0, fd: fatal.fd }];
    await setup.tunnel.serve(pod, { ...setup.prepared, listeners });
    const { client, server } = await echo(setup);
    const broken = Promise.all([ending(client), ending(server)]);
    connect({ host: LOOPBACK, port: fatal.port }).on('error', () => {});
    const came = [];
    for (; setup.tunnel.status().workers[0]?.restarts === 0; ) {
      const next = setup.open();
      came.push(once(next, 'connect').finally(() => next.destroy()));
      await came.at(-1);
    }
    await t.notThrowsAsync(Promise.all(came));
    const after = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const next = setup.open();
        next.end('hello');
        return await ending(next).then(({ how: ended }) => ended);
      }).concat(answerAll(setup, 50)),
    );
    t.deepEqual(after, [...new Array(50).fill('end'), 'answered']);
    // A crash is passed on by the worker; an exit without a word leaves it to the kernel.
    t.deepEqual(
      (await broken).map((one) => one.how),
      ['ECONNRESET', 'ECONNRESET'],
    );
    // Of an exit without a word nobody knows how what was open has ended.
    if (how === 'crash') {
      t.true(setup.flows.some((record) => record.ended === 'worker-ended' && record.bytesSent === 4));
      t.true(setup.series.sum('closed', { response_flags: 'CONNECT' }) >= 1);
    }
    t.true(setup.series.sum('received') >= 4 + 50 * 5, 'what was counted before is kept');
    const { workers, ended } = setup.tunnel.status();
    t.is(workers[0]?.restarts, 1);
    t.true(ended['worker-ended'] >= 1);
  });
}

/** Answers clients by ending until this many said `hello`. */
async function answerAll(setup: Setup, count: number): Promise<string> {
  for (let answered = 0; answered < count; ) {
    const server = await setup.app.accepted();
    const { bytes } = await ending(server);
    server.end();
    if (bytes.toString() === 'hello') answered += 1;
  }
  return 'answered';
}

test.serial(
  'near the limit of descriptors it stops accepting, says so once, and goes on when there is room',
  async (t) => {
    const setup = await setUp(t, { workers: 1, descriptors: 1 + 2 * 3 });
    await setup.tunnel.serve(pod, setup.prepared);
    const open = [await echo(setup), await echo(setup), await echo(setup)];
    await until(() => setup.tunnel.status().workers[0]?.state === 'paused');
    const waiting = Array.from({ length: 2 }, () => setup.open());
    for (const socket of waiting) socket.write('waiting');
    await Promise.all(waiting.map((socket) => once(socket, 'connect')));
    t.is(setup.tunnel.status().totals.accepted, 3);
    for (const { client, server } of open.splice(0, 2)) {
      server.destroy();
      client.destroy();
    }
    for (const _ of waiting) t.deepEqual(await once(await setup.app.accepted(), 'data'), [Buffer.from('waiting')]);
    t.is(setup.logged.length, 1);
    t.regex(setup.logged[0] ?? '', /no descriptors/);
    t.is(setup.tunnel.status().workers[0]?.descriptorStops, 2);
  },
);

/** Two pods of one worker, with eight places for connections between them. */
async function setUpTwo(t: { teardown(run: () => unknown): void }): Promise<{ setup: Setup; other: Setup }> {
  const { fd, port } = await openListener();
  t.teardown(() => closeSync(fd));
  const setup = await setUp(t, { workers: 1, descriptors: 2 + 2 * 8, alsoFrom: port });
  cookies += 1n;
  const prepared = {
    ...setup.prepared,
    cookie: cookies as NetnsCookie,
    listeners: [{ port: OUTBOUND_PORT, slot: 0, fd }],
  };
  const open = (): Socket => connect({ host: LOOPBACK, port, allowHalfOpen: true }).on('error', () => {});
  return { setup, other: { ...setup, prepared, open } };
}

test.serial('a pod that takes half of the places waits, the other pods go on, and it resumes below 95 %', async (t) => {
  const { setup, other } = await setUpTwo(t);
  await setup.tunnel.serve(pod, setup.prepared);
  await setup.tunnel.serve({ uid: 'two' } as Pod, other.prepared);
  const greedy = [await echo(setup), await echo(setup), await echo(setup), await echo(setup)];
  await until(() => setup.tunnel.status().workers[0]?.descriptorStops === 1);
  const waiting = setup.open();
  waiting.write('waiting');
  await once(waiting, 'connect');
  for (const _ of [1, 2, 3]) await echo(other);
  const { workers, openConnections } = setup.tunnel.status();
  t.like(workers[0], { state: 'serving', openConnections: 7 });
  t.is(openConnections.get(setup.prepared.cookie), 4);
  t.regex(setup.logged.join('\n'), /^a pod has half/);
  greedy[0]?.server.destroy();
  greedy[0]?.client.destroy();
  t.deepEqual(await once(await setup.app.accepted(), 'data'), [Buffer.from('waiting')]);
});

test.serial('a pod that is alone has all places, and gives none back but waits when another comes', async (t) => {
  const { setup, other } = await setUpTwo(t);
  await setup.tunnel.serve(pod, setup.prepared);
  const greedy = [];
  for (let at = 0; at < 6; at += 1) greedy.push(await echo(setup));
  t.is(setup.tunnel.status().workers[0]?.descriptorStops, 0);
  await setup.tunnel.serve({ uid: 'two' } as Pod, other.prepared);
  t.is(setup.tunnel.status().workers[0]?.descriptorStops, 1);
  const waiting = setup.open();
  waiting.write('waiting');
  await once(waiting, 'connect');
  await echo(other);
  t.is(setup.tunnel.status().openConnections.get(setup.prepared.cookie), 6);
  await setup.tunnel.stopAccepting(other.prepared.cookie);
  t.deepEqual(await once(await setup.app.accepted(), 'data'), [Buffer.from('waiting')]);
});

test.serial('refuses to serve a pod that leaves no descriptor for a connection', async (t) => {
  const setup = await setUp(t, { workers: 1, descriptors: 2 });
  const error = await t.throwsAsync(setup.tunnel.serve(pod, setup.prepared), { instanceOf: ZtunnelError });
  t.is(error?.code, 'NO_DESCRIPTORS');
  t.is(setup.tunnel.status().openConnections.size, 0);
});

test.serial('refuses what is not a listener, and serves the other pods on', async (t) => {
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, setup.prepared);
  const wrong = addon.duplicate(0);
  t.teardown(() => closeSync(wrong));
  const broken = {
    cookie: 999_999n as NetnsCookie,
    netnsFd: 0,
    listeners: [{ port: OUTBOUND_PORT, slot: 0, fd: wrong }],
  };
  const error = await t.throwsAsync(setup.tunnel.serve(pod, broken), { instanceOf: ZtunnelError });
  t.is(error?.code, 'LISTEN_FAILED');
  await echo(setup);
});

test.serial('a call to a port of the agent is reset', async (t) => {
  // The accepted socket's local address is what was asked for; the listener stands at the agent's own port.
  const fd = addon.socketOpen({
    family: 4,
    bind: { address: encodeAddress(parseAddress('127.77.0.1') as Address), port: INBOUND_PORT },
    reusePort: true,
    backlog: 16,
  });
  t.teardown(() => closeSync(fd));
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, { ...setup.prepared, listeners: [{ port: INBOUND_PORT, slot: 0, fd }] });
  t.is((await ending(connect({ host: '127.77.0.1', port: INBOUND_PORT }))).how, 'ECONNRESET');
  await until(() => setup.tunnel.status().ended['recursive-call'] === 1);
  t.pass();
});

test.serial('shutdown waits for open connections', async (t) => {
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup);
  const down = setup.tunnel.shutdown(60_000);
  server.write('not yet');
  t.deepEqual(await once(client, 'data'), [Buffer.from('not yet')]);
  client.end();
  server.end();
  client.resume();
  server.resume();
  await down;
  const { ended, workers } = setup.tunnel.status();
  t.is(ended.clean, 1);
  t.is(workers[0]?.state, 'stopped');
  await t.throwsAsync(setup.tunnel.serve(pod, setup.prepared), { code: 'SHUT_DOWN' });
});

test.serial('shutdown resets what is still open at its deadline', async (t) => {
  const setup = await setUp(t, { workers: 1 });
  await setup.tunnel.serve(pod, setup.prepared);
  const { client, server } = await echo(setup);
  const endings = Promise.all([ending(client), ending(server)]);
  await setup.tunnel.shutdown(20);
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  t.is(setup.tunnel.status().ended['drain-deadline'], 1);
});
