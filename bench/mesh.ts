/**
 * `./dev bench mesh`: what the mesh costs, between two nodes and on one, against no mesh at all in the same run.
 *
 *   bench mesh [--rounds N] [--seconds S] [--only KEY[,KEY]] [--quick] [--shared] [--json]
 *
 * Ways of travelling: the tunnel between two nodes (HBONE over mutual TLS), and the kernel path between two pods of one
 * node; each against pods of the same places on nodes without an agent. They take turns within a round; a ratio is to no
 * mesh of the same round and the same places, figures are medians. Before the first round every way is used once and not
 * counted, so that agents have compiled what they run and have written their verdicts down.
 *
 * `--quick` ends within 100 s: five rounds, without p999, memory and gbps8. `--shared` does not wait for other labs to
 * end: figures of a busy machine.
 */
import { readFileSync } from 'node:fs';
import { table } from '../src/cli/table.ts';
import { apps, Lab, type LabAgent, type LabPod, type LabProcess } from '../test/lab/index.ts';
import {
  fixed,
  formatSpread,
  interleave,
  machine,
  OtherLoad,
  output,
  pairwise,
  progress,
  readOptions,
  residentBytesOf,
  type Spread,
  spread,
  whole,
} from './sample.ts';
import { type Ends, type MeshBed, makeMesh } from './topology.ts';

const ways = ['noMesh', 'tunnel', 'noMeshLocal', 'kernel'] as const;
type Way = (typeof ways)[number];
/** The mesh's ways, and what each is held against. */
const bases = { tunnel: 'noMesh', kernel: 'noMeshLocal' } as const satisfies Partial<Record<Way, Way>>;
type MeshWay = keyof typeof bases;
const meshWays: readonly MeshWay[] = ['tunnel', 'kernel'];

/** In the order in which they are shown; the keys are those of --json. */
const measures = {
  gbps: { name: 'one stream, Gbit/s', format: fixed(2) },
  gbps8: { name: 'eight streams, Gbit/s', format: fixed(2) },
  rps: { name: 'requests/s, 32 connections, 1 KiB', format: whole },
  cps: { name: 'new connections/s, 8 clients', format: whole },
  p50Ms: { name: 'p50 at 1,000 requests/s, ms', format: fixed(3) },
  p99Ms: { name: 'p99, ms', format: fixed(3) },
  p999Ms: { name: 'p99.9, ms', format: fixed(3) },
  cpuPerGiB: { name: 'CPU s/GiB, whole machine', format: fixed(2) },
  cpuPer10kRequests: { name: 'CPU s per 10,000 requests, whole machine', format: fixed(3) },
  rssMiB: { name: 'memory of an idle agent, MiB', format: fixed(1) },
  kibPerConnection: { name: 'memory of an idle connection, both ends, KiB', format: fixed(1) },
} as const;
type Key = keyof typeof measures;
const keys = Object.keys(measures) as Key[];
const slowKeys: readonly Key[] = ['gbps8', 'p999Ms', 'rssMiB', 'kibPerConnection'];

const webPort = 8080;
const iperfPort = 5201;
const requestConnections = 32;
const churnClients = 8;
const paceConnections = 4;
const heldConnections = 4000;
const settleMs = 2000;
const gibibyte = 2 ** 30;
const ticksPerSecond = 100;

const usage = `usage: bench mesh [--rounds N] [--seconds S, 1 or more] [--only ${keys.join(',')}] [--quick] [--shared] [--json]`;
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    shared: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string' },
  },
});
const rounds = Number(values.rounds ?? 5);
const seconds = Number(values.seconds ?? (values.quick ? 1 : 2));
const asked = values.only?.split(',') ?? keys.filter((key) => !values.quick || !slowKeys.includes(key));
const wanted = new Set(keys.filter((key) => asked.includes(key)));
if (asked.some((each) => !keys.some((key) => key === each)) || !(rounds >= 1) || !(seconds >= 1)) {
  console.error(usage);
  process.exit(2);
}

/** User, system and interrupt time of the whole machine: softirq work is charged to whoever is interrupted by it. */
interface CpuTime {
  readonly user: number;
  readonly system: number;
  readonly softirq: number;
}

type Figures = Partial<Record<Key, number>>;

interface Report {
  readonly machine: ReturnType<typeof machine>;
  readonly seconds: number;
  readonly otherCpus: number;
  readonly found: Record<Way, Figures[]>;
  /** CPU seconds per GiB of one stream, by kind. */
  readonly cpu: Record<Way, CpuTime[]>;
}

/** The iperf3 server of each pod. */
const iperfs = new Map<LabPod, LabProcess>();

const report = await measure();
console.log(values.json ? JSON.stringify(summary(report), undefined, 2) : formatReport(report));

