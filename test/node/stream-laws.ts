/** What holds of byte streams between an app and another, whatever the agents do with them on the way. CULVERT_SOAK=1: at full size. */
import test, { type ExecutionContext } from 'ava';
import { apps, type Lab, type LabAgent, type LabNode, type LabPod, type LabProcess } from '../lab/index.ts';
import { serve } from './conversation.ts';
import { descriptors, entries, relayed, residentBytes, settled } from './inspect.ts';

const soak = process.env.CULVERT_SOAK === '1';
const MiB = 1024 * 1024;
/** Printed with the result; CULVERT_SEED makes the same transfers again. */
export const seed = Number(process.env.CULVERT_SEED ?? Math.floor(Math.random() * 1_000_000));
/** Of the server's app, by every way. */
const appPort = 8080;
export const hangMs = soak ? 3_600_000 : 300_000;

/** A client in a pod of one node, a server in a pod of the other, an agent on each: made once for all laws. */
export interface Chain {
  readonly lab: Lab;
  readonly nodes: readonly [LabNode, LabNode];
  readonly agents: readonly [LabAgent, LabAgent];
  readonly client: LabPod;
  readonly server: LabPod;
  /** Addresses by which the client reaches the server's app, each its own way. */
  readonly ways: readonly Way[];
}

export interface Way {
  readonly name: string;
  readonly to: string;
}

export interface TransferSizes {
  readonly count: number;
  readonly atOnce: number;
  /** Largest random size, per direction. */
  readonly mostBytes: number;
  /** How many of the transfers are of 64 MiB each way. */
  readonly largest: number;
}

export const fullSizes: TransferSizes = { count: 4000, atOnce: 32, mostBytes: 16 * MiB, largest: 6 };
export const smallSizes: TransferSizes = { count: 300, atOnce: 16, mostBytes: 2 * MiB, largest: 1 };

/** The chain of a test file: made before its tests, and gone after them. */
export function chainOf(make: () => Promise<Chain>): () => Chain {
  let made: Chain | undefined;
  test.serial.before(async (t) => {
    t.timeout(hangMs);
    made = await make();
  });
  test.serial.after.always(() => made?.lab.dispose());
  return () => {
    if (made === undefined) throw new Error('the lab is not made');
    return made;
  };
}

/** Starts the server's app, which ends with the test. */
export async function begun(t: ExecutionContext, { server }: Chain, argv: string[]): Promise<LabProcess> {
  const app = await serve(server, argv);
  t.teardown(() => app.kill());
  return app;
}

type Ended = Readonly<Record<string, number>>;

