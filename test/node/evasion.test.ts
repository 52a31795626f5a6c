import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { apps, furnish, Lab, type LabNode, type LabPod } from '../lab/index.ts';
import { plain } from './conversation.ts';
import {
  assertLed,
  assertRefused,
  endpoint,
  grown,
  kernelEvents,
  port,
  portOf,
  type Road,
  serving,
  statusOf,
  type Told,
  told,
} from './evidence.ts';
import { relayed, settled } from './inspect.ts';

const squat = join(import.meta.dirname, 'squat.py');
const wander = join(import.meta.dirname, 'wander.py');
const python = '/usr/bin/python3';
const agentPorts = [15001, 15006, 15008, 15053];

interface Scene extends Road {
  readonly lab: Lab;
  readonly node: LabNode;
  /** An enrolled pod with an echo server. */
  readonly target: LabPod;
  /** A pod that is not enrolled, besides the server's. */
  readonly stranger: LabPod;
}

const test = anyTest as TestFn<Scene>;

test.before(async (t) => {
  t.context = await furnish(await Lab.create('evasion'), async (lab) => {
    const node = await lab.node('n1');
    const [client, server] = [await node.pod('client'), await node.pod('server')];
    const [target, stranger] = [await node.pod('target'), await node.pod('stranger')];
    const app = await serving(server, apps.pythonEcho({ port }));
    const agent = await node.agent();
    await agent.enrol(client);
    await agent.enrol(target);
    return { lab, node, client, server, target, stranger, app, agent };
  });
});

test.after.always(async (t) => {
  await t.context.lab?.dispose();
});

function squatting(pod: LabPod, ...args: readonly string[]) {
  return serving(pod, [python, squat, ...args]);
}

/** Connects from the client's pod, restricted as in a container unless told otherwise. */
async function connect(scene: Scene, options: Partial<apps.PythonConnectOptions>, restricted = true): Promise<Told> {
  const argv = apps.pythonConnect({ to: scene.server.ipv4, port, ...options });
  return told(await scene.client.exec(argv, { restricted }));
}

for (const family of ['ipv4', 'ipv6'] as const) {
  const ways: ReadonlyArray<readonly [string, Partial<apps.PythonConnectOptions>]> = [
    ["root, which is the agent's uid", {}],
    ['MPTCP', { mptcp: true }],
    ['TCP Fast Open by sendto', { fastopen: true }],
    ['TCP Fast Open by TCP_FASTOPEN_CONNECT', { fastopenConnect: true }],
    ['a socket bound to a device', { device: 'eth0' }],
  ];
  for (const [way, options] of ways)
    test.serial(`${way} does not lead past the agent (${family})`, async (t) => {
      const { client, server } = t.context;
      // Both sides; data in the SYN without a cookie; every listener takes part, and asks for no cookie.
      for (const fastopen of [0x3, 0x7, 0x607]) {
        await client.sysctl({ 'net.ipv4.tcp_fastopen': fastopen });
        await assertLed(t, t.context, () => connect(t.context, { to: server[family], ...options }));
      }
      await client.sysctl({ 'net.ipv4.tcp_fastopen': 1 });
    });

  test.serial(`a socket bound to the loopback device does not leave the pod (${family})`, async (t) => {
    const { server } = t.context;
    await assertRefused(t, t.context, () => connect(t.context, { to: server[family], device: 'lo', timeout: 2 }));
  });

  test.serial(`a connect by io_uring does not lead past the agent (${family})`, async (t) => {
    const { client, server } = t.context;
    const argv = await apps.uringConnect({ to: server[family], port });
    await assertLed(t, t.context, async () => told(await client.exec(argv)));
  });

  for (const mark of [0x539, 1, 0xffffffff])
    test.serial(`a pod that may set SO_MARK 0x${mark.toString(16)} gains nothing by it (${family})`, async (t) => {
      const { server } = t.context;
      await assertLed(t, t.context, () => connect(t.context, { to: server[family], mark }, false));
    });
}

test.serial('root of a container cannot set a mark at all', async (t) => {
  t.like(await connect(t.context, { mark: 0x539 }), { error: 'EPERM', at: 'option' });
});

test.serial('a socket that was made before its pod was enrolled is captured when it connects', async (t) => {
  const { node, agent, server } = t.context;
  const late = await node.pod('late');
  const early = late.run(apps.pythonConnect({ to: server.ipv4, port, wait: true }));
  await early.json({ event: 'made' });
  await agent.enrol(late);
  await assertLed(t, { ...t.context, client: late }, async () => {
    early.write('\n');
    await early.json({ reply: 'hello' });
    return told(early);
  });
});

