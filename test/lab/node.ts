/** A node: a network namespace with a bridge for its pods, a cgroup subtree, a bpffs directory and a run directory. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type AgentOptions, LabAgent } from './agent.ts';
import { command, shellIn } from './command.ts';
import type { Lab } from './lab.ts';
import { checkName, LabError, netnsDirectory, netnsName } from './names.ts';
import { LabPod, type PodOptions, prepareNamespace, sysctlLines } from './pod.ts';
import { execute, LabProcess, type Outcome, type Place, type RunOptions } from './process.ts';

const mostPods = 60_000;

export class LabNode {
  readonly name: string;
  readonly lab: Lab;
  /** Path of its network namespace: the node's "host" namespace. */
  readonly netns: string;
  /** Path of its cgroup subtree: agent/, host/, pods/<name>/. What the agent gets as `--cgroup`. */
  readonly cgroup: string;
  /** Its directory in the lab's bpffs. What the agent gets as `--bpffs`. */
  readonly bpffs: string;
  /** Its directory for sockets and state. What the agent gets as `--run`. */
  readonly runDirectory: string;
  /** Its own addresses, which are the pods' gateways. */
  readonly ipv4: string;
  readonly ipv6: string;
  /** The blocks that its pods' addresses are from. */
  readonly podCidrs: readonly [string, string];
  readonly #ordinal: number;
  readonly #pods = new Map<string, LabPod>();
  #made = 0;

  /** Made by `Lab.node`. */
  constructor(lab: Lab, name: string, ordinal: number) {
    checkName(name);
    this.lab = lab;
    this.name = name;
    this.#ordinal = ordinal;
    this.netns = join(netnsDirectory, netnsName(lab.id, name));
    this.cgroup = join(lab.cgroup, name);
    this.bpffs = join(lab.bpffs, name);
    this.runDirectory = join(lab.directory, name);
    this.ipv4 = this.ipv4Of(0);
    this.ipv6 = this.ipv6Of(0);
    this.podCidrs = [`10.${10 + ordinal}.0.0/16`, `fd00:c:${ordinal}::/64`];
  }

  /** Its pods. */
  get pods(): readonly LabPod[] {
    return [...this.#pods.values()];
  }

  /** Makes a pod. */
  async pod(name: string, options: PodOptions = {}): Promise<LabPod> {
    if (this.#pods.has(name)) throw new LabError(`node ${this.name} has a pod ${name} already`);
    this.#made += 1;
    if (this.#made > mostPods) throw new LabError(`a lab node has room for ${mostPods} pods`);
    const pod = new LabPod(this, name, this.#made, options);
    this.#pods.set(name, pod);
    await pod.make();
    return pod;
  }

  /** Starts a process in the node's own namespace (host network), unrestricted. */
  run(argv: readonly string[], options: RunOptions = {}): LabProcess {
    return new LabProcess(this.#host, argv, options);
  }

  /** Runs a process in the node's own namespace to its end. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return execute(this.#host, argv, options);
  }

  /** Starts the culvert agent of this node and waits until it is ready. */
  agent(options: AgentOptions = {}): Promise<LabAgent> {
    return LabAgent.start(this, options);
  }

  /** Sets sysctls of the node's network namespace. */
  async sysctl(values: Readonly<Record<string, string | number>>): Promise<void> {
    await shellIn(this.netns, sysctlLines(values));
  }

  /** Forgets a pod that was deleted. Called by `LabPod.delete`. */
  forget(pod: LabPod): void {
    this.#pods.delete(pod.name);
  }

  /** The n-th pod's address; 0 is the node's own. */
  ipv4Of(ordinal: number): string {
    return `10.${10 + this.#ordinal}.${(ordinal + 1) >> 8}.${(ordinal + 1) & 255}`;
  }

  ipv6Of(ordinal: number): string {
    return `fd00:c:${this.#ordinal}::${(ordinal + 1).toString(16)}`;
  }

  /** Makes it in the kernel. Called once, by `Lab.node`. */
  async make(): Promise<void> {
    await command(['ip', 'netns', 'add', netnsName(this.lab.id, this.name)]);
    for (const path of [
      this.bpffs,
      this.runDirectory,
      join(this.cgroup, 'agent'),
      join(this.cgroup, 'host'),
      join(this.cgroup, 'pods'),
    ])
      await mkdir(path, { recursive: true });
    await shellIn(
      this.netns,
      [
        prepareNamespace,
        'echo 1 > /proc/sys/net/ipv4/ip_forward',
        'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
        'ip link add pods type bridge forward_delay 0 mcast_snooping 0',
        'ip link set pods up',
        `ip address add ${this.ipv4}/16 dev pods`,
        `ip address add ${this.ipv6}/64 nodad dev pods`,
      ].join('\n'),
    );
  }

  get #host(): Place {
    return { netns: this.netns, cgroup: join(this.cgroup, 'host') };
  }
}
