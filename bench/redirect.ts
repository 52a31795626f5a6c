/**
 * `./dev bench redirect`: what being led through the agent costs, against no mesh at all, in the same run.
 *
 *   bench redirect [--rounds N] [--seconds S] [--only PART[,PART]] [--quick] [--shared] [--json]
 *
 * Parts: connect (pods not enrolled), throughput, requests, connections, latency, memory. Default: all, 3 rounds of 2 s.
 * `--shared` does not wait for other labs to end: figures of a busy machine.
 *
 * Two pairs of nodes of the same shape: one with an agent on each node, one without. Client and server are on the two nodes
 * of a pair, so that traffic takes the same interfaces in every case. The cases take turns within a round.
 */
import { availableParallelism } from 'node:os';
import { table } from '../src/cli/table.ts';
import { apps, Lab, type LabAgent, type LabNode, type LabPod } from '../test/lab/index.ts';
import {
  cpuSecondsOf,
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
  signed,
  spread,
  whole,
} from './sample.ts';

const parts = ['connect', 'throughput', 'requests', 'connections', 'latency', 'memory'] as const;
const paths = ['no mesh', 'client enrolled', 'server enrolled', 'both enrolled'] as const;
type Path = (typeof paths)[number];

const webPort = 8080;
const iperfPort = 5201;
const requestConnections = 32;
const churnClients = 8;
const paceConnections = 4;
const paceRate = 1000;
const unreachable = '198.51.100.1';
/** A process may have 20,000 descriptors here, and a relayed connection takes two of the agent's. */
const heldSteps = [0, 1000, 8000] as const;
const quickHeldSteps = [0, 500, 1000] as const;
const settleMs = 1500;
const gibibyte = 2 ** 30;
const lastCpu = availableParallelism() - 1;

const usage = `usage: bench redirect [--rounds N] [--seconds S] [--only ${parts.join(',')}] [--quick] [--shared] [--json]`;
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    shared: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string', default: parts.join(',') },
  },
});
const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
const seconds = Number(values.seconds ?? (values.quick ? 1 : 2));
const wanted = new Set(values.only.split(','));
const unknown = [...wanted].filter((part) => !parts.some((each) => each === part));
if (unknown.length > 0 || !(rounds >= 1) || !(seconds > 0)) {
  console.error(usage);
  process.exit(2);
}

interface Ends {
  readonly client: LabPod;
  readonly server: LabPod;
}

interface Bed {
  readonly lab: Lab;
  readonly near: LabNode;
  readonly far: LabNode;
  readonly agents: readonly [LabAgent, LabAgent];
  readonly ends: Record<Path, Ends>;
  /** Pods that are not enrolled, two on one node: where the hooks are attached, and twice where nothing is. */
  readonly local: Record<'no agent' | 'no agent, again' | 'hooks attached', Ends>;
}

interface Figures {
  readonly unit: string;
  /** True where less is better. */
  readonly less: boolean;
  readonly values: Record<Path, Spread>;
  /** To no mesh of the same round. */
  readonly ratios: Record<Path, Spread>;
}

interface ConnectFigures {
  readonly what: string;
  readonly noAgentNs: Spread;
  readonly attachedNs: Spread;
  /** Hooks attached less no agent, round by round. */
  readonly differenceNs: Spread;
  /** The same between two pairs of pods that no agent knows: what a difference of nothing looks like. */
  readonly noiseNs: Spread;
}

interface MemoryFigures {
  readonly connections: number;
  readonly clientAgentBytes: Spread;
  readonly serverAgentBytes: Spread;
  /** More than with no connection, per connection. */
  readonly clientAgentPerConnection: Spread | undefined;
  readonly serverAgentPerConnection: Spread | undefined;
}

interface Report {
  readonly bench: 'redirect';
  readonly machine: ReturnType<typeof machine>;
  readonly rounds: number;
  readonly seconds: number;
  readonly otherCpus: number;
  readonly connect?: readonly ConnectFigures[];
  readonly paths: Partial<Record<string, Figures>>;
  readonly memory?: readonly MemoryFigures[];
}

const report = await measure();
console.log(values.json ? JSON.stringify(report, undefined, 2) : formatReport(report));

