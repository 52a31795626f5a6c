/** The kernel path where the node, its network, its other owners and other pods do not make it easy. */
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { limit } from '../../src/gen/layout.ts';
import { command, shellIn } from '../lab/command.ts';
import { apps, authorizationPolicyManifest, type LabPod, type LabProcess, podManifest } from '../lab/index.ts';
import { type Conversation, converse, families, metric, serve, socketKinds } from './conversation.ts';
import { kernelEvents } from './evidence.ts';
import { Held, Load } from './held.ts';
import { settled } from './inspect.ts';
import { changed, direct, pastAgent, pathStatus, travel, waysTo } from './kernel-path-bed.ts';
import {
  assertClientUnharmed,
  assertKeptOut,
  type GuardedBed,
  guardedBed,
  letIn,
  MASQUERADED,
  newcomer,
  rules,
  usual,
} from './path-guard.ts';
import { reached } from './policy-bed.ts';
import { APP_PORT, podOf, tally } from './tunnel-bed.ts';

const python = '/usr/bin/python3';
/** Of one pod: `VerdictBook`. */
const MOST_VERDICTS = 4096;
const soak = process.env.CULVERT_SOAK === '1';

let bed: GuardedBed;

test.serial.before(async () => {
  bed = await guardedBed('around the kernel path');
});

test.serial.after.always(() => bed?.lab.dispose());

test.serial.beforeEach(() => bed.policies.are(...usual));

function endpointsOf(pod: LabPod): string[] {
  return pod.addresses.map((address) => apps.endpoint(address, APP_PORT));
}

/** Waits until all of them are lost. */
async function allLost(t: ExecutionContext, held: Held): Promise<void> {
  const state = await settled(
    () => held.state(),
    ({ open }) => open === 0,
  );
  t.is(state.open, 0);
  await held.close();
}

test.serial(
  'where pods answer with SYN cookies, what a change forbids is refused, and what is open ends',
  async (t) => {
    const { policies, pods, app } = bed;
    const { client, server, stranger } = pods;
    await server.sysctl({ 'net.ipv4.tcp_syncookies': 2 });
    const ways = socketKinds.map((kind) => waysTo(server, kind)[0].argv);
    for (const argv of ways) {
      const { talk } = await direct(bed, client, argv);
      t.is(talk.server?.peer, talk.local);
    }
    let held = await Held.open(client, endpointsOf(server), 20);
    await policies.are(...letIn());
    await allLost(t, held);
    for (const argv of ways) await assertKeptOut(t, app, 'the client', () => converse(client, argv));

    await policies.are();
    for (const argv of ways) await direct(bed, stranger, argv);
    held = await Held.open(stranger, endpointsOf(server), 20);
    await policies.are(...usual);
    await allLost(t, held);
    for (const argv of ways) await assertKeptOut(t, app, 'the stranger', () => converse(stranger, argv));
    await server.sysctl({ 'net.ipv4.tcp_syncookies': 1 });
  },
);

