/**
 * ./dev check budget: every BPF program passes the verifier, within its recorded budget of processed instructions.
 *
 *   check-budget.ts [--record] [--budget native/bpf/budget.json] object.bpf.o...
 *
 * The number is the verifier's own ("processed N insns"), which differs a little between kernels: the budget is a
 * quarter above what was measured when it was recorded. --record measures anew and writes the file.
 * Loaded within a mount namespace that has a bpffs of its own, so that nothing is left behind.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

export interface Budget {
  kernel: string;
  /** Object -> program -> instructions. */
  objects: Record<string, Record<string, { measured: number; budget: number }>>;
}

export type Measured = Record<string, Record<string, number>>;

const HEADROOM = 1.25;
const LAST_LINES = 15;

/** Reads the log of `bpftool -d prog loadall` line by line. */
export class LoadLog {
  readonly programs: Record<string, number> = {};
  #program = '';

  add(line: string): void {
    this.#program = /prog '(\w+)': -- BEGIN PROG LOAD LOG --/.exec(line)?.[1] ?? this.#program;
    const processed = /^processed (\d+) insns/.exec(line)?.[1];
    if (processed !== undefined && this.#program !== '') this.programs[this.#program] = Number(processed);
  }
}

/** What is above its budget, has none, or is gone, one sentence each. */
export function compare(budget: Budget, measured: Measured): string[] {
  const problems: string[] = [];
  for (const [object, programs] of Object.entries(measured)) {
    for (const [program, count] of Object.entries(programs)) {
      const limit = budget.objects[object]?.[program]?.budget;
      if (limit === undefined)
        problems.push(`${object}: ${program} has no budget (${count} instructions): ./dev check --record`);
      else if (count > limit)
        problems.push(`${object}: ${program} takes ${count} instructions, its budget is ${limit}`);
    }
  }
  for (const [object, programs] of Object.entries(budget.objects)) {
    for (const program of Object.keys(programs)) {
      if (measured[object]?.[program] === undefined)
        problems.push(`${object}: ${program} has a budget and does not exist`);
    }
  }
  return problems;
}

export function record(kernel: string, measured: Measured): Budget {
  const objects: Budget['objects'] = {};
  for (const [object, programs] of Object.entries(measured)) {
    objects[object] = Object.fromEntries(
      Object.entries(programs).map(([program, count]) => [
        program,
        { measured: count, budget: Math.ceil(count * HEADROOM) },
      ]),
    );
  }
  return { kernel, objects };
}

const LOAD = 'mount -t bpf bpf /sys/fs/bpf && exec bpftool -d prog loadall "$1" /sys/fs/bpf/check';

async function load(object: string): Promise<Record<string, number>> {
  const child = spawn('unshare', ['--mount', 'sh', '-c', `${LOAD} 2>&1`, 'sh', object], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code));
  });
  const log = new LoadLog();
  const last: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    log.add(line);
    last.push(line);
    if (last.length > LAST_LINES) last.shift();
  }
  if ((await ended) !== 0) throw new Error(`${object} does not load:\n${last.join('\n')}`);
  if (Object.keys(log.programs).length === 0) throw new Error(`${object}: bpftool printed no verifier log`);
  return log.programs;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      record: { type: 'boolean', default: false },
      budget: { type: 'string', default: 'native/bpf/budget.json' },
    },
  });
  const measured: Measured = {};
  for (const object of positionals) measured[path.basename(object)] = await load(object);
  if (values.record) {
    const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim().replace(/-.*/, '');
    writeFileSync(values.budget, `${JSON.stringify(record(kernel, measured), undefined, 2)}\n`);
    return;
  }
  if (!existsSync(values.budget)) throw new Error(`${values.budget} does not exist: ./dev check --record`);
  const problems = compare(JSON.parse(readFileSync(values.budget, 'utf8')) as Budget, measured);
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}
