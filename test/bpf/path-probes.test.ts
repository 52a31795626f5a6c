/** The kubelet's connections are let in whatever policy says, and nobody else's: known by cgroup and namespace alone. */
import { mkdirSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import * as addon from '../../native/addon/index.js';
import { flowEnd, flowKind, flowState } from '../../src/gen/layout.ts';
import { u64 } from '../../src/kernel/bytes.ts';
import { type Address, encodeAddress } from '../../src/mesh/index.ts';
import { Party, PathScene, type Seat, until } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene; kubelet: Party; group: string }>;

/** A cgroup below another. */
function makeGroup(parent: string, name: string): string {
  const group = join(parent, name);
  mkdirSync(group);
  return group;
}

function follow(scene: PathScene, group: string): void {
  scene.setKubelet(statSync(group, { bigint: true }).ino);
}

test.before(async (t) => {
  const scene = await PathScene.create('path probes');
  const group = makeGroup(scene.node.cgroup, 'kubelet');
  for (const { cookie, pod } of [scene.client, scene.server, scene.other])
    for (const address of pod.addresses)
      addon.mapUpdate(scene.map('addresses'), encodeAddress(address as Address), u64(cookie));
  Object.assign(t.context, { scene, group, kubelet: new Party({ netns: scene.node.netns, cgroup: group }) });
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  const { scene, group } = t.context;
  scene.begin();
  follow(scene, group);
});

/** Who answers this party at the server, in each form of address. */
async function answers(scene: PathScene, party: Party, seat: Seat = scene.server): Promise<string[]> {
  const who: string[] = [];
  for (const row of [{ to: seat.pod.ipv4 }, { to: seat.pod.ipv4, mapped: true }, { to: seat.pod.ipv6 }])
    who.push((await scene.connect(party, row)).who);
  return who;
}

const let3 = ['app', 'app', 'app'];
const led3 = ['inbound', 'inbound', 'inbound'];

test.serial(
  'the kubelet is let in, with no heartbeat, no open port and no flag, and each probe is told of',
  async (t) => {
    const { scene, kubelet } = t.context;
    const { server } = scene;
    for (const bare of [false, true]) {
      scene.neverBeaten();
      if (bare) scene.setPod(server.cookie, () => ({ flags: 0 }));
      const { result, counts } = await scene.counting(['host_probe', 'captured_inbound', 'direct_plain'], () =>
        answers(scene, kubelet),
      );
      t.deepEqual(result, let3);
      t.deepEqual(counts, [3, 0, 0]);
    }
    t.is(scene.events().length, 0);
    const known = scene.flows();
    t.true(known.every((flow) => flow.kind === flowKind.PROBE && flow.state === flowState.ESTABLISHED));
    t.true(known.every((flow) => flow.source === 0n && flow.destination === server.cookie));
    scene.records();
    await kubelet.ask({ do: 'reset', name: 'it' });
    // Those before may have ended only now.
    const records: unknown[] = [];
    const resets = () => scene.records().filter(({ end }) => end !== flowEnd.CLEAN);
    await until(() => records.push(...resets().map(({ kind, end, destination }) => [kind, end, destination])) > 0);
    t.deepEqual(records, [[flowKind.PROBE, flowEnd.RESET_BY_CLIENT, server.cookie]]);
  },
);

test.serial('a full pod does not keep the kubelet out', async (t) => {
  const { scene, kubelet } = t.context;
  scene.setUsage(scene.server.cookie, 1_000_000n);
  t.deepEqual(await answers(scene, kubelet), let3);
});

test.serial('a process below the kubelet’s cgroup is the kubelet too', async (t) => {
  const { scene, group } = t.context;
  const below = makeGroup(group, 'below');
  t.deepEqual(await answers(scene, new Party({ netns: scene.node.netns, cgroup: below })), let3);
});

