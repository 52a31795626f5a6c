/**
 * What a lab is called, and who owns it. The name tells of the owner's process (pid, start time, boot), so that any later
 * process can see whether the lab is still in use.
 */
import { readFileSync } from 'node:fs';

/** Holds one directory per lab, and the lock. */
export const labsDirectory = '/run/culvert-lab';
/** Where iproute2 keeps the names of network namespaces. */
export const netnsDirectory = '/run/netns';
const netnsPrefix = 'cl';
const cgroupPrefix = 'culvert-lab-';

/** `<pid>-<start>-<boot>-<number>`: the owner's pid, start time in ticks since boot, start of the boot id, and a counter. */
export type LabId = string & { readonly brand: 'lab-id' };

const labIdPattern = /^(\d+)-([0-9a-z]+)-([0-9a-f]{8})-(\d+)$/;

/** A name of a node or pod: what interface names have room for. */
const namePattern = /^[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?$/;

export class LabError extends Error {
  override readonly name = 'LabError';
}

export function checkName(name: string): void {
  if (!namePattern.test(name)) throw new LabError(`not a name for the lab (1..11 of a-z, 0-9 and -): ${name}`);
}

/** When the process began, in clock ticks since boot; undefined if there is none. A zombie counts as gone. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return Number(fields[19]).toString(36);
  } catch {
    return undefined;
  }
}

function bootOf(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);
}

let created = 0;

/** A new name, owned by this process. */
export function newLabId(): LabId {
  created += 1;
  return `${process.pid}-${startOf(process.pid)}-${bootOf()}-${created}` as LabId;
}

/** True while the process that made the lab runs. */
export function ownerLives(id: LabId): boolean {
  const [, pid, start, boot] = labIdPattern.exec(id) ?? [];
  return pid !== undefined && boot === bootOf() && startOf(Number(pid)) === start;
}

export function asLabId(text: string): LabId | undefined {
  return labIdPattern.test(text) ? (text as LabId) : undefined;
}

export function netnsName(id: LabId, node: string, pod?: string): string {
  return pod === undefined ? `${netnsPrefix}${id}-${node}` : `${netnsPrefix}${id}-${node}.${pod}`;
}

/** The lab that a namespace's name speaks of. */
export function labOfNetns(name: string): LabId | undefined {
  const match = /^cl(\d+-[0-9a-z]+-[0-9a-f]{8}-\d+)-/.exec(name);
  return match?.[1] === undefined ? undefined : asLabId(match[1]);
}

export function cgroupName(id: LabId): string {
  return `${cgroupPrefix}${id}`;
}

export function labOfCgroup(name: string): LabId | undefined {
  return name.startsWith(cgroupPrefix) ? asLabId(name.slice(cgroupPrefix.length)) : undefined;
}

/** Where cgroup v2 is mounted: alone, or beside v1 in the hybrid form. */
export function cgroupMount(): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [mount, filesystem] = line.split(' - ');
    if (filesystem?.startsWith('cgroup2 ') && mount !== undefined) return mount.split(' ')[4] ?? '';
  }
  throw new LabError('no cgroup v2 is mounted here');
}
