/**
 * Lab tests run one at a time: they share a kernel, its memory for maps, and the CPUs. The lock is flock(2), which Node does
 * not offer, held by a small child that ends with its standard input: whatever way the owner dies, the lock is free.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, labsDirectory } from './names.ts';

const busyCode = 75;

/**
 * Waits for the lab lock.
 *
 * @param title who asks; shown to others that wait
 * @param waitMs how long to wait for its present holder
 * @returns a function that lets it go
 */
export async function takeLock(title: string, waitMs: number): Promise<() => Promise<void>> {
  mkdirSync(labsDirectory, { recursive: true });
  const lockPath = join(labsDirectory, 'lock');
  const holderPath = join(labsDirectory, 'lock.holder');
  const keeper = spawn(
    'flock',
    [
      '--wait',
      `${waitMs / 1000}`,
      '--conflict-exit-code',
      `${busyCode}`,
      '--no-fork',
      lockPath,
      'sh',
      '-c',
      'echo held; exec cat >/dev/null',
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const ended = once(keeper, 'exit');
  const first = await Promise.race([
    once(keeper.stdout, 'data').then(() => 'held' as const),
    ended.then(([code]) => code as number | null),
  ]);
  if (first === busyCode)
    throw new LabError(`another lab is still running after ${waitMs / 1000} s of waiting: ${readHolder(holderPath)}`);
  if (first !== 'held') throw new LabError(`cannot take the lab lock ${lockPath}: flock ended with ${first}`);
  writeFileSync(holderPath, `pid ${process.pid}, ${title}\n`);
  keeper.unref();
  return async () => {
    keeper.ref();
    keeper.stdin.end();
    await ended;
  };
}

function readHolder(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'its holder is unknown';
  }
}
