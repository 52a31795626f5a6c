/** Many connections, fast and at once. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import { readFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { apps, Lab, type LabAgent, type LabNode, type LabPod, type LabProcess } from '../lab/index.ts';
import { families, serve } from './conversation.ts';
import { descriptors, entries, relayed, settled } from './inspect.ts';

const soak = process.env.CULVERT_SOAK === '1';
/** What one pod opens, to how many destinations, and what it holds meanwhile: each of them passes two agents. */
const outward = soak
  ? { rate: 2000, seconds: 60, destinations: 10, held: 7500 }
  : { rate: 500, seconds: 3, destinations: 10, held: 600 };
/** What comes into one app, and from how many pods. */
const inward = soak ? { rate: 4000, seconds: 60, callers: 4 } : { rate: 1000, seconds: 3, callers: 2 };
/** What is done to see that memory comes back, and how much of it may not. */
const churn = soak ? { rate: 2000, seconds: 60, held: 1500 } : { rate: 500, seconds: 3, held: 200 };
const mostKeptMiB = 32;
/**
 * Connections under way, at most. A machine that is too slow for the rate then reaches a lower one, and what is held and
 * under way fits into the agents' descriptors all the same.
 */
const atOnce = 1000;
const firstPort = 8080;
/** A guard against hanging. */
const hangMs = (outward.seconds + 60) * 10_000;

interface LoadEnd {
  readonly started: number;
  readonly answered: number;
  readonly local_wrong: number;
  readonly seconds: number;
  readonly errors: Readonly<Record<string, number>>;
}

async function loadEnd(running: LabProcess): Promise<LoadEnd> {
  const end: unknown = await running.json({ event: 'end' }, hangMs);
  return end as LoadEnd;
}

/** Opens a few connections and closes them: what an agent loads at the first use, it keeps. */
async function warmUp(from: LabPod, to: readonly string[]): Promise<void> {
  await from.exec(await apps.load({ rate: 100, seconds: 0.2, to }));
}

