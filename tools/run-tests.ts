/**
 * ./dev test: runs AVA and ends with the line `N passed, N failed`, whatever happens to AVA.
 *
 * test/unit runs in parallel. Everything else touches the kernel, so it runs one file and one test at a time.
 * With arguments (AVA's: files, --match ...) there is one run, one at a time.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

const COUNTS: Array<[pattern: RegExp, field: keyof Tally]> = [
  [/^(\d+) tests? failed$/, 'failed'],
  [/^(\d+) hooks? failed$/, 'failed'],
  [/^(\d+) unhandled rejections?$/, 'failed'],
  [/^(\d+) uncaught exceptions?$/, 'failed'],
  [/^(\d+) tests? remained pending after a timeout$/, 'failed'],
  [/^(\d+) tests? (?:skipped|todo)$/, 'skipped'],
  [/^(\d+) known failures?$/, 'skipped'],
];

/**
 * Reads AVA's own reckoning, at the end of what its default reporter prints, after a rule of its own line.
 * (Not its TAP: that reporter, in 8.0.1, throws where it should name the tests that hang.)
 */
export class Reckoning {
  readonly tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  #begun = false;
  #ticks = 0;

  add(line: string): void {
    const text = line.trim();
    // Counted here, because AVA does not say how many have passed when one has failed.
    if (/^[✔√] /.test(text)) this.#ticks += 1;
    if (text === '\u2500') this.#begun = true;
    if (!this.#begun) return;
    for (const [pattern, field] of COUNTS) {
      const count = pattern.exec(text)?.[1];
      if (count !== undefined) this.tally[field] += Number(count);
    }
    this.tally.passed = this.#ticks;
  }
}

/** A run that ended badly has at least one failure, also where AVA counted none. */
export function settle(tally: Tally, exitCode: number | null): Tally {
  return exitCode !== 0 && tally.failed === 0 ? { ...tally, failed: 1 } : tally;
}

const AVA = fileURLToPath(new URL('../node_modules/ava/entrypoints/cli.js', import.meta.url));
const ONE_AT_A_TIME = ['--concurrency', '1', '--serial'];

async function runAva(args: string[]): Promise<Tally> {
  const child = spawn(process.execPath, [AVA, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.once('SIGINT', forward).once('SIGTERM', forward);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code));
  });
  const reckoning = new Reckoning();
  for await (const line of createInterface({ input: child.stdout })) {
    reckoning.add(line);
    console.log(line);
  }
  const code = await ended;
  process.removeListener('SIGINT', forward).removeListener('SIGTERM', forward);
  return settle(reckoning.tally, code);
}

async function main(args: string[]): Promise<void> {
  const unit = ['test/unit/**/*.test.ts'];
  const others = globSync('test/*/').filter((folder) => folder !== 'test/unit');
  const kernel = others.map((folder) => `${folder}/**/*.test.ts`).filter((pattern) => globSync(pattern).length > 0);
  const runs =
    args.length > 0
      ? [[...ONE_AT_A_TIME, ...args]]
      : [unit, ...(kernel.length > 0 ? [[...ONE_AT_A_TIME, ...kernel]] : [])];
  let total: Tally = { passed: 0, failed: 0, skipped: 0 };
  for (const run of runs) {
    const tally = await runAva(run).catch((error: unknown): Tally => {
      console.error(error);
      return { passed: 0, failed: 1, skipped: 0 };
    });
    total = {
      passed: total.passed + tally.passed,
      failed: total.failed + tally.failed,
      skipped: total.skipped + tally.skipped,
    };
  }
  if (total.skipped > 0) console.log(`${total.skipped} skipped`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exitCode = total.failed === 0 ? 0 : 1;
}

if (import.meta.main) await main(process.argv.slice(2));
