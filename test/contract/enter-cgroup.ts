import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabNode } from '../lab/index.ts';
import { cgroupMount } from '../lab/names.ts';

/**
 * Moves this process into a cgroup of the node, so that the node's programs see its sockets, listeners and what they
 * accept too. Out of it again before the lab goes, which kills whoever is left.
 */
export function enterCgroup(node: LabNode): () => void {
  const cgroup = join(node.cgroup, 'contract');
  const line = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('0::'));
  const home = join(cgroupMount(), line?.slice(3) ?? '');
  mkdirSync(cgroup);
  writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid));
  return () => {
    writeFileSync(join(home, 'cgroup.procs'), String(process.pid));
    rmdirSync(cgroup);
  };
}
