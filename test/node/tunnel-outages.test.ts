/** What is away for a while, or for good: the control process, the link, a peer's node. CULVERT_SOAK=1: at full size. */
import { setTimeout as pause } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { StatusReply } from '../../src/agent/index.ts';
import { apps, furnish, type LabAgent, type LabPod, podManifest, serviceManifest } from '../lab/index.ts';
import { type Conversation, converse, serve } from './conversation.ts';
import { Held, Load } from './held.ts';
import { settled, statusOf } from './inspect.ts';
import { endedDuring, type Transfer, transfersOf, turned } from './stream-laws.ts';
import {
  APP_PORT,
  endpointsOf,
  listen,
  pair,
  podOf,
  SERVICE_PORT,
  type TunnelBed,
  tunnelBed,
  VIP,
} from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
const held = 6;
const KiB = 1024;
const hangMs = soak ? 3_600_000 : 300_000;
/** A PING finds nobody out. */
const patient = ['--ping-interval', '0.5', '--ping-timeout', '3600'];
/** It soon does. Full size: as it is without options. */
const impatient = soak ? [] : ['--ping-interval', '0.5', '--ping-timeout', '1'];

interface Pods {
  /** On the near node. */
  readonly client: LabPod;
  /** The endpoints of the service at VIP: on the far node, and on a third one. */
  readonly server: LabPod;
  readonly spare: LabPod;
}

interface Trio extends AsyncDisposable {
  readonly bed: TunnelBed<unknown>;
  readonly pods: Pods;
}

/** A client, and a service with an endpoint on each of two other nodes. */
async function trio(t: ExecutionContext, args: readonly string[]): Promise<Trio> {
  t.timeout(hangMs);
  const bed = await tunnelBed(
    t.title,
    async (near, far) => {
      const [client, server] = [await podOf(near, 'client'), await podOf(far, 'server')];
      return {
        pods: { client, server },
        enrolled: [client, server],
        manifests: {
          'pods.yaml': [podManifest(client), podManifest(server)],
          'service.yaml': serviceManifest('server', {
            namespace: 'shop',
            clusterIps: [VIP.ipv4, VIP.ipv6],
            ports: { [SERVICE_PORT]: APP_PORT },
          }),
        },
      };
    },
    { args },
  );
  return await furnish(bed, async ({ lab, nodes, agents, control }) => {
    const third = await lab.node('third');
    await lab.link(nodes[0], third);
    const spare = await podOf(third, 'spare');
    control.write('spare.yaml', podManifest(spare, { labels: { app: 'server' } }));
    const agent = await third.agent({ control, args });
    await agent.enrol(spare);
    await agent.issued(spare);
    // As news, or with the first word of it.
    await agents[0].told({ workloads: 3 });
    const pods = { ...bed.pods, spare };
    for (const pod of [pods.server, spare]) await serve(pod, apps.echo({ port: APP_PORT, quiet: true }));
    return { bed, pods, [Symbol.asyncDispose]: () => lab.dispose() };
  });
}

function call(from: LabPod, to: string, port = APP_PORT): Promise<Conversation> {
  return converse(from, apps.pythonConnect({ to, port, timeout: 120 }));
}

/** Asserts that the service is reached, and by the endpoint on the third node. */
async function assertSpared(t: ExecutionContext, { bed, pods }: Trio, times = 2): Promise<void> {
  const log = listen(bed.agents[0]);
  const talks = await Promise.all(
    Array.from({ length: times }, (_, at) => call(pods.client, at % 2 ? VIP.ipv6 : VIP.ipv4, SERVICE_PORT)),
  );
  for (const talk of talks) {
    t.is(talk.reply, 'hello', JSON.stringify(talk));
    t.like(await log({ 'src.addr': talk.local }), { message: 'connection complete', 'dst.workload': 'spare' });
  }
}