/** How many connections each agent has seen end, by reason. */
export async function endedSoFar({ agents }: Pick<Chain, 'agents'>): Promise<Ended[]> {
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
export async function endedDuring(chain: Pick<Chain, 'agents'>, work: () => Promise<void>): Promise<Ended[]> {
  const before = await endedSoFar(chain);
  await work();
  return (await endedSoFar(chain)).map((ended, at) =>
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

export interface Transfer {
  readonly id: number;
  readonly order: string;
  readonly sent?: Sum;
  readonly received?: Sum;
  readonly error?: string;
}

/** What one end prints of its transfers, in the order of their numbers. */
export function transfersOf(app: LabProcess): Transfer[] {
  return app.lines
    .filter((line) => line.startsWith('{"event":"transfer"'))
    .map((line) => JSON.parse(line) as Transfer)
    .sort((one, other) => one.id - other.id);
}

/** The same transfer as its other end must have it. */
export function turned({ sent, received, ...same }: Transfer): Transfer {
  return { ...same, ...(received && { sent: received }), ...(sent && { received: sent }) };
}

export const mib = (bytes: number): string => (bytes / MiB).toFixed(1);

/** Bytes arrive, whole and in order. */
export function transferLaws(chain: () => Chain, sizes: TransferSizes): void {
  const addresses = ({ ways }: Chain): string[] => ways.map(({ to }) => to);

  test.serial('random transfers both ways arrive whole, in whatever order their directions are closed', async (t) => {
    t.timeout(hangMs);
    const { client } = chain();
    const serving = await begun(t, chain(), apps.transfer({ port: appPort }));
    const ended = await endedDuring(chain(), async () => {
      const asking = client.run(apps.transfer({ port: appPort, to: addresses(chain()), seed, ...sizes }));
      const { bytes, seconds } = await asking.json({ event: 'done' }, hangMs);
      t.log(`seed ${seed}: ${sizes.count} transfers, ${mib(Number(bytes))} MiB, ${Number(seconds).toFixed(1)} s`);

      const asked = transfersOf(asking);
      const served = await settled(
        () => transfersOf(serving),
        (all) => all.length >= sizes.count,
      );
      t.is(asked.length, sizes.count);
      t.is(asked.filter(({ sent }) => sent?.bytes === 64 * MiB).length, sizes.largest);
      t.is(new Set(asked.map(({ order }) => order)).size, 3, 'every order occurs');
      for (const [at, one] of asked.entries()) {
        t.is(one.error, undefined, `transfer ${one.id}, seed ${seed}`);
        t.deepEqual(served[at], turned(one), `transfer ${one.id}, seed ${seed}`);
      }
    });
    t.deepEqual(ended, [{ clean: sizes.count }, { clean: sizes.count }]);
  });

  test.serial('clients that die in the middle of their transfers leave nothing with the agents', async (t) => {
    t.timeout(hangMs);
    const { nodes, agents, client } = chain();
    const serving = await begun(t, chain(), apps.transfer({ port: appPort }));
    const asking = (count: number): LabProcess =>
      client.run(apps.transfer({ port: appPort, to: addresses(chain()), count, mostBytes: 4 * MiB, seed }));
    const left = async (): Promise<object[]> =>
      await Promise.all(
        nodes.map(async (node, at) => {
          const { handovers, pod_usage } = await entries(node);
          const agent = agents[at];
          return { handovers, pod_usage, descriptors: agent === undefined ? [] : descriptors(agent) };
        }),
      );
    // What an agent loads at the first use, it keeps.
    await asking(40).json({ event: 'done' }, hangMs);
    await endedSoFar(chain());
    const before = await left();
    for (let round = 0; round < (soak ? 50 : 4); round += 1) {
      const endless = asking(1_000_000);
      await settled(
        () => transfersOf(endless).length,
        (count) => count > 10,
      );
      await endless.kill();
    }
    await endedSoFar(chain());
    t.deepEqual(await settled(left, (now) => JSON.stringify(now) === JSON.stringify(before)), before);
    t.true(
      transfersOf(serving).some(({ error }) => error !== undefined),
      'some died in the middle',
    );
  });
}

/** What the writer wants to send to a reader that does not read, and how much of it buffers may take on its way. */
export interface StallSizes {
  readonly bytes: number;
  readonly mostTaken: number;
  /** By how much an agent may grow meanwhile. */
  readonly mostGrowth: number;
}

/** Nothing has moved for this long: it stands. */
const standstillMs = 1000;

/** Waits until a number of bytes has stopped to grow, or is more than it may be. */
export async function standstill(read: () => Promise<number>, most: number): Promise<number> {
  let before = -1;
  let since = performance.now();
  return await settled(
    async () => {
      const taken = await read();
      if (taken !== before) since = performance.now();
      before = taken;
      return taken;
    },
    (taken) => taken > most || (taken > 0 && performance.now() - since > standstillMs),
  );
}

/** A reader that stops stops its writer. */
export function stallLaws(chain: () => Chain, sizes: StallSizes): void {
  for (const stall of ['up', 'down'] as const) {
    const reading = stall === 'up' ? 'server' : 'client';
    test.serial(
      `a ${reading} that does not read stops its writer, and the agents hold little of what it sends`,
      async (t) => {
        t.timeout(hangMs);
        const { client, server, agents } = chain();
        const serving = await begun(t, chain(), apps.transfer({ port: appPort }));
        const before = agents.map((agent) => residentBytes(agent));
        const grown = (): number[] => agents.map((agent, at) => residentBytes(agent) - (before[at] ?? 0));

        const { bytes } = sizes;
        const asking = client.run(apps.transfer({ port: appPort, to: [server.ipv4], stall, bytes, seed }));
        const [reader, writer] = stall === 'up' ? [serving, asking] : [asking, serving];
        await reader.json({ event: 'stalled' });
        const taken = await standstill(async () => {
          writer.write('state\n');
          return Number((await writer.json({ event: 'state' })).taken);
        }, sizes.mostTaken);
        const held = grown();
        t.log(`${mib(taken)} of ${mib(bytes)} MiB taken; the agents grew by ${held.map(mib).join(' and ')} MiB`);
        t.true(taken < sizes.mostTaken);
        for (const each of held) t.true(each < sizes.mostGrowth);

        reader.write('read\n');
        const { seconds } = await asking.json({ event: 'done' }, hangMs);
        t.log(`all of it: ${Number(seconds).toFixed(1)} s; the agents grew by ${grown().map(mib).join(' and ')} MiB`);
        const [asked] = transfersOf(asking);
        const served = await settled(
          () => transfersOf(serving),
          (all) => all.length > 0,
        );
        t.is((stall === 'up' ? asked?.sent : asked?.received)?.bytes, bytes);
        t.deepEqual(served, asked === undefined ? [] : [turned(asked)]);
        for (const each of grown()) t.true(each < sizes.mostGrowth);
      },
    );
  }
}

/** Both ends of one connection through the chain. */
interface Ends {
  readonly client: LabProcess;
  readonly server: LabProcess;
}

/** Tries a conversation by every way; each is over when `talk` is. Returns what the agents have seen end. */
async function converseBy(
  t: ExecutionContext,
  chain: Chain,
  talk: (ends: Ends, way: string) => Promise<void>,
): Promise<Ended[]> {
  const server = await begun(t, chain, apps.peer({ port: appPort }));
  return await endedDuring(chain, async () => {
    for (const { name, to } of chain.ways) {
      const client = chain.client.run(apps.peer({ to, port: appPort }));
      await client.json({ event: 'open' });
      client.write('send hello\n');
      await server.json({ event: 'data', text: 'hello' });
      await talk({ client, server }, name);
      await client.kill();
    }
  });
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

/** An end is an end, a reset a reset, for both sides and in each direction by itself. */
export function endLaws(chain: () => Chain): void {
  for (const [side, other] of [
    ['client', 'server'],
    ['server', 'client'],
  ] as const) {
    const resets = (): Ended[] => {
      const all = { [`reset-by-${side}`]: chain().ways.length };
      return [all, all];
    };

    test.serial(`a reset by the ${side} is a reset for the ${other}`, async (t) => {
      const ended = await converseBy(t, chain(), async (ends, way) => {
        const before = ends[other].lines.length;
        ends[side].write('reset\n');
        t.is((await ends[other].json({ event: 'closed' })).error, 'ECONNRESET', way);
        t.false(ends[other].lines.slice(before).includes('{"event":"end"}'), `${way}: never a clean end`);
      });
      t.deepEqual(ended, resets());
    });

    test.serial(`a reset by the ${side} with bytes under way is never a clean end for the ${other}`, async (t) => {
      const ended = await converseBy(t, chain(), async (ends, way) => {
        const before = ends[other].lines.length;
        ends[side].write(`fill ${4 * MiB}\nreset\n`);
        t.is((await ends[other].json({ event: 'closed' })).error, 'ECONNRESET', way);
        t.false(ends[other].lines.slice(before).includes('{"event":"end"}'), `${way}: never a clean end`);
      });
      t.deepEqual(ended, resets());
    });

    test.serial(`all that the ${side} has sent before its end arrives before the end`, async (t) => {
      const bytes = 4 * MiB;
      const ended = await converseBy(t, chain(), async (ends, way) => {
        const before = ends[other].lines.length;
        ends[side].write(`fill ${bytes}\nend\n`);
        await ends[other].json({ event: 'end' });
        const said = ends[other].lines
          .slice(before)
          .map((line) => JSON.parse(line) as { bytes?: number; text?: string });
        const arrived = said.reduce((sum, each) => sum + (each.bytes ?? each.text?.length ?? 0), 0);
        t.is(arrived, bytes, way);
        ends[other].write('end\n');
        t.is((await ends[other].json({ event: 'closed' })).error, undefined, way);
      });
      const clean = { clean: chain().ways.length };
      t.deepEqual(ended, [clean, clean]);
    });

    test.serial(`a reset by the ${side} is a reset for the ${other} that has ended its own direction`, async (t) => {
      const ended = await converseBy(t, chain(), async (ends, way) => {
        ends[other].write('end\n');
        await ends[side].json({ event: 'end' });
        ends[side].write('reset\n');
        t.is((await ends[other].json({ event: 'closed' })).error, 'ECONNRESET', way);
      });
      t.deepEqual(ended, resets());
    });

    test.serial(`a reset by the ${side} after its own end is a reset for the ${other}`, async (t) => {
      const ended = await converseBy(t, chain(), async (ends, way) => {
        ends[side].write('end\n');
        await ends[other].json({ event: 'end' });
        ends[other].write('send still here\n');
        await ends[side].json({ event: 'data', text: 'still here' });
        ends[side].write('reset\n');
        // Who has read the end reads no more, so only a write tells: as it is without the mesh.
        t.regex(`${(await sendUntilClosed(ends[other])).error}`, /^(ECONNRESET|EPIPE)$/, way);
      });
      t.deepEqual(ended, resets());
    });

    test.serial(`the ${other} goes on after the end of the ${side}, and its own end is clean`, async (t) => {
      const ended = await converseBy(t, chain(), async (ends, way) => {
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
        for (const end of [ends.client, ends.server]) t.is((await end.json({ event: 'closed' })).error, undefined, way);
      });
      const clean = { clean: chain().ways.length };
      t.deepEqual(ended, [clean, clean]);
    });
  }
}
