/** Plaintext that anyone may send goes straight to the app; all other plaintext to the agent. Both are counted exactly. */
import anyTest, { type TestFn } from 'ava';
import { flowKind, flowState, limit, podFlag } from '../../src/gen/layout.ts';
import type { Reason } from '../../src/kernel/index.ts';
import { appPort, second } from './path-maps.ts';
import { dropping, PathScene, until } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;
const reasons = ['direct_plain', 'captured_inbound'] as const;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path plaintext');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

const ports: ReadonlyArray<readonly [string, ReadonlyArray<readonly [number, boolean]>, 'app' | 'inbound']> = [
  ['no port is open', [], 'inbound'],
  ['the port is open', [[appPort, true]], 'app'],
  ['the port is closed', [[appPort, false]], 'inbound'],
  ['all ports are open', [[0, true]], 'app'],
  ['all ports are closed', [[0, false]], 'inbound'],
  [
    'all others are open',
    [
      [0, true],
      [appPort, false],
    ],
    'inbound',
  ],
  [
    'all others are closed',
    [
      [0, false],
      [appPort, true],
    ],
    'app',
  ],
  ['another port is open', [[appPort + 1, true]], 'inbound'],
];

for (const [what, open, who] of ports)
  test.serial(`where ${what}, plaintext from outside reaches the ${who === 'app' ? 'app' : 'agent'}`, async (t) => {
    const { scene } = t.context;
    const { cookie, pod } = scene.server;
    for (const [port, isOpen] of open) scene.open(cookie, port, isOpen);
    for (const to of pod.addresses) {
      const { result, counts } = await scene.counting(reasons, () => scene.connect(scene.stranger.party, { to }));
      t.is(result.who, who);
      t.is(result.peer, result.from);
      t.deepEqual(counts, who === 'app' ? [1, 0] : [0, 1]);
    }
    const flows = scene.flows();
    t.is(flows.length, who === 'app' ? 2 : 0);
    for (const flow of flows) {
      t.is(flow.kind, flowKind.PLAIN);
      t.is(flow.state, flowState.ESTABLISHED);
      t.deepEqual([flow.source, flow.destination, flow.clientSocket], [0n, cookie, 0n]);
      t.is(flow.destinationEpoch, 1n);
      t.true(flow.serverSocket > 0n);
    }
    t.is(scene.flowsHeld(cookie), BigInt(flows.length));
    t.is(scene.events().length, 0);
  });

const missing: ReadonlyArray<readonly [string, (scene: PathScene) => void, Reason | undefined]> = [
  ['its flag', (s) => s.setPod(s.server.cookie, () => ({ flags: 0 })), undefined],
  ['a heartbeat', (s) => s.beat(6n * second), 'heartbeat_old'],
  ['room for another flow', (s) => s.setUsage(s.server.cookie, BigInt(limit.FLOWS_PER_POD)), 'flows_over_quota'],
];

for (const [what, take, reason] of missing)
  test.serial(`a pod without ${what} has no open port`, async (t) => {
    const { scene } = t.context;
    scene.open(scene.server.cookie, 0, true);
    take(scene);
    for (const to of scene.server.pod.addresses) {
      const { result, counts } = await scene.counting([...reasons, reason ?? 'flow_stale'], () =>
        scene.connect(scene.stranger.party, { to }),
      );
      t.is(result.who, 'inbound');
      t.deepEqual(counts, [0, 1, reason === undefined ? 0 : 1]);
    }
  });

test.serial('the open port of one pod is no other pod’s', async (t) => {
  const { scene } = t.context;
  scene.open(scene.other.cookie, 0, true);
  t.is((await scene.connect(scene.stranger.party, { to: scene.server.pod.ipv4 })).who, 'inbound');
  t.is((await scene.connect(scene.stranger.party, { to: scene.other.pod.ipv4 })).who, 'app');
});

test.serial('what a pod says to itself is nobody’s plaintext, whatever address it uses', async (t) => {
  const { scene } = t.context;
  const { server } = scene;
  const [extra4, extra6] = await scene.addAddresses(server);
  await server.party.ask({ do: 'listen', bind: '0.0.0.0', port: 8090 });
  await server.party.ask({ do: 'listen', bind: '::1', port: 8091 });
  for (const row of [
    { to: '127.0.0.1', port: 8090 },
    { to: '::1', port: 8091 },
    { to: server.pod.ipv4 },
    { to: server.pod.ipv6 },
    // Told by the device alone: the source is no address that anybody knows of.
    { to: '127.0.0.1', port: 8090, bind: extra4 },
    { to: '127.0.0.1', port: 8090, bind: extra4, mapped: true },
    { to: '::1', port: 8091, bind: extra6 },
  ]) {
    const { result, counts } = await scene.counting(reasons, () => scene.connect(server.party, row));
    t.is(result.who, 'app', JSON.stringify(row));
    t.deepEqual(counts, [0, 0], JSON.stringify(row));
  }
  t.is(scene.flows().length, 0);
  t.is(scene.events().length, 0);
});