/** Asserts that what was held has ended because the peer did not answer, and that the log says so of each. */
async function assertSilent(t: ExecutionContext, agent: LabAgent, from: number): Promise<void> {
  // A failure that repeats is told once a second, with how many others that stands for; new connections may have been among them.
  const told = await settled(
    () =>
      agent.process.lines
        .slice(from)
        .filter((line) => line.includes('"message":"connection complete"') && line.includes('"reason":"peer-silent"'))
        .reduce((sum, line) => sum + 1 + Number((JSON.parse(line) as { repeated?: number }).repeated ?? 0), 0),
    (count) => count >= held,
  );
  t.true(told >= held, `${agent.node.name}: ${told}`);
}

test.serial('a control process that is away is missed by nobody whose certificate is still valid', async (t) => {
  t.timeout(hangMs);
  const life = soak ? 120 : 16;
  await using bed = await tunnelBed(
    t.title,
    async (near, far) => {
      const { pods, enrolled, manifests } = await pair(near, far);
      const late = await podOf(near, 'late');
      return { pods: { ...pods, late }, enrolled, manifests: { ...manifests, 'late.yaml': podManifest(late) } };
    },
    { logLevel: 'info' },
    { control: { args: ['--certificate-life', `${life}`] } },
  );
  const { agents, control } = bed;
  const [near, far] = agents;
  const { client, late, server } = bed.pods;
  await serve(server, await apps.answer({ port: APP_PORT }));
  const to = [...endpointsOf(server), apps.endpoint(VIP.ipv4, SERVICE_PORT), apps.endpoint(VIP.ipv6, SERVICE_PORT)];
  for (const pod of [client, late]) await near.issued(pod);
  await far.issued(server);
  const ended = await endedDuring({ agents }, async () => {
    const open = await Held.open(client, to, held);
    const busy = await Load.start(client, to, soak ? 200 : 40);
    await control.kill();
    for (const agent of agents) {
      await agent.log({ message: 'no connection to the control process' });
      const { mesh } = (await agent.status()).status as StatusReply;
      t.like(mesh, { connected: false, workloads: 3, services: 1 });
      t.truthy(mesh?.reason);
    }
    await near.enrol(late);
    const first = await Held.open(late, to, held);
    for (const agent of agents) await agent.log({ message: 'certificate not renewed' }, hangMs);
    t.is(await open.alive(), held);
    await control.start();
    for (const agent of agents) {
      await agent.log({ message: 'certificate issued', renewed: true }, hangMs);
      const { mesh } = (await agent.status()).status as StatusReply;
      t.like(mesh, { connected: true, workloads: 3, services: 1 });
    }
    for (const each of [open, first]) t.deepEqual(await each.close(), { open: held, lost: 0, errors: {} });
    const { started, answered, errors } = await busy.end();
    t.log(`${started} connections`);
    t.deepEqual(errors, {});
    t.is(answered, started);
  });
  for (const reasons of ended) t.deepEqual(Object.keys(reasons), ['clean']);
  for (const agent of agents) t.is((await statusOf(agent)).totals.failed, 0);
});

test.serial('over a link that delays 50 ms and loses 1 %, bytes arrive whole and no connection fails', async (t) => {
  t.timeout(hangMs);
  await using bed = await tunnelBed(t.title, pair, { logLevel: 'info' }, { link: { delayMs: 50, lossPercent: 1 } });
  const { agents } = bed;
  const { client, server } = bed.pods;
  const size = soak
    ? { count: 1000, atOnce: 32, mostBytes: 4096 * KiB, rate: 100, open: 500 }
    : { count: 60, atOnce: 16, mostBytes: 512 * KiB, rate: 20, open: 50 };
  const { count, atOnce, mostBytes } = size;
  const transferPort = APP_PORT + 1;
  await serve(server, await apps.answer({ port: APP_PORT }));
  const serving = await serve(server, apps.transfer({ port: transferPort }));
  const to = [...endpointsOf(server), apps.endpoint(VIP.ipv4, SERVICE_PORT), apps.endpoint(VIP.ipv6, SERVICE_PORT)];
  const ended = await endedDuring({ agents }, async () => {
    const open = await Held.open(client, to, size.open);
    const busy = await Load.start(client, to, size.rate);
    const transfer = { port: transferPort, to: [server.ipv4, server.ipv6], count, atOnce, mostBytes };
    const asking = client.run(apps.transfer(transfer));
    const { bytes, seconds } = await asking.json({ event: 'done' }, hangMs);
    const { started, answered, errors } = await busy.end();
    t.log(`${bytes} bytes in ${seconds} s; ${started} connections`);
    t.deepEqual(errors, {});
    t.is(answered, started);
    t.is(await open.alive(), size.open);
    t.deepEqual(await open.close(), { open: size.open, lost: 0, errors: {} });
    const asked: Transfer[] = transfersOf(asking);
    t.is(asked.length, count);
    t.true(asked.every(({ error }) => error === undefined));
    const served = await settled(
      () => transfersOf(serving),
      (all) => all.length === count,
    );
    t.deepEqual(served.map(turned), asked);
  });
  for (const node of bed.nodes) {
    const { stdout } = await node.exec(['nft', 'list', 'ruleset']);
    t.regex(stdout, /counter packets [1-9]/, `${node.name} has lost some`);
  }
  for (const reasons of ended) t.deepEqual(Object.keys(reasons), ['clean']);
});

