/** Pods come, change and go while their connections are open. */
import { statSync } from 'node:fs';
import test from 'ava';
import { apps, Lab, type LabNode, type LabPod, type LabProcess } from '../lab/index.ts';
import {
  accepted,
  descriptors,
  entries,
  isFreed,
  lookupLinks,
  noEntries,
  podPins,
  relayed,
  settled,
  statusOf,
  steady,
} from './inspect.ts';

const soak = process.env.CULVERT_SOAK === '1';
const held = 8;

/** An echo server that is ready. */
async function serve(pod: LabPod, port = 8080): Promise<LabProcess> {
  const server = pod.run(apps.echo({ port, quiet: true }));
  await server.json({ event: 'listening' });
  return server;
}

/** Connections held open to both addresses of a pod. */
async function hold(from: LabPod, to: LabPod, count = held): Promise<LabProcess> {
  const holder = from.run(apps.hold({ count, to: [apps.endpoint(to.ipv4, 8080), apps.endpoint(to.ipv6, 8080)] }));
  const { open, errors } = await holder.json({ event: 'held' });
  if (open !== count) throw new Error(`${open} of ${count} are open: ${JSON.stringify(errors)}`);
  await alive(holder); // what is relayed has been accepted now
  return holder;
}

/** How many of the held connections answer. */
async function alive(holder: LabProcess): Promise<unknown> {
  holder.write('ping\n');
  return (await holder.json({ event: 'ping' })).alive;
}

async function twoPods(node: LabNode): Promise<{ client: LabPod; server: LabPod }> {
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await serve(server);
  return { client, server };
}

for (const direction of ['outbound', 'inbound'] as const) {
  test.serial(`enrolling and withdrawing leave ${direction} connections that are open alone`, async (t) => {
    await using lab = await Lab.create(t.title);
    const node = await lab.node('n1');
    const { client, server } = await twoPods(node);
    const agent = await node.agent();
    const pod = direction === 'outbound' ? client : server;

    const before = await hold(client, server);
    await agent.enrol(pod);
    t.is(await alive(before), held);
    t.is(await relayed(agent), 0, "what was open is not the agent's");

    const during = await hold(client, server);
    t.is(await relayed(agent), held, 'new connections are captured');
    t.is(await alive(during), held);

    await agent.withdraw(pod);
    t.deepEqual((await statusOf(agent)).pods, []);
    t.is(await alive(before), held);
    t.is(await alive(during), held, 'relayed connections live on');

    const after = await hold(client, server);
    t.is(await relayed(agent), held, 'new connections are direct');
    t.is(await alive(after), held);

    during.write('close\n');
    t.is(
      await settled(
        () => relayed(agent),
        (open) => open === 0,
      ),
      0,
    );
    t.deepEqual(await entries(node), noEntries);
  });

  test.serial(`no ${direction} connect fails while its pod is enrolled and withdrawn`, async (t) => {
    await using lab = await Lab.create(t.title);
    const [near, far] = [await lab.node('n1'), await lab.node('n2')];
    // So that many a handshake is half-way whenever something changes.
    await lab.link(near, far, { delayMs: 40 });
    const [client, server] = direction === 'outbound' ? [near, far] : [far, near];
    const [from, to] = [await client.pod('client'), await server.pod('server')];
    await serve(to);
    const agent = await near.agent();
    const pod = direction === 'outbound' ? from : to;
    const destinations = [apps.endpoint(to.ipv4, 8080), apps.endpoint(to.ipv6, 8080)];

    const stream = from.run(await apps.load({ rate: soak ? 1000 : 400, seconds: 600, to: destinations }));
    await stream.json({ event: 'started' });
    for (let round = 0; round < (soak ? 30 : 4); round += 1) {
      const seen = await accepted(agent);
      await agent.enrol(pod);
      t.true(
        (await settled(
          () => accepted(agent),
          (count) => count > seen + 50,
        )) >
          seen + 50,
        'captured',
      );
      await agent.withdraw(pod);
    }
    await stream.kill('SIGTERM');
    const { started, answered, errors } = await stream.json({ event: 'end' });
    t.deepEqual(errors, {});
    t.is(answered, started);
    t.true(Number(started) > (await accepted(agent)), 'some were direct');
    t.is((await statusOf(agent)).totals.failed, 0);
  });
}

