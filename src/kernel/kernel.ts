import type { NetnsCookie, Pod } from '../mesh/index.ts';
import { Events, type KernelEvent, type Reason, reasonName } from './events.ts';
import { type PinPaths, pinPaths } from './paths.ts';
import { type PodCheck, Pods, type PreparedPod } from './pods.ts';
import { type Fault, openPrograms, type Programs } from './programs.ts';
import { Tables } from './tables.ts';

export interface KernelOptions {
  /** cgroup v2 directory under which sockets are captured. */
  readonly cgroup: string;
  /** Mount point of the BPF file system. */
  readonly bpffs: string;
  /** Folder of the pins. Default `culvert`. */
  readonly pinName?: string;
  /** Listener slots per pod, one per worker: 1..64. */
  readonly workers: number;
  /** Longest queue of connections that no worker has accepted yet. Default 4096. */
  readonly backlog?: number;
}

/** How often the kernel did something with one pod's connections. */
export interface ReasonCount {
  readonly cookie: NetnsCookie;
  readonly reason: Reason;
  readonly count: number;
}

/** A hand-over that nobody has taken for so long is lost: longer than the kernel retries a SYN (about 127 s). */
const handoverMaxAgeNs = 150_000_000_000n;
/** A full map takes a while to read: not each time that somebody asks. */
const sweepIntervalNs = 30_000_000_000n;

/** The node's kernel side: programs, maps, and what is kept in each pod's namespace. */
export class Kernel {
  readonly #programs: Programs;
  readonly #tables: Tables;
  readonly #pods: Pods;
  readonly #events: Events;
  #sweptAtNs = process.hrtime.bigint();

  constructor(options: KernelOptions) {
    const paths: PinPaths = pinPaths(options.bpffs, options.pinName);
    this.#programs = openPrograms({ cgroup: options.cgroup, paths });
    this.#tables = new Tables(this.#programs.maps);
    this.#pods = new Pods(this.#programs.maps, this.#tables, {
      paths,
      workers: options.workers,
      ...(options.backlog === undefined ? {} : { backlog: options.backlog }),
    });
    this.#events = new Events(this.#programs.maps.events);
  }

  prepare(pod: Pod): PreparedPod {
    return this.#pods.prepare(pod);
  }

  capture(pod: Pod, cookie: NetnsCookie): void {
    this.#pods.capture(pod, cookie);
  }

  release(cookie: NetnsCookie): Promise<void> {
    return this.#pods.release(cookie);
  }

  close(cookie: NetnsCookie): void {
    this.#pods.close(cookie);
  }

  check(pod: Pod, cookie: NetnsCookie): PodCheck {
    return this.#pods.check(pod, cookie);
  }

  /** Pods that are captured, by this agent or still by an earlier one. */
  captured(): NetnsCookie[] {
    return this.#pods.captured();
  }

  /** Closes the listeners of all pods: what is captured is refused, until somebody listens again. */
  refuseAll(): void {
    this.#pods.refuseAll();
  }

  /** Which of our programs do not run any more; `mend` attaches them again. */
  faults(): Fault[] {
    return this.#programs.faults();
  }

  mend(): void {
    this.#programs.mend();
  }

  counts(): ReasonCount[] {
    return this.#tables.counters().flatMap(({ cookie, reason, count }) => {
      const name = reasonName(reason);
      return name === undefined ? [] : [{ cookie, reason: name, count: Number(count) }];
    });
  }

  events(): KernelEvent[] {
    return this.#events.read();
  }

  /** Deletes hand-overs that were lost, counters of nobody's, and pods of an earlier agent whose namespace is gone. */
  sweep(): { handovers: number; pods: NetnsCookie[] } {
    const nowNs = process.hrtime.bigint();
    let handovers = 0;
    if (nowNs - this.#sweptAtNs >= sweepIntervalNs) {
      this.#sweptAtNs = nowNs;
      handovers = this.#tables.sweepHandovers(nowNs, handoverMaxAgeNs);
      this.#tables.forgetStrangers();
    }
    return { handovers, pods: this.#pods.forgetDead() };
  }

  /** Closes what this process holds. What is pinned stays and keeps refusing: failure is closed. */
  dispose(): void {
    this.#pods.dispose();
    this.#events.close();
    this.#programs.close();
  }
}

/** @throws KernelError NO_CGROUP, NO_BPFFS, NO_PROGRAMS, SCHEMA_MISMATCH, HOOK_TAKEN, KERNEL_REFUSED */
export function openKernel(options: KernelOptions): Kernel {
  return new Kernel(options);
}
