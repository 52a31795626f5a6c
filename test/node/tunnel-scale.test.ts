/** Many connections at once through one pair of agents. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import test, { type ExecutionContext } from 'ava';
import { apps, type LabProcess } from '../lab/index.ts';
import { serve } from './conversation.ts';
import { descriptors, entries, relayed, residentBytes, settled } from './inspect.ts';
import { endedDuring, mib } from './stream-laws.ts';
import { APP_PORT, type Pair, pair, sessionsOf, type TunnelBed, tunnelBed } from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
const held = soak ? 8000 : 1000;
/** Short connections, while the others are held. */
const short = soak ? { rate: 1000, seconds: 30, atOnce: 500 } : { rate: 300, seconds: 2, atOnce: 200 };
/** A session takes no more at the same time (wire contract, section 2.8). */
const mostStreams = 100;
const workers = 2;
const families = 2;
/** Ports of the app: more addresses for the same pod. */
const ports = 4;
/** How much more memory may be kept after a second round than after the first. */
const mostKeptMiB = 32;
/** A small heap is swept often, so that what is resident is what is kept; what leaks enough ends the agent. */
const nodeArgs = ['--max-semi-space-size=2', '--max-old-space-size=96'];
const hangMs = 600_000;

/** What connections take of both nodes: descriptors of the agents, entries in the kernel. */
async function takenOf({ nodes, agents }: TunnelBed<Pair>): Promise<object[]> {
  return await Promise.all(
    agents.map(async (agent, at) => {
      const node = nodes[at];
      const { handovers, pod_usage } = node === undefined ? {} : await entries(node);
      return { handovers, pod_usage, descriptors: descriptors(agent), open: await relayed(agent) };
    }),
  );
}

/** Waits until no session is left: they are not kept for long here. */
async function assertNoSessions({ pods }: TunnelBed<Pair>): Promise<void> {
  const left = await settled(
    () => sessionsOf(pods.client),
    (open) => open.length === 0,
  );
  if (left.length > 0) throw new Error(`${left.length} sessions are left`);
}

/** Endpoints of the app, in turn of IPv4 and IPv6. */
function endpointsOf({ pods: { server } }: TunnelBed<Pair>): string[] {
  const each = Array.from({ length: ports }, (_, n) => APP_PORT + n);
  return each.flatMap((port) => [apps.endpoint(server.ipv4, port), apps.endpoint(server.ipv6, port)]);
}

async function open(bed: TunnelBed<Pair>, count: number): Promise<LabProcess> {
  const holder = bed.pods.client.run(apps.hold({ count, to: endpointsOf(bed), rate: 1000 }));
  const { open: opened, errors } = await holder.json({ event: 'held' }, hangMs);
  if (opened !== count) throw new Error(`${opened} of ${count} are open: ${JSON.stringify(errors)}`);
  return holder;
}

/** How many short connections were made: every one was answered. */
async function passing(t: ExecutionContext, running: LabProcess): Promise<number> {
  const { started, answered, errors } = await running.json({ event: 'end' }, hangMs);
  t.deepEqual({ answered, errors }, { answered: started, errors: {} });
  return Number(started);
}

test.serial('many connections at once share few sessions, and leave nothing when they are closed', async (t) => {
  t.timeout(hangMs);
  const args = ['--pool-idle', '1'];
  await using bed = await tunnelBed(t.title, pair, { logLevel: 'info', workers, nodeArgs, args });
  const { agents, pods } = bed;
  const load = await apps.load({ ...short, to: endpointsOf(bed) });
  await serve(pods.server, await apps.answer({ port: APP_PORT, ports }));
  const memory = (): string => agents.map((agent) => mib(residentBytes(agent))).join(' and ');
  const resident = (): number[] => agents.map((agent) => residentBytes(agent) / 2 ** 20);

  const round = async (count: number, argv: readonly string[] = []): Promise<number> => {
    const holder = await open(bed, count);
    holder.write('ping\n');
    t.is((await holder.json({ event: 'ping' }, hangMs)).alive, count, 'each carries a word there and back');
    const sessions = (await sessionsOf(pods.client)).length;
    t.log(`${count} in ${sessions} sessions: ${memory()} MiB`);
    t.true(sessions * mostStreams >= count, `${sessions} sessions`);
    t.true(sessions <= Math.floor(count / mostStreams) + workers * families, `${sessions} sessions`);
    const passed = argv.length > 0 ? await passing(t, pods.client.run(argv)) : 0;
    holder.write('close\n');
    t.like(await holder.json({ event: 'end' }), { open: count, lost: 0 });
    await holder.exit;
    return count + passed;
  };

  // What an agent loads at the first use, it keeps.
  await round(10);
  await assertNoSessions(bed);
  const before = await takenOf(bed);
  t.log(`at rest: ${memory()} MiB`);
  const kept: number[][] = [];
  for (const _ of [1, 2]) {
    let made = 0;
    const ended = await endedDuring(bed, async () => {
      made = await round(held, load);
    });
    t.deepEqual(ended, [{ clean: made }, { clean: made }]);
    await assertNoSessions(bed);
    const after = await settled(
      () => takenOf(bed),
      (now) => JSON.stringify(now) === JSON.stringify(before),
    );
    t.deepEqual(after, before);
    kept.push(resident());
    t.log(`given back: ${memory()} MiB`);
  }
  const [first = [], second = []] = kept;
  for (const [at, each] of second.entries()) t.true(each - (first[at] ?? 0) < mostKeptMiB);
});
