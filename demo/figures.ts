/** How fast: one short sample of each figure, by iperf3 and wrk. `./dev bench mesh` measures in earnest. */
import { OtherLoad } from '../bench/sample.ts';
import type { LabPod } from '../test/lab/index.ts';
import { doing } from './screen.ts';
import { benchPort, iperfPort } from './stage.ts';

export interface Figures {
  readonly gbps: number;
  readonly rps: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** How many CPUs were busy with something else meanwhile. */
  readonly otherCpus: number;
}

/** To web-v2 on the other node, and to web-v1 on the same. */
export interface Measured {
  readonly far: Figures;
  readonly near: Figures;
}

/** So long each is measured, and half as long before that, not counted: the first moments of a program are its slowest. */
const seconds = 2;
const warmUpSeconds = 1;
const requestConnections = 32;
const paceConnections = 4;
const pace = new URL('../bench/pace.lua', import.meta.url).pathname;

/** Always the same programs; only the way between them differs. */
export async function measure(from: LabPod, to: LabPod, way: string): Promise<Figures> {
  const url = `http://${to.ipv4}:${benchPort}/`;
  const total = seconds + warmUpSeconds;
  const load = new OtherLoad(from.node.lab.cgroup);
  doing(`${way}: throughput, by iperf3, ${total} s`);
  const gbps = await throughput(from, to);
  doing(`${way}: requests/s, by wrk, ${total} s`);
  const wrk = (duration: number, connections: number, ...rest: string[]): Promise<string> =>
    run(from, ['wrk', '-t1', `-c${connections}`, `-d${duration}s`, ...rest, url]);
  await wrk(warmUpSeconds, requestConnections);
  const rps = requestsPerSecond(await wrk(seconds, requestConnections));
  doing(`${way}: latency at 1,000 requests/s, by wrk, ${total} s`);
  await wrk(warmUpSeconds, paceConnections, '-s', pace);
  const { p50, p99 } = latency(await wrk(seconds, paceConnections, '-s', pace));
  return { gbps, rps, p50Ms: p50 / 1000, p99Ms: p99 / 1000, otherCpus: load.cpus };
}

async function throughput(from: LabPod, to: LabPod): Promise<number> {
  const where = ['--client', to.ipv4, '--port', `${iperfPort}`];
  const said = await run(from, ['iperf3', ...where, '--time', `${seconds}`, '--omit', `${warmUpSeconds}`, '--json']);
  const { end, error } = JSON.parse(said) as { end: { sum_received?: { bits_per_second: number } }; error?: string };
  if (end.sum_received === undefined) throw new Error(`iperf3: ${error}`);
  return end.sum_received.bits_per_second / 1e9;
}

function requestsPerSecond(said: string): number {
  if (/Socket errors|Non-2xx/.test(said)) throw new Error(said);
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(said)?.[1]);
}

function latency(said: string): { p50: number; p99: number } {
  const line = said.split('\n').findLast((each) => each.startsWith('{')) ?? '{}';
  const found = JSON.parse(line) as { errors: number; p50: number; p99: number };
  if (found.errors !== 0) throw new Error(`${found.errors} errors at an even pace`);
  return found;
}

async function run(pod: LabPod, argv: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await pod.exec(argv);
  if (code !== 0) throw new Error(`${argv.join(' ')} ended with ${code}: ${stderr}${stdout}`);
  return stdout;
}
