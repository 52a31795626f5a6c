/** Byte streams through two agents: whole, in order, ended as they were ended. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import { readFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { apps, Lab, type LabAgent, type LabNode, type LabPod, type LabProcess } from '../lab/index.ts';
import { families, serve } from './conversation.ts';
import { descriptors, entries, relayed, settled } from './inspect.ts';

const soak = process.env.CULVERT_SOAK === '1';
const MiB = 1024 * 1024;
const transfers = soak
  ? { count: 4000, atOnce: 32, mostBytes: 16 * MiB, largest: 6 }
  : { count: 300, atOnce: 16, mostBytes: 2 * MiB, largest: 1 };
/** Printed with the result; CULVERT_SEED makes the same transfers again. */
const seed = Number(process.env.CULVERT_SEED ?? Math.floor(Math.random() * 1_000_000));
/** What the writer wants to send to a reader that does not read, and how much of it buffers may take on its way. */
const stalled = { bytes: 1024 * MiB, mostTaken: 96 * MiB, mostGrowth: 192 * MiB };
const port = 8080;
const hangMs = soak ? 3_600_000 : 300_000;
/** Nothing has moved for this long: it stands. */
const standstillMs = 1000;

/** An enrolled client on one node, an enrolled server on the other, an agent on each: made once for all tests. */
interface Chain {
  readonly lab: Lab;
  readonly nodes: readonly [LabNode, LabNode];
  readonly agents: readonly [LabAgent, LabAgent];
  readonly client: LabPod;
  readonly server: LabPod;
}

let made: Chain | undefined;

function chain(): Chain {
  if (made === undefined) throw new Error('the lab is not made');
  return made;
}

test.serial.before(async (t) => {
  t.timeout(hangMs);
  const lab = await Lab.create('stream integrity');
  try {
    const nodes = [await lab.node('n1'), await lab.node('n2')] as const;
    await lab.link(...nodes);
    const [client, server] = [await nodes[0].pod('client'), await nodes[1].pod('server')];
    const agents = [await nodes[0].agent({ logLevel: 'info' }), await nodes[1].agent({ logLevel: 'info' })] as const;
    await agents[0].enrol(client);
    await agents[1].enrol(server);
    made = { lab, nodes, agents, client, server };
  } catch (error) {
    await lab.dispose();
    throw error;
  }
});

test.serial.after.always(() => made?.lab.dispose());

/** Starts the server's app, which ends with the test. */
async function begun(t: ExecutionContext, argv: string[]): Promise<LabProcess> {
  const app = await serve(chain().server, argv);
  t.teardown(() => app.kill());
  return app;
}

type Ended = Readonly<Record<string, number>>;

/** How many connections each agent has seen end, by reason. */
async function endedSoFar(): Promise<Ended[]> {
  const { agents } = chain();
  for (const agent of agents) {
    const open = await settled(
      () => relayed(agent),
      (count) => count === 0,
    );
    if (open > 0) throw new Error(`the agent of ${agent.node.name} still has ${open} connections open`);
  }
  return await Promise.all(agents.map(async (agent) => ((await agent.status()).status as { ended: Ended }).ended));
}

/** What each agent has seen end meanwhile, by reason; reasons without any are left out. */
async function endedDuring(work: () => Promise<void>): Promise<Ended[]> {
  const before = await endedSoFar();
  await work();
  return (await endedSoFar()).map((ended, at) =>
    Object.fromEntries(
      Object.entries(ended)
        .map(([reason, count]): [string, number] => [reason, count - (before[at]?.[reason] ?? 0)])
        .filter(([, count]) => count > 0),
    ),
  );
}

interface Sum {
  readonly bytes: number;
  readonly hash: string;
}

interface Transfer {
  readonly id: number;
  readonly order: string;
  readonly sent?: Sum;
  readonly received?: Sum;
  readonly error?: string;
}

/** What one end prints of its transfers, in the order of their numbers. */
function transfersOf(app: LabProcess): Transfer[] {
  return app.lines
    .filter((line) => line.startsWith('{"event":"transfer"'))
    .map((line) => JSON.parse(line) as Transfer)
    .sort((one, other) => one.id - other.id);
}

/** The same transfer as its other end must have it. */
function turned({ sent, received, ...same }: Transfer): Transfer {
  return { ...same, ...(received && { sent: received }), ...(sent && { received: sent }) };
}

const mib = (bytes: number): string => (bytes / MiB).toFixed(1);

