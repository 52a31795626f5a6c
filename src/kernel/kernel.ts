import type { Endpoint, NetnsCookie, Pod } from '../mesh/index.ts';
import type { Place } from './epochs.ts';
import { Events, type KernelEvent, type Reason, reasonName } from './events.ts';
import { type FlowEnd, FlowRecords } from './flow-records.ts';
import { FlowSamples, type FlowSampling } from './flow-samples.ts';
import type { Namespace } from './flow-sockets.ts';
import { FlowSweep } from './flow-sweep.ts';
import { Flows, type KernelFlow } from './flows.ts';
import { type LostRecords, type MapFill, MapFills } from './map-fill.ts';
import type { OpenPortSet } from './open-ports.ts';
import { PathTables } from './path-tables.ts';
import { type PinPaths, pinPaths } from './paths.ts';
import { type PodCheck, Pods, type PreparedPod } from './pods.ts';
import { type Fault, openPrograms, type ProgramState, type Programs } from './programs.ts';
import type { KernelBackend } from './services.ts';
import { type ControlGroup, Signals } from './signals.ts';
import { Tables } from './tables.ts';
import type { KernelVerdict } from './verdicts.ts';

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
/** As many as a pod may have handshakes under way beyond its limit, several times over. */
const alarmsPerCall = 4096;
/** A full map takes a while to read: not each time that somebody asks. */
const sweepIntervalNs = 30_000_000_000n;

/** The node's kernel side: programs, maps, and what is kept in each pod's namespace. */
export class Kernel {
  readonly #programs: Programs;
  readonly #tables: Tables;
  readonly #pods: Pods;
  readonly #alarms: Events;
  readonly #events: Events;
  readonly #path: PathTables;
  readonly #signals: Signals;
  readonly #flows: Flows;
  readonly #flowSweep: FlowSweep;
  readonly #flowRecords: FlowRecords;
  readonly #flowSamples: FlowSamples;
  readonly #fills: MapFills;
  #sweptAtNs = process.hrtime.bigint();

