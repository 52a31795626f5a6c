/**
 * `./dev bench enrol`: enrolling and withdrawing many pods on one node, and what they cost the agent.
 *
 *   bench enrol [--pods N] [--workers N] [--quick] [--shared] [--json]
 *
 * One after the other over the agent's socket, a connection each, as the CNI plugin does it: the time is from connecting to
 * the reply. The workers run before the first. Memory and descriptors are the agent's, before the first pod and after the last. Default: 250 pods, 2 workers.
 */
import { readdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { table } from '../src/cli/table.ts';
import { Lab, type LabAgent } from '../test/lab/index.ts';
import {
  cpuSecondsOf,
  fixed,
  formatSpread,
  machine,
  OtherLoad,
  progress,
  readOptions,
  residentBytesOf,
  type Spread,
  spread,
} from './sample.ts';

const usage = 'usage: bench enrol [--pods N] [--workers N] [--quick] [--shared] [--json]';
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    shared: { type: 'boolean', default: false },
    pods: { type: 'string' },
    workers: { type: 'string', default: '2' },
  },
});
const count = Number(values.pods ?? (values.quick ? 20 : 250));
const workers = Number(values.workers);
const startMs = 20_000;
const pollMs = 20;
if (!(count >= 1) || !(workers >= 1)) {
  console.error(usage);
  process.exit(2);
}

interface Step {
  readonly what: string;
  readonly ms: Spread;
  /** The share of them that took at most this long. */
  readonly p99Ms: number;
  readonly firstMs: number;
  readonly cpuMs: number;
}

interface Stock {
  readonly when: string;
  readonly residentBytes: number;
  readonly descriptors: number;
}

const report = await measure();
console.log(values.json ? JSON.stringify(report, undefined, 2) : formatReport());

async function measure() {
  await using lab = await Lab.create('./dev bench enrol', { shared: values.shared });
  const node = await lab.node('n1');
  progress(`making ${count} pods`);
  const pods = [];
  for (let at = 0; at < count; at += 1) pods.push(await node.pod(`p${at}`));
  const agent = await node.agent({ workers, logLevel: 'info' });
  await allServing(agent);
  const others = new OtherLoad(lab.cgroup);
  const stock = [take(agent, 'no pod')];
  const steps: Step[] = [];
  progress('enrolling');
  steps.push(await each('enrol', agent, pods, (pod) => agent.enrol(pod)));
  stock.push(take(agent, `${count} pods`));
  steps.push(await each('enrol again (unchanged)', agent, pods, (pod) => agent.enrol(pod)));
  progress('starting the agent again');
  await agent.kill();
  const since = performance.now();
  const again = await node.agent({ workers, logLevel: 'info' });
  const restartMs = performance.now() - since;
  stock.push(take(again, `${count} pods, started again`));
  progress('withdrawing');
  steps.push(await each('withdraw', again, pods, (pod) => again.withdraw(pod)));
  stock.push(take(again, 'all withdrawn'));
  return { bench: 'enrol', machine: machine(), pods: count, workers, otherCpus: others.cpus, steps, restartMs, stock };
}

/** The agent is ready before its workers are: the first pod would wait for them. */
async function allServing(agent: LabAgent): Promise<void> {
  const signal = AbortSignal.timeout(startMs);
  for (;;) {
    const { status } = (await agent.status()) as { status: { workers: Array<{ state: string }> } };
    if (status.workers.every(({ state }) => state === 'serving')) return;
    await setTimeout(pollMs, undefined, { signal });
  }
}

async function each<Pod>(
  what: string,
  agent: LabAgent,
  pods: readonly Pod[],
  run: (pod: Pod) => Promise<unknown>,
): Promise<Step> {
  const took: number[] = [];
  const cpu = cpuSecondsOf(agent.process.pid);
  for (const pod of pods) {
    const since = performance.now();
    await run(pod);
    took.push(performance.now() - since);
  }
  const sorted = took.toSorted((a, b) => a - b);
  return {
    what,
    ms: spread(took),
    p99Ms: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? Number.NaN,
    firstMs: took[0] ?? Number.NaN,
    cpuMs: ((cpuSecondsOf(agent.process.pid) - cpu) * 1000) / pods.length,
  };
}

function take(agent: LabAgent, when: string): Stock {
  const { pid } = agent.process;
  return { when, residentBytes: residentBytesOf(pid), descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

function formatReport(): string {
  const { date, kernel, cpus, node } = report.machine;
  const ms = fixed(1);
  return [
    `${date}, kernel ${kernel}, ${cpus} CPUs, Node ${node}; ${count} pods on one node, ${workers} workers`,
    `busy with something else meanwhile: ${report.otherCpus.toFixed(2)} CPUs`,
    '',
    table(
      ['EACH', 'MS: MEDIAN (LEAST..MOST)', 'P99', 'THE FIRST', "AGENT'S CPU, MS"],
      report.steps.map((step) => [
        step.what,
        formatSpread(step.ms, ms),
        ms(step.p99Ms),
        ms(step.firstMs),
        ms(step.cpuMs),
      ]),
    ),
    `agent killed and started again with ${count} pods: ready after ${(report.restartMs / 1000).toFixed(2)} s`,
    '',
    table(
      ['AGENT', 'RSS, MiB', 'DESCRIPTORS'],
      report.stock.map((each) => [each.when, ms(each.residentBytes / 2 ** 20), `${each.descriptors}`]),
    ).trimEnd(),
  ].join('\n');
}