test.serial('nothing is left of a pod whose namespace is deleted while its connections are open', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const server = await node.pod('server');
  await serve(server);
  // One worker, so that the warm-up is sure to reach it: its first visit to a namespace leaves one descriptor, of its own.
  const agent = await node.agent({ workers: 1 });
  const warmUp = await node.pod('warm-up');
  await agent.enrol(warmUp);
  (await hold(warmUp, server)).write('close\n');
  await settled(
    () => relayed(agent),
    (open) => open === 0,
  );
  await agent.withdraw(warmUp);
  const before = await steady(() => descriptors(agent));

  for (const role of ['client', 'server']) {
    const pod = await node.pod(`victim-${role.slice(0, 3)}`);
    await serve(pod);
    const inode = statSync(pod.netns).ino;
    await agent.enrol(pod, { excludeOutboundPorts: [9], excludeInboundCidrs: ['192.0.2.0/24'] });
    await (role === 'client' ? hold(pod, server) : hold(server, pod));
    t.is(await relayed(agent), held);
    t.is(await lookupLinks(inode), 1);
    t.not(descriptors(agent).length, before.length);

    await pod.delete();
    t.deepEqual(
      await settled(
        async () => (await statusOf(agent)).pods,
        (pods) => pods.length === 0,
      ),
      [],
    );
    t.is(await relayed(agent), 0);
    t.deepEqual(await entries(node), noEntries);
    t.deepEqual(podPins(node), []);
    t.is(
      await settled(
        () => lookupLinks(inode),
        (links) => links === 0,
      ),
      0,
    );
    t.deepEqual(
      await settled(
        () => descriptors(agent),
        (now) => now.length === before.length,
      ),
      before,
    );
    t.true(
      await settled(
        () => isFreed(pod),
        (freed) => freed,
      ),
      'no socket keeps the namespace',
    );
  }
});

test.serial('enrolling and withdrawing twice is as once', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client, server } = await twoPods(node);
  const agent = await node.agent();

  const first = await agent.enrol(client);
  t.is(first.result, 'enrolled');
  const holder = await hold(client, server);
  const [maps, pins, open] = [await entries(node), podPins(node), descriptors(agent)];
  const second = await agent.enrol(client);
  t.is(second.result, 'unchanged');
  t.is(second.netnsCookie, first.netnsCookie);
  t.deepEqual([await entries(node), podPins(node), descriptors(agent)], [maps, pins, open]);

  t.is((await agent.enrol(client, { excludeOutboundPorts: [8080] })).result, 'updated');
  const direct = await hold(client, server);
  t.is(await relayed(agent), held, 'excluded now');
  t.is((await agent.enrol(client)).result, 'updated');
  t.deepEqual(await entries(node), { ...maps, counters: (await entries(node)).counters });
  const captured = await hold(client, server);
  t.is(await relayed(agent), 2 * held, 'included again');
  for (const each of [holder, direct, captured]) t.is(await alive(each), held);

  t.is((await agent.withdraw(client)).result, 'withdrawn');
  t.is((await agent.withdraw(client)).result, 'unchanged');
  for (const each of [holder, direct, captured]) t.is(await alive(each), held);
});

test.serial('a network namespace belongs to one pod', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client, server } = await twoPods(node);
  const agent = await node.agent();
  await agent.enrol(client);
  const holder = await hold(client, server);
  // But for the loop's delays, which every second brings anew.
  const seen = async () => [{ ...(await statusOf(agent)), workers: [] }, await entries(node), podPins(node)];
  const before = await seen();

  const reply = await agent.request({ method: 'enrol', pod: client.request({ uid: 'another' }) });
  t.is(reply.ok, false);
  t.like(reply.error, { code: 'NETNS_TAKEN' });
  t.deepEqual(await seen(), before);
  t.is(await alive(holder), held);
});

