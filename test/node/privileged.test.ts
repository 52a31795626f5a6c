import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { apps, Lab, type LabAgent, type LabPod, type LabProcess } from '../lab/index.ts';
import { metric } from './conversation.ts';
import { grown, port, serving, statusOf, type Told, told } from './evidence.ts';
import { settled } from './inspect.ts';

const handmade = join(import.meta.dirname, 'handmade.py');
const python = '/usr/bin/python3';
const privileged = { restricted: false };

interface Scene {
  readonly lab: Lab;
  readonly agent: LabAgent;
  /** Enrolled; its processes have CAP_NET_ADMIN and CAP_NET_RAW. */
  readonly rogue: LabPod;
  /** Enrolled, with an app. */
  readonly target: LabPod;
  /** Not enrolled, with an app. */
  readonly outside: LabPod;
  readonly targetApp: LabProcess;
  readonly outsideApp: LabProcess;
}

const test = anyTest as TestFn<Scene>;

test.beforeEach(async (t) => {
  const lab = await Lab.create(t.title);
  // At once, so that it is removed if what follows fails.
  Object.assign(t.context, { lab });
  const node = await lab.node('n1');
  const [rogue, target, outside] = [await node.pod('rogue'), await node.pod('target'), await node.pod('outside')];
  const targetApp = await serving(target, apps.pythonEcho({ port }));
  const outsideApp = await serving(outside, apps.pythonEcho({ port }));
  const agent = await node.agent();
  await agent.enrol(rogue);
  await agent.enrol(target);
  // The agent knows a pod's cgroup by its first connect.
  t.is(told(await rogue.exec(apps.pythonConnect({ to: outside.ipv4, port }))).reply, 'hello');
  await outsideApp.json({ event: 'accepted' });
  Object.assign(t.context, { agent, rogue, target, outside, targetApp, outsideApp });
});

test.afterEach.always(async (t) => {
  await t.context.lab?.dispose();
});

async function shell(t: ExecutionContext<Scene>, pod: LabPod, script: string): Promise<void> {
  const { code, stderr } = await pod.exec(['sh', '-ec', script], privileged);
  t.is(code, 0, stderr);
}

/** Asserts that `connect` reaches the app of the pod that is not enrolled without the agent. */
async function assertEscapes(
  t: ExecutionContext<Scene>,
  connect: () => Promise<Told>,
): Promise<Record<string, number>> {
  const { agent, rogue, outsideApp } = t.context;
  const { accepted } = (await statusOf(agent)).totals;
  const events = await grown(agent, rogue, async () => {
    t.is((await connect()).reply, 'hello');
    await outsideApp.json({ event: 'accepted' });
  });
  t.is((await statusOf(agent)).totals.accepted, accepted);
  return { ...events };
}

/** Asserts that what `connect` opens to the enrolled pod reaches its app through that pod's agent. */
async function assertHeldByDestination(t: ExecutionContext<Scene>, connect: () => Promise<Told>): Promise<void> {
  const { lab, agent, target, targetApp } = t.context;
  const { accepted } = (await statusOf(agent)).totals;
  const inside = await lab.capture(target, 'lo');
  const events = await grown(agent, target, async () => {
    t.is((await connect()).reply, 'hello');
    await targetApp.json({ event: 'accepted' });
  });
  t.is(events.captured_inbound, 1);
  t.is((await statusOf(agent)).totals.accepted, accepted + 1);
  // The app's own connection is the agent's, over the pod's loopback.
  const onLoopback = (await inside.stop()).filter(({ destinationPort }) => destinationPort === port);
  t.true(onLoopback.contains('hello'));
  t.is(targetApp.lines.filter((line) => line.includes('accepted')).length, 1);
}

/** What a pod's own rules make of captured connections: they go to `address` instead of to the agent. */
function hijack(family: 'ip' | 'ip6', own: string, address: string): string {
  const led =
    family === 'ip' ? 'ip daddr 127.128.0.0/9 tcp dport 15001' : `ip6 daddr { ::1, ${own} } tcp dport 16384-32767`;
  const to = family === 'ip' ? `${address}:${port}` : `[${address}]:${port}`;
  return `
    nft add table ${family} hijack
    nft 'add chain ${family} hijack out { type nat hook output priority -100; }'
    nft add rule ${family} hijack out '${led} dnat to ${to}'`;
}

for (const [family, table] of [
  ['ipv4', 'ip'],
  ['ipv6', 'ip6'],
] as const) {
  test.serial(
    `a NAT rule in the pod that takes captured connections elsewhere is counted as rerouted (${family})`,
    async (t) => {
      const { agent, rogue, outside } = t.context;
      await shell(t, rogue, hijack(table, rogue[family], outside[family]));
      const { rerouted } = await assertEscapes(t, async () =>
        told(await rogue.exec(apps.pythonConnect({ to: outside[family], port }))),
      );
      t.is(rerouted, 1);
      t.true((await metric(agent, 'culvert_kernel_events_total', 'reason="rerouted"')) >= 1);
      const tables = await rogue.node.exec([
        process.execPath,
        'src/cli/main.ts',
        'status',
        '--run',
        rogue.node.runDirectory,
      ]);
      t.regex(tables.stdout, /! pod default\/rogue went past the mesh: rerouted 1/);
    },
  );

  test.serial(`a rerouted connection arrives at an enrolled destination through its agent (${family})`, async (t) => {
    const { rogue, target } = t.context;
    await shell(t, rogue, hijack(table, rogue[family], target[family]));
    await assertHeldByDestination(t, async () =>
      told(await rogue.exec(apps.pythonConnect({ to: target[family], port }))),
    );
  });
}