async function measure(): Promise<Report> {
  await using lab = await Lab.create('./dev bench redirect', { shared: values.shared });
  progress('making two pairs of nodes');
  const bed = await make(lab);
  const others = new OtherLoad(lab.cgroup);
  const connect = wanted.has('connect') ? await measureConnect(bed) : undefined;
  const figures: Partial<Record<string, Figures>> = {};
  if (wanted.has('throughput')) Object.assign(figures, await measureThroughput(bed));
  if (wanted.has('requests')) figures['requests/s'] = await measureRequests(bed);
  if (wanted.has('connections')) figures['new connections/s'] = await measureConnections(bed);
  if (wanted.has('latency')) Object.assign(figures, await measureLatency(bed));
  const memory = wanted.has('memory') ? await measureMemory(bed) : undefined;
  return {
    bench: 'redirect',
    machine: machine(),
    rounds,
    seconds,
    otherCpus: others.cpus,
    ...(connect === undefined ? {} : { connect }),
    paths: figures,
    ...(memory === undefined ? {} : { memory }),
  };
}

// --- The bed

async function make(lab: Lab): Promise<Bed> {
  const [near, far, bareNear, bareFar] = [
    await lab.node('near'),
    await lab.node('far'),
    await lab.node('barenear'),
    await lab.node('barefar'),
  ];
  await lab.link(near, far);
  await lab.link(bareNear, bareFar);
  const clients = {
    enrolled: await near.pod('client'),
    plain: await near.pod('plain'),
    bare: await bareNear.pod('plain'),
  };
  const servers = {
    enrolled: await far.pod('server'),
    plain: await far.pod('plain'),
    bare: await bareFar.pod('plain'),
  };
  const neighbours = {
    attached: await near.pod('neighbour'),
    bare: await bareNear.pod('neighbour'),
    again: await bareFar.pod('neighbour'),
  };
  for (const pod of [...Object.values(clients), servers.bare]) {
    // Thousands of connections per second to one port: the ports of all cases are used again alike.
    await pod.sysctl({ 'net.ipv4.tcp_tw_reuse': 1, 'net.ipv4.ip_local_port_range': '1024 65000' });
    await pod.exec(['ip', 'route', 'add', 'unreachable', `${unreachable}/32`], { restricted: false });
  }
  const web = await apps.web({ port: webPort });
  for (const pod of Object.values(servers)) await pod.run(web).json({ event: 'listening' });
  for (const pod of Object.values(neighbours)) await pod.run([...onCpu(0), ...web]).json({ event: 'listening' });
  for (const pod of Object.values(servers))
    await pod.run(['iperf3', '--server', '--forceflush', '--port', `${iperfPort}`]).line(/listening/);
  const agents = await startAgents(near, far);
  await agents[0].enrol(clients.enrolled);
  await agents[1].enrol(servers.enrolled);
  return {
    lab,
    near,
    far,
    agents,
    ends: {
      'no mesh': { client: clients.bare, server: servers.bare },
      'client enrolled': { client: clients.enrolled, server: servers.plain },
      'server enrolled': { client: clients.plain, server: servers.enrolled },
      'both enrolled': { client: clients.enrolled, server: servers.enrolled },
    },
    local: {
      'no agent': { client: clients.bare, server: neighbours.bare },
      'no agent, again': { client: servers.bare, server: neighbours.again },
      'hooks attached': { client: clients.plain, server: neighbours.attached },
    },
  };
}

async function startAgents(near: LabNode, far: LabNode): Promise<[LabAgent, LabAgent]> {
  return [await near.agent({ logLevel: 'info' }), await far.agent({ logLevel: 'info' })];
}

interface Probed {
  readonly done: number;
  readonly failed: number;
  readonly seconds: number;
  readonly p50_ns: number;
  readonly p99_ns: number;
  readonly error: string;
}

/** Client and server each on its own CPU: a handshake takes half as long again when both are on one. */
function onCpu(cpu: number): string[] {
  return ['taskset', '--cpu-list', `${cpu}`];
}

async function probe(pod: LabPod, options: apps.ProbeOptions, prefix: readonly string[] = []): Promise<Probed> {
  const result = JSON.parse(await output(pod, [...prefix, ...(await apps.probe(options))], seconds)) as Probed;
  // A figure of a path that fails is a figure of something else.
  if (result.failed > result.done / 1000) throw new Error(`${result.failed} of ${result.done} failed: ${result.error}`);
  return result;
}

// --- Parts

