/** Between a connect and its arrival: what was decided early is judged again, and what did not go as planned is found out. */
import anyTest, { type TestFn } from 'ava';
import { flowState, limit } from '../../src/gen/layout.ts';
import { appPort, endpoint } from './path-maps.ts';
import { asRoot, dropping, PathScene, until } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path changes');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

let lastPort = 20_000;

/** Both ends send and take data with the SYN (TCP Fast Open), without a cookie. The port of the server. */
async function fastOpen(scene: PathScene): Promise<number> {
  const { server, client } = scene;
  for (const { pod } of [server, client]) await pod.sysctl({ 'net.ipv4.tcp_fastopen': 0x207 });
  lastPort += 1;
  const at = lastPort;
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