test.serial('a rerouted connection that only sends is counted too', async (t) => {
  const { agent, rogue, outside } = t.context;
  await serving(outside, apps.echo({ port: 8081, mode: 'silent' }));
  await shell(t, rogue, hijack('ip', rogue.ipv4, outside.ipv4).replace(`:${port}`, ':8081'));
  const script = `import socket; s = socket.create_connection(("${outside.ipv4}", 8081)); s.sendall(b"away\\n" * 100)`;
  t.is((await rogue.exec([python, '-c', script])).code, 0);
  const rerouted = await settled(
    () => metric(agent, 'culvert_kernel_events_total', 'reason="rerouted"'),
    (count) => count > 0,
  );
  t.is(rerouted, 1);
});

test.serial(
  'connections that wait for a busy agent, or are given up, are not mistaken for rerouted ones',
  async (t) => {
    const { agent, rogue, outside } = t.context;
    agent.process.signal('SIGSTOP');
    const script = `import socket; s = socket.create_connection(("${outside.ipv4}", ${port})); s.sendall(b"gone\\n" * 100)`;
    for (let each = 0; each < 5; each++) t.is((await rogue.exec([python, '-c', script])).code, 0);
    agent.process.signal('SIGCONT');
    t.is(await metric(agent, 'culvert_kernel_events_total', 'reason="rerouted"'), 0);
  },
);

/** Runs a client in a namespace that the pod has made inside itself and forwards and masquerades for. */
async function fromNested(t: ExecutionContext<Scene>, to: string): Promise<Told> {
  const { rogue } = t.context;
  const client = apps.pythonConnect({ to, port }).join(' ');
  const nested = rogue.run(
    [
      ...['unshare', '--net', 'sh', '-ec'],
      `echo $$; read go; ip link set lo up; ip addr add 192.168.99.2/24 dev inner; ip link set inner up
       ip route add default via 192.168.99.1; exec ${client}`,
    ],
    privileged,
  );
  const [pid] = await nested.line(/^\d+$/);
  await shell(
    t,
    rogue,
    `ip link add outer type veth peer name inner netns ${pid}
     ip addr add 192.168.99.1/24 dev outer
     ip link set outer up
     echo 1 > /proc/sys/net/ipv4/ip_forward
     nft add table ip nested
     nft 'add chain ip nested post { type nat hook postrouting priority 100; }'
     nft add rule ip nested post ip saddr 192.168.99.0/24 masquerade`,
  );
  nested.write('go\n');
  await nested.exit;
  return told(nested);
}

test.serial('a connection out of a namespace that the pod has made itself is counted as such', async (t) => {
  const { outside } = t.context;
  const events = await assertEscapes(t, () => fromNested(t, outside.ipv4));
  t.is(events.nested_netns, 1);
});

test.serial(
  'a connection out of a nested namespace arrives at an enrolled destination through its agent',
  async (t) => {
    await assertHeldByDestination(t, () => fromNested(t, t.context.target.ipv4));
  },
);

/** Makes a connection of its own packets; the kernel's resets for it are dropped. */
async function byHand(t: ExecutionContext<Scene>, kind: 'raw' | 'packet', to: string): Promise<Told> {
  const { rogue } = t.context;
  await shell(
    t,
    rogue,
    `nft add table ip quiet
     nft 'add chain ip quiet out { type filter hook output priority 0; }'
     nft add rule ip quiet out tcp flags rst tcp sport 20000-29999 drop`,
  );
  return told(await rogue.exec([python, handmade, kind, rogue.ipv4, to, `${port}`], privileged));
}

test.serial('a raw socket is counted when it is made, whatever is sent on it', async (t) => {
  const events = await assertEscapes(t, () => byHand(t, 'raw', t.context.outside.ipv4));
  t.is(events.raw_socket, 1);
});

for (const kind of ['raw', 'packet'] as const)
  test.serial(
    `packets made by hand on a ${kind} socket arrive at an enrolled destination through its agent`,
    async (t) => {
      await assertHeldByDestination(t, () => byHand(t, kind, t.context.target.ipv4));
    },
  );

test.serial('a source address that another pod has no right to does not open the way to an app', async (t) => {
  const { lab, rogue, target, targetApp, agent } = t.context;
  const { accepted } = (await statusOf(agent)).totals;
  const wire = await lab.capture(target);
  const outcomes = await Promise.all(
    [target.ipv4, '127.0.0.1', '127.64.0.1'].map((source) =>
      rogue.exec([python, handmade, 'packet', source, target.ipv4, `${port}`], privileged),
    ),
  );
  for (const outcome of outcomes) t.like(told(outcome), { error: 'ETIMEDOUT', at: 'connect' });
  const arrived = (await wire.stop()).filter(({ flags }) => flags === 'S').packets.map(({ source }) => source);
  t.deepEqual(arrived.sort(), ['127.0.0.1', '127.64.0.1', target.ipv4].sort());
  t.is((await statusOf(agent)).totals.accepted, accepted);
  t.is(targetApp.lines.length, 1);
});