test.serial('what exclusions name is neither a flow nor forbidden', async (t) => {
  const { scene } = t.context;
  const { server } = scene;
  scene.exclude(server, appPort);
  for (const open of [true, false]) {
    scene.open(server.cookie, appPort, open);
    for (const to of server.pod.addresses) t.is((await scene.connect(scene.stranger.party, { to })).who, 'app');
  }
  t.is(scene.flows().length, 0);
  t.is(scene.events().length, 0);
  scene.exclude(server, undefined);
});

test.serial('a pod that is being withdrawn keeps no book of what comes', async (t) => {
  const { scene } = t.context;
  const { cookie, pod } = scene.server;
  scene.setPod(cookie, ({ flags }) => ({ flags: flags | podFlag.WITHDRAWING }));
  t.is((await scene.connect(scene.stranger.party, { to: pod.ipv4 })).who, 'app');
  scene.setPod(cookie, ({ flags }) => ({ flags: flags & ~podFlag.WITHDRAWING }));
  t.is(scene.flows().length, 0);
  t.is(scene.events().length, 0);
});

test.serial('a port that closes while a handshake is under way: the connection is entered and told of', async (t) => {
  const { scene } = t.context;
  const { server, stranger } = scene;
  scene.open(server.cookie, appPort, true);
  const heal = await dropping(stranger.pod, 'input', `tcp sport ${appPort}`);
  await stranger.party.ask({ do: 'connect', name: 'it', to: server.pod.ipv4, port: appPort, start: true });
  await until(() => scene.halfOpen(server) > 0);
  scene.open(server.cookie, appPort, false);
  await heal();
  t.is((await stranger.party.ask({ do: 'finish', name: 'it' })).error, undefined);
  t.is((await scene.answer(stranger.party)).who, 'app');
  t.deepEqual(
    scene.events().map(({ reason, cookie }) => [reason, cookie]),
    [['flow_forbidden', server.cookie]],
  );
  t.deepEqual(
    scene.flows().map(({ kind }) => kind),
    [flowKind.PLAIN],
  );
});

test.serial('a SYN that is answered late, and a packet for what is closed, count no connection', async (t) => {
  const { scene } = t.context;
  const { server, stranger } = scene;
  const { counts } = await scene.counting(reasons, async () => {
    const heal = await dropping(stranger.pod, 'input', 'tcp sport 8079');
    await stranger.party.ask({ do: 'connect', name: 'lost', to: server.pod.ipv4, port: 8079, start: true });
    await until(() => scene.halfOpen(server) > 0);
    await stranger.party.ask({ do: 'close', name: 'lost' });
    await heal();
    t.is((await scene.connect(stranger.party, { to: server.pod.ipv4 })).who, 'inbound');
    // The agent's side has closed: what is said now comes too late.
    await stranger.party.ask({ do: 'drain', name: 'it' });
    await stranger.party.ask({ do: 'tell', name: 'it', text: 'late\n' });
    await stranger.party.ask({ do: 'close', name: 'it' });
  });
  t.deepEqual(counts, [0, 1]);
});

test.serial('a flow over the quota by its handshake alone is told of, so that the agent ends it', async (t) => {
  const { scene } = t.context;
  const { server, stranger } = scene;
  scene.open(server.cookie, appPort, true);
  const heal = await dropping(stranger.pod, 'input', `tcp sport ${appPort}`);
  await stranger.party.ask({ do: 'connect', name: 'it', to: server.pod.ipv4, port: appPort, start: true });
  await until(() => scene.halfOpen(server) > 0);
  scene.setUsage(server.cookie, BigInt(limit.FLOWS_PER_POD) + 1024n);
  await heal();
  t.is((await stranger.party.ask({ do: 'finish', name: 'it' })).error, undefined);
  t.is((await scene.answer(stranger.party)).who, 'app');
  t.deepEqual(
    scene.events().map(({ reason, cookie }) => [reason, cookie]),
    [['flow_unrecorded', server.cookie]],
  );
  t.is(scene.flows().length, 0);
});
