/**
 * Taking a lab away, whole: its processes, mount, namespaces, cgroups and files. Synchronous on purpose, since it also runs
 * from the `exit` event, and made from names alone, since it also removes what a dead process has left.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  asLabId,
  cgroupMount,
  cgroupName,
  LabError,
  type LabId,
  labOfCgroup,
  labOfNetns,
  labsDirectory,
  netnsDirectory,
  ownerLives,
} from './names.ts';

/** How long the kernel may take to empty a cgroup whose processes were all killed. */
const emptyingMs = 10_000;
const pauseMs = 5;

function entries(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
}

/** Kills every process in the cgroup's subtree and waits until the last one has left it. */
export function emptyCgroup(path: string): void {
  if (!existsSync(path)) return;
  const deadline = Date.now() + emptyingMs;
  do {
    writeFileSync(join(path, 'cgroup.kill'), '1');
    if (!readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 1')) return;
    pause();
  } while (Date.now() < deadline);
  throw new LabError(`processes that cannot be killed remain in ${path}`);
}

/** Empties a cgroup's subtree and removes it. */
export function removeCgroup(path: string): void {
  if (!existsSync(path)) return;
  emptyCgroup(path);
  removeEmptied(path);
}

function removeEmptied(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeEmptied(join(path, entry.name));
  const deadline = Date.now() + emptyingMs;
  for (;;) {
    try {
      rmdirSync(path);
      return;
    } catch (cause) {
      // EBUSY: the last process has ended and is not reaped yet.
      if (Date.now() > deadline) throw new LabError(`cannot remove ${path}`, { cause });
      pause();
    }
  }
}

/** Unmounts whatever is mounted below a directory, the deepest first. */
function unmountBelow(directory: string): void {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((mount) => mount.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length);
  for (const mount of mounts) spawnSync('umount', ['--lazy', mount]);
}

/** Deletes names of network namespaces; a stale file that is no namespace any more is removed too. */
export function deleteNetns(names: readonly string[]): void {
  if (names.length === 0) return;
  spawnSync('ip', ['-force', '-batch', '-'], { input: names.map((name) => `netns del ${name}\n`).join('') });
  for (const name of names) rmSync(join(netnsDirectory, name), { force: true });
}

/** Removes all of one lab. Does nothing where there is nothing. */
export function removeLab(id: LabId): void {
  const directory = join(labsDirectory, id);
  const cgroup = join(cgroupMount(), cgroupName(id));
  emptyCgroup(cgroup);
  unmountBelow(directory);
  deleteNetns(entries(netnsDirectory).filter((name) => labOfNetns(name) === id));
  removeCgroup(cgroup);
  rmSync(directory, { recursive: true, force: true });
}

/** The labs of which anything exists. */
export function existingLabs(): LabId[] {
  const ids = [
    ...entries(labsDirectory).map(asLabId),
    ...entries(netnsDirectory).map(labOfNetns),
    ...entries(cgroupMount()).map(labOfCgroup),
  ];
  return [...new Set(ids.filter((id) => id !== undefined))];
}

/**
 * Removes every lab whose owner is gone.
 *
 * @returns the labs removed
 */
export function sweep(): LabId[] {
  const dead = existingLabs().filter((id) => !ownerLives(id));
  for (const id of dead) removeLab(id);
  return dead;
}