/** Attaches a program of somebody else's above the node's cgroup: it runs after ours, and switches callbacks off. */
async function foreignSockops(): Promise<AsyncDisposable> {
  const { lab } = bed;
  const [object, pin] = [join(lab.directory, 'foreign.bpf.o'), join(lab.bpffs, 'foreign')];
  const include = `/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
  const source = join(import.meta.dirname, '..', 'bpf', 'foreign.bpf.c');
  await command(['clang', '-target', 'bpf', '-O2', '-g', '-idirafter', include, '-c', source, '-o', object]);
  await command(['bpftool', 'prog', 'load', object, pin]);
  const attachment = [lab.cgroup, 'sock_ops', 'pinned', pin] as const;
  await command(['bpftool', 'cgroup', 'attach', ...attachment, 'multi']);
  return { [Symbol.asyncDispose]: async () => void (await command(['bpftool', 'cgroup', 'detach', ...attachment])) };
}

test.serial(
  'where somebody else switches callbacks off, closed flows are swept, open ones live on, and forbidden ones end',
  async (t) => {
    const { agent, policies, pods } = bed;
    const { client, server, other, stranger } = pods;
    await policies.are();
    const routes = [
      [client, server],
      [client, stranger],
      [stranger, other],
    ] as const;
    for (const [from, to] of routes) for (const kind of families) await direct(bed, from, waysTo(to, kind)[0].argv);
    const flows = async (): Promise<number> => (await pathStatus(agent)).flows;
    t.is(await settled(flows, (count) => count === 0), 0);

    await using _ = await foreignSockops();
    const held = await Promise.all(routes.map(([from, to]) => Held.open(from, endpointsOf(to), 4)));
    const left = await Promise.all(routes.map(([from, to]) => Held.open(from, endpointsOf(to), 6)));
    for (const each of left) await each.close();
    t.true((await flows()) > 12, 'nobody tells that they are closed');
    t.is(await settled(flows, (count) => count <= 12), 12);
    for (const each of held) t.is(await each.alive(), 4);

    await policies.are(...letIn());
    const [local, outside, plaintext] = held;
    for (const each of [local, plaintext]) if (each !== undefined) await allLost(t, each);
    t.is(await outside?.alive(), 4, 'what is outside the mesh is none of its business');
    t.is(await flows(), 4);
    await outside?.close();
  },
);

/** Has a pod's packets to its neighbours pass through the node, as many networks do. */
async function routeByNode(pod: LabPod): Promise<void> {
  const { node } = pod;
  await shellIn(
    pod.netns,
    `ip route replace ${node.ipv4} dev eth0
     ip route delete ${node.podCidrs[0]} dev eth0
     ip -6 route replace ${node.ipv6} dev eth0
     ip -6 route delete ${node.podCidrs[1]} dev eth0`,
  );
}

test.serial('two pods between which the network masquerades use the tunnel after one connection', async (t) => {
  const { node, agent, policies } = bed;
  await node.sysctl({ 'net.ipv4.conf.all.send_redirects': 0, 'net.ipv4.conf.pods.send_redirects': 0 });
  const pairs = new Map<boolean, { guest: LabPod; host: LabPod }>();
  for (const isStrict of [false, true]) {
    const pair = { guest: await newcomer(bed, `guest${pairs.size}`), host: await newcomer(bed, `host${pairs.size}`) };
    for (const pod of Object.values(pair)) await routeByNode(pod);
    await serve(pair.host, apps.echo({ port: APP_PORT, mode: 'tell' }));
    pairs.set(isStrict, pair);
  }
  const sources = [...pairs.values()].map(({ guest }) => guest);
  const setOf = (addresses: string[]): string => `{ ${addresses.join(', ')} }`;
  await shellIn(
    node.netns,
    `nft 'table inet cni { chain post { type nat hook postrouting priority 100;
       ip saddr ${setOf(sources.map(({ ipv4 }) => ipv4))} masquerade
       ip6 saddr ${setOf(sources.map(({ ipv6 }) => ipv6))} masquerade; }; }'`,
  );

  for (const [isStrict, { guest, host }] of pairs) {
    await policies.are(...(isStrict ? usual : []));
    for (const kind of families) {
      const [{ to, port, argv }] = waysTo(host, kind);
      const [since, before] = [agent.process.lines.length, await masqueraded(guest)];
      const talks: Conversation[] = [];
      await settled(
        async () => {
          talks.push(await converse(guest, argv));
          return await masqueraded(guest);
        },
        (count) => count > before,
      );
      const errors = talks.filter(({ error }) => error !== undefined).length;
      // Where plaintext may come in, the connection may be over before it is ended.
      t.true(isStrict ? errors === 1 : errors <= 1, `${kind.name}: ${JSON.stringify(talks)}`);
      await agent.told({ name: guest.name, message: MASQUERADED }, { since });

      const past = await pastAgent(bed, guest, async () => {
        t.is((await travel(bed, guest, argv)).told.path, 'tunnel');
        t.deepEqual((await tally(guest, { to, port, count: 8 })).errors, {});
      });
      t.deepEqual(past, {}, kind.name);
      t.is(await masqueraded(guest), before + 1, kind.name);
    }
  }
  t.is(await metric(agent, 'culvert_kernel_events_total', 'reason="masqueraded"'), pairs.size * families.length);
  await shellIn(node.netns, 'nft delete table inet cni');
});

async function masqueraded(pod: LabPod): Promise<number> {
  return (await kernelEvents(bed.agent, pod)).masqueraded ?? 0;
}

// --- an address that gets another owner --------------------------------------------------------------------------------------

test.serial('who gets the address of a deleted pod, under load, gets none of its connections', async (t) => {
  const { node, agent, control, policies, pods } = bed;
  const { client } = pods;
  const only = authorizationPolicyManifest('to-former', {
    selector: { app: 'former' },
    rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/client'] } }] }],
  });
  const nobody = authorizationPolicyManifest('to-heir', { selector: { app: 'heir' } });
  for (const isWithdrawn of [true, false]) {
    await policies.are(...usual, only, nobody);
    const former = await newcomer(bed, 'former');
    await serve(former, await apps.answer({ port: APP_PORT }));
    for (const kind of families) await direct(bed, client, apps.pythonConnect({ to: kind.of(former), port: APP_PORT }));
    const held = await Held.open(client, endpointsOf(former), 20);
    const load = await Load.start(client, endpointsOf(former), 200);

    if (isWithdrawn) await agent.withdraw(former);
    await former.delete();
    const heir = await podOf(node, 'heir', { addressesOf: former });
    await agent.enrol(heir);
    const app = await serve(heir, apps.echo({ port: APP_PORT, mode: 'tell' }));
    // Neighbours would find out by themselves, after a while.
    await shellIn(client.netns, 'ip neighbour flush dev eth0; ip -6 neighbour flush dev eth0');
    const early = converse(client, apps.pythonConnect({ to: heir.ipv4, port: APP_PORT }));
    await changed(bed, () => {
      control.remove('former.yaml');
      control.write('heir.yaml', podManifest(heir));
    });
    await assertKeptOut(t, app, 'before the mesh knows of it', () => early);
    for (const { of } of families)
      await assertKeptOut(t, app, 'as it is known', () =>
        converse(client, apps.pythonConnect({ to: of(heir), port: APP_PORT })),
      );
    t.is((await held.state()).open, 0);
    const { started, answered } = await load.end();
    t.true(started > answered);
    t.is(await reached({ apps: [app] }), 0);

    await policies.are(...usual, only);
    for (const kind of families) await direct(bed, client, waysTo(heir, kind)[0].argv);
    await agent.withdraw(heir);
    await heir.delete();
    control.remove('heir.yaml');
  }
});

