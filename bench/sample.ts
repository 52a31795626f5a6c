/** What benches have in common: rounds, spreads, ratios, and how busy the machine was with something else. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { join } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { LabPod } from '../test/lab/index.ts';

/** Beyond the time that a command was told to take. */
const SLACK_MS = 30_000;

/** What the bench was asked for on its command line. An argument that it does not know ends it with its usage: exit code 2. */
export function readOptions<const Config extends ParseArgsConfig>(
  usage: string,
  config: Config,
): ReturnType<typeof parseArgs<Config>>['values'] {
  try {
    return parseArgs(config).values;
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}\n${usage}`);
    process.exit(2);
  }
}

/** To whoever watches. */
export function progress(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`bench: ${what}\n`);
}

/** What a command says that is to take this long. Throws if it fails. */
export async function output(pod: LabPod, argv: readonly string[], seconds: number): Promise<string> {
  const running = pod.run(argv, { stdin: '' });
  const slack = setTimeout(() => running.signal('SIGKILL'), seconds * 1000 + SLACK_MS);
  const { code } = await running.exit;
  clearTimeout(slack);
  if (code !== 0) throw new Error(`${argv.join(' ')} ended with ${code}: ${running.stderr}${running.stdout}`);
  return running.stdout;
}

/** The middle of some rounds, and how far apart they were. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const median = ((sorted[Math.ceil(half) - 1] ?? Number.NaN) + (sorted[Math.floor(half)] ?? Number.NaN)) / 2;
  return { median, min: sorted.at(0) ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN };
}

/** `1.23 (1.20..1.31)`. */
export function formatSpread({ median, min, max }: Spread, format: (value: number) => string): string {
  return `${format(median)} (${format(min)}..${format(max)})`;
}

/** `12,300` */
export function whole(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function fixed(digits: number): (value: number) => string {
  return (value) => value.toFixed(digits);
}

/** `+310`, `-20` */
export function signed(value: number): string {
  return value >= 0 ? `+${whole(value)}` : whole(value);
}

/**
 * Runs each case once a round, and each round in another order, so that what drifts or comes and goes meets all cases alike.
 *
 * @returns values of each case, by round
 */
export async function interleave<Case extends string, Value>(
  cases: readonly Case[],
  rounds: number,
  run: (each: Case, round: number) => Promise<Value>,
): Promise<Record<Case, Value[]>> {
  const values = Object.fromEntries(cases.map((each) => [each, []])) as unknown as Record<Case, Value[]>;
  for (let round = 0; round < rounds; round += 1) {
    const turned = [...cases.slice(round % cases.length), ...cases.slice(0, round % cases.length)];
    for (const each of round % 2 === 0 ? turned : turned.toReversed()) values[each].push(await run(each, round));
  }
  return values;
}

/** Value by value of the same round. */
export function pairwise(
  values: readonly number[],
  base: readonly number[],
  join: (value: number, base: number) => number,
): number[] {
  return values.map((value, round) => join(value, base[round] ?? Number.NaN));
}

/** Where a figure comes from. */
export interface Machine {
  readonly date: string;
  readonly kernel: string;
  readonly cpus: number;
  readonly model: string;
  readonly node: string;
}

export function machine(): Machine {
  return {
    date: new Date().toISOString().slice(0, 10),
    kernel: release(),
    cpus: availableParallelism(),
    model: cpus()[0]?.model ?? 'unknown',
    node: process.version,
  };
}

const ticksPerSecond = 100;

/** CPU seconds that a process has used. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** Resident memory of a process in bytes. */
export function residentBytesOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib ?? Number.NaN) * 1024;
}

/** Tells how many CPUs were busy with what is neither in this cgroup nor this process: the noise. */
export class OtherLoad {
  readonly #cgroup: string;
  readonly #since: { seconds: number; busy: number; ours: number };

  constructor(cgroup: string) {
    this.#cgroup = cgroup;
    this.#since = this.#look();
  }

  /** CPUs' worth, on average since the start. */
  get cpus(): number {
    const now = this.#look();
    const others = now.busy - this.#since.busy - (now.ours - this.#since.ours);
    return Math.max(0, others / (now.seconds - this.#since.seconds));
  }

  #look(): { seconds: number; busy: number; ours: number } {
    const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (
      readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? ''
    )
      .split(/\s+/)
      .map(Number);
    const used = /^usage_usec (\d+)/m.exec(readFileSync(join(this.#cgroup, 'cpu.stat'), 'utf8'))?.[1];
    const own = process.cpuUsage();
    return {
      seconds: performance.now() / 1000,
      busy: (user + nice + system + irq + softirq + steal) / ticksPerSecond,
      ours: (Number(used ?? 0) + own.user + own.system) / 1e6,
    };
  }
}
