import type { Address, Cidr } from './address.ts';
import { DEFAULT_TRUST_DOMAIN, formatSpiffeId, type SpiffeId } from './identity.ts';

/** Name of a service as the Workload API writes it: `namespace/hostname` (wire contract, section 4.6). */
export type ServiceName = `${string}/${string}`;

/** Where something is; empty strings where it is not known. */
export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** A waypoint or a network gateway: by the service's name or by address. */
export interface GatewayAddress {
  readonly destination:
    | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string }
    | { readonly kind: 'address'; readonly network: string; readonly address: Address };
  readonly hboneMtlsPort: number;
}

/** A port of a service. `targetPort` 0: a named port, which only an endpoint's own port map knows. */
export interface ServicePort {
  readonly servicePort: number;
  readonly targetPort: number;
}

/**
 * Something that connects and is connected to: a pod, a machine, an endpoint outside Kubernetes. The fields and their
 * defaults are those of istio.workload.Workload (wire contract, section 4.7).
 */
export interface Workload {
  /** The key, e.g. `Kubernetes//Pod/shop/cart-1` (wire contract, section 12.2). */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  /** All on `network`. Empty: reachable by gateway or by `hostname` only. */
  readonly addresses: readonly Address[];
  readonly network: string;
  readonly node: string;
  /** Resolved by DNS where there are no addresses; else empty. */
  readonly hostname: string;
  /** `hbone`: takes tunnelled connections at port 15008; `tcp`: plain ones only. */
  readonly protocol: 'hbone' | 'tcp';
  /** Empty: cluster.local. */
  readonly trustDomain: string;
  /** Empty: default. */
  readonly serviceAccount: string;
  /** For traffic addressed to the workload itself. */
  readonly waypoint: GatewayAddress | undefined;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: 'deployment' | 'cronjob' | 'pod' | 'job';
  readonly workloadName: string;
  /** It ends HBONE itself: a waypoint, a sidecar. */
  readonly nativeTunnel: boolean;
  /** Names of selector policies, `namespace/name`. */
  readonly authorizationPolicies: readonly string[];
  readonly status: 'healthy' | 'unhealthy';
  readonly clusterId: string;
  readonly networkGateway: GatewayAddress | undefined;
  /** The services that it is an endpoint of, each with its own port map. */
  readonly services: Readonly<Record<ServiceName, readonly ServicePort[]>>;
  /** How a sandboxed waypoint wants its traffic (wire contract, section 2.6). `port` 0: as addressed. */
  readonly applicationTunnel: { readonly protocol: 'none' | 'proxy'; readonly port: number } | undefined;
  readonly locality: Locality;
  /** `host`: in its node's network namespace, so never found by address. */
  readonly networkMode: 'standard' | 'host';
  /** Weight among a service's endpoints; 0: no traffic. */
  readonly capacity: number;
  /**
   * How it talks to workloads of its own node: over the kernel path where policy allows, or by mutual TLS always. The
   * stricter end's word counts (`sameNode` of the mesh, annotation `culvert.dev/same-node`).
   */
  readonly sameNode: 'kernel' | 'mtls';
}

/** `strict`: only endpoints that match every scope; `failover`: the best-ranked group; `passthrough`: no selection. */
export interface LoadBalancing {
  readonly routingPreference: readonly LoadBalancingScope[];
  readonly mode: 'unspecified' | 'strict' | 'failover' | 'passthrough';
  readonly healthPolicy: 'only-healthy' | 'allow-all';
}

export type LoadBalancingScope = 'region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network';

/** A named destination with addresses of its own (istio.workload.Service; wire contract, section 4.7). */
export interface Service {
  readonly name: string;
  readonly namespace: string;
  /** Fully qualified; may be a wildcard, `*.example.com`. */
  readonly hostname: string;
  readonly addresses: ReadonlyArray<{ readonly network: string; readonly address: Address }>;
  readonly addressBlocks: ReadonlyArray<{ readonly network: string; readonly cidr: Cidr }>;
  readonly ports: readonly ServicePort[];
  /** Further identities that its endpoints may present. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: ReadonlyArray<{ readonly destination: GatewayAddress; readonly weight: number }>;
  /** Undefined: all healthy endpoints alike. */
  readonly loadBalancing: LoadBalancing | undefined;
  readonly ipFamilies: 'automatic' | 'ipv4-only' | 'ipv6-only' | 'dual';
  /** Preferred among services of the same hostname. */
  readonly canonical: boolean;
  /** `namespace`: only clients of its own namespace find it. */
  readonly visibility: 'public' | 'namespace';
}

export function serviceName({ namespace, hostname }: { namespace: string; hostname: string }): ServiceName {
  return `${namespace}/${hostname}`;
}

/** The identity that a workload presents (wire contract, section 3.1). */
export function identityOf(workload: Pick<Workload, 'trustDomain' | 'namespace' | 'serviceAccount'>): SpiffeId {
  return formatSpiffeId({
    trustDomain: workload.trustDomain || DEFAULT_TRUST_DOMAIN,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount || 'default',
  });
}
