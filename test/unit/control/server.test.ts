import { once } from 'node:events';
import { mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { ControlServer, type ControlServerOptions } from '../../../src/control/server.ts';
import type { MeshUpdate } from '../../../src/mesh/index.ts';
import { silentLog } from '../../../src/telemetry/index.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';
import { FakeMesh, meshUpdate, workload } from '../../contract/fakes/mesh.ts';
import { FakeSigner } from '../../contract/fakes/signer.ts';

function setUp(t: ExecutionContext, options: Partial<ControlServerOptions> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-control-'));
  const [mesh, signer, clock] = [new FakeMesh(), new FakeSigner(), new FakeClock()];
  const server = new ControlServer({ mesh, signer, clock, log: silentLog() }, { directory, ...options });
  t.teardown(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  return { directory, mesh, signer, clock, server };
}

type Message = Record<string, unknown>;

/** An agent that is spoken for by hand. */
class Peer {
  readonly socket: Socket;
  readonly #messages: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    this.#messages = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  static async connect(t: ExecutionContext, directory: string, node = 'n1'): Promise<Peer> {
    const socket = connect(join(directory, `${node}.sock`));
    t.teardown(() => socket.destroy());
    await once(socket, 'connect');
    return new Peer(socket);
  }

  /** One that follows, and has read what it is told at first. */
  static async follow(t: ExecutionContext, directory: string, node = 'n1'): Promise<Peer> {
    const peer = await Peer.connect(t, directory, node);
    peer.say({ follow: true, node });
    await peer.next();
    await peer.next();
    return peer;
  }

  say(message: Message | string): void {
    this.socket.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`);
  }

  /** The next message; undefined: the connection has ended. */
  async next(): Promise<Message | undefined> {
    const { value, done } = await this.#messages.next().catch(() => ({ value: '', done: true }));
    return done === true ? undefined : (JSON.parse(value) as Message);
  }
}

/** What JSON keeps of an update. */
function plain(update: MeshUpdate): unknown {
  return JSON.parse(JSON.stringify(update));
}

const first = meshUpdate({ complete: true, workloads: [workload()] });
const sign = {
  id: 7,
  method: 'sign',
  identity: 'spiffe://cluster.local/ns/shop/sa/default',
  csr: 'PEM',
  validitySeconds: 60,
};

test('makes a socket of mode 0600 for each node that has a workload', async (t) => {
  const { directory, server } = setUp(t);
  server.start();
  await server.publish(
    meshUpdate({
      complete: true,
      workloads: [
        workload(),
        workload({ name: 'b' }),
        workload({ name: 'c', node: 'n2' }),
        workload({ name: 'd', node: '' }),
      ],
    }),
  );
  t.deepEqual(readdirSync(directory).sort(), ['n1.sock', 'n2.sock']);
  t.is(statSync(join(directory, 'n1.sock')).mode & 0o777, 0o600);
  t.deepEqual(server.nodes().sort(), ['n1', 'n2']);
});

for (const node of ['../n9', 'a/b', '.n1', 'N1', 'x'.repeat(254)])
  test(`makes no socket for a node called ${node.slice(0, 10)}`, async (t) => {
    const { directory, server } = setUp(t);
    server.start();
    await server.publish(meshUpdate({ complete: true, workloads: [workload(), workload({ name: 'b', node })] }));
    t.deepEqual(readdirSync(directory), ['n1.sock']);
  });

test('a node whose name is too long for a socket takes nothing from the others', async (t) => {
  const { server } = setUp(t);
  server.start();
  const node = 'x'.repeat(120);
  await server.publish(meshUpdate({ complete: true, workloads: [workload(), workload({ name: 'b', node })] }));
  t.deepEqual(server.nodes(), ['n1']);
});

test("removes a node's socket with its last workload, once its agent has heard of it, and makes it again", async (t) => {
  const { directory, server } = setUp(t);
  server.start();
  await server.publish(meshUpdate({ complete: true, workloads: [workload(), workload({ name: 'b' })] }));
  const peer = await Peer.follow(t, directory);
  await server.publish(meshUpdate({ removed: [workload().uid] }));
  t.deepEqual(server.nodes(), ['n1']);
  const last = meshUpdate({ workloads: [workload({ name: 'b', node: 'n2' })] });
  await server.publish(last);
  t.deepEqual(readdirSync(directory), ['n2.sock']);
  await peer.next();
  t.deepEqual(await peer.next(), { update: plain(last) });
  t.is(await peer.next(), undefined);
  await server.publish(meshUpdate({ workloads: [workload()] }));
  await Peer.follow(t, directory);
  t.pass();
});

/** A socket without a process behind it. */
async function leaveSocket(directory: string, name: string): Promise<void> {
  const dead = createServer().listen(join(directory, 'making'));
  await once(dead, 'listening');
  renameSync(join(directory, 'making'), join(directory, name));
  dead.close();
}

test('removes the sockets that a dead process has left, and nothing else', async (t) => {
  const { directory, server } = setUp(t);
  const kept = ['control.lock', '.hidden', 'file.sock'];
  for (const name of kept) writeFileSync(join(directory, name), '');
  for (const name of ['old.sock', '.half', 'A.sock', 'other']) await leaveSocket(directory, name);
  server.start();
  t.deepEqual(readdirSync(directory).sort(), [...kept, 'A.sock', 'other'].sort());
});

test('a node that goes while its socket is being made holds nobody up', async (t) => {
  const { directory, server } = setUp(t);
  server.start();
  await Promise.all([server.publish(first), server.publish(meshUpdate({ complete: true }))]);
  t.deepEqual(readdirSync(directory), []);
  await server.publish(first);
  await Peer.follow(t, directory);
  t.pass();
});

test('tells one who follows the roots, then the whole mesh, then what changes', async (t) => {
  const { directory, server, signer } = setUp(t);
  server.start();
  await server.publish(first);
  const peer = await Peer.connect(t, directory);
  peer.say({ follow: true, node: 'n1' });
  t.deepEqual(await peer.next(), { roots: ['root 1'] });
  t.deepEqual(await peer.next(), { update: plain(first) });
  const change = meshUpdate({ removed: ['shop/gone'] });
  await server.publish(change);
  t.deepEqual(await peer.next(), { update: plain(change) });
  signer.rotate(['root 1', 'root 2']);
  t.deepEqual(await peer.next(), { roots: ['root 1', 'root 2'] });
});

test('tells nothing to one who has not asked to follow', async (t) => {
  const { directory, server } = setUp(t);
  server.start();
  await server.publish(first);
  const peer = await Peer.connect(t, directory);
  await server.publish(meshUpdate({ removed: ['shop/gone'] }));
  peer.say(sign);
  t.like(await peer.next(), { id: 7 });
});

test('encodes the mesh once, however many follow', async (t) => {
  const { directory, server, mesh } = setUp(t);
  server.start();
  await server.publish(first);
  for (let at = 0; at < 3; at++) await Peer.follow(t, directory);
  t.is(mesh.snapshots, 1);
});

test("has the CA sign for the socket's node, whatever the agent says", async (t) => {
  const { directory, server, signer } = setUp(t);
  server.start();
  await server.publish(first);
  const peer = await Peer.connect(t, directory);
  peer.say({ ...sign, node: 'n2' });
  t.deepEqual(await peer.next(), { id: 7, chain: ['leaf'], roots: ['root 1'] });
  t.deepEqual(signer.asked, [{ node: 'n1', request: { identity: sign.identity, csr: 'PEM', validitySeconds: 60 } }]);
});

for (const [code, told] of [
  ['REFUSED', 'REFUSED'],
  ['BAD_CSR', 'BAD_CSR'],
  ['CA_UNUSABLE', 'UNAVAILABLE'],
  [undefined, 'UNAVAILABLE'],
] as const)
  test(`an agent is told ${told} when the CA fails with ${code}`, async (t) => {
    const { directory, server, signer } = setUp(t);
    server.start();
    await server.publish(first);
    signer.failure = Object.assign(new Error('not today'), code === undefined ? {} : { code });
    const peer = await Peer.connect(t, directory);
    peer.say(sign);
    t.deepEqual(await peer.next(), { id: 7, error: { code: told, message: 'not today' } });
  });

for (const [title, change] of [
  ['no SPIFFE id', { identity: 'spiffe://cluster.local/ns/shop/sa/a/b' }],
  ['an endless CSR', { csr: 'x'.repeat(20_000) }],
  ['no life', { validitySeconds: 0 }],
] as const)
  test(`a request with ${title} is answered, and the agent goes on following`, async (t) => {
    const { directory, server, signer } = setUp(t);
    server.start();
    await server.publish(first);
    const peer = await Peer.follow(t, directory);
    peer.say({ ...sign, ...change });
    t.like(await peer.next(), { id: 7, error: { code: 'BAD_CSR' } });
    const next = meshUpdate({ removed: ['shop/gone'] });
    await server.publish(next);
    t.deepEqual(await peer.next(), { update: plain(next) });
    t.deepEqual(signer.asked, []);
  });

test('carries out so many requests of one agent at a time and no more', async (t) => {
  const { directory, server, signer } = setUp(t, { maxSigning: 1 });
  server.start();
  await server.publish(first);
  const release = signer.hold();
  const peer = await Peer.connect(t, directory);
  peer.say(sign);
  peer.say({ ...sign, id: 8 });
  t.like(await peer.next(), { id: 8, error: { code: 'UNAVAILABLE' } });
  release();
  t.like(await peer.next(), { id: 7, chain: ['leaf'] });
});

for (const [title, said] of [
  ['is no JSON', 'hello'],
  ['is not understood', '{"id":1,"method":"resign"}'],
  ['is too long', 'x'.repeat(70_000)],
  ['follows as another node', '{"follow":true,"node":"n2"}'],
] as const)
  test(`cuts off an agent that says what ${title}, and nobody else`, async (t) => {
    const { directory, server } = setUp(t);
    server.start();
    await server.publish(first);
    const other = await Peer.follow(t, directory);
    const peer = await Peer.connect(t, directory);
    peer.say(said);
    t.is(await peer.next(), undefined);
    await server.publish(meshUpdate({ removed: ['shop/gone'] }));
    t.like(await other.next(), { update: { removed: ['shop/gone'] } });
  });

test('serves so many clients of a node and no more', async (t) => {
  const { directory, server } = setUp(t, { maxClients: 1 });
  server.start();
  await server.publish(first);
  const peer = await Peer.follow(t, directory);
  const surplus = await Peer.connect(t, directory);
  t.is(await surplus.next(), undefined);
  peer.socket.destroy();
  await once(peer.socket, 'close');
  let next: Message | undefined;
  while (next === undefined) {
    const again = await Peer.connect(t, directory);
    again.say({ follow: true, node: 'n1' });
    next = await again.next();
  }
  t.deepEqual(next, { roots: ['root 1'] });
});

const many = Array.from({ length: 2000 }, (_, at) => workload({ name: `web-${at}` }));

test('cuts off an agent that does not read, and gives it everything when it is back', async (t) => {
  const { directory, server } = setUp(t, { maxBufferedBytes: 64 * 1024 });
  server.start();
  await server.publish(first);
  const peer = await Peer.follow(t, directory);
  peer.socket.pause();
  const closed = once(peer.socket, 'close');
  for (let turn = 0; turn < 3; turn++) await server.publish(meshUpdate({ workloads: many }));
  peer.socket.resume();
  await closed;
  const again = await Peer.connect(t, directory);
  again.say({ follow: true, node: 'n1' });
  await again.next();
  let count = 0;
  for (let more = true; more; ) {
    const message = (await again.next()) as { update: { workloads: unknown[] }; more?: boolean };
    count += message.update.workloads.length;
    more = message.more === true;
  }
  t.is(count, 2000);
});

test('a complete update may be longer than what may wait otherwise', async (t) => {
  const { directory, server } = setUp(t, { maxBufferedBytes: 1024 });
  server.start();
  await server.publish(meshUpdate({ complete: true, workloads: many }));
  const peer = await Peer.connect(t, directory);
  peer.say({ follow: true, node: 'n1' });
  await peer.next();
  let message = await peer.next();
  while (message?.more === true) message = await peer.next();
  t.not(message, undefined);
});

test('cuts off an agent that has read nothing for too long', async (t) => {
  const { directory, server, clock } = setUp(t, { stallMs: 20_000 });
  server.start();
  await server.publish(meshUpdate({ complete: true, workloads: many }));
  const peer = await Peer.connect(t, directory);
  peer.socket.pause();
  const closed = once(peer.socket, 'close');
  peer.say({ follow: true, node: 'n1' });
  peer.say(sign);
  // Its answer is made after the mesh was sent, so the server is full by then.
  const other = await Peer.connect(t, directory);
  other.say(sign);
  await other.next();
  clock.advance(25_000);
  peer.socket.resume();
  await closed;
  t.pass();
});

test('an agent that reads slowly but steadily gets the whole mesh, however long that takes', async (t) => {
  const { directory, server, clock } = setUp(t, { stallMs: 20_000 });
  server.start();
  const mesh = Array.from({ length: 20_000 }, (_, at) => workload({ name: `web-${at}` }));
  await server.publish(meshUpdate({ complete: true, workloads: mesh }));
  const socket = connect(join(directory, 'n1.sock'));
  t.teardown(() => socket.destroy());
  socket.on('error', () => undefined);
  socket.write('{"follow":true,"node":"n1"}\n');
  const chunks: Buffer[] = [];
  let [read, steps] = [0, 0];
  // More than the sockets hold between them and two lines: so the server has written since the last turn.
  const step = 2 * 1024 * 1024;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    read += chunk.length;
    if (read >= (steps + 1) * step) {
      steps += 1;
      clock.advance(15_000);
    }
    if (!chunk.toString().endsWith('}\n')) continue;
    const [, ...lines] = Buffer.concat(chunks).toString().trimEnd().split('\n');
    // A heartbeat may come behind it.
    const last = lines.findLast((line) => line.includes('"update"')) ?? '"more":true}';
    if (!last.endsWith('"more":true}')) break;
  }
  const updates = Buffer.concat(chunks)
    .toString()
    .split('\n')
    .filter((line) => line.includes('"update"'));
  t.is(
    updates.reduce((sum, line) => sum + JSON.parse(line).update.workloads.length, 0),
    mesh.length,
  );
  t.true(steps >= 3, `${steps} steps`);
});

test('says every 5 s that it lives', async (t) => {
  const { directory, server, clock } = setUp(t);
  server.start();
  await server.publish(first);
  const peer = await Peer.follow(t, directory);
  clock.advance(10_000);
  t.deepEqual(await peer.next(), { heartbeat: true });
  t.deepEqual(await peer.next(), { heartbeat: true });
});

test('leaves no socket and no timer behind', async (t) => {
  const { directory, server, clock } = setUp(t);
  server.start();
  await server.publish(first);
  const peer = await Peer.follow(t, directory);
  server.close();
  t.is(await peer.next(), undefined);
  t.deepEqual(readdirSync(directory), []);
  t.is(clock.timers, 0);
});
