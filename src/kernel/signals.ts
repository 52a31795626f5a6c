import { realpathSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { encodeKubelet } from '../gen/layout.ts';
import { u32 } from './bytes.ts';
import { errnoOf } from './errors.ts';

export interface ControlGroup {
  /** Its id: the inode of its directory. The kernel looks for it among a process' group and all above it. */
  readonly cgroup: bigint;
  /** How deep it lies below what is mounted of the hierarchy. 0: all that can be seen is in it. */
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
    addon.mapUpdate(this.#kubelet, first, encodeKubelet({ cgroup: group?.cgroup ?? 0n }));
  }
}

/** CGROUP2_SUPER_MAGIC of linux/magic.h */
const cgroupFileSystem = 0x63677270;

/**
 * The control group (v2) at a path. Its id is the same whichever part of the hierarchy is mounted, as in a container that has
 * a control group namespace of its own.
 *
 * @returns undefined when there is none
 */
export function findControlGroup(path: string): ControlGroup | undefined {
  try {
    let folder = realpathSync(path);
    if (statfsSync(folder).type !== cgroupFileSystem || !statSync(folder).isDirectory()) return undefined;
    const { ino: cgroup, dev } = statSync(folder, { bigint: true });
    for (let level = 0; ; level += 1) {
      folder = dirname(folder);
      if (statSync(folder, { bigint: true }).dev !== dev) return { cgroup, level };
    }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ENODEV'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}