async function measureConnect(bed: Bed): Promise<ConnectFigures[]> {
  const cases = ['no agent', 'hooks attached', 'no agent, again'] as const;
  const count = values.quick ? 1000 : 5000;
  // Cheap and noisy: more and shorter rounds than the rest.
  const turns = values.quick ? 3 : rounds * 5;
  const figures: ConnectFigures[] = [];
  for (const [what, target] of [
    ['to a pod of the same node', undefined],
    ['refused before any packet (unreachable route)', unreachable],
  ] as const) {
    progress(`connect(), ${what}`);
    const found = await interleave(cases, turns, async (each) => {
      const { client, server } = bed.local[each];
      const to = target ?? server.ipv4;
      const options = { mode: 'connect', to, port: webPort, count: target ? count * 10 : count } as const;
      return (await probe(client, options, onCpu(lastCpu))).p50_ns;
    });
    const base = found['no agent'];
    figures.push({
      what,
      noAgentNs: spread(base),
      attachedNs: spread(found['hooks attached']),
      differenceNs: spread(pairwise(found['hooks attached'], base, (value, zero) => value - zero)),
      noiseNs: spread(pairwise(found['no agent, again'], base, (value, zero) => value - zero)),
    });
  }
  return figures;
}

async function measureThroughput(bed: Bed): Promise<Record<string, Figures>> {
  progress('throughput, one stream');
  const found = await interleave(paths, rounds, async (path) => {
    const { client, server } = bed.ends[path];
    const before = agentSeconds(bed);
    const argv = ['iperf3', '--client', server.ipv4, '--port', `${iperfPort}`, '--time', `${seconds}`, '--json'];
    const { end } = JSON.parse(await output(client, argv, seconds)) as {
      end: { sum_received: { bits_per_second: number; bytes: number } };
    };
    const { bits_per_second: bits, bytes } = end.sum_received;
    return { gbits: bits / 1e9, cpu: (agentSeconds(bed) - before) / (bytes / gibibyte) };
  });
  const of = (pick: 'gbits' | 'cpu'): Record<Path, number[]> =>
    mapPaths((path) => found[path].map((each) => each[pick]));
  const cpu = figuresOf('s/GiB', true, of('cpu'));
  return { 'throughput, one stream': figuresOf('Gbit/s', false, of('gbits')), 'CPU of the agents': cpu };
}

async function measureRequests(bed: Bed): Promise<Figures> {
  progress(`requests/s, ${requestConnections} connections`);
  const found = await interleave(paths, rounds, async (path) => {
    const { client, server } = bed.ends[path];
    const url = `http://${server.ipv4}:${webPort}/`;
    const argv = ['wrk', '-t1', `-c${requestConnections}`, `-d${Math.ceil(seconds)}s`, url];
    const said = await output(client, argv, seconds);
    if (/Socket errors|Non-2xx/.test(said)) throw new Error(said);
    return Number(/Requests\/sec:\s+([\d.]+)/.exec(said)?.[1]);
  });
  return figuresOf('/s', false, found);
}

async function measureConnections(bed: Bed): Promise<Figures> {
  progress('new connections/s');
  const found = await interleave(paths, rounds, async (path) => {
    const { client, server } = bed.ends[path];
    const options = { mode: 'churn', to: server.ipv4, port: webPort, clients: churnClients, seconds } as const;
    const { done, seconds: took } = await probe(client, options);
    return done / took;
  });
  return figuresOf('/s', false, found);
}

async function measureLatency(bed: Bed): Promise<Record<string, Figures>> {
  progress(`latency at ${paceRate} requests/s`);
  const found = await interleave(paths, rounds, async (path) => {
    const { client, server } = bed.ends[path];
    const pace = { connections: paceConnections, rate: paceRate, seconds };
    return probe(client, { mode: 'pace', to: server.ipv4, port: webPort, ...pace });
  });
  const of = (pick: 'p50_ns' | 'p99_ns'): Figures =>
    figuresOf(
      'ms',
      true,
      mapPaths((path) => found[path].map((each) => each[pick] / 1e6)),
    );
  return { [`p50 at ${paceRate}/s`]: of('p50_ns'), [`p99 at ${paceRate}/s`]: of('p99_ns') };
}

