/** A link between two nodes, over which their pods reach each other. */
import { shellIn } from './command.ts';
import { compile } from './compile.ts';
import type { Lab } from './lab.ts';
import { LabError } from './names.ts';
import type { LabNode } from './node.ts';
import { LabProcess } from './process.ts';

export interface LinkOptions {
  /** Delay of each direction, so a round trip takes twice as long. Default: none. */
  delayMs?: number;
  /** Share of packets lost in each direction, 0..100, to hundredths. Default: none. */
  lossPercent?: number;
  /** Bound of each direction. Default: none. */
  rateMbit?: number;
}

const tbfBurstBytes = 64 * 1024;
const tbfLatencyMs = 100;

export class LabLink {
  readonly lab: Lab;
  readonly nodes: readonly [LabNode, LabNode];
  /** Name of the interface on each node. */
  readonly interfaces: readonly [string, string];
  readonly options: Readonly<LinkOptions>;
  readonly #ordinal: number;

  /** Made by `Lab.link`. */
  constructor(lab: Lab, nodes: readonly [LabNode, LabNode], ordinal: number, options: LinkOptions) {
    const { lossPercent = 0 } = options;
    if (lossPercent < 0 || lossPercent > 100) throw new LabError(`no share of packets: ${lossPercent} %`);
    this.lab = lab;
    this.nodes = nodes;
    this.options = options;
    this.#ordinal = ordinal;
    this.interfaces = [`to-${nodes[1].name}`, `to-${nodes[0].name}`];
  }

  /** Takes the link down: what is sent is unreachable. */
  async down(): Promise<void> {
    for (const [node, name] of this.#ends()) await shellIn(node.netns, `ip link set ${name} down`);
  }

  /** Takes the link up again. */
  async up(): Promise<void> {
    for (const [node, name, peer] of this.#ends())
      await shellIn(node.netns, this.#upLines(name, node, peer).join('\n'));
  }

  /** Changes the share of packets lost; 100 makes everything beyond the link a black hole. */
  async lose(lossPercent: number): Promise<void> {
    for (const [node, name] of this.#ends())
      await shellIn(
        node.netns,
        [
          `nft 'table netdev lab-${name} { }; delete table netdev lab-${name}'`,
          ...(lossPercent > 0 ? [lossLine(name, lossPercent)] : []),
        ].join('\n'),
      );
  }

  /** Makes it in the kernel. Called once, by `Lab.link`. */
  async make(): Promise<void> {
    const [[node, name], [peerNode, peerName]] = this.#ends();
    const { delayMs = 0, lossPercent = 0, rateMbit } = this.options;
    if (delayMs > 0) {
      const program = await compile('forwarder/forwarder.c');
      const argv = [program, node.netns, name, peerNode.netns, peerName, `${Math.round(delayMs * 1000)}`];
      await new LabProcess({ netns: node.netns, cgroup: this.lab.toolsCgroup }, argv).line(/^ready$/);
    } else {
      const peerNetns = peerNode.netns.slice(peerNode.netns.lastIndexOf('/') + 1);
      await shellIn(node.netns, `ip link add ${name} type veth peer name ${peerName} netns ${peerNetns}`);
    }
    await this.up();
    for (const [each, end] of this.#ends()) {
      // Loss and rate are per packet of the wire, so segments must not cross in bundles of 64 KiB.
      if (lossPercent > 0 || rateMbit !== undefined) await shellIn(each.netns, `ip link set ${end} gso_max_segs 1`);
      if (rateMbit !== undefined)
        await shellIn(
          each.netns,
          `tc qdisc add dev ${end} root tbf rate ${rateMbit}mbit burst ${tbfBurstBytes} latency ${tbfLatencyMs}ms`,
        );
    }
    if (lossPercent > 0) await this.lose(lossPercent);
  }

  #ends(): readonly [readonly [LabNode, string, LabNode], readonly [LabNode, string, LabNode]] {
    const [one, other] = this.nodes;
    return [
      [one, this.interfaces[0], other],
      [other, this.interfaces[1], one],
    ];
  }

  #addressesOf(node: LabNode): { ipv4: string; ipv6: string; mac: string } {
    const last = node === this.nodes[0] ? 1 : 2;
    const hex = this.#ordinal.toString(16).padStart(2, '0');
    return {
      ipv4: `10.200.${this.#ordinal}.${last}`,
      ipv6: `fd00:c:ff${hex}::${last}`,
      mac: `02:00:00:00:${hex}:0${last}`,
    };
  }

  #upLines(name: string, node: LabNode, peer: LabNode): string[] {
    const [own, far] = [this.#addressesOf(node), this.#addressesOf(peer)];
    const [cidr4, cidr6] = peer.podCidrs;
    return [
      `ip link set ${name} address ${own.mac}`,
      `ip link set ${name} up`,
      `ip address replace ${own.ipv4}/30 dev ${name}`,
      `ip address replace ${own.ipv6}/64 nodad dev ${name}`,
      // Known beforehand: loss on the link shall lose data, not neighbours (three lost requests are "no route to host").
      `ip neighbour replace ${far.ipv4} lladdr ${far.mac} dev ${name} nud permanent`,
      `ip neighbour replace ${far.ipv6} lladdr ${far.mac} dev ${name} nud permanent`,
      // The node speaks with its own address, so that routes back exist wherever its pods are known.
      `ip route replace ${cidr4} via ${far.ipv4} src ${node.ipv4}`,
      `ip route replace ${cidr6} via ${far.ipv6} src ${node.ipv6}`,
    ];
  }
}

function lossLine(name: string, percent: number): string {
  return `nft 'table netdev lab-${name} { chain loss { type filter hook ingress device "${name}" priority 0; numgen random mod 10000 <= ${Math.round(percent * 100) - 1} counter drop; }; }'`;
}
