/** A pod: a network namespace joined to its node's bridge, and a cgroup. */
import { join } from 'node:path';
import { command, shellIn } from './command.ts';
import { checkName, netnsDirectory, netnsName } from './names.ts';
import type { LabNode } from './node.ts';
import { execute, LabProcess, type Outcome, type Place, type RunOptions } from './process.ts';
import { deleteNetns, removeCgroup } from './remnants.ts';

export interface PodOptions {
  /** Give it an IPv4 address. Default: true. */
  ipv4?: boolean;
  /** Give it an IPv6 address. Default: true. */
  ipv6?: boolean;
  /** Kubernetes namespace. Default: `default`. */
  namespace?: string;
  /** Default: `default`. */
  serviceAccount?: string;
  /** It gets this pod's addresses, as after its end. Default: addresses of its own. */
  addressesOf?: LabPod;
}

/** A pod as the agent's `enrol` takes it. */
export interface PodRequest {
  uid: string;
  name: string;
  namespace: string;
  serviceAccount: string;
  netns: string;
  addresses: string[];
  excludeOutboundPorts?: number[];
  excludeOutboundCidrs?: string[];
  excludeInboundPorts?: number[];
  excludeInboundCidrs?: string[];
}

export class LabPod implements Place {
  readonly name: string;
  readonly node: LabNode;
  /** Path of its network namespace. */
  readonly netns: string;
  /** Path of its cgroup. */
  readonly cgroup: string;
  /** Its addresses, IPv4 first. */
  readonly addresses: readonly string[];
  /** Name of the node's end of its veth pair. */
  readonly nodeInterface: string;
  readonly #namespace: string;
  readonly #serviceAccount: string;

  /** Made by `LabNode.pod`. */
  constructor(node: LabNode, name: string, ordinal: number, options: PodOptions) {
    checkName(name);
    this.node = node;
    this.name = name;
    this.netns = join(netnsDirectory, netnsName(node.lab.id, node.name, name));
    this.cgroup = join(node.cgroup, 'pods', name);
    this.nodeInterface = `veth${ordinal}`;
    this.#namespace = options.namespace ?? 'default';
    this.#serviceAccount = options.serviceAccount ?? 'default';
    const { ipv4 = true, ipv6 = true, addressesOf } = options;
    this.addresses = addressesOf?.addresses ?? [
      ...(ipv4 ? [node.ipv4Of(ordinal)] : []),
      ...(ipv6 ? [node.ipv6Of(ordinal)] : []),
    ];
  }

  /** Its IPv4 address. Throws if it has none. */
  get ipv4(): string {
    return this.#address(false);
  }

  /** Its IPv6 address. Throws if it has none. */
  get ipv6(): string {
    return this.#address(true);
  }

  /** Kubernetes UID, as the agent is told. */
  get uid(): string {
    return `${this.node.lab.id}-${this.node.name}-${this.name}`;
  }

  /** What it is in the mesh. The trust domain is the one that a control process has unless it is told another. */
  get identity(): string {
    return `spiffe://cluster.local/ns/${this.#namespace}/sa/${this.#serviceAccount}`;
  }

  /** The pod in the form of the agent's `enrol`; exclusions can be added. */
  request(changes: Partial<PodRequest> = {}): PodRequest {
    return {
      uid: this.uid,
      name: this.name,
      namespace: this.#namespace,
      serviceAccount: this.#serviceAccount,
      netns: this.netns,
      addresses: [...this.addresses],
      ...changes,
    };
  }

  /** Starts a process in the pod. It is restricted as in a normal container unless `restricted: false`. */
  run(argv: readonly string[], options: RunOptions = {}): LabProcess {
    return new LabProcess(this, argv, { restricted: true, ...options });
  }

  /** Runs a process in the pod to its end. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return execute(this, argv, { restricted: true, ...options });
  }

  /** Sets sysctls of the pod's network namespace: `{ 'net.ipv4.tcp_fastopen': 3 }`. */
  async sysctl(values: Readonly<Record<string, string | number>>): Promise<void> {
    await shellIn(this.netns, sysctlLines(values));
  }

  /** Deletes the pod: kills its processes and removes its namespace's name and its cgroup. */
  async delete(): Promise<void> {
    removeCgroup(this.cgroup);
    deleteNetns([netnsName(this.node.lab.id, this.node.name, this.name)]);
    this.node.forget(this);
  }

  /** Makes it in the kernel. Called once, by `LabNode.pod`. */
  async make(): Promise<void> {
    const { node } = this;
    await command(['ip', 'netns', 'add', netnsName(node.lab.id, node.name, this.name)]);
    await shellIn(this.netns, prepareNamespace);
    const inPod = `nsenter --net=${this.netns} -- ip`;
    await shellIn(
      node.netns,
      [
        `mkdir ${this.cgroup}`,
        `ip link add ${this.nodeInterface} type veth peer name eth0 netns ${netnsName(node.lab.id, node.name, this.name)}`,
        `ip link set ${this.nodeInterface} master pods up`,
        `${inPod} link set eth0 up`,
        ...this.addresses.map(
          (address) =>
            `${inPod} address add ${address.includes(':') ? `${address}/64 nodad` : `${address}/16`} dev eth0`,
        ),
        ...this.addresses.map(
          (address) => `${inPod} route add default via ${address.includes(':') ? node.ipv6 : node.ipv4}`,
        ),
      ].join('\n'),
    );
  }

  #address(ipv6: boolean): string {
    const address = this.addresses.find((each) => each.includes(':') === ipv6);
    if (address === undefined) throw new TypeError(`pod ${this.name} has no IPv${ipv6 ? 6 : 4} address`);
    return address;
  }
}

/**
 * Before any interface exists: no duplicate address detection, loopback up. (An address is usable at once only if it is
 * also added with `nodad`: else the kernel decides later, in a queue, that there is nothing to detect.)
 */
export const prepareNamespace = [
  'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad',
  'echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad',
  'ip link set lo up',
].join('\n');

export function sysctlLines(values: Readonly<Record<string, string | number>>): string {
  return Object.entries(values)
    .map(([name, value]) => `echo '${value}' > /proc/sys/${name.replaceAll('.', '/')}`)
    .join('\n');
}