test.serial('a pod whose sandbox is made anew is captured in the new one only', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client: former, server } = await twoPods(node);
  const latter = await node.pod('latter');
  const agent = await node.agent();
  const old = await agent.enrol(former);
  const open = await hold(former, server);
  const maps = await entries(node);

  const anew = await agent.enrol(latter, { uid: former.uid });
  t.is(anew.result, 'enrolled');
  t.not(anew.netnsCookie, old.netnsCookie);
  t.deepEqual(podPins(node), [anew.netnsCookie]);
  t.deepEqual({ ...(await entries(node)), counters: 0, cgroups: 0 }, { ...maps, counters: 0, cgroups: 0 });
  t.is(await alive(open), held, 'what was open in the old sandbox lives on');
  await hold(former, server);
  t.is(await relayed(agent), held, 'the old sandbox is not captured any more');
  await hold(latter, server);
  t.is(await relayed(agent), 2 * held);
});

test.serial('a pod that is deleted and made again under the same path is enrolled again', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const { client, server } = await twoPods(node);
  const agent = await node.agent();
  const { netnsCookie } = await agent.enrol(client);
  await hold(client, server);

  await client.delete();
  const again = await node.pod('client');
  t.is(again.netns, client.netns);
  const reply = await agent.enrol(again);
  t.is(reply.result, 'enrolled');
  t.not(reply.netnsCookie, netnsCookie);
  t.deepEqual(podPins(node), [reply.netnsCookie]);
  t.is(
    await settled(
      () => relayed(agent),
      (count) => count === 0,
    ),
    0,
  );
  t.is(await alive(await hold(again, server)), held);
  t.is(await relayed(agent), held);
});

test.serial('many pods of one node are enrolled, and all are captured', async (t) => {
  t.timeout(600_000);
  const count = Number(process.env.CULVERT_PODS ?? (soak ? 250 : 40));
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const server = await node.pod('server');
  await serve(server);
  const agent = await node.agent();
  const pods: LabPod[] = [];
  for (let n = 0; n < count; n += 1) pods.push(await node.pod(`p${n}`));

  const took: number[] = [];
  for (const pod of pods) {
    const start = performance.now();
    await agent.enrol(pod);
    took.push(performance.now() - start);
  }
  took.sort((a, b) => a - b);
  t.log(`enrolment of ${count} pods, ms: median ${took[count >> 1]?.toFixed(1)}, slowest ${took.at(-1)?.toFixed(1)}`);
  const { pods: known } = await statusOf(agent);
  t.is(known.filter(({ path }) => path === 'enrolled').length, count);

  const to = [apps.endpoint(server.ipv4, 8080), apps.endpoint(server.ipv6, 8080)];
  const client = await apps.load({ rate: 100, seconds: 0.3, to });
  for (const pod of pods) {
    const seen = await accepted(agent);
    const { stdout } = await pod.exec(client);
    const end: unknown = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
    t.like(end, { errors: {} });
    t.true((await accepted(agent)) > seen, `${pod.name} is captured`);
  }
  // The socket serves 64 clients at a time.
  for (let at = 0; at < count; at += 50) await Promise.all(pods.slice(at, at + 50).map((pod) => agent.withdraw(pod)));
  t.deepEqual(await entries(node), noEntries);
});

test.serial('two hundred enrolments leave nothing behind', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const server = await node.pod('server');
  await serve(server);
  const agent = await node.agent();
  const pods: LabPod[] = [];
  for (let n = 0; n < 20; n += 1) pods.push(await node.pod(`p${n}`));
  const client = await apps.load({ rate: 200, seconds: 0.1, to: [apps.endpoint(server.ipv4, 8080)] });
  const cycle = async (): Promise<void> => {
    await Promise.all(pods.map((pod) => agent.enrol(pod)));
    const [pod] = pods;
    if (pod !== undefined) t.is((await pod.exec(client)).code, 0);
    await Promise.all(pods.map((pod) => agent.withdraw(pod)));
    await settled(
      () => relayed(agent),
      (open) => open === 0,
    );
  };
  for (let round = 0; round < 2; round += 1) await cycle(); // what is opened at the first use stays
  const inodes = pods.map((pod) => statSync(pod.netns).ino);
  const before = await steady(() => descriptors(agent));
  for (let round = 0; round < 10; round += 1) await cycle();

  t.deepEqual(
    await settled(
      () => descriptors(agent),
      (all) => all.length === before.length,
    ),
    before,
  );
  t.deepEqual(await entries(node), noEntries);
  t.deepEqual(podPins(node), []);
  for (const inode of inodes) t.is(await lookupLinks(inode), 0);
});
