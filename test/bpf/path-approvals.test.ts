/** What a pod's door lets through to the app: exactly what was approved, while it still counts, and once. */
import anyTest, { type TestFn } from 'ava';
import { type Flow, flowKind, flowState } from '../../src/gen/layout.ts';
import { appPort, endpoint, second } from './path-maps.ts';
import { type Connect, dropping, PathScene, until, written } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path approvals');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

let lastPort = 20_000;
/** A source port that no connection of this file has had. */
function port(): number {
  lastPort += 1;
  return lastPort;
}

/** The stranger has no connect hook of its own, so its source is chosen, and the approval is made by hand. */
function arriving(scene: PathScene, to: string, bindPort: number) {
  const from = to.includes(':') ? scene.stranger.pod.ipv6 : scene.stranger.pod.ipv4;
  const connection = { netns: scene.server.cookie, client: endpoint(from, bindPort), server: endpoint(to, appPort) };
  return { connection, row: { to, bind: from, bindPort } satisfies Connect };
}

test.serial(
  'an approved connection reaches the app, is established with the server’s socket, and stays listed',
  async (t) => {
    const { scene } = t.context;
    for (const to of scene.server.pod.addresses) {
      const { connection, row } = arriving(scene, to, port());
      scene.approve(connection, { clientSocket: 7n });
      const answer = await scene.connect(scene.stranger.party, row);
      t.is(answer.who, 'app');
      t.is(answer.peer, written(row.bind, row.bindPort));
      const flow = scene.flow(connection);
      t.is(flow?.state, flowState.ESTABLISHED);
      t.is(flow?.clientSocket, 7n);
      t.true((flow?.serverSocket ?? 0n) > 0n);
      t.is(scene.events().length, 0);
    }
  },
);

/** The approval differs from what arrives in one thing. */
const others: ReadonlyArray<
  readonly [string, (scene: PathScene, at: ReturnType<typeof arriving>['connection']) => object]
> = [
  ['client’s port', (_, { client }) => ({ client: { ...client, port: client.port + 1 } })],
  ['client’s address', (s, { client }) => ({ client: endpoint(s.other.pod.ipv4, client.port) })],
  ['server’s port', (_, { server }) => ({ server: { ...server, port: server.port + 1 } })],
  ['server’s address', (s, { server }) => ({ server: endpoint(s.other.pod.ipv4, server.port) })],
  ['destination pod', (s) => ({ netns: s.other.cookie })],
];

for (const [what, change] of others)
  test.serial(`an approval with another ${what} approves nothing else: the agent gets it as plaintext`, async (t) => {
    const { scene } = t.context;
    for (const to of scene.server.pod.addresses) {
      const { connection, row } = arriving(scene, to, port());
      scene.approve({ ...connection, ...change(scene, connection) });
      const { result, counts } = await scene.counting(['captured_inbound'], () =>
        scene.connect(scene.stranger.party, row),
      );
      t.is(result.who, 'inbound');
      t.deepEqual(counts, [1]);
    }
  });

const stale: ReadonlyArray<readonly [string, (scene: PathScene) => Partial<Flow>]> = [
  ['another epoch of its source', () => ({ sourceEpoch: 2n })],
  ['another epoch of its destination', () => ({ destinationEpoch: 0n })],
  ['a source that is enrolled no more', () => ({ source: 4711n })],
  ['an age of more than 150 s', () => ({ sinceNs: process.hrtime.bigint() - 151n * second })],
  [
    'an agent that has been silent for more than 5 s',
    (scene) => {
      scene.beat(6n * second);
      return {};
    },
  ],
];

for (const [what, change] of stale)
  test.serial(`an approval with ${what} is refused, counted and told of`, async (t) => {
    const { scene } = t.context;
    const { cookie, pod } = scene.server;
    for (const to of pod.addresses) {
      const { connection, row } = arriving(scene, to, port());
      scene.approve(connection, change(scene));
      const { result, counts } = await scene.counting(['flow_stale', 'captured_inbound'], () =>
        scene.connect(scene.stranger.party, row),
      );
      t.is(result.who, 'ECONNREFUSED');
      t.deepEqual(counts, [1, 0]);
      t.deepEqual(
        scene.events().map((event) => [event.reason, event.cookie, event.client.port]),
        [['flow_stale', cookie, row.bindPort]],
      );
    }
  });