test.serial('random transfers both ways arrive whole, in whatever order their directions are closed', async (t) => {
  t.timeout(hangMs);
  const { client, server } = chain();
  const serving = await begun(t, apps.transfer({ port }));
  const ended = await endedDuring(async () => {
    const asking = client.run(apps.transfer({ port, to: [server.ipv4, server.ipv6], seed, ...transfers }));
    const { bytes, seconds } = await asking.json({ event: 'done' }, hangMs);
    t.log(`seed ${seed}: ${transfers.count} transfers, ${mib(Number(bytes))} MiB, ${Number(seconds).toFixed(1)} s`);

    const asked = transfersOf(asking);
    const served = await settled(
      () => transfersOf(serving),
      (all) => all.length >= transfers.count,
    );
    t.is(asked.length, transfers.count);
    t.is(asked.filter(({ sent }) => sent?.bytes === 64 * MiB).length, transfers.largest);
    t.is(new Set(asked.map(({ order }) => order)).size, 3, 'every order occurs');
    for (const [at, one] of asked.entries()) {
      t.is(one.error, undefined, `transfer ${one.id}, seed ${seed}`);
      t.deepEqual(served[at], turned(one), `transfer ${one.id}, seed ${seed}`);
    }
  });
  t.deepEqual(ended, [{ clean: transfers.count }, { clean: transfers.count }]);
});

function residentBytes(agent: LabAgent): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.process.pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** Bytes that the writer's kernel has taken, once that has stopped to grow. */
async function standstill(writer: LabProcess): Promise<number> {
  let before = -1;
  let since = performance.now();
  return await settled(
    async () => {
      writer.write('state\n');
      const taken = Number((await writer.json({ event: 'state' })).taken);
      if (taken !== before) since = performance.now();
      before = taken;
      return taken;
    },
    (taken) => taken > stalled.mostTaken || (taken > 0 && performance.now() - since > standstillMs),
  );
}

for (const stall of ['up', 'down'] as const) {
  const reading = stall === 'up' ? 'server' : 'client';
  test.serial(
    `a ${reading} that does not read stops its writer, and the agents hold little of what it sends`,
    async (t) => {
      t.timeout(hangMs);
      const { client, server, agents } = chain();
      const serving = await begun(t, apps.transfer({ port }));
      const before = agents.map(residentBytes);
      const grown = (): number[] => agents.map((agent, at) => residentBytes(agent) - (before[at] ?? 0));

      const asking = client.run(apps.transfer({ port, to: [server.ipv4], stall, bytes: stalled.bytes, seed }));
      const [reader, writer] = stall === 'up' ? [serving, asking] : [asking, serving];
      await reader.json({ event: 'stalled' });
      const taken = await standstill(writer);
      const held = grown();
      t.log(`${mib(taken)} of ${mib(stalled.bytes)} MiB taken; the agents grew by ${held.map(mib).join(' and ')} MiB`);
      t.true(taken < stalled.mostTaken);
      for (const bytes of held) t.true(bytes < stalled.mostGrowth);

      reader.write('read\n');
      const { seconds } = await asking.json({ event: 'done' }, hangMs);
      t.log(`all of it: ${Number(seconds).toFixed(1)} s; the agents grew by ${grown().map(mib).join(' and ')} MiB`);
      const [asked] = transfersOf(asking);
      const served = await settled(
        () => transfersOf(serving),
        (all) => all.length > 0,
      );
      t.is((stall === 'up' ? asked?.sent : asked?.received)?.bytes, stalled.bytes);
      t.deepEqual(served, asked === undefined ? [] : [turned(asked)]);
      for (const bytes of grown()) t.true(bytes < stalled.mostGrowth);
    },
  );
}

/** Both ends of one connection through the chain. */
interface Ends {
  readonly client: LabProcess;
  readonly server: LabProcess;
}

/** Tries a conversation over both families; each is over when `talk` is. Returns what the agents have seen end. */
async function converseBy(t: ExecutionContext, talk: (ends: Ends, family: string) => Promise<void>): Promise<Ended[]> {
  const stage = chain();
  const server = await begun(t, apps.peer({ port }));
  const ended = await endedDuring(async () => {
    for (const { name, of } of families) {
      const client = stage.client.run(apps.peer({ to: of(stage.server), port }));
      await client.json({ event: 'open' });
      client.write('send hello\n');
      await server.json({ event: 'data', text: 'hello' });
      await talk({ client, server }, name);
      await client.kill();
    }
  });
  return ended;
}