test.serial('a server that listened before its pod was enrolled gets new connections from the agent', async (t) => {
  const { node, agent, stranger } = t.context;
  const late = await node.pod('lateserver');
  const app = await serving(late, apps.pythonEcho({ port }));
  await agent.enrol(late);
  const events = await grown(agent, late, async () => {
    t.like(told(await stranger.exec(apps.pythonConnect({ to: late.ipv4, port }))), { reply: 'hello' });
  });
  t.is(events.captured_inbound, 1);
  await app.json({ event: 'accepted' });
});

test.serial(
  'an MPTCP server is reached through the agent, by MPTCP and TCP clients, and sees the real client',
  async (t) => {
    const { lab, target, stranger, agent } = t.context;
    const app = await serving(target, apps.pythonEcho({ port: 8090, mptcp: true }));
    for (const mptcp of [true, false])
      for (const to of target.addresses) {
        const capture = await lab.capture(target, 'lo');
        const events = await grown(agent, target, async () => {
          const seen = told(await stranger.exec(apps.pythonConnect({ to, port: 8090, mptcp })));
          t.is(seen.reply, 'hello');
          const { peer, accepted } = await app.json({ event: 'accepted' });
          t.is(plain(`${peer}`), `${seen.local}`);
          t.is(accepted, peer);
        });
        t.is(events.captured_inbound, 1);
        // The agent's own leg runs over the pod's loopback.
        t.true((await capture.stop()).filter(({ destinationPort }) => destinationPort === 8090).contains('hello'));
      }
  },
);

test.serial("a socket of the host's namespace is refused inside an enrolled pod", async (t) => {
  const { node, client, server } = t.context;
  const door = join(node.runDirectory, 'door-in');
  const events = await assertRefused(t, t.context, async () => {
    const taking = client.run(apps.pythonConnect({ to: server.ipv4, port, take: door }));
    await taking.json({ event: 'waiting' });
    t.is((await node.exec(apps.pythonConnect({ to: server.ipv4, port, give: door }))).code, 0);
    await taking.exit;
    const outcome = told(taking);
    t.like(outcome, { error: 'EPERM', at: 'connect' });
    return outcome;
  });
  t.is(events.foreign_socket, 1);
});

test.serial('a socket of a pod that is not enrolled is refused inside an enrolled pod', async (t) => {
  const { node, client, server, stranger } = t.context;
  const door = join(node.runDirectory, 'door-pod');
  const events = await assertRefused(t, t.context, async () => {
    const taking = client.run(apps.pythonConnect({ to: server.ipv4, port, take: door }));
    await taking.json({ event: 'waiting' });
    t.is((await stranger.exec(apps.pythonConnect({ to: server.ipv4, port, give: door }))).code, 0);
    await taking.exit;
    return told(taking);
  });
  t.is(events.foreign_socket, 1);
});

for (const where of ['the host', 'a pod that is not enrolled'])
  test.serial(`a pod's socket is captured when a process of ${where} connects it`, async (t) => {
    const { node, client, server, stranger } = t.context;
    const door = join(node.runDirectory, 'door-out');
    await assertLed(t, t.context, async () => {
      const argv = apps.pythonConnect({ to: server.ipv4, port, take: `${door}-${where.length}` });
      const taking = where === 'the host' ? node.run(argv) : stranger.run(argv);
      await taking.json({ event: 'waiting' });
      const giving = apps.pythonConnect({ to: server.ipv4, port, give: `${door}-${where.length}` });
      t.is((await client.exec(giving)).code, 0);
      await taking.exit;
      return told(taking);
    });
  });

test.serial("a process that makes its socket in the pod and moves to the host's namespace is captured", async (t) => {
  const { node, client, server } = t.context;
  for (const to of server.addresses)
    await assertLed(t, t.context, async () =>
      told(await client.exec([python, wander, node.netns, to, `${port}`], { restricted: false })),
    );
});

test.serial("a process that makes its socket on the host and moves into the pod's namespace is refused", async (t) => {
  const { node, client, server } = t.context;
  for (const to of server.addresses) {
    const events = await assertRefused(t, t.context, async () => {
      const outcome = told(await node.exec([python, wander, client.netns, to, `${port}`]));
      t.like(outcome, { error: 'EPERM', at: 'connect' });
      return outcome;
    });
    t.is(events.foreign_socket, 1);
  }
});

