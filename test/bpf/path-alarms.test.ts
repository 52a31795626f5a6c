/** What the kernel asks the agent to act on gets through, and leads to the connection. */
import anyTest, { type TestFn } from 'ava';
import { flowKind, flowState, limit } from '../../src/gen/layout.ts';
import type { KernelEvent, KernelFlow } from '../../src/kernel/index.ts';
import type { NetnsCookie } from '../../src/mesh/index.ts';
import { appPort, endpoint } from './path-maps.ts';
import { asRoot, dropping, PathScene, until } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path alarms');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

/** All that an agent knows of a connection to a pod that could not be entered. */
function unrecorded({ cookie, client, server }: KernelEvent): KernelFlow {
  const unknown = { sourceEpoch: 0n, destinationEpoch: 0n, sinceNs: 0n, clientSocket: 0n, serverSocket: 0n };
  return { kind: 'plain', state: 'established', source: 0n, destination: cookie, client, server, ...unknown };
}

test.serial(
  'handshakes that end together beyond the limit of an open port: each is told of, and ended by that',
  async (t) => {
    const { scene } = t.context;
    const { server, stranger } = scene;
    const names = Array.from({ length: 40 }, (_, index) => `it${index}`);
    scene.open(server.cookie, appPort, true);
    const heal = await dropping(stranger.pod, 'input', `tcp sport ${appPort}`);
    for (const name of names)
      await stranger.party.ask({ do: 'connect', name, to: server.pod.ipv4, port: appPort, start: true });
    await until(() => scene.halfOpen(server) === names.length);
    scene.setUsage(server.cookie, BigInt(limit.FLOWS_PER_POD) + 1024n);
    await heal();
    for (const name of names) {
      t.is((await stranger.party.ask({ do: 'finish', name })).error, undefined);
      t.is((await scene.answer(stranger.party, name)).who, 'app');
    }
    const events = scene.events();
    t.is(events.length, names.length);
    t.true(events.every(({ reason, cookie }) => reason === 'flow_unrecorded' && cookie === server.cookie));
    t.is(scene.flows().length, 0);
    t.is(scene.kernel.destroyFlows(events.map(unrecorded)), names.length);
    for (const name of names)
      t.deepEqual(await stranger.party.ask({ do: 'drain', name }), { error: 'ECONNRESET' }, name);
    t.is(scene.flowsHeld(server.cookie), BigInt(limit.FLOWS_PER_POD) + 1024n);
  },
);

test.serial('a pod that floods the events for operators keeps nothing from the agent', async (t) => {
  const { scene } = t.context;
  const { client, server, stranger } = scene;
  // Each is an event, and there is room for fewer than 4,000.
  const flood = 'import socket\nfor _ in range(5000): socket.socket(socket.AF_INET, socket.SOCK_RAW, 253).close()';
  await asRoot(client.pod, ['python3', '-c', flood]);
  scene.open(server.cookie, appPort, true);
  scene.setUsage(server.cookie, BigInt(limit.FLOWS_PER_POD) - 1n);
  const heal = await dropping(stranger.pod, 'input', `tcp sport ${appPort}`);
  await stranger.party.ask({ do: 'connect', name: 'it', to: server.pod.ipv4, port: appPort, start: true });
  await until(() => scene.halfOpen(server) > 0);
  scene.setUsage(server.cookie, BigInt(limit.FLOWS_PER_POD) + 1024n);
  await heal();
  t.is((await stranger.party.ask({ do: 'finish', name: 'it' })).error, undefined);
  t.is((await scene.answer(stranger.party)).who, 'app');
  const [first, ...others] = scene.events();
  t.is(first?.reason, 'flow_unrecorded');
  let count = others.length;
  t.true(count > 0 && others.every(({ reason }) => reason === 'raw_socket'));
  for (let events = scene.events(); events.length > 0; events = scene.events()) count += events.length;
  t.true(count > 3000 && count < 5000, `${count} of 5000`);
  t.is(scene.count(client.cookie, 'raw_socket'), 5000);
});

test.serial('what is left of a flow is counted off at the pod that paid for it', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const to = server.pod.ipv4;
  const connection = { netns: server.cookie, client: endpoint(client.pod.ipv4, 7100), server: endpoint(to, appPort) };
  scene.allow(to);
  for (const [what, leftover, held] of [
    ['another pod’s', { kind: flowKind.PLAIN, source: 0n }, [1n, 0n]],
    ['the same pod’s', {}, [1n, 1n]],
  ] as const) {
    for (const { cookie } of [client, server]) scene.setUsage(cookie, 1n);
    scene.setUsage(client.cookie, what === 'another pod’s' ? 0n : 1n);
    scene.approve(connection, { ...leftover, state: flowState.ESTABLISHED });
    const { who } = await scene.connect(client.party, { to, bind: client.pod.ipv4, bindPort: 7100 });
    t.is(who, 'app', what);
    t.deepEqual([scene.flowsHeld(client.cookie), scene.flowsHeld(server.cookie)], held, what);
    t.is(scene.flow(connection)?.kind, flowKind.LOCAL);
    await client.party.ask({ do: 'reset', name: 'it' });
    await until(() => scene.flowsHeld(client.cookie) === 0n);
  }
  t.deepEqual(scene.events(), []);
});

test.serial('the agent’s ports are the agent’s, though all ports are open', async (t) => {
  const { scene } = t.context;
  const { server, stranger } = scene;
  scene.open(server.cookie, 0, true);
  for (const port of [15_001, 15_006, 15_008, 15_053]) scene.open(server.cookie, port, true);
  for (const [port, who] of [
    [15_001, 'ECONNREFUSED'],
    [15_006, 'ECONNREFUSED'],
    [15_008, 'hbone'],
    [15_053, 'inbound'],
    [appPort, 'app'],
  ] as const)
    for (const to of server.pod.addresses)
      t.is((await scene.connect(stranger.party, { to, port })).who, who, `${to} ${port}`);
  t.deepEqual(
    new Set(scene.flows().map(({ destination }) => destination as NetnsCookie)),
    new Set([server.cookie as NetnsCookie]),
  );
  t.is(scene.flows().length, 2);
});