test.serial('a probe’s approval asks for no epoch and no heartbeat, and expires', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  scene.neverBeaten();
  scene.setKubelet(1n);
  const probe = { kind: flowKind.PROBE, source: 0n, sourceEpoch: 0n, destinationEpoch: 0n };
  const live = arriving(scene, to, port());
  scene.approve(live.connection, probe);
  t.is((await scene.connect(scene.stranger.party, live.row)).who, 'app');
  const old = arriving(scene, to, port());
  scene.approve(old.connection, { ...probe, sinceNs: process.hrtime.bigint() - 151n * second });
  t.is((await scene.connect(scene.stranger.party, old.row)).who, 'ECONNREFUSED');
});

test.serial('an approval that has served is used up', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  const { connection, row } = arriving(scene, to, port());
  scene.approve(connection, { state: flowState.ESTABLISHED });
  t.is((await scene.connect(scene.stranger.party, row)).who, 'inbound');
});

test.serial('a pod that is not on the kernel path lets nothing through, and asks for no approval', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  scene.setPod(scene.server.cookie, () => ({ flags: 0 }));
  const { connection, row } = arriving(scene, to, port());
  scene.approve(connection);
  t.is((await scene.connect(scene.stranger.party, row)).who, 'inbound');
});

test.serial('a SYN that is sent again, because it or its answer was lost, is let through as the first', async (t) => {
  const { scene } = t.context;
  const to = scene.server.pod.ipv4;
  const { party } = scene.stranger;
  const answerLost = arriving(scene, to, port());
  scene.approve(answerLost.connection);
  const heal = await dropping(scene.stranger.pod, 'input', `tcp sport ${appPort}`);
  await party.ask({ do: 'connect', name: 'lost', port: appPort, start: true, ...answerLost.row });
  await until(() => scene.flow(answerLost.connection)?.state === flowState.ARRIVED);
  await heal();
  t.is((await party.ask({ do: 'finish', name: 'lost' })).error, undefined);
  t.is((await scene.answer(party, 'lost')).who, 'app');
  const synLost = arriving(scene, to, port());
  scene.approve(synLost.connection);
  const healAgain = await dropping(scene.stranger.pod, 'output', `tcp dport ${appPort}`);
  await party.ask({ do: 'connect', name: 'syn', port: appPort, start: true, ...synLost.row });
  await healAgain();
  t.is((await party.ask({ do: 'finish', name: 'syn' })).error, undefined);
  t.is((await scene.answer(party, 'syn')).who, 'app');
  t.is(scene.events().length, 0);
});

test.serial('with SYN cookies the door is asked twice, and lets the same connection through', async (t) => {
  const { scene } = t.context;
  const { pod } = scene.server;
  await pod.sysctl({ 'net.ipv4.tcp_syncookies': 2 });
  scene.allow(pod.ipv4);
  scene.allow(pod.ipv6);
  for (const to of pod.addresses) t.is((await scene.connect(scene.client.party, { to })).who, 'app');
  t.true(scene.flows().every(({ state }) => state === flowState.ESTABLISHED));
  await pod.sysctl({ 'net.ipv4.tcp_syncookies': 1 });
});

test.serial(
  'a server that defers acceptance until there is data is reached, and its flow established then',
  async (t) => {
    const { scene } = t.context;
    const { pod, party } = scene.server;
    await party.ask({ do: 'listen', bind: pod.ipv4, port: 8081, defer: 30 });
    scene.allow(pod.ipv4, { port: 8081 });
    const client = scene.client.party;
    t.is((await client.ask({ do: 'connect', name: 'it', to: pod.ipv4, port: 8081 })).error, undefined);
    t.deepEqual(
      scene.flows().map(({ state }) => state),
      [flowState.ARRIVED],
    );
    await client.ask({ do: 'tell', name: 'it', text: 'first\n' });
    t.is((await scene.answer(client)).who, 'app');
    t.deepEqual(
      scene.flows().map(({ state }) => state),
      [flowState.ESTABLISHED],
    );
  },
);