test.serial(
  "the agent's ports cannot be bound in an enrolled pod, under any address, with SO_REUSEPORT and its uid",
  async (t) => {
    const { client, agent } = t.context;
    const addresses = ['0.0.0.0', '::', '127.0.0.1', '::ffff:127.0.0.1', '::1', '127.128.0.1', ...client.addresses];
    const args = [
      ...addresses.flatMap((address) => ['--address', address]),
      ...agentPorts.flatMap((number) => ['--port', `${number}`]),
    ];
    for (const more of [[], ['--reuseport']]) {
      const events = await grown(agent, client, async () => {
        const squatter = client.run([python, squat, ...args, ...more]);
        const { taken, refused } = await squatter.json({ event: 'listening' });
        t.deepEqual(taken, []);
        t.deepEqual(refused, { EADDRINUSE: addresses.length * agentPorts.length });
        await squatter.kill();
      });
      t.is(events.port_reserved, addresses.length * agentPorts.length);
    }
  },
);

test.serial("who gets the agent's ports by having the kernel choose them receives nothing", async (t) => {
  const { client, server, stranger, app } = t.context;
  await client.sysctl({ 'net.ipv4.ip_local_port_range': '15001 15008' });
  const addresses = ['0.0.0.0', '::', ...client.addresses, '127.128.0.1'].flatMap((each) => ['--address', each]);
  const squatter = client.run([python, squat, ...addresses, '--port', '0', '--count', '16', '--reuseport']);
  const { taken } = await squatter.json({ event: 'listening' });
  await client.sysctl({ 'net.ipv4.ip_local_port_range': '32768 60999' });
  t.true(
    (taken as string[]).some((name) => portOf(name) === 15001),
    'the kernel gives out 15001',
  );
  for (const to of [...server.addresses, ...server.addresses, ...server.addresses]) {
    t.like(await connect(t.context, { to }), { reply: 'hello' });
    await app.json({ event: 'accepted' });
  }
  for (const to of client.addresses)
    for (const number of [15001, 15006])
      t.like(told(await stranger.exec(apps.pythonConnect({ to, port: number }))), { error: 'ECONNREFUSED' });
  t.is(squatter.lines.length, 1, squatter.stdout);
  await squatter.kill();
});

test.serial("who held the agent's ports before the enrolment, ready to share them, receives nothing", async (t) => {
  const { node, agent, server, app, stranger } = t.context;
  const pod = await node.pod('early');
  const args = ['127.0.0.1', '127.128.0.1', ...pod.addresses].flatMap((address) => ['--address', address]);
  const squatter = await squatting(pod, ...args, '--port', '15001', '--port', '15006', '--reuseport');
  await agent.enrol(pod);
  for (const to of [...server.addresses, ...server.addresses, ...server.addresses, ...server.addresses]) {
    t.like(told(await pod.exec(apps.pythonConnect({ to, port }))), { reply: 'hello' });
    await app.json({ event: 'accepted' });
  }
  for (const to of pod.addresses)
    for (const number of [15001, 15006])
      t.like(told(await stranger.exec(apps.pythonConnect({ to, port: number }))), { error: 'ECONNREFUSED' });
  t.is(squatter.lines.length, 1, squatter.stdout);
  t.is((await kernelEvents(agent, pod)).captured_outbound, 8);
});

test.serial("connecting to the agent's listeners, or to where captured connections are led, is refused", async (t) => {
  const { client, agent, stranger } = t.context;
  const before = await statusOf(agent);
  const doors: Array<[string, number]> = [
    ['127.128.1.2', 15001],
    ['127.255.1.2', 15001],
    ['::1', 15001],
    ['::1', 16384],
    ['::1', 20000],
    ...[15001, 15006, 15008].flatMap(
      (number): Array<[string, number]> => [
        ['127.0.0.1', number],
        [client.ipv4, number],
        [client.ipv6, number],
      ],
    ),
  ];
  for (const [to, number] of doors) {
    const outcome = await connect(t.context, { to, port: number });
    t.like(outcome, { error: 'ECONNREFUSED', at: 'connect' }, endpoint(to, number));
  }
  for (const to of client.addresses)
    for (const number of [15001, 15006])
      t.like(told(await stranger.exec(apps.pythonConnect({ to, port: number }))), {
        error: 'ECONNREFUSED',
        at: 'connect',
      });
  t.is((await statusOf(agent)).totals.accepted, before.totals.accepted);
  // Whoever is outside reaches the tunnel's listener, and gets nothing there without mutual TLS.
  for (const to of client.addresses) {
    const outcome = told(await stranger.exec(apps.pythonConnect({ to, port: 15008 })));
    t.is(outcome.reply, undefined);
    t.truthy(outcome.error);
    t.not(outcome.error, 'ECONNREFUSED');
  }
  t.true(((await kernelEvents(agent, client)).no_handover ?? 0) >= 12);
});

