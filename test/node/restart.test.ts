/** The agent ends and comes back: what is captured stays captured, what never passed it does not notice. */
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { command } from '../lab/command.ts';
import { apps, Lab, type LabAgent, type LabNode, type LabPod, type LabProcess } from '../lab/index.ts';
import { accepted, entries, lookupLinks, noEntries, pinRoot, podPins, relayed, settled, statusOf } from './inspect.ts';

const held = 4;

async function serve(pod: LabPod, port: number, bind = '::'): Promise<void> {
  await pod.run(apps.echo({ port, bind, quiet: true })).json({ event: 'listening' });
}

async function hold(from: LabPod, ...to: string[]): Promise<LabProcess> {
  const holder = from.run(apps.hold({ count: held, to }));
  await holder.json({ event: 'held', open: held });
  await alive(holder);
  return holder;
}

async function alive(holder: LabProcess): Promise<unknown> {
  holder.write('ping\n');
  return (await holder.json({ event: 'ping' })).alive;
}

/** What a short connection ends with: its reply, or the error. */
async function attempt(from: LabPod, to: string, port = 8080): Promise<string> {
  const { stdout } = await from.exec(apps.pythonConnect({ to, port, timeout: 5 }));
  const { reply, error } = JSON.parse(stdout) as { reply?: string; error?: string };
  return reply ?? error ?? '';
}

async function scene(node: LabNode): Promise<{ client: LabPod; server: LabPod }> {
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await serve(server, 8080);
  await serve(server, 9090);
  await serve(client, 7070);
  return { client, server };
}

/** Both directions and both families of two enrolled pods are led through the agent. */
async function isServed(agent: LabAgent, client: LabPod, server: LabPod): Promise<boolean> {
  const before = await accepted(agent);
  const replies = [await attempt(client, server.ipv4), await attempt(client, server.ipv6)];
  const after = await accepted(agent);
  return replies.every((reply) => reply === 'hello') && after - before === 4;
}

for (const [signal, workers] of [
  ['SIGTERM', 2],
  ['SIGKILL', 2],
  ['SIGKILL', 3],
  ['SIGKILL', 1],
] as const) {
  test.serial(
    `an agent ended by ${signal} comes back with ${workers} workers and serves its pods; what never passed it does not notice`,
    async (t) => {
      await using lab = await Lab.create(t.title);
      const node = await lab.node('n1');
      const { client, server } = await scene(node);
      const early = await hold(client, apps.endpoint(server.ipv4, 8080), apps.endpoint(server.ipv6, 8080));
      const agent = await node.agent({ workers: 2, args: ['--drain', '0.1'] });
      await agent.enrol(client, { excludeOutboundPorts: [9090] });
      await agent.enrol(server, { excludeInboundPorts: [9090] });
      const unnoticing = [
        early,
        await hold(client, apps.endpoint(server.ipv4, 9090), apps.endpoint(server.ipv6, 9090)),
        await hold(client, '127.0.0.1:7070', '[::1]:7070', apps.endpoint(client.ipv4, 7070)),
      ];
      t.is(await relayed(agent), 0);
      t.true(await isServed(agent, client, server));
      const cookies = podPins(node);

      await agent.kill(signal);
      for (const to of [server.ipv4, server.ipv6]) t.is(await attempt(client, to), 'ECONNREFUSED');
      t.is(await attempt(client, server.ipv4, 9090), 'hello', 'excluded');
      t.is(await attempt(client, '127.0.0.1', 7070), 'hello', 'within the pod');
      for (const each of unnoticing) t.is(await alive(each), held);

      const again = await node.agent({ workers });
      t.deepEqual(
        (await statusOf(again)).pods.map(({ path, netnsCookie }) => [path, netnsCookie]).sort(),
        cookies.map((cookie) => ['enrolled', cookie]).sort(),
      );
      t.true(await isServed(again, client, server));
      for (const each of unnoticing) t.is(await alive(each), held);
      t.is((await again.enrol(client, { excludeOutboundPorts: [9090] })).result, 'unchanged');

      await again.withdraw(client);
      await again.withdraw(server);
      t.is(await attempt(client, server.ipv4), 'hello');
      t.deepEqual(await entries(node), noEntries);
      t.deepEqual(podPins(node), []);
    },
  );
}

test.serial('pods of a state file that is not understood stay refused until they are enrolled again', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client, server } = await scene(node);
  const agent = await node.agent();
  const { netnsCookie } = await agent.enrol(client);
  await agent.kill();
  writeFileSync(join(node.runDirectory, 'state.json'), '{"schema":1,"pods":[{]');

  const again = await node.agent();
  t.like(await statusOf(again), { pods: [], unclaimed: [netnsCookie] });
  t.is(await attempt(client, server.ipv4), 'ECONNREFUSED');
  t.is(await attempt(server, client.ipv4, 7070), 'ECONNREFUSED');
  t.true(statSync(join(node.runDirectory, 'state.json.corrupt')).isFile());

  t.is((await again.enrol(client)).netnsCookie, netnsCookie);
  t.like(await statusOf(again), { unclaimed: [] });
  t.is(await attempt(client, server.ipv4), 'hello');
  t.is(await attempt(server, client.ipv4, 7070), 'hello');
  t.is(await accepted(again), 2);
});