  constructor(options: KernelOptions) {
    const paths: PinPaths = pinPaths(options.bpffs, options.pinName);
    this.#programs = openPrograms({ cgroup: options.cgroup, paths });
    const { maps } = this.#programs;
    this.#tables = new Tables(maps);
    this.#path = new PathTables(maps, this.#tables);
    this.#pods = new Pods(maps, this.#tables, this.#path, {
      paths,
      workers: options.workers,
      ...(options.backlog === undefined ? {} : { backlog: options.backlog }),
    });
    this.#alarms = new Events(maps.alarms);
    this.#events = new Events(maps.events);
    this.#signals = new Signals(maps.heartbeat, maps.kubelet);
    const pods = {
      namespaceOf: (cookie: NetnsCookie): Namespace | undefined => this.#pods.netnsFdOf(cookie),
      hasPod: (cookie: NetnsCookie): boolean => this.#tables.hasPod(cookie),
      countSweptFlows: (cookie: NetnsCookie, count: number): void => this.#tables.countSweptFlows(cookie, count),
    };
    this.#flows = new Flows(maps.flows, pods);
    this.#flowSweep = new FlowSweep(maps.flows, pods);
    this.#flowRecords = new FlowRecords(maps.flow_records);
    this.#flowSamples = new FlowSamples(maps.flows, pods);
    this.#fills = new MapFills(maps, this.#tables);
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

  /** All of our programs at the node's cgroup, those of pods aside. */
  programs(): ProgramState[] {
    return this.#programs.states();
  }

  /** How full the maps are; at most 10 s old. */
  maps(): readonly MapFill[] {
    return this.#fills.fills();
  }

  /** Records that a full ring buffer has not taken, since the programs were first loaded. */
  lostRecords(): LostRecords {
    return this.#fills.lostRecords();
  }

  /** Connections of captured pods that were open before they were enrolled, and still are; at most 10 s old. */
  earlierConnections(): ReadonlyMap<NetnsCookie, number> {
    return this.#pods.earlierConnections();
  }

  counts(): ReasonCount[] {
    return this.#tables.counters().flatMap(({ cookie, reason, count }) => {
      const name = reasonName(reason);
      return name === undefined ? [] : [{ cookie, reason: name, count: Number(count) }];
    });
  }

  /** Some of those since the last call; none: there are no more. First those that the agent must act on. */
  events(): KernelEvent[] {
    return [...this.#alarms.read(alarmsPerCall), ...this.#events.read()];
  }

  /** Deletes hand-overs that were lost, counters of nobody's, and pods of an earlier agent whose namespace is gone. */
  sweep(): { handovers: number; pods: NetnsCookie[] } {
    const nowNs = process.hrtime.bigint();
    let handovers = 0;
    if (nowNs - this.#sweptAtNs >= sweepIntervalNs) {
      this.#sweptAtNs = nowNs;
      handovers = this.#tables.sweepHandovers(nowNs, handoverMaxAgeNs);
      this.#tables.forgetStrangers();
      this.#path.forgetStrangers(new Set(this.#pods.captured()));
    }
    return { handovers, pods: this.#pods.forgetDead() };
  }

  // --- the kernel path ------------------------------------------------------------------------------------------------

  /** A pod's epoch, or with 0 that of all that is outside. 0: it has none, so no verdict that names it counts. */
  epochOf(place: Place): bigint {
    return this.#path.epochs.of(place);
  }

  /** Makes void every verdict and every connection half-way that names the present epoch. Returns the new one, above 0. */
  raiseEpoch(place: Place): bigint {
    return this.#path.epochs.raise(place);
  }

  /** Replaces the verdict for the same source and destination. False: there is no room. */
  putVerdict(verdict: KernelVerdict): boolean {
    return this.#path.verdicts.put(verdict);
  }

  deleteVerdict(source: NetnsCookie, destination: Endpoint): void {
    this.#path.verdicts.delete(source, destination);
  }

  /**
   * Deletes all verdicts, services and open ports, whoever wrote them, takes the kernel path from all pods, and raises every
   * epoch. Established flows live on. To be called when an agent begins.
   */
  clearPaths(): void {
    this.#path.clear();
  }

  /** Replaces the backends of a service. False: the kernel cannot choose for it (no room, none or too many), the tunnel will. */
  putService(at: Endpoint, backends: readonly KernelBackend[]): boolean {
    return this.#path.services.put(at, backends);
  }

  deleteService(at: Endpoint): void {
    this.#path.services.delete(at);
  }

  /** Whether the pod's connects may be answered by verdicts and services, and plaintext to it by open ports. Lasts until `close`. */
  setKernelPath(cookie: NetnsCookie, on: boolean): void {
    this.#tables.setKernelPath(cookie, on);
  }

  /** Replaces the pod's open ports; undefined: none. False: there is no room, so none is open. */
  setOpenPorts(cookie: NetnsCookie, open: OpenPortSet | undefined): boolean {
    return this.#tables.hasPod(cookie) && this.#path.openPorts.replace(cookie, open);
  }

  /** @param of only flows with one of these at an end, which is far cheaper where there are many. Default: all */
  flows(of?: ReadonlySet<Place>): KernelFlow[] {
    return this.#flows.list(of);
  }

  /** How many flows there are, by the kernel's own count. */
  flowCount(): number {
    return this.#tables.flowCount();
  }

  /**
   * Ends flows: resets both of their sockets, as far as they are on this node, and takes back the approval of one that is not
   * established. Returns how many sockets were ended. Of pods that this process has not prepared yet the established ones
   * stay, and stay listed. So do those of a pod whose sockets could not be ended; they are tried again by `sweepFlows`.
   *
   * @throws KernelError KERNEL_REFUSED when of several pods no socket could be ended
   */
  destroyFlows(flows: readonly KernelFlow[]): number {
    return this.#flows.destroy(flows);
  }

  /** Some of those that have ended since the last call, in the order of their ends; none: there are no more. */
  flowRecords(): FlowEnd[] {
    return this.#flowRecords.read();
  }

  /** What flows that have lived for more than 5 s have moved so far. Some in each call, none of them more often than every 5 s. */
  sampleFlows(): FlowSampling {
    return this.#flowSamples.take();
  }

  /**
   * Deletes flows whose end nobody reported, and tries again to end what could not be. Looks at 512 of them in a call. Returns
   * how many were deleted.
   */
  sweepFlows(): number {
    this.#flows.retry();
    return this.#flowSweep.run();
  }

  /** The agent lives: verdicts count for another limit.HEARTBEAT_MS. */
  beat(): void {
    this.#signals.beat();
  }

  /** Whose connects from the host's namespace are let in to the pods of this node. Undefined: nobody's. */
  setKubelet(group: ControlGroup | undefined): void {
    this.#signals.setKubelet(group);
  }

  /** Closes what this process holds. What is pinned stays and keeps refusing: failure is closed. */
  dispose(): void {
    this.#pods.dispose();
    this.#alarms.close();
    this.#events.close();
    this.#flowRecords.close();
    this.#programs.close();
  }
}

/** @throws KernelError NO_CGROUP, NO_BPFFS, NO_PROGRAMS, SCHEMA_MISMATCH, HOOK_TAKEN, KERNEL_REFUSED */
export function openKernel(options: KernelOptions): Kernel {
  return new Kernel(options);
}