test.serial(
  'an app on every port that captured connections are spread over keeps its own callers, and gets no others',
  async (t) => {
    const { client, server, app } = t.context;
    const squatter = await squatting(
      client,
      ...['127.0.0.1', '::1', ...client.addresses].flatMap((address) => ['--address', address]),
      ...['--from', '16384', '--to', '20479'],
    );
    for (let round = 0; round < 4; round++)
      for (const to of server.addresses)
        for (const device of ['', 'eth0']) {
          t.like(await connect(t.context, { to, ...(device === '' ? {} : { device }) }), { reply: 'hello' });
          await app.json({ event: 'accepted' });
        }
    t.is(squatter.lines.length, 1, squatter.stdout);
    for (const to of ['127.0.0.1', '::1', ...client.addresses])
      for (const number of [16384, 20000]) {
        const outcome = await connect(t.context, { to, port: number });
        t.true(outcome.error === 'EOF' || outcome.error === 'ECONNRESET', outcome.error);
        t.like(await squatter.json({ event: 'accepted' }), { at: endpoint(to, number), peer: `${outcome.local}` });
      }
    await squatter.kill();
  },
);

/** Where the kernel really led the socket with this local port: what `ss` sees. */
async function ledTo(pod: LabPod, local: number): Promise<number> {
  const { stdout } = await pod.exec(['ss', '-tnH', 'sport', '=', `:${local}`]);
  return portOf(/(\S+)\s*$/.exec(stdout.trim())?.[1]);
}

for (const family of ['ipv4', 'ipv6'] as const)
  test.serial(`a source port that equals the port it is led to misdelivers nothing (${family})`, async (t) => {
    const { client, server, app, agent } = t.context;
    for (const device of [undefined, 'eth0']) {
      const options = { to: server[family], port, ...(device === undefined ? {} : { device }) };
      const held = client.run(apps.pythonConnect({ ...options, hold: true }));
      const { local } = await held.json({ event: 'connected' });
      await app.json({ event: 'accepted' });
      const target = await ledTo(client, portOf(`${local}`));
      held.end();
      await held.exit;
      await settled(
        () => relayed(agent),
        (open) => open === 0,
      );
      await client.sysctl({ 'net.ipv4.ip_unprivileged_port_start': 0 });
      await client.sysctl({ 'net.ipv4.ip_local_port_range': `${target} ${target}` });
      const { accepted } = (await statusOf(agent)).totals;
      const outcome = await connect(t.context, options);
      await client.sysctl({ 'net.ipv4.ip_local_port_range': '32768 60999' });
      // The one port may be taken already, for the client or for the agent's own leg; what is connected passes the agent.
      t.log(`${device ?? 'any device'}: ${JSON.stringify(outcome)}`);
      const connected = outcome.error !== 'EADDRNOTAVAIL';
      t.is((await statusOf(agent)).totals.accepted, accepted + Number(connected));
      if (!connected) continue;
      t.is(portOf(outcome.local), target);
      if (outcome.error === undefined) await app.json({ event: 'accepted' });
      else t.is(outcome.error, 'ECONNRESET');
    }
  });

test.serial(
  'a device-bound socket that has no port left to be led to is refused, and one that has is captured',
  async (t) => {
    const { client, server } = t.context;
    await client.sysctl({ 'net.ipv4.ip_unprivileged_port_start': 0 });
    for (const to of server.addresses) {
      for (const range of ['1024 65535', '16384 40000', '512 8000']) {
        await client.sysctl({ 'net.ipv4.ip_local_port_range': range });
        await assertLed(t, t.context, () => connect(t.context, { to, device: 'eth0' }));
      }
      for (const range of ['1 65535', '1 32767']) {
        await client.sysctl({ 'net.ipv4.ip_local_port_range': range });
        const events = await assertRefused(t, t.context, () => connect(t.context, { to, device: 'eth0' }));
        t.is(events.no_address, 1);
      }
    }
    await assertLed(t, t.context, () => connect(t.context, { to: server.ipv4 }));
    await client.sysctl({ 'net.ipv4.ip_local_port_range': '32768 60999' });
  },
);
