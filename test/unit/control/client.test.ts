import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { ControlClient, type ControlClientOptions } from '../../../src/control/client.ts';
import { encodeRoots, encodeUpdate } from '../../../src/control/wire.ts';
import type { AuthorizationPolicy, MeshUpdate, SpiffeId } from '../../../src/mesh/index.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';
import { FakeLog } from '../../contract/fakes/log.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';

const LOST = 'no connection to the control process';
const CONNECTED = 'connected to the control process';

/** A client, time that stands still, and a place where no control process is yet. */
function setUp(t: ExecutionContext, options: Partial<ControlClientOptions> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-control-'));
  const path = join(directory, 'n1.sock');
  const [clock, log] = [new FakeClock(), new FakeLog()];
  const watches: Array<(name: string | undefined) => void> = [];
  const client = new ControlClient(
    {
      clock,
      log: log.log,
      random: () => 0.5,
      directories: {
        watch(_directory, changed) {
          watches.push(changed);
          return { close: () => void watches.splice(watches.indexOf(changed), 1) };
        },
      },
    },
    { path, node: 'n1', ...options },
  );
  t.teardown(() => {
    client.close();
    rmSync(directory, { recursive: true });
  });
  return { client, clock, log, path, watches };
}

/** A control process that is spoken for by hand. */
class Host {
  readonly #server: Server;
  readonly #sockets: Socket[] = [];
  #accepted = Promise.withResolvers<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      this.#sockets.push(socket);
      this.#accepted.resolve(socket);
    });
  }

  static async listen(t: ExecutionContext, path: string): Promise<Host> {
    const server = createServer();
    const host = new Host(server);
    t.teardown(() => host.end());
    server.listen(path);
    await once(server, 'listening');
    return host;
  }

  async accept(): Promise<Socket> {
    const socket = await this.#accepted.promise;
    this.#accepted = Promise.withResolvers();
    return socket;
  }

  end(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** Keeps what the client tells. */
class Ear {
  readonly updates: MeshUpdate[] = [];
  readonly roots: Array<readonly string[]> = [];
  #told = Promise.withResolvers<void>();

  updated(update: MeshUpdate): void {
    this.updates.push(update);
    this.#told.resolve();
    this.#told = Promise.withResolvers();
  }

  trusted(roots: readonly string[]): void {
    this.roots.push(roots);
  }

  async count(updates: number): Promise<void> {
    while (this.updates.length < updates) await this.#told.promise;
  }
}

const nobody = { updated: () => undefined, trusted: () => undefined };
const whole = meshUpdate({ complete: true, workloads: [workload()] });
const request = { identity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId, csr: 'PEM', validitySeconds: 60 };

test('tries at once, then after pauses that double up to 5 s', async (t) => {
  const { client, clock, log } = setUp(t);
  client.follow(nobody);
  for (const pauseMs of [100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
    const entry = await log.next(LOST);
    t.is(entry.fields.pause_ms, pauseMs);
    const before = log.entries.length;
    clock.advance(pauseMs - 1);
    t.is(log.entries.length, before);
    clock.advance(1);
  }
});

test('warns once of a control process that is away, and says in its status why', async (t) => {
  const { client, clock, log } = setUp(t);
  const since = clock.now();
  client.follow(nobody);
  await log.next(LOST);
  clock.advance(100);
  await log.next(LOST);
  t.deepEqual(
    log.entries.map(({ level }) => level),
    ['warn', 'debug'],
  );
  const status = client.status();
  t.like(status, { connected: false, since });
  t.regex(status.connected ? '' : status.reason, /ENOENT/);
});

test('counts what comes over its connections, and how they end', async (t) => {
  const { client, clock, log, path } = setUp(t);
  const ear = new Ear();
  client.follow(ear);
  await log.next(LOST);
  t.like(client.traffic().ends, { ConnectionError: 1, Error: 0, Complete: 0 });
  const host = await Host.listen(t, path);
  clock.advance(100);
  const first = await host.accept();
  const policy: AuthorizationPolicy = {
    namespace: 'shop',
    name: 'strict',
    scope: 'namespace',
    action: 'deny',
    rules: [],
    dryRun: false,
  };
  const lines = [
    encodeRoots(['PEM']),
    ...encodeUpdate(whole),
    ...encodeUpdate(meshUpdate({ policies: [policy] })),
    ...encodeUpdate(meshUpdate({ removed: [workload().uid] })),
  ];
  first.write(Buffer.concat(lines));
  await ear.count(3);
  const { messages } = client.traffic();
  t.deepEqual(
    Object.entries(messages).map(([url, counts]) => [url, counts.messages]),
    [
      ['culvert.dev/roots', 1],
      ['type.googleapis.com/istio.workload.Address', 2],
      ['type.googleapis.com/istio.security.Authorization', 1],
    ],
  );
  const bytes = Object.values(messages).reduce((sum, each) => sum + each.bytes, 0);
  t.is(bytes, Buffer.concat(lines).length - lines.length, 'newlines are left out');
  first.end();
  await log.next(LOST);
  t.like(client.traffic().ends, { ConnectionError: 1, Error: 0, Complete: 1 });
  clock.advance(1_000);
  const second = await host.accept();
  second.write(Buffer.concat([encodeRoots(['PEM']), Buffer.from('rubbish\n')]));
  await log.next(LOST);
  t.like(client.traffic().ends, { ConnectionError: 1, Error: 1, Complete: 1 });
});

test('does not wait for its pause when the socket appears', async (t) => {
  const { client, log, path, watches } = setUp(t);
  client.follow(nobody);
  await log.next(LOST);
  const host = await Host.listen(t, path);
  for (const changed of watches) changed('other.sock');
  for (const changed of watches) changed('n1.sock');
  const socket = await host.accept();
  socket.write('{"heartbeat":true}\n');
  await log.next(CONNECTED);
  t.true(client.status().connected);
  t.deepEqual(watches, []);
});

test('is connected only when the control process has spoken', async (t) => {
  const { client, clock, log, path } = setUp(t);
  const host = await Host.listen(t, path);
  client.follow(nobody);
  await host.accept();
  t.false(client.status().connected);
  clock.advance(15_000);
  t.regex(String((await log.next(LOST)).fields.reason), /said nothing for 15000 ms/);
});

test('notices a control process that has fallen silent, and keeps one that has not', async (t) => {
  const { client, clock, log, path } = setUp(t);
  const host = await Host.listen(t, path);
  client.follow(nobody);
  const socket = await host.accept();
  socket.write('{"heartbeat":true}\n');
  await log.next(CONNECTED);
  clock.advance(14_999);
  t.true(client.status().connected);
  socket.write(encodeRoots([]));
  const signed = client.sign(request);
  await once(createInterface({ input: socket }), 'line');
  socket.write('{"id":1,"chain":["leaf"],"roots":[]}\n');
  await signed;
  clock.advance(14_999);
  t.true(client.status().connected);
  clock.advance(1);
  t.false(client.status().connected);
});

function policy(name: string): AuthorizationPolicy {
  return { namespace: 'shop', name, scope: 'namespace', action: 'deny', rules: [], dryRun: false };
}

test('takes an update in several lines as one', async (t) => {
  const { client, path } = setUp(t);
  const host = await Host.listen(t, path);
  const ear = new Ear();
  client.follow(ear);
  const socket = await host.accept();
  const workloads = Array.from({ length: 2000 }, (_, at) => workload({ name: `web-${at}` }));
  const policies = workloads.map(({ name }) => policy(name));
  const large = meshUpdate({ complete: true, workloads, removed: ['shop/gone'], policies, removedPolicies: ['a/b'] });
  const lines = encodeUpdate(large);
  t.true(lines.length > 1);
  for (const line of lines.slice(0, -1)) socket.write(line);
  socket.write('{"heartbeat":true}\n');
  const last = lines.at(-1) ?? Buffer.alloc(0);
  socket.write(last.subarray(0, 100));
  t.deepEqual(ear.updates, []);
  socket.write(last.subarray(100));
  await ear.count(1);
  t.deepEqual(ear.updates, [large]);
});

for (const [title, said] of [
  ['is no JSON', Buffer.from('hello\n')],
  ['is not understood', Buffer.from('{"update":{"complete":true}}\n')],
  ['never ends', Buffer.alloc(17 * 1024 * 1024, 'x')],
] as const)
  test(`leaves a control process that says what ${title}, and keeps what it knew`, async (t) => {
    const { client, clock, log, path } = setUp(t);
    const host = await Host.listen(t, path);
    const ear = new Ear();
    client.follow(ear);
    const socket = await host.accept();
    for (const line of encodeUpdate(whole)) socket.write(line);
    await ear.count(1);
    socket.write(said);
    await log.next(LOST);
    clock.advance(100);
    const again = await host.accept();
    for (const line of encodeUpdate({ ...whole, workloads: [workload(), workload({ name: 'b' })] })) again.write(line);
    await ear.count(2);
    t.deepEqual(ear.updates[1], meshUpdate({ workloads: [workload({ name: 'b' })] }));
  });

test('bounds what it holds of an update that does not end', async (t) => {
  const { client, log, path } = setUp(t, { maxUpdateBytes: 10_000 });
  const host = await Host.listen(t, path);
  client.follow(nobody);
  const socket = await host.accept();
  const part = Buffer.from(
    `${JSON.stringify({ update: { complete: true, workloads: Array(8).fill(workload()), services: [], removed: [], policies: [], removedPolicies: [] }, more: true })}\n`,
  );
  for (let turn = 0; turn < 4; turn++) socket.write(part);
  t.regex(String((await log.next(LOST)).fields.reason), /longer than 10000 bytes/);
});

test('asks for everything anew when its listener could not take an update', async (t) => {
  const { client, clock, log, path } = setUp(t);
  const host = await Host.listen(t, path);
  const ear = new Ear();
  let fails = true;
  client.follow({
    updated(update) {
      if (fails) throw new Error('cannot take it');
      ear.updated(update);
    },
    trusted: () => undefined,
  });
  const socket = await host.accept();
  for (const line of encodeUpdate(whole)) socket.write(line);
  t.is((await log.next(LOST)).fields.reason, 'cannot take it');
  fails = false;
  clock.advance(200);
  const again = await host.accept();
  for (const line of encodeUpdate(whole)) again.write(line);
  await ear.count(1);
  t.deepEqual(ear.updates, [whole]);
});

test('says which node it is on', async (t) => {
  const { client, path } = setUp(t);
  const host = await Host.listen(t, path);
  client.follow(nobody);
  const [line] = await once(createInterface({ input: await host.accept() }), 'line');
  t.deepEqual(JSON.parse(line), { follow: true, node: 'n1' });
});

/** A client that is connected, and the other end's lines. */
async function connected(t: ExecutionContext) {
  const setup = setUp(t);
  const host = await Host.listen(t, setup.path);
  setup.client.follow(nobody);
  const socket = await host.accept();
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  await lines.next();
  socket.write('{"heartbeat":true}\n');
  await setup.log.next(CONNECTED);
  return { ...setup, host, socket, lines };
}

test('gives each request the answer that has its id', async (t) => {
  const { client, socket, lines } = await connected(t);
  const [one, two] = [client.sign(request), client.sign(request)];
  t.deepEqual(JSON.parse((await lines.next()).value ?? ''), { id: 1, method: 'sign', ...request });
  socket.write('{"id":2,"chain":["second"],"roots":["root"]}\n{"id":1,"chain":["first"],"roots":["root"]}\n');
  t.deepEqual(await one, { chain: ['first'], roots: ['root'] });
  t.deepEqual(await two, { chain: ['second'], roots: ['root'] });
});

for (const [told, code] of [
  ['REFUSED', 'REFUSED'],
  ['BAD_CSR', 'BAD_CSR'],
  ['UNAVAILABLE', 'CA_UNREACHABLE'],
] as const)
  test(`a request that is answered with ${told} fails with ${code}`, async (t) => {
    const { client, socket } = await connected(t);
    const signed = client.sign(request);
    socket.write(`{"id":1,"error":{"code":"${told}","message":"because"}}\n`);
    await t.throwsAsync(signed, { code, message: 'because', name: 'IdentityError' });
  });

test('a request fails at once while there is no connection', async (t) => {
  const { client, log } = setUp(t);
  await t.throwsAsync(client.sign(request), { code: 'CA_UNREACHABLE', message: /not connected yet/ });
  client.follow(nobody);
  await log.next(LOST);
  await t.throwsAsync(client.sign(request), { code: 'CA_UNREACHABLE', message: /ENOENT/ });
});

test('a request fails at its deadline, and a late answer is no harm', async (t) => {
  const { client, clock, socket } = await connected(t);
  const signed = client.sign(request);
  clock.advance(10_000);
  await t.throwsAsync(signed, { code: 'CA_UNREACHABLE', message: /10000 ms/ });
  const next = client.sign(request);
  socket.write('{"id":1,"chain":["late"],"roots":[]}\n{"id":2,"chain":["leaf"],"roots":[]}\n');
  t.deepEqual(await next, { chain: ['leaf'], roots: [] });
});

test('requests under way fail with the connection', async (t) => {
  const { client, clock, host } = await connected(t);
  const signed = client.sign(request);
  host.end();
  await t.throwsAsync(signed, { code: 'CA_UNREACHABLE', message: /ended/ });
  clock.advance(60_000);
  t.pass();
});

test('closed, it holds no timer and no watch, and tries no more', async (t) => {
  const { client, clock, watches } = await connected(t);
  const signed = client.sign(request);
  client.close();
  await t.throwsAsync(signed, { code: 'CA_UNREACHABLE' });
  t.is(clock.timers, 0);
  t.deepEqual(watches, []);
  t.like(client.status(), { connected: false, reason: 'closed' });
  await t.throwsAsync(client.sign(request), { code: 'CA_UNREACHABLE' });
});
