/** Readers that do not read, through the tunnel. */
import { join } from 'node:path';
import test from 'ava';
import { apps, furnish, type LabProcess } from '../lab/index.ts';
import { residentBytes } from './inspect.ts';
import { begun, type Chain, chainOf, hangMs, mib, seed, stallLaws, standstill, transfersOf } from './stream-laws.ts';
import { APP_PORT, pair, sessionsOf, tunnelBed } from './tunnel-bed.ts';

const MiB = 1024 * 1024;

const chain = chainOf(async (): Promise<Chain> => {
  const bed = await tunnelBed('stalled streams', pair, { logLevel: 'info' });
  return await furnish(bed, async ({ lab, nodes, agents, pods }) => {
    // Otherwise most of what is under way would be in the kernel, where the mesh changes nothing.
    const buffers = '4096 131072 262144';
    for (const pod of [pods.client, pods.server])
      await pod.sysctl({ 'net.ipv4.tcp_rmem': buffers, 'net.ipv4.tcp_wmem': buffers });
    return { lab, nodes, agents, ...pods, ways: [{ name: 'IPv4', to: pods.server.ipv4 }] };
  });
});

/**
 * By how much an agent may grow: it holds at most 36.5 MiB for each session (src/hbone/frames/receive-windows.ts), of which
 * there is one for each of its two workers, and 128 KiB for each leg that does not take them. The rest is for what the
 * garbage collector has not come to yet.
 */
const mostGrowth = 192 * MiB;

stallLaws(chain, { bytes: 256 * MiB, mostTaken: 96 * MiB, mostGrowth });

const stalled = 100;
/** More than all buffers of all connections: an end of the test if nothing stops the writer. */
const mostTaken = 4096 * MiB;
const floodPort = 8090;

function flood(options: { do: 'write' | 'stall'; to?: string }): string[] {
  const script = join(import.meta.dirname, 'flood.py');
  const asking = options.to === undefined ? [] : ['--to', options.to, '--count', `${stalled}`];
  return ['/usr/bin/python3', script, '--port', `${floodPort}`, '--do', options.do, ...asking];
}

async function bytesOf(app: LabProcess): Promise<number> {
  app.write('state\n');
  return Number((await app.json({ event: 'state' })).bytes);
}

for (const writes of ['client', 'server'] as const)
  test.serial(
    `${stalled} streams whose readers stall cost the agents little, and their neighbours nothing: the ${writes} writes`,
    async (t) => {
      t.timeout(hangMs);
      const { client, server, agents } = chain();
      const [atServer, atClient] = writes === 'client' ? (['stall', 'write'] as const) : (['write', 'stall'] as const);
      const serving = await begun(t, chain(), flood({ do: atServer }));
      await begun(t, chain(), apps.transfer({ port: APP_PORT }));
      const before = agents.map((agent) => residentBytes(agent));
      const assertBound = (when: string): void => {
        const grown = agents.map((agent, at) => residentBytes(agent) - (before[at] ?? 0));
        t.log(`${when}: the agents have grown by ${grown.map(mib).join(' and ')} MiB`);
        for (const each of grown) t.true(each < mostGrowth, when);
      };

      const asking = client.run(flood({ do: atClient, to: server.ipv4 }));
      t.teardown(() => asking.kill());
      await asking.json({ event: 'open' });
      const [writer, reader] = writes === 'client' ? [asking, serving] : [serving, asking];
      const taken = await standstill(() => bytesOf(writer), mostTaken);
      t.true(taken < mostTaken);
      assertBound(`${mib(taken)} MiB are under way`);

      const sessions = (await sessionsOf(client)).sort();
      const neighbours = { count: 40, atOnce: 8, mostBytes: 4 * MiB, largest: 0 };
      const beside = client.run(apps.transfer({ port: APP_PORT, to: [server.ipv4], seed, ...neighbours }));
      await beside.json({ event: 'done' }, hangMs);
      const failed = transfersOf(beside).filter(({ error }) => error !== undefined);
      t.deepEqual([transfersOf(beside).length, failed], [neighbours.count, []]);
      t.deepEqual((await sessionsOf(client)).sort(), sessions, 'the neighbours are in the same sessions');
      assertBound('beside them others were served');

      writer.write('stop\n');
      reader.write('read\n');
      const { bytes, ended, errors } = await reader.json({ event: 'read' }, hangMs);
      t.deepEqual({ bytes, ended, errors }, { bytes: await bytesOf(writer), ended: stalled, errors: {} });
      assertBound('all of it was read');
    },
  );