// --- other pods -- ---------------------------------------------------------------------------------------------------------

test.serial('a pod that fills its share of verdicts and approvals harms nobody, and is granted nothing', async (t) => {
  const { agent, pods, policies } = bed;
  const { server, other } = pods;
  const [ports, connects] = soak ? [6000, 7000] : [500, limit.FLOWS_PER_POD + 500];
  const swarm = (pod: LabPod, ...argv: string[]): LabProcess =>
    pod.run([python, join(import.meta.dirname, 'swarm.py'), ...argv, '--port', '9000', '--ports', `${ports}`]);
  await policies.are(...letIn('client', 'greedy'));
  const greedy = await newcomer(bed, 'greedy');
  await swarm(server, 'serve').json({ event: 'listening' });
  const shut = await serve(other, apps.echo({ port: 8999 }));
  await assertClientUnharmed(bed);

  // Each of them gets a verdict, as long as there is room.
  const before = (await pathStatus(agent)).verdicts;
  const visited = await swarm(greedy, 'visit', '--to', server.ipv4).json({ event: 'done' }, 120_000);
  t.deepEqual(visited.errors, {});
  const most = Math.min(ports, MOST_VERDICTS);
  const verdicts = await settled(
    async () => (await pathStatus(agent)).verdicts - before,
    (count) => count >= most,
  );
  t.is(verdicts, most);
  await assertClientUnharmed(bed);

  // Approvals of which nothing ever comes: the SYN does not leave the pod.
  await using _ = await rules(
    greedy,
    `chain out { type filter hook output priority 0; oifname eth0 tcp dport 9000-${9000 + ports} drop; };`,
  );
  const waiting = swarm(greedy, 'begin', '--to', server.ipv4, '--count', `${connects}`);
  const past = await pastAgent(bed, greedy, async () => {
    t.deepEqual((await waiting.json({ event: 'done' }, 60_000)).errors, {});
  });
  t.deepEqual(past, { direct_local: limit.FLOWS_PER_POD });
  t.true((await pathStatus(agent)).flows >= limit.FLOWS_PER_POD);
  await assertClientUnharmed(bed);
  for (const { of } of families) {
    const forbidden = apps.pythonConnect({ to: of(other), port: 8999 });
    await assertKeptOut(t, shut, 'to where it may not', () => converse(greedy, forbidden));
    const led = await travel(bed, greedy, waysTo(server, { name: '', of, options: {} })[0].argv);
    t.is(led.told.path, 'tunnel', 'it goes on, with an agent');
  }
  await waiting.kill();
  t.is(
    await settled(
      async () => (await pathStatus(agent)).flows,
      (flows) => flows === 0,
    ),
    0,
  );
});

test.serial('a stranger that fills a pod’s share of plaintext keeps nobody from it', async (t) => {
  const { policies, pods } = bed;
  const { client, other, stranger } = pods;
  const port = 9100;
  const count = limit.FLOWS_PER_POD + 400;
  await policies.are();
  await serve(other, await apps.answer({ port }));
  const argv = apps.pythonConnect({ to: other.ipv4, port });
  await direct(bed, client, argv);
  await direct(bed, stranger, argv);
  const held: Held[] = [];
  const past = await pastAgent(bed, other, async () => {
    held.push(await Held.open(stranger, [apps.endpoint(other.ipv4, port)], count, 5000));
  });
  // Those whose handshake is under way when it is full are let in too.
  const { direct_plain: entered = 0, ...rest } = past;
  t.deepEqual(rest, {});
  t.true(entered >= limit.FLOWS_PER_POD && entered < count, `${entered}`);
  t.is((await travel(bed, client, argv)).told.path, 'kernel');
  t.is((await travel(bed, stranger, argv)).told.path, 'plain');
  await policies.are(...usual);
  for (const each of held)
    t.is(
      (
        await settled(
          () => each.state(),
          ({ open }) => open === 0,
        )
      ).open,
      0,
    );
});
