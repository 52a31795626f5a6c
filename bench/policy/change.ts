/**
 * `./dev bench policy/change [--rounds N] [--connections N] [--shared] [--json]`: how soon a change of policy ends what it forbids.
 *
 * So many connections are held to one server, over the kernel path (one node) and through the tunnel (two nodes). Then a
 * file of manifests that denies them is written. Measured: from the write to the end of the last one, as the client's app
 * sees it. Watching the folder, the control process and the agents are all in it.
 */
import { table } from '../../src/cli/table.ts';
import { apps, authorizationPolicyManifest, Lab, type LabPod } from '../../test/lab/index.ts';
import { fixed, formatSpread, interleave, machine, progress, readOptions, spread } from '../sample.ts';
import { type MeshBed, makeMesh } from '../topology.ts';

const ways = ['kernel', 'tunnel'] as const;
type Way = (typeof ways)[number];

const PORT = 8080;
const FILE = 'denied.yaml';
const hangMs = 60_000;

const usage = 'usage: bench policy/change [--rounds N] [--connections N] [--shared] [--json]';
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    shared: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    connections: { type: 'string' },
  },
});
const rounds = Number(values.rounds ?? 5);
const connections = Number(values.connections ?? 1000);
if (!(rounds >= 1) || !(connections >= 1)) {
  console.error(usage);
  process.exit(2);
}

const found = await measure();
if (values.json) console.log(JSON.stringify({ machine: machine(), connections, milliseconds: found }, undefined, 2));
else {
  const { date, kernel, cpus, node } = machine();
  console.log(`${date}, kernel ${kernel}, ${cpus} CPUs, Node ${node}; ${rounds} rounds: median (least..most)\n`);
  const rows = ways.map((way) => [`${connections} connections, ${way}`, formatSpread(spread(found[way]), fixed(1))]);
  console.log(table(['FROM THE CHANGE TO THE LAST END', 'MS'], rows).trimEnd());
}

async function measure(): Promise<Record<Way, number[]>> {
  await using lab = await Lab.create('./dev bench policy/change', { shared: values.shared });
  progress('making nodes, pods and agents');
  const bed = await makeMesh(lab);
  for (const way of ways)
    await bed.ends[way].server.run(await apps.answer({ port: PORT })).json({ event: 'listening' });
  return await interleave(ways, rounds, (way, round) => once(bed, way, round));
}

async function once(bed: MeshBed, way: Way, round: number): Promise<number> {
  progress(`round ${round + 1} of ${rounds}, ${way}`);
  const { client, server } = bed.ends[way];
  const to = [apps.endpoint(server.ipv4, PORT)];
  await reached(client, to);
  const holder = client.run(apps.hold({ to, count: connections, rate: 2000 }));
  const { open } = await holder.json({ event: 'held' }, hangMs);
  if (open !== connections) throw new Error(`only ${open} of ${connections} are open`);

  const from = [{ source: { namespaces: [client.request().namespace] } }];
  const denied = authorizationPolicyManifest('denied', {
    namespace: server.request().namespace,
    action: 'DENY',
    selector: { app: server.name },
    rules: [{ from }],
  });
  const since = Date.now();
  bed.control.write(FILE, denied);
  const { lastLostAt } = await holder.json({ event: 'all lost' }, hangMs);
  bed.control.remove(FILE);
  await holder.kill();
  return Number(lastLostAt) - since;
}

/** Until the policy of the round before is forgotten, and a verdict is written down. */
async function reached(client: LabPod, to: readonly string[]): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const { started, answered } = await talked(client, to);
    if (answered === started) return;
  }
  throw new Error(`${to} cannot be reached`);
}

async function talked(client: LabPod, to: readonly string[]): Promise<{ started: number; answered: number }> {
  const load = client.run(await apps.load({ rate: 20, seconds: 1, to, atOnce: 20 }));
  const { started, answered } = await load.json({ event: 'end' }, hangMs);
  return { started: Number(started), answered: Number(answered) };
}
