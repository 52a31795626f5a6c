/** What a pod's door lets through to the app: exactly what was approved, while it still counts, and once. */
import anyTest, { type TestFn } from 'ava';
import { type Flow, flowKind, flowState, limit } from '../../src/gen/layout.ts';
import { appPort, asRoot, type Connect, dropping, endpoint, PathScene, second, until, written } from './path-scene.ts';

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
  scene.setKubelet(1n, 1);
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

// --- TCP Fast Open ------------------------------------------------------------------------------------------------------

/** Both ends send and take data with the SYN, without a cookie. */
async function fastOpen(scene: PathScene): Promise<number> {
  const { server, client } = scene;
  for (const { pod } of [server, client]) await pod.sysctl({ 'net.ipv4.tcp_fastopen': 0x207 });
  const at = port();
  for (const bind of server.pod.addresses) await server.party.ask({ do: 'listen', bind, port: at, fastopen: true });
  return at;
}

test.serial('data that leave with the SYN arrive by an approval', async (t) => {
  const { scene } = t.context;
  const at = await fastOpen(scene);
  for (const to of scene.server.pod.addresses) {
    scene.allow(to, { port: at });
    const answer = await scene.connect(scene.client.party, { to, port: at, fastopen: 'sendto' });
    t.is(answer.who, 'app');
    t.deepEqual(await scene.server.party.ask({ do: 'hear', name: answer.from ?? '' }), { line: 'early' });
  }
});

test.serial('a connect that sends nothing yet is judged again by the epochs when it does', async (t) => {
  const { scene } = t.context;
  const { party } = scene.client;
  const at = await fastOpen(scene);
  for (const to of scene.server.pod.addresses)
    for (const changed of [undefined, scene.client.cookie, scene.server.cookie]) {
      scene.begin();
      scene.allow(to, { port: at });
      await party.ask({ do: 'connect', name: 'late', to, port: at, fastopen: 'connect' });
      t.is(scene.flows().length, 0);
      if (changed !== undefined) scene.setEpoch(changed, 2n);
      const { result, counts } = await scene.counting(['direct_local', 'flow_stale', 'captured_inbound'], async () => {
        await party.ask({ do: 'tell', name: 'late', text: 'late\n' });
        return await scene.answer(party, 'late');
      });
      t.is(result.who, changed === undefined ? 'app' : 'ECONNREFUSED');
      t.deepEqual(counts, [0, changed === undefined ? 0 : 1, 0]);
    }
});

test.serial('a connect that sends nothing yet takes the tunnel to destinations outside', async (t) => {
  const { scene } = t.context;
  const { party } = scene.client;
  await scene.client.pod.sysctl({ 'net.ipv4.tcp_fastopen': 0x207 });
  const to = scene.stranger.pod.ipv4;
  scene.allowOutside(to);
  await party.ask({ do: 'connect', name: 'late', to, port: appPort, fastopen: 'connect' });
  await party.ask({ do: 'tell', name: 'late', text: 'late\n' });
  t.is((await scene.answer(party, 'late')).who, 'outbound');
  t.is((await scene.connect(party, { to, name: 'now', fastopen: 'sendto' })).who, 'app');
});

// --- what is not as it seems ----------------------------------------------------------------------------------------------

test.serial('a policy that changes while a connect is on its way refuses it, and ends in no plaintext', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  const heal = await dropping(client.pod, 'output', `tcp dport ${appPort}`);
  await client.party.ask({ do: 'connect', name: 'it', to, port: appPort, start: true });
  t.deepEqual(
    scene.flows().map(({ state }) => state),
    [flowState.APPROVED],
  );
  scene.setEpoch(server.cookie, 2n);
  await heal();
  t.deepEqual(await client.party.ask({ do: 'finish', name: 'it' }), { error: 'ECONNREFUSED' });
  t.deepEqual(
    scene.events().map(({ reason }) => reason),
    ['flow_stale'],
  );
  t.is(scene.flows().length, 0);
});