/** Resident memory of an agent: now (VmRSS) or at its highest (VmHWM). */
function residentMiB(agent: LabAgent, which: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${agent.process.pid}/status`, 'utf8');
  return Math.round(Number(new RegExp(`${which}:\\s+(\\d+)`).exec(status)?.[1]) / 1024);
}

function memoryOf(agent: LabAgent): string {
  return `${residentMiB(agent, 'VmRSS')} MiB (highest ${residentMiB(agent, 'VmHWM')})`;
}

/** As much of the agent's `status` as is compared. */
interface Status {
  readonly pods: ReadonlyArray<{ readonly kernelEvents: Readonly<Record<string, number>> }>;
  readonly totals: { readonly accepted: number };
  readonly ended: Readonly<Record<string, number>>;
}

/** An agent's own numbers of connections. */
async function countsOf(agent: LabAgent) {
  const { pods, totals, ended } = (await agent.status()).status as Status;
  const events = (reason: string): number => pods.reduce((sum, pod) => sum + (pod.kernelEvents[reason] ?? 0), 0);
  return {
    accepted: totals.accepted,
    capturedOutbound: events('captured_outbound'),
    capturedInbound: events('captured_inbound'),
    endedClean: ended.clean ?? 0,
    endedOtherwise: Object.entries(ended).filter(([reason, count]) => reason !== 'clean' && count > 0),
  };
}

/** What connections take of an agent and of its node's kernel. */
async function takenOf(node: LabNode, agent: LabAgent): Promise<object> {
  const { handovers, pod_usage, listeners, pods } = await entries(node);
  return { handovers, pod_usage, listeners, pods, descriptors: descriptors(agent), open: await relayed(agent) };
}

/** What is known of an agent before the load, to compare it with what it is after. */
class Witness {
  readonly #node: LabNode;
  readonly #agent: LabAgent;
  readonly #counts: Awaited<ReturnType<typeof countsOf>>;
  readonly #taken: object;

  private constructor(node: LabNode, agent: LabAgent, counts: Awaited<ReturnType<typeof countsOf>>, taken: object) {
    this.#node = node;
    this.#agent = agent;
    this.#counts = counts;
    this.#taken = taken;
  }

  static async of(node: LabNode, agent: LabAgent): Promise<Witness> {
    await settled(
      () => relayed(agent),
      (open) => open === 0,
    );
    return new Witness(node, agent, await countsOf(agent), await takenOf(node, agent));
  }

  /** Asserts that exactly so many connections were led in this direction, all ended clean, and nothing of them is left. */
  async assert(t: ExecutionContext, direction: 'outbound' | 'inbound', made: number): Promise<void> {
    const same = (now: object): boolean => JSON.stringify(now) === JSON.stringify(this.#taken);
    const taken = await settled(() => takenOf(this.#node, this.#agent), same);
    t.deepEqual(taken, this.#taken, `${this.#node.name} gives back all it took`);
    const counts = await countsOf(this.#agent);
    const grown = {
      accepted: counts.accepted - this.#counts.accepted,
      capturedOutbound: counts.capturedOutbound - this.#counts.capturedOutbound,
      capturedInbound: counts.capturedInbound - this.#counts.capturedInbound,
      endedClean: counts.endedClean - this.#counts.endedClean,
      endedOtherwise: counts.endedOtherwise,
    };
    t.deepEqual(
      grown,
      {
        accepted: made,
        capturedOutbound: direction === 'outbound' ? made : 0,
        capturedInbound: direction === 'inbound' ? made : 0,
        endedClean: made,
        endedOtherwise: [],
      },
      `${this.#node.name} counts every connection once`,
    );
  }
}

for (const { name, of } of families)
  test.serial(
    `a pod that opens and holds many connections over two agents gets an address for each: ${name}`,
    async (t) => {
      t.timeout(hangMs);
      await using lab = await Lab.create(t.title);
      const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
      await lab.link(n1, n2);
      const [client, server] = [await n1.pod('client'), await n2.pod('server')];
      const { rate, seconds, destinations, held } = outward;
      await serve(server, await apps.answer({ port: firstPort, ports: destinations }));
      const [near, far] = [await n1.agent({ logLevel: 'info' }), await n2.agent({ logLevel: 'info' })];
      await near.enrol(client);
      await far.enrol(server);
      const to = Array.from({ length: destinations }, (_, n) => apps.endpoint(of(server), firstPort + n));
      await warmUp(client, to);
      const [before, beyond] = [await Witness.of(n1, near), await Witness.of(n2, far)];
      t.log(`agents at rest: ${memoryOf(near)}, ${memoryOf(far)}`);

      const holder = client.run(apps.hold({ count: held, to, rate: 1000 }));
      t.like(await holder.json({ event: 'held' }, hangMs), { open: held, errors: {} });
      t.log(`with ${held} held: ${memoryOf(near)}, ${memoryOf(far)}`);
      const end = await loadEnd(client.run(await apps.load({ rate, seconds, to, local: of(client), atOnce })));
      t.log(
        `${end.started} opened, ${Math.round(end.started / end.seconds)}/s of ${rate}/s; ${JSON.stringify(end.errors)}`,
      );
      t.log(`after them: ${memoryOf(near)}, ${memoryOf(far)}`);
      t.like(end, { answered: end.started, local_wrong: 0, errors: {} });
      holder.write('ping\n');
      t.is((await holder.json({ event: 'ping' }, hangMs)).alive, held, 'what was held answers');
      holder.write('close\n');
      t.like(await holder.json({ event: 'end' }), { open: held, lost: 0 });

      await before.assert(t, 'outbound', held + end.started);
      await beyond.assert(t, 'inbound', held + end.started);
      t.log(`given back: ${memoryOf(near)}, ${memoryOf(far)}`);
    },
  );

for (const { name, of } of families)
  test.serial(`the agent has an address for each of many connections a second into one app: ${name}`, async (t) => {
    t.timeout(hangMs);
    await using lab = await Lab.create(t.title);
    const node = await lab.node('n1');
    const server = await node.pod('server');
    const { rate, seconds } = inward;
    const callers: LabPod[] = [];
    for (let n = 0; n < inward.callers; n += 1) {
      const caller = await node.pod(`caller-${n}`);
      // The callers are not what is tested: a second after its end a source port is theirs again.
      await caller.sysctl({ 'net.ipv4.tcp_tw_reuse': 1, 'net.ipv4.ip_local_port_range': '1024 65535' });
      callers.push(caller);
    }
    await serve(server, await apps.answer({ port: firstPort }));
    const agent = await node.agent({ logLevel: 'info' });
    await agent.enrol(server);
    const to = [apps.endpoint(of(server), firstPort)];
    for (const caller of callers) await warmUp(caller, to);
    const before = await Witness.of(node, agent);

    const argv = await apps.load({ rate: rate / callers.length, seconds, to, atOnce: atOnce / callers.length });
    const ends = await Promise.all(callers.map((caller) => loadEnd(caller.run(argv))));
    const started = ends.reduce((sum, end) => sum + end.started, 0);
    const reached = Math.round(ends.reduce((sum, end) => sum + end.started / end.seconds, 0));
    t.log(`${started} opened, ${reached}/s of ${rate}/s; ${JSON.stringify(ends.map(({ errors }) => errors))}`);
    t.log(`agent: ${memoryOf(agent)}`);
    for (const end of ends) t.like(end, { answered: end.started, errors: {} });
    await before.assert(t, 'inbound', started);
  });

test.serial('what connections take of the agent’s memory is given back', async (t) => {
  t.timeout(hangMs);
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await serve(server, await apps.answer({ port: firstPort, ports: 10 }));
  // A small heap is swept often, so that what is resident is what is kept; what leaks enough ends the agent.
  const nodeArgs = ['--max-semi-space-size=2', '--max-old-space-size=32'];
  const agent = await node.agent({ logLevel: 'info', nodeArgs });
  await agent.enrol(client);
  await agent.enrol(server);
  const to = Array.from({ length: 10 }, (_, n) => apps.endpoint(n % 2 ? server.ipv4 : server.ipv6, firstPort + n));
  const round = async (size: typeof churn): Promise<number> => {
    const holder = client.run(apps.hold({ count: size.held, to, rate: 1000 }));
    t.like(await holder.json({ event: 'held' }, hangMs), { open: size.held, errors: {} });
    const end = await loadEnd(client.run(await apps.load({ rate: size.rate, seconds: size.seconds, to, atOnce: 500 })));
    t.like(end, { answered: end.started, errors: {} });
    holder.write('close\n');
    await holder.exit;
    await settled(
      () => relayed(agent),
      (open) => open === 0,
    );
    return size.held + end.started;
  };
  await round({ rate: 500, seconds: 1, held: 100 });
  const before = residentMiB(agent, 'VmRSS');
  const connections = await round(churn);
  const after = residentMiB(agent, 'VmRSS');
  t.log(
    `${connections} connections: ${before} MiB before, ${after} MiB after, highest ${residentMiB(agent, 'VmHWM')} MiB`,
  );
  t.true(after - before < mostKeptMiB);
});