test.serial('connections outlive a link that is cut and comes back, as they would without the mesh', async (t) => {
  await using all = await trio(t, patient);
  const { bed, pods } = all;
  const open = await Held.open(pods.client, endpointsOf(pods.server), held);
  await bed.link.lose(100);
  const answers = open.alive();
  await pause(soak ? 30_000 : 2_000);
  await bed.link.lose(0);
  t.is(await answers, held, 'what was said meanwhile arrives');
  t.is(await open.alive(), held);
  t.deepEqual(await open.close(), { open: held, lost: 0, errors: {} });
  for (const to of pods.server.addresses) t.is((await call(pods.client, to)).reply, 'hello');
});

/** Made by the first of two tests: what was cut must be whole again for the second. */
let cut: Trio | undefined;
test.serial.after.always(() => cut?.bed.lab.dispose());

test.serial('a cut link is found out by PING: connections end and say why, new ones go elsewhere', async (t) => {
  t.timeout(hangMs);
  cut = await trio(t, impatient);
  const { bed, pods } = cut;
  const { agents, link } = bed;
  const open = await Held.open(pods.client, endpointsOf(pods.server), held);
  const from = agents.map(({ process }) => process.lines.length);
  const log = listen(agents[0]);
  await link.lose(100);
  // Some before it is found out, on the session that is there.
  const early = assertSpared(t, cut, 4);
  const doomed = call(pods.client, pods.server.ipv4);
  for (const [at, agent] of agents.entries()) await assertSilent(t, agent, from[at] ?? 0);
  const { lost, errors } = await open.state();
  t.is(lost, held);
  t.deepEqual(errors, { ECONNRESET: held });
  await early;
  const talk = await doomed;
  t.is(talk.error, 'ECONNRESET', JSON.stringify(talk));
  // Its own line may be one of those that another stands for.
  const { reason, error } = await log({ level: 'error', 'dst.workload': 'server', direction: 'outbound' });
  t.true(['peer-silent', 'tunnel-timed-out'].includes(`${reason}`), `${reason}: ${error}`);

  await link.lose(0);
  for (const to of pods.server.addresses) t.is((await call(pods.client, to)).reply, 'hello');
  const again = await Held.open(pods.client, endpointsOf(pods.server), held);
  t.is(await again.alive(), held);
  t.deepEqual(await again.close(), { open: held, lost: 0, errors: {} });
});

test.serial("a peer's node that dies is found out by PING, and the other one takes over", async (t) => {
  t.timeout(hangMs);
  if (cut === undefined) throw new Error('the nodes are made by the test before');
  const { bed, pods } = cut;
  const [near, far] = bed.agents;
  const open = await Held.open(pods.client, endpointsOf(pods.server), held);
  const from = near.process.lines.length;
  // First the link, so that no word of the end gets out.
  await bed.link.lose(100);
  await far.kill();
  await pods.server.delete();
  await assertSilent(t, near, from);
  const { lost, errors } = await open.state();
  t.is(lost, held);
  t.deepEqual(errors, { ECONNRESET: held });
  await bed.link.down();
  await assertSpared(t, cut, 8);
});
