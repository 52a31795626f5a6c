/** Whom a connect of a pod leads to: straight to the app where a verdict counts, to the agent where anything is missing. */
import anyTest, { type TestFn } from 'ava';
import { limit, podFlag, verdictKind } from '../../src/gen/layout.ts';
import type { Reason } from '../../src/kernel/index.ts';
import { appPort, second } from './path-maps.ts';
import { type Connect, PathScene, written } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path verdicts');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

test.serial(
  'what a verdict allows goes straight to the app, in both families, and both ends see each other',
  async (t) => {
    const { scene } = t.context;
    const { client, server } = scene;
    const rows: Connect[] = [
      { to: server.pod.ipv4 },
      { to: server.pod.ipv4, mapped: true },
      { to: server.pod.ipv6 },
      { to: server.pod.ipv4, bind: client.pod.ipv4 },
      { to: server.pod.ipv4, bind: client.pod.ipv4, mapped: true },
      { to: server.pod.ipv6, bind: client.pod.ipv6, bindPort: 5000 },
      { to: server.pod.ipv4, bindPort: 5001 },
    ];
    scene.allow(server.pod.ipv4);
    scene.allow(server.pod.ipv6);
    for (const row of rows) {
      const { result, counts } = await scene.counting(['direct_local', 'captured_outbound', 'captured_inbound'], () =>
        scene.connect(client.party, row),
      );
      const what = JSON.stringify(row);
      const own = row.to.includes(':') ? client.pod.ipv6 : client.pod.ipv4;
      t.is(result.who, 'app', what);
      t.is(result.shown, written(row.to, appPort), what);
      t.true(result.from?.startsWith(written(own, undefined).replace('undefined', '')), what);
      t.is(result.peer, result.from, what);
      t.deepEqual(counts, [1, 0, 0], what);
    }
  },
);

test.serial('what goes outside by a verdict is left alone', async (t) => {
  const { scene } = t.context;
  for (const row of [
    { to: scene.stranger.pod.ipv4 },
    { to: scene.stranger.pod.ipv4, mapped: true },
    { to: scene.stranger.pod.ipv6 },
  ]) {
    scene.allowOutside(row.to);
    const { result, counts } = await scene.counting(['direct_outside', 'captured_outbound'], () =>
      scene.connect(scene.client.party, row),
    );
    t.is(result.who, 'app');
    t.is(result.peer, result.from);
    t.deepEqual(counts, [1, 0]);
  }
});

/** One condition that is missing, each by itself: the tunnel. */
const missing: ReadonlyArray<readonly [string, (scene: PathScene) => void, Reason | undefined, Partial<Connect>?]> = [
  ['the verdict', (s) => s.begin(), 'no_verdict'],
  ['the flag of the source pod', (s) => s.setPod(s.client.cookie, () => ({ flags: 0 })), undefined],
  ['the heartbeat', (s) => s.beat(6n * second), 'heartbeat_old'],
  ['any heartbeat ever', (s) => s.neverBeaten(), 'heartbeat_old'],
  ['the epoch of the source', (s) => s.setEpoch(s.client.cookie, 2n), 'no_verdict'],
  ['the epoch of the destination', (s) => s.setEpoch(s.server.cookie, 2n), 'no_verdict'],
  ['room for another flow', (s) => s.setUsage(s.client.cookie, BigInt(limit.FLOWS_PER_POD)), 'flows_over_quota'],
  ['the same port', (s) => s.begin(), 'no_verdict'],
  ['plain TCP (MPTCP)', () => undefined, undefined, { mptcp: true }],
  ['the choice of the device', () => undefined, undefined, { device: 'eth0' }],
];