async function measure(): Promise<Report> {
  await using lab = await Lab.create('./dev bench mesh', { shared: values.shared });
  progress('making nodes, pods and agents');
  const bed = await make(lab);
  const cpu: Record<Way, CpuTime[]> = { noMesh: [], tunnel: [], noMeshLocal: [], kernel: [] };
  progress('warming up');
  for (const way of ways) await round(bed.ends[way]);
  const others = new OtherLoad(lab.cgroup);
  const found = await interleave(ways, rounds, async (way, at) => {
    progress(`round ${at + 1} of ${rounds}, ${way}`);
    const { figures, perGiB } = await round(bed.ends[way]);
    cpu[way].push(perGiB);
    return figures;
  });
  const otherCpus = others.cpus;
  if (wanted.has('rssMiB') || wanted.has('kibPerConnection')) await measureMemory(bed, found);
  return { machine: machine(), seconds, otherCpus, found, cpu };
}

async function make(lab: Lab): Promise<MeshBed> {
  const bed = await makeMesh(lab);
  const { ends } = bed;
  const all = ways.map((way) => ends[way]);
  // Thousands of connections per second to one port: the ports of all ways are used again alike.
  for (const client of new Set(all.map((each) => each.client)))
    await client.sysctl({ 'net.ipv4.tcp_tw_reuse': 1, 'net.ipv4.ip_local_port_range': '1024 65000' });
  const web = await apps.web({ port: webPort });
  for (const { server } of all) {
    await server.run(web).json({ event: 'listening' });
    const iperf = server.run(['iperf3', '--server', '--forceflush', '--port', `${iperfPort}`]);
    await iperf.line(/listening/);
    iperfs.set(server, iperf);
  }
  return bed;
}

/** Everything that is measured of one way, once. */
async function round(ends: Ends): Promise<{ figures: Figures; perGiB: CpuTime }> {
  const stream = await throughput(ends, 1);
  const eight = wanted.has('gbps8') ? await throughput(ends, 8) : undefined;
  const requests = await requestsPerSecond(ends);
  const cps = await connectionsPerSecond(ends);
  const latency = await pace(ends);
  const { user, system, softirq } = stream.perGiB;
  const all: Figures = {
    gbps: stream.gbps,
    ...(eight === undefined ? {} : { gbps8: eight.gbps }),
    rps: requests.rps,
    cps,
    p50Ms: latency.p50 / 1000,
    p99Ms: latency.p99 / 1000,
    p999Ms: latency.p999 / 1000,
    cpuPerGiB: user + system + softirq,
    cpuPer10kRequests: requests.cpuPer10k,
  };
  const figures = Object.fromEntries(Object.entries(all).filter(([key]) => wanted.has(key as Key)));
  return { figures, perGiB: stream.perGiB };
}

async function throughput(ends: Ends, streams: number): Promise<{ gbps: number; perGiB: CpuTime }> {
  const before = machineCpu();
  const to = ['--client', ends.server.ipv4, '--port', `${iperfPort}`];
  const argv = ['iperf3', ...to, '--time', `${seconds}`, '--parallel', `${streams}`, '--json'];
  const said = await output(ends.client, argv, seconds);
  const after = machineCpu();
  // It serves one test at a time, and breaks off with whoever comes before it has put the last one away.
  await iperfs.get(ends.server)?.line(/listening/);
  const { end, error } = JSON.parse(said) as {
    end: { sum_received?: { bits_per_second: number; bytes: number } };
    error?: string;
  };
  if (end.sum_received === undefined) throw new Error(`iperf3: ${error ?? said}`);
  const { bits_per_second: bits, bytes } = end.sum_received;
  const per = (kind: keyof CpuTime): number => (after[kind] - before[kind]) / (bytes / gibibyte);
  return { gbps: bits / 1e9, perGiB: { user: per('user'), system: per('system'), softirq: per('softirq') } };
}

async function requestsPerSecond({ client, server }: Ends): Promise<{ rps: number; cpuPer10k: number }> {
  const url = `http://${server.ipv4}:${webPort}/`;
  const argv = ['wrk', '-t1', `-c${requestConnections}`, `-d${Math.ceil(seconds)}s`, url];
  const before = machineCpu();
  const said = await output(client, argv, seconds);
  const after = machineCpu();
  if (/Socket errors|Non-2xx/.test(said)) throw new Error(said);
  const rps = Number(/Requests\/sec:\s+([\d.]+)/.exec(said)?.[1]);
  const requests = Number(/(\d+) requests in/.exec(said)?.[1]);
  const used = after.user + after.system + after.softirq - before.user - before.system - before.softirq;
  return { rps, cpuPer10k: (used / requests) * 10_000 };
}

async function connectionsPerSecond({ client, server }: Ends): Promise<number> {
  const options = { mode: 'churn', to: server.ipv4, port: webPort, clients: churnClients, seconds } as const;
  const said = JSON.parse(await output(client, await apps.probe(options), seconds)) as {
    done: number;
    failed: number;
    seconds: number;
    error: string;
  };
  // A figure of a way that fails is a figure of something else.
  if (said.failed > said.done / 1000) throw new Error(`${said.failed} of ${said.done} failed: ${said.error}`);
  return said.done / said.seconds;
}

