/** Istio's counters of the kernel path: exact, alive while a connection is, and never lower than they were. */
import test from 'ava';
import { apps, type LabAgent } from '../lab/index.ts';
import { Held } from './held.ts';
import { settled } from './inspect.ts';
import { direct, type PathBed, type PathPods, pathBed, trio, waysTo } from './kernel-path-bed.ts';

let bed: PathBed<PathPods>;

test.serial.before(async () => {
  bed = await pathBed('counters of the kernel path', trio);
});

test.serial.after.always(() => bed?.lab.dispose());

type Reporter = 'source' | 'destination';

interface Counts {
  readonly opened: number;
  readonly closed: number;
  readonly received: number;
  readonly sent: number;
}

const NAMES: Readonly<Record<string, keyof Counts>> = {
  istio_tcp_connections_opened_total: 'opened',
  istio_tcp_connections_closed_total: 'closed',
  istio_tcp_received_bytes_total: 'received',
  istio_tcp_sent_bytes_total: 'sent',
};

/** Of connections between two pods of the node, past the agent. */
async function countsOf(agent: LabAgent, reporter: Reporter): Promise<Counts> {
  const { metrics } = await agent.request({ method: 'metrics' });
  const counts = { opened: 0, closed: 0, received: 0, sent: 0 };
  for (const line of `${metrics}`.split('\n')) {
    const [, name = '', labels = '', value = ''] = /^(istio_tcp_\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    const key = NAMES[name];
    const isOurs = labels.includes('connection_security_policy="kernel"') && labels.includes(`reporter="${reporter}"`);
    if (key !== undefined && isOurs) counts[key] += Number(value);
  }
  return counts;
}

/** What the log of an agent says that ended connections of this path have moved, from the client and to it. */
function loggedBy(agents: readonly LabAgent[]): Counts {
  const lines = agents.flatMap(({ process }) =>
    process.records.filter(
      (line) => line.message === 'connection complete' && line.path === 'kernel' && line.direction === 'outbound',
    ),
  );
  const sum = (key: 'bytes_sent' | 'bytes_recv'): number =>
    lines.reduce((total, line) => total + Number(line[key] ?? 0), 0);
  return { opened: lines.length, closed: lines.length, received: sum('bytes_sent'), sent: sum('bytes_recv') };
}

const isNoLess = (now: Counts, before: Counts): boolean =>
  (Object.keys(before) as Array<keyof Counts>).every((key) => now[key] >= before[key]);

const count = 12;

test.serial('bytes rise while connections run, and no counter falls whatever becomes of the agent', async (t) => {
  const { client, server } = bed.pods;
  const agents = [bed.agent];
  const ways = waysTo(server).map(({ to, port }) => apps.endpoint(to, port));
  for (const { argv } of waysTo(server)) await direct(bed, client, argv);
  const held = await Promise.all([ways, ways, ways].map((to) => Held.open(client, to, count)));
  const [first, second, third] = held;
  if (first === undefined || second === undefined || third === undefined) throw new Error('there are three');
  let before = await settled(
    () => countsOf(bed.agent, 'source'),
    ({ opened, closed }) => opened - closed === 3 * count,
  );
  t.is(before.opened - before.closed, 3 * count, 'they are counted although they are open');
  for (const each of held) await each.alive();
  const risen = await settled(
    () => countsOf(bed.agent, 'source'),
    ({ received }) => received > before.received,
  );
  t.true(risen.received > before.received && risen.sent > before.sent);

  for (const [signal, ends] of [
    ['SIGKILL', first],
    ['SIGTERM', second],
  ] as const) {
    before = await countsOf(bed.agent, 'source');
    await bed.agent.kill(signal);
    for (const each of held) if (each !== first || ends === first) await each.alive();
    t.deepEqual(await ends.close(), { open: count, lost: 0, errors: {} });
    agents.push(await bed.restart());
    const closed = before.closed + count;
    const after = await settled(
      async () => {
        const now = await countsOf(bed.agent, 'source');
        t.true(isNoLess(now, before), `${signal}: ${JSON.stringify({ before, now })}`);
        return now;
      },
      (now) => now.closed >= closed,
    );
    t.is(after.closed, closed, `${signal}: what has ended meanwhile is told of`);
    t.is(after.opened, before.opened, signal);
    held.splice(held.indexOf(ends), 1);
  }
  t.deepEqual(await third.close(), { open: count, lost: 0, errors: {} });
  for (const reporter of ['source', 'destination'] as const) {
    const last = await settled(
      () => countsOf(bed.agent, reporter),
      ({ opened, closed }) => opened === closed,
    );
    const logged = await settled(
      () => loggedBy(agents),
      ({ closed }) => closed >= last.closed,
    );
    t.deepEqual(last, logged, `${reporter}: each connection once, and every byte of it`);
  }
});
