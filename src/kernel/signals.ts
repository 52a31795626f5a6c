import { realpathSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { encodeKubelet } from '../gen/layout.ts';
import { u32 } from './bytes.ts';
import { errnoOf } from './errors.ts';

/** A control group, as the kernel compares a process' group with it. */
export interface ControlGroup {
  /** Its id: the inode of its directory. */
  readonly cgroup: bigint;
  /** How deep it lies in the hierarchy; the root: 0. */
  readonly level: number;
}

const first = u32(0);

/** Signs of life, and whose probes are let in. */
export class Signals {
  readonly #heartbeat: BpfMap;
  readonly #kubelet: BpfMap;
  readonly #now = new Uint8Array(8);
  readonly #nowView = new DataView(this.#now.buffer);

  constructor(heartbeat: BpfMap, kubelet: BpfMap) {
    this.#heartbeat = heartbeat;
    this.#kubelet = kubelet;
  }

  /** The agent lives. In the time that bpf_ktime_get_ns tells, too: CLOCK_MONOTONIC. */
  beat(): void {
    this.#nowView.setBigUint64(0, process.hrtime.bigint(), true);
    addon.mapUpdate(this.#heartbeat, first, this.#now);
  }

  /** Undefined: nobody's probes are let in. */
  setKubelet(group: ControlGroup | undefined): void {
    addon.mapUpdate(this.#kubelet, first, encodeKubelet(group ?? { cgroup: 0n, level: 0 }));
  }
}

/** CGROUP2_SUPER_MAGIC of linux/magic.h */
const cgroupFileSystem = 0x63677270;
/** Of the hierarchy's root. */
const rootInode = 1n;

/**
 * The control group (v2) at a path. Its level is counted up to the hierarchy's root, so that root must be mounted: below the
 * mount of a part of the hierarchy nothing is found.
 *
 * @returns undefined when there is none
 */
export function findControlGroup(path: string): ControlGroup | undefined {
  try {
    let folder = realpathSync(path);
    if (statfsSync(folder).type !== cgroupFileSystem) return undefined;
    const { ino: cgroup, dev } = statSync(folder, { bigint: true });
    for (let level = 0, inode = cgroup; ; level += 1) {
      if (inode === rootInode) return { cgroup, level };
      folder = dirname(folder);
      const above = statSync(folder, { bigint: true });
      if (above.dev !== dev) return undefined;
      inode = above.ino;
    }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ENODEV'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}