test.serial('another process of the host is not the kubelet, whatever its socket’s address', async (t) => {
  const { scene, kubelet } = t.context;
  const beside = makeGroup(scene.node.cgroup, 'beside');
  const party = new Party({ netns: scene.node.netns, cgroup: beside });
  t.deepEqual(await answers(scene, party), led3);
  // The same address, while the kubelet holds a connection of its own.
  t.is((await scene.connect(kubelet, { to: scene.server.pod.ipv4, bind: scene.node.ipv4, bindPort: 7000 })).who, 'app');
  const { who } = await scene.connect(party, { to: scene.server.pod.ipv4, bind: scene.node.ipv4, bindPort: 7001 });
  t.is(who, 'inbound');
});

test.serial('the kubelet’s cgroup alone is not enough: its socket must be of the host’s namespace', async (t) => {
  const { scene, group } = t.context;
  t.deepEqual(await answers(scene, new Party({ netns: scene.stranger.pod.netns, cgroup: group })), led3);
  const inPod = new Party({ netns: scene.client.pod.netns, cgroup: group });
  t.deepEqual(await answers(scene, inPod), ['outbound', 'outbound', 'outbound']);
});

test.serial('without a kubelet, or with another’s cgroup, nobody is let in', async (t) => {
  const { scene, kubelet, group } = t.context;
  scene.setKubelet(0n);
  t.deepEqual(await answers(scene, kubelet), led3);
  follow(scene, makeGroup(group, 'child'));
  t.deepEqual(await answers(scene, kubelet), led3);
});

test.serial('the kubelet’s cgroup may lie as deep as it likes, and others above it are not the kubelet', async (t) => {
  const { scene } = t.context;
  let group = makeGroup(scene.node.cgroup, 'deep');
  for (let depth = 0; depth < 12; depth += 1) group = makeGroup(group, 'deeper');
  follow(scene, group);
  t.deepEqual(await answers(scene, new Party({ netns: scene.node.netns, cgroup: group })), let3);
  t.deepEqual(await answers(scene, new Party({ netns: scene.node.netns, cgroup: makeGroup(group, 'below') })), let3);
  t.deepEqual(await answers(scene, new Party({ netns: scene.node.netns, cgroup: join(group, '..') })), led3);
});

test.serial('a kubelet that is started again is let in by its new cgroup, and nobody by the old one', async (t) => {
  const { scene } = t.context;
  const old = makeGroup(scene.node.cgroup, 'restarted');
  follow(scene, old);
  const first = new Party({ netns: scene.node.netns, cgroup: old });
  t.deepEqual(await answers(scene, first), let3);
  first.process.end();
  await first.process.exit;
  rmdirSync(old);
  const group = makeGroup(scene.node.cgroup, 'restarted');
  const second = new Party({ netns: scene.node.netns, cgroup: group });
  t.deepEqual(await answers(scene, second), led3);
  follow(scene, group);
  t.deepEqual(await answers(scene, second), let3);
});

test.serial(
  'what the kubelet asks of others than pods is no flow, nor what it asks a pod that is withdrawn',
  async (t) => {
    const { scene, kubelet } = t.context;
    t.deepEqual(await answers(scene, kubelet, scene.stranger), let3);
    t.is(scene.flows().length, 0);
    addon.mapUpdate(scene.map('addresses'), encodeAddress(scene.stranger.pod.ipv4 as Address), u64(4711n));
    t.deepEqual(await answers(scene, kubelet, scene.stranger), let3);
    t.is(scene.flows().length, 0);
  },
);

test.serial('a socket of the kubelet that connects again keeps no former plan', async (t) => {
  const { scene, kubelet } = t.context;
  const { server, stranger } = scene;
  t.is((await scene.connect(kubelet, { to: server.pod.ipv4 })).who, 'app');
  t.is((await scene.connect(kubelet, { to: stranger.pod.ipv4, again: true })).who, 'app');
  t.is(scene.flows().length, 0);
  t.is((await scene.connect(kubelet, { to: server.pod.ipv4, again: true })).who, 'app');
  scene.setKubelet(0n);
  t.is((await scene.connect(kubelet, { to: server.pod.ipv4, again: true })).who, 'inbound');
  t.is(scene.flows().length, 0);
});