/** Fresh agents each round: memory that was once grown stays. */
async function measureMemory(bed: Bed): Promise<MemoryFigures[]> {
  const steps = values.quick ? quickHeldSteps : heldSteps;
  const { client, server } = bed.ends['both enrolled'];
  const taken: Array<Array<readonly [number, number]>> = [];
  let agents = bed.agents;
  for (let round = 0; round < rounds; round += 1) {
    progress(`memory, round ${round + 1} of ${rounds}`);
    await Promise.all(agents.map((agent) => agent.kill()));
    agents = await startAgents(bed.near, bed.far);
    const holders = [];
    const row: Array<readonly [number, number]> = [];
    let open = 0;
    for (const step of steps) {
      if (step > open) {
        const holder = client.run(
          apps.hold({ to: [apps.endpoint(server.ipv4, webPort)], count: step - open, rate: 2500 }),
        );
        const held = await holder.json({ event: 'held' }, 60_000);
        if (held.open !== step - open)
          throw new Error(`only ${held.open} of ${step - open} connections: ${JSON.stringify(held)}`);
        holders.push(holder);
        open = step;
      }
      // Idle is what is measured: let what the connecting has left be collected.
      await new Promise((resolve) => setTimeout(resolve, settleMs));
      row.push([residentBytesOf(agents[0].process.pid), residentBytesOf(agents[1].process.pid)]);
    }
    taken.push(row);
    await Promise.all(holders.map((holder) => holder.kill()));
  }
  return steps.map((connections, step) => {
    const bytes = (end: 0 | 1): number[] => taken.map((row) => row[step]?.[end] ?? Number.NaN);
    const each = (end: 0 | 1): Spread | undefined =>
      connections === 0
        ? undefined
        : spread(taken.map((row) => ((row[step]?.[end] ?? Number.NaN) - (row[0]?.[end] ?? Number.NaN)) / connections));
    return {
      connections,
      clientAgentBytes: spread(bytes(0)),
      serverAgentBytes: spread(bytes(1)),
      clientAgentPerConnection: each(0),
      serverAgentPerConnection: each(1),
    };
  });
}

function agentSeconds(bed: Bed): number {
  return bed.agents.reduce((sum, agent) => sum + cpuSecondsOf(agent.process.pid), 0);
}

function mapPaths<T>(value: (path: Path) => T): Record<Path, T> {
  return Object.fromEntries(paths.map((path) => [path, value(path)])) as unknown as Record<Path, T>;
}

function figuresOf(unit: string, less: boolean, found: Record<Path, number[]>): Figures {
  const base = found['no mesh'];
  return {
    unit,
    less,
    values: mapPaths((path) => spread(found[path])),
    ratios: mapPaths((path) => spread(pairwise(found[path], base, (value, zero) => value / zero))),
  };
}

// --- What is shown

function formatReport(all: Report): string {
  const { date, kernel, cpus, node } = all.machine;
  const lines = [
    `${date}, kernel ${kernel}, ${cpus} CPUs, Node ${node}; ${all.rounds} rounds of ${all.seconds} s: median (least..most)`,
    `busy with something else meanwhile: ${all.otherCpus.toFixed(2)} CPUs`,
  ];
  if (all.connect) lines.push('', 'connect() of pods that are not enrolled, ns', formatConnect(all.connect));
  for (const [name, figures] of Object.entries(all.paths))
    if (figures)
      lines.push('', `${name} (${figures.unit}${figures.less ? ', less is better' : ''})`, formatPaths(figures));
  if (all.memory) lines.push('', 'memory of the agents with idle relayed connections', formatMemory(all.memory));
  return lines.join('\n').trimEnd();
}

function formatConnect(figures: readonly ConnectFigures[]): string {
  return table(
    ['', 'NO AGENT', 'HOOKS ATTACHED', 'DIFFERENCE', 'NO AGENT TWICE'],
    figures.map((each) => [
      each.what,
      formatSpread(each.noAgentNs, whole),
      formatSpread(each.attachedNs, whole),
      formatSpread(each.differenceNs, signed),
      formatSpread(each.noiseNs, signed),
    ]),
  ).trimEnd();
}

function formatPaths(figures: Figures): string {
  const format = figures.unit === '/s' ? whole : fixed(figures.unit === 'ms' ? 3 : 2);
  // The agents use nothing where there is no mesh: no ratio to that.
  const comparable = figures.values['no mesh'].median > 0 && figures.unit !== 's/GiB';
  return table(
    ['', 'VALUE', comparable ? 'RATIO' : ''],
    paths.map((path) => [
      path,
      formatSpread(figures.values[path], format),
      comparable ? formatSpread(figures.ratios[path], fixed(2)) : '',
    ]),
  ).trimEnd();
}

function formatMemory(figures: readonly MemoryFigures[]): string {
  const mebi = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const kibi = (bytes: number): string => (bytes / 1024).toFixed(1);
  return table(
    ['CONNECTIONS', "CLIENT'S AGENT, MiB", 'KiB EACH', "SERVER'S AGENT, MiB", 'KiB EACH'],
    figures.map((each) => [
      whole(each.connections),
      formatSpread(each.clientAgentBytes, mebi),
      each.clientAgentPerConnection ? formatSpread(each.clientAgentPerConnection, kibi) : '',
      formatSpread(each.serverAgentBytes, mebi),
      each.serverAgentPerConnection ? formatSpread(each.serverAgentPerConnection, kibi) : '',
    ]),
  ).trimEnd();
}