for (const [what, take, reason, how] of missing)
  test.serial(`without ${what} a connect goes through the tunnel`, async (t) => {
    const { scene } = t.context;
    const { server, client } = scene;
    for (const to of server.pod.addresses) {
      scene.begin();
      scene.allow(to);
      take(scene);
      if (what === 'the same port') scene.allow(to, { port: appPort + 1 });
      const { result, counts } = await scene.counting(
        ['captured_outbound', 'direct_local', reason ?? 'no_address'],
        () => scene.connect(client.party, { to, ...how }),
      );
      t.is(result.who, 'outbound', to);
      t.is(result.asked, written(to, appPort));
      t.is(result.picked, undefined);
      t.deepEqual(counts, [1, 0, reason === undefined ? 0 : 1]);
    }
  });

test.serial('an epoch that nobody has written is none, also where the verdict says 0', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  const [to = ''] = server.pod.addresses;
  for (const forgotten of [client.cookie, server.cookie]) {
    scene.begin();
    scene.allow(to, { epochs: forgotten === client.cookie ? [0n, 1n] : [1n, 0n] });
    scene.forgetEpoch(forgotten);
    t.is((await scene.connect(client.party, { to })).who, 'outbound');
  }
});

test.serial('a verdict for one pod is no other pod’s', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  scene.allow(to);
  t.is((await scene.connect(scene.other.party, { to })).who, 'outbound');
  scene.allow(to, { source: scene.other.cookie });
  t.is((await scene.connect(scene.other.party, { to })).who, 'app');
});

test.serial('a destination that is withdrawn, gone, or the pod itself is none', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  scene.allow(to);
  scene.setPod(scene.server.cookie, ({ flags }) => ({ flags: flags | podFlag.WITHDRAWING }));
  t.is((await scene.connect(scene.client.party, { to })).who, 'outbound');
  scene.setPod(scene.server.cookie, ({ flags }) => ({ flags: flags & ~podFlag.WITHDRAWING }));
  t.is((await scene.connect(scene.client.party, { to })).who, 'app');
  // A namespace that is no pod any more; its epoch has not been forgotten yet.
  scene.allow(to, { to: 4711n });
  scene.setEpoch(4711n, 1n);
  t.is((await scene.connect(scene.client.party, { to })).who, 'outbound');
  scene.allow(to, { to: scene.client.cookie });
  t.is((await scene.connect(scene.client.party, { to })).who, 'outbound');
  scene.forgetEpoch(4711n);
});

test.serial('a verdict of no known kind, or outside with a pod for its destination, is none', async (t) => {
  const { scene } = t.context;
  const [to = ''] = scene.server.pod.addresses;
  for (const by of [{ kind: 0 }, { kind: 3 }, { kind: verdictKind.OUTSIDE }, { kind: verdictKind.LOCAL, to: 0n }]) {
    scene.allow(to, by);
    t.is((await scene.connect(scene.client.party, { to })).who, 'outbound', JSON.stringify({ kind: by.kind }));
  }
});

test.serial('a verdict for outside counts while its epochs are the present ones', async (t) => {
  const { scene } = t.context;
  const to = scene.stranger.pod.ipv4;
  for (const cookie of [0n, scene.client.cookie]) {
    scene.begin();
    scene.allowOutside(to);
    scene.setEpoch(cookie, 2n);
    t.is((await scene.connect(scene.client.party, { to })).who, 'outbound');
  }
});

test.serial('a socket that is bound to an address which is not the pod’s takes the tunnel', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const [extra] = await scene.addAddresses(client);
  scene.allow(server.pod.ipv4);
  t.is((await scene.connect(client.party, { to: server.pod.ipv4, bind: extra })).who, 'outbound');
  t.is((await scene.connect(client.party, { to: server.pod.ipv4 })).who, 'app');
});

test.serial('a flow that is full up to the quota is served again below it', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  scene.allow(server.pod.ipv4);
  scene.setUsage(client.cookie, BigInt(limit.FLOWS_PER_POD) + 7n, 7n);
  t.is((await scene.connect(client.party, { to: server.pod.ipv4 })).who, 'outbound');
  scene.setPod(client.cookie, () => ({ flowsSwept: 1 }));
  t.is((await scene.connect(client.party, { to: server.pod.ipv4 })).who, 'app');
  scene.setPod(client.cookie, () => ({ flowsSwept: 0 }));
});