/** Sends until the connection tells of its end; the closing event is returned. */
async function sendUntilClosed(end: LabProcess): Promise<Record<string, unknown>> {
  const closed = end.json({ event: 'closed' }, hangMs);
  const before = end.lines.length;
  await settled(
    () => end.write('send anybody\n'),
    () => end.lines.slice(before).some((line) => line.includes('"closed"')),
  );
  return await closed;
}

for (const [side, other] of [
  ['client', 'server'],
  ['server', 'client'],
] as const) {
  const resetTwice = [{ [`reset-by-${side}`]: 2 }, { [`reset-by-${side}`]: 2 }];

  test.serial(`a reset by the ${side} is a reset for the ${other}`, async (t) => {
    const ended = await converseBy(t, async (ends, family) => {
      const before = ends[other].lines.length;
      ends[side].write('reset\n');
      t.is((await ends[other].json({ event: 'closed' })).error, 'ECONNRESET', family);
      t.false(ends[other].lines.slice(before).includes('{"event":"end"}'), `${family}: never a clean end`);
    });
    t.deepEqual(ended, resetTwice);
  });

  test.serial(`a reset by the ${side} is a reset for the ${other} that has ended its own direction`, async (t) => {
    const ended = await converseBy(t, async (ends, family) => {
      ends[other].write('end\n');
      await ends[side].json({ event: 'end' });
      ends[side].write('reset\n');
      t.is((await ends[other].json({ event: 'closed' })).error, 'ECONNRESET', family);
    });
    t.deepEqual(ended, resetTwice);
  });

  test.serial(`a reset by the ${side} after its own end is a reset for the ${other}`, async (t) => {
    const ended = await converseBy(t, async (ends, family) => {
      ends[side].write('end\n');
      await ends[other].json({ event: 'end' });
      ends[other].write('send still here\n');
      await ends[side].json({ event: 'data', text: 'still here' });
      ends[side].write('reset\n');
      // Who has read the end reads no more, so only a write tells: as it is without the mesh.
      t.regex(`${(await sendUntilClosed(ends[other])).error}`, /^(ECONNRESET|EPIPE)$/, family);
    });
    t.deepEqual(ended, resetTwice);
  });

  test.serial(`the ${other} goes on after the end of the ${side}, and its own end is clean`, async (t) => {
    const ended = await converseBy(t, async (ends, family) => {
      ends[side].write('send last words\n');
      await ends[other].json({ event: 'data', text: 'last words' });
      ends[side].write('end\n');
      await ends[other].json({ event: 'end' });
      for (const text of ['one', 'two', 'three']) {
        ends[other].write(`send ${text}\n`);
        await ends[side].json({ event: 'data', text });
      }
      ends[other].write('end\n');
      await ends[side].json({ event: 'end' });
      for (const end of [ends.client, ends.server])
        t.is((await end.json({ event: 'closed' })).error, undefined, family);
    });
    t.deepEqual(ended, [{ clean: 2 }, { clean: 2 }]);
  });
}

test.serial('clients that die in the middle of their transfers leave nothing with the agents', async (t) => {
  t.timeout(hangMs);
  const { nodes, agents, client, server } = chain();
  const serving = await begun(t, apps.transfer({ port }));
  const endless = apps.transfer({ port, to: [server.ipv4, server.ipv6], count: 1_000_000, mostBytes: 4 * MiB, seed });
  const left = async (): Promise<object[]> =>
    await Promise.all(
      nodes.map(async (node, at) => {
        const { handovers, pod_usage } = await entries(node);
        const agent = agents[at];
        return { handovers, pod_usage, descriptors: agent === undefined ? [] : descriptors(agent) };
      }),
    );
  // What an agent loads at the first use, it keeps.
  const few = apps.transfer({ port, to: [server.ipv4, server.ipv6], count: 40, seed });
  await client.run(few).json({ event: 'done' }, hangMs);
  await endedSoFar();
  const before = await left();
  for (let round = 0; round < (soak ? 50 : 4); round += 1) {
    const asking = client.run(endless);
    await settled(
      () => transfersOf(asking).length,
      (count) => count > 10,
    );
    await asking.kill();
  }
  await endedSoFar();
  t.deepEqual(await settled(left, (now) => JSON.stringify(now) === JSON.stringify(before)), before);
  t.true(
    transfersOf(serving).some(({ error }) => error !== undefined),
    'some died in the middle',
  );
});