for (const memory of ['its state file', 'no state file'] as const) {
  test.serial(`with ${memory}, an agent cleans up after pods whose namespace went while it was dead`, async (t) => {
    await using lab = await Lab.create(t.title);
    const node = await lab.node('n1');
    const { client, server } = await scene(node);
    const agent = await node.agent();
    const inode = statSync(client.netns).ino;
    await agent.enrol(client, { excludeOutboundPorts: [9090], excludeInboundCidrs: ['192.0.2.0/24'] });
    const { netnsCookie } = await agent.enrol(server);
    await hold(client, apps.endpoint(server.ipv4, 8080));
    await agent.kill();
    await client.delete();
    if (memory === 'no state file') rmSync(join(node.runDirectory, 'state.json'));

    const again = await node.agent();
    t.deepEqual(
      await settled(
        () => podPins(node),
        (pins) => pins.length === 1,
      ),
      [netnsCookie],
    );
    const { pods, pod_usage, listeners, excluded_ports, excluded_cidrs } = await entries(node);
    const served = memory === 'no state file' ? 0 : 6;
    t.deepEqual(
      { pods, pod_usage, listeners, excluded_ports, excluded_cidrs },
      {
        pods: 1,
        pod_usage: 1,
        listeners: served,
        excluded_ports: 0,
        excluded_cidrs: 0,
      },
    );
    t.is(
      await settled(
        () => lookupLinks(inode),
        (links) => links === 0,
      ),
      0,
    );
    await again.enrol(server);
    await again.withdraw(server);
    t.deepEqual(await entries(node), noEntries);
  });
}

test.serial('what somebody detaches or unpins is noticed and put back', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client, server } = await scene(node);
  const agent = await node.agent();
  const { netnsCookie } = await agent.enrol(client);
  await agent.enrol(server);
  const links = join(pinRoot(node), 'links');
  const runs = async (path: string): Promise<boolean> => {
    try {
      const link = JSON.parse(await command(['bpftool', '-j', 'link', 'show', 'pinned', path])) as Record<
        string,
        number
      >;
      return (link.cgroup_id ?? link.netns_ino ?? 0) > 0;
    } catch {
      return false;
    }
  };
  const pod = join(pinRoot(node), 'pods', `${netnsCookie}`);
  for (const path of [join(links, 'on_connect4'), join(links, 'on_sockops'), pod]) {
    await command(['bpftool', 'link', 'detach', 'pinned', path]);
    t.true(
      await settled(
        () => runs(path),
        (runs) => runs,
      ),
      `${path} detached`,
    );
    t.true(await isServed(agent, client, server));
    rmSync(path);
    t.true(
      await settled(
        () => runs(path),
        (runs) => runs,
      ),
      `${path} unpinned`,
    );
    t.true(await isServed(agent, client, server));
  }
  const map = join(pinRoot(node), 'maps', 'owned');
  rmSync(map);
  t.true(
    await settled(
      () => statSync(map, { throwIfNoEntry: false }) !== undefined,
      (there) => there,
    ),
    'a map',
  );

  await agent.kill();
  t.true(await isServed(await node.agent(), client, server), 'an agent started later finds them');
});

test.serial("the agents of two nodes never see each other's pods or pins", async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2);
  const [here, there] = [await n1.pod('client'), await n2.pod('server')];
  await serve(there, 8080);
  const [a1, a2] = [await n1.agent(), await n2.agent()];
  const first = await a1.enrol(here);
  t.deepEqual((await statusOf(a2)).pods, []);
  t.deepEqual((await statusOf(a2)).unclaimed, []);
  t.deepEqual([podPins(n1), podPins(n2)], [[first.netnsCookie], []]);
  t.deepEqual(await entries(n2), noEntries);
  t.is(await attempt(here, there.ipv4), 'hello');
  t.is(await accepted(a2), 0);

  const second = await a2.enrol(there);
  t.deepEqual([podPins(n1), podPins(n2)], [[first.netnsCookie], [second.netnsCookie]]);
  t.is(await attempt(here, there.ipv6), 'hello');
  t.deepEqual([await accepted(a1), await accepted(a2)], [2, 1]);

  await a1.kill();
  const again = await n1.agent();
  t.deepEqual(
    (await statusOf(again)).pods.map(({ netnsCookie }) => netnsCookie),
    [first.netnsCookie],
  );
  t.is((await statusOf(a2)).pods.length, 1);
  await again.withdraw(here);
  t.deepEqual(podPins(n2), [second.netnsCookie]);
});
