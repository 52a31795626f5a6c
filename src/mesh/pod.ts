import type { Address, Cidr } from './address.ts';

/** Cookie of a network namespace (SO_NETNS_COOKIE): unique within one boot of the machine. */
export type NetnsCookie = bigint & { readonly brand: 'netns-cookie' };

/** What is not captured, by port and by address block. Empty by default. */
export interface Exclusions {
  /** Destination ports of outbound connections. */
  readonly outboundPorts: readonly number[];
  /** Destination blocks of outbound connections. */
  readonly outboundCidrs: readonly Cidr[];
  /** The pod's own ports, for inbound connections. */
  readonly inboundPorts: readonly number[];
  /** Source blocks of inbound connections. */
  readonly inboundCidrs: readonly Cidr[];
}

/** A pod that is to be, or is, in the mesh. */
export interface Pod {
  /** Kubernetes UID: the key. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Path of its network namespace, e.g. `/run/netns/cni-...`. */
  readonly netns: string;
  /** Its addresses, 1 to 4, both families. */
  readonly addresses: readonly Address[];
  readonly exclusions: Exclusions;
}