async function pace({ client, server }: Ends): Promise<{ p50: number; p99: number; p999: number }> {
  const script = new URL('pace.lua', import.meta.url).pathname;
  const url = `http://${server.ipv4}:${webPort}/`;
  const argv = ['wrk', '-t1', `-c${paceConnections}`, `-d${Math.ceil(seconds)}s`, '-s', script, url];
  const said = JSON.parse(
    (await output(client, argv, seconds)).split('\n').findLast((line) => line.startsWith('{')) ?? '{}',
  ) as {
    errors: number;
    p50: number;
    p99: number;
    p999: number;
  };
  if (said.errors !== 0) throw new Error(`${said.errors} errors at an even pace`);
  return said;
}

/** Each way with agents of its own, one after the other: memory that was once grown stays. */
async function measureMemory(bed: MeshBed, found: Record<Way, Figures[]>): Promise<void> {
  let agents = [...bed.agents];
  for (const way of meshWays) {
    progress(`memory, ${way}`);
    const { client, server } = bed.ends[way];
    agents = await Promise.all(agents.map((agent) => bed.restart(agent)));
    await settle();
    const idle = residentBytes(agents);
    const to = [apps.endpoint(server.ipv4, webPort)];
    const holder = client.run(apps.hold({ to, count: heldConnections, rate: 2000 }));
    const held = await holder.json({ event: 'held' }, 60_000);
    if (held.open !== heldConnections) throw new Error(`only ${held.open} of ${heldConnections} connections are open`);
    await settle();
    const holding = residentBytes(agents);
    await holder.kill();
    const [first] = found[way];
    if (first === undefined) continue;
    if (wanted.has('rssMiB')) first.rssMiB = idle / agents.length / 2 ** 20;
    if (wanted.has('kibPerConnection')) first.kibPerConnection = (holding - idle) / heldConnections / 1024;
  }
}

function residentBytes(agents: readonly LabAgent[]): number {
  return agents.reduce((sum, agent) => sum + residentBytesOf(agent.process.pid), 0);
}

/** Idle is what is measured: let what the connecting has left be collected. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, settleMs));
}

function machineCpu(): CpuTime {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '';
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line.split(/\s+/).map(Number);
  return {
    user: (user + nice) / ticksPerSecond,
    system: system / ticksPerSecond,
    softirq: (irq + softirq) / ticksPerSecond,
  };
}

// --- What is shown

function spreadOf(way: Way, key: Key): Spread | undefined {
  const found = report.found[way].flatMap((figures) => figures[key] ?? []);
  return found.length === 0 ? undefined : spread(found);
}

function ratioOf(way: MeshWay, key: Key): Spread | undefined {
  const of = (each: Way): number[] => report.found[each].flatMap((figures) => figures[key] ?? []);
  const base = of(bases[way]);
  if (base.length === 0) return undefined;
  return spread(pairwise(of(way), base, (value, zero) => value / zero));
}

/** What --json prints. */
function summary({ found }: Report): object {
  const medians = <Which extends Way>(of: (way: Which, key: Key) => Spread | undefined, way: Which): Figures =>
    Object.fromEntries(
      keys.flatMap((key) => {
        const found = of(way, key);
        return found === undefined ? [] : [[key, Number(found.median.toPrecision(5))]];
      }),
    );
  return {
    rounds: found.noMesh.length,
    ...Object.fromEntries(ways.map((way) => [way, medians(spreadOf, way)])),
    ratios: Object.fromEntries(meshWays.map((way) => [way, medians(ratioOf, way)])),
  };
}

function formatReport(all: Report): string {
  const { date, kernel, cpus, node } = all.machine;
  const rows = keys
    .filter((key) => wanted.has(key))
    .map((key) => {
      const { name, format } = measures[key];
      const cell = (found: Spread | undefined, as: (value: number) => string): string =>
        found === undefined ? '' : formatSpread(found, as);
      return [
        name,
        ...ways.map((way) => cell(spreadOf(way, key), format)),
        ...meshWays.map((way) => cell(ratioOf(way, key), fixed(2))),
      ];
    });
  const cpu = ways.map((way) => {
    const of = (kind: keyof CpuTime): string => spread(all.cpu[way].map((each) => each[kind])).median.toFixed(2);
    return `${way} ${of('user')} user, ${of('system')} system, ${of('softirq')} softirq`;
  });
  return [
    `${date}, kernel ${kernel}, ${cpus} CPUs, Node ${node}; ${all.found.noMesh.length} rounds of ${all.seconds} s: median (least..most)`,
    `busy with something else meanwhile: ${all.otherCpus.toFixed(2)} CPUs`,
    '',
    table(
      ['', 'TWO NODES', 'TUNNEL', 'ONE NODE', 'KERNEL PATH', 'TUNNEL / NO MESH', 'KERNEL / NO MESH'],
      rows,
    ).trimEnd(),
    '',
    `CPU s/GiB of one stream: ${cpu.join('; ')}`,
  ].join('\n');
}