for (const side of ['source', 'destination'] as const)
  test.serial(
    `a connection whose ${side} changes after its SYN was let through is told of when it is established`,
    async (t) => {
      const { scene } = t.context;
      const { server, client } = scene;
      const to = server.pod.ipv4;
      scene.allow(to);
      const heal = await dropping(client.pod, 'input', `tcp sport ${appPort}`);
      await client.party.ask({ do: 'connect', name: 'it', to, port: appPort, start: true });
      await until(() => scene.flows()[0]?.state === flowState.ARRIVED);
      scene.setEpoch(side === 'source' ? client.cookie : server.cookie, 2n);
      await heal();
      t.is((await client.party.ask({ do: 'finish', name: 'it' })).error, undefined);
      t.is((await scene.answer(client.party)).who, 'app');
      t.deepEqual(
        scene.events().map(({ reason, cookie }) => [reason, cookie]),
        [['flow_forbidden', server.cookie]],
      );
      t.deepEqual(
        scene.flows().map(({ state }) => state),
        [flowState.ESTABLISHED],
      );
    },
  );

for (const side of ['source', 'outside'] as const)
  test.serial(
    `a connection to outside is told of when it is established after the epoch of ${side} has changed`,
    async (t) => {
      const { scene } = t.context;
      const { stranger, client } = scene;
      const to = stranger.pod.ipv4;
      scene.allowOutside(to);
      const heal = await dropping(client.pod, 'input', `tcp sport ${appPort}`);
      await client.party.ask({ do: 'connect', name: 'it', to, port: appPort, start: true });
      scene.setEpoch(side === 'source' ? client.cookie : 0n, 2n);
      await heal();
      t.is((await client.party.ask({ do: 'finish', name: 'it' })).error, undefined);
      t.deepEqual(
        scene.events().map(({ reason, cookie }) => [reason, cookie]),
        [['flow_forbidden', client.cookie]],
      );
      t.deepEqual(
        scene.flows().map(({ state }) => state),
        [flowState.ESTABLISHED],
      );
    },
  );

test.serial('a source that is rewritten on the way is found out, and arrives as plaintext of nobody', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  const [extra] = await scene.addAddresses(client);
  await asRoot(client.pod, [
    'sh',
    '-c',
    `nft add table ip masq && nft 'add chain ip masq p { type nat hook postrouting priority 100; }' && nft add rule ip masq p ip daddr ${server.pod.ipv4} snat to ${extra}`,
  ]);
  t.teardown(() => asRoot(client.pod, ['nft', 'delete', 'table', 'ip', 'masq']));
  scene.allow(server.pod.ipv4);
  const answer = await scene.connect(client.party, { to: server.pod.ipv4 });
  t.is(answer.who, 'inbound');
  t.true(answer.peer?.startsWith(`${extra}:`));
  t.deepEqual(
    scene.events().map(({ reason, cookie, server: { address, port: at } }) => [reason, cookie, address, at]),
    [['masqueraded', client.cookie, server.pod.ipv4, appPort]],
  );
  t.is(scene.flows().length, 0);
  t.is(scene.flowsHeld(client.cookie), 0n);
  await client.party.ask({ do: 'close', name: 'it' });
  t.deepEqual(scene.records(), []);
});

test.serial('a socket that leaves from another address of its pod is not approved', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  const [extra] = await scene.addAddresses(client);
  await asRoot(client.pod, ['ip', 'route', 'add', `${server.pod.ipv4}/32`, 'dev', 'eth0', 'src', extra]);
  t.teardown(() => asRoot(client.pod, ['ip', 'route', 'delete', `${server.pod.ipv4}/32`]));
  scene.allow(server.pod.ipv4);
  const answer = await scene.connect(client.party, { to: server.pod.ipv4 });
  t.is(answer.who, 'inbound');
  t.true(answer.peer?.startsWith(`${extra}:`));
  t.is(scene.flows().length, 0);
  t.is(scene.events().length, 0);
});

test.serial('a full map of flows harms the one that finds it full, and the others take the tunnel', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  for (let at = 0; at < limit.FLOWS; at += 1)
    scene.approve({ netns: 1n, client: endpoint(to, at & 0xffff), server: endpoint(to, at >> 16) });
  t.is((await scene.connect(client.party, { to })).who, 'inbound');
  t.deepEqual(
    scene.events().map(({ reason, cookie }) => [reason, cookie]),
    [['flow_unrecorded', client.cookie]],
  );
  const { result, counts } = await scene.counting(['flows_over_quota'], () => scene.connect(client.party, { to }));
  t.is(result.who, 'outbound');
  t.deepEqual(counts, [1]);
  t.is(scene.flowsHeld(client.cookie), 0n);
  scene.begin();
  scene.allow(to);
  // The hint that the map is full is kept for a second.
  while ((await scene.connect(client.party, { to })).who !== 'app')
    await new Promise((resolve) => setTimeout(resolve, 50));
  t.is(scene.flowsHeld(client.cookie), 1n);
});
