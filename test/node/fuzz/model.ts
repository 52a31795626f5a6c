/** What the fuzz knows of its mesh, in words of its own: manifests are written from it, and what is right is said by it. */

/** How pods of one node talk, if anything is said about it. */
export type SameNode = 'mtls' | 'kernel' | 'unsaid';
export type Mode = 'STRICT' | 'PERMISSIVE' | 'DISABLE' | 'UNSET';
export type Labels = Readonly<Record<string, string>>;

/** Sources of an AuthorizationPolicy's rule, ways to it, and conditions: as the object has them. */
export interface Source {
  readonly principals?: readonly string[];
  readonly notPrincipals?: readonly string[];
  readonly namespaces?: readonly string[];
  readonly notNamespaces?: readonly string[];
  readonly serviceAccounts?: readonly string[];
  readonly notServiceAccounts?: readonly string[];
  readonly ipBlocks?: readonly string[];
  readonly notIpBlocks?: readonly string[];
}

export interface Operation {
  readonly ports?: readonly string[];
  readonly notPorts?: readonly string[];
  /** Nobody can look at it without a waypoint. */
  readonly methods?: readonly string[];
}

export type ConditionKey =
  | 'source.ip'
  | 'source.namespace'
  | 'source.principal'
  | 'destination.ip'
  | 'destination.port';

export interface Condition {
  readonly key: ConditionKey;
  readonly values?: readonly string[];
  readonly notValues?: readonly string[];
}

export interface Rule {
  readonly from?: readonly Source[];
  readonly to?: readonly Operation[];
  readonly when?: readonly Condition[];
}

export interface Policy {
  readonly namespace: string;
  readonly name: string;
  readonly action: 'ALLOW' | 'DENY';
  readonly selector: Labels | undefined;
  readonly isDryRun: boolean;
  readonly rules: readonly Rule[];
}

export interface PeerAuthentication {
  readonly namespace: string;
  readonly name: string;
  /** The lower, the older. */
  readonly age: number;
  readonly mode: Mode;
  readonly selector: Labels | undefined;
  readonly ports: Readonly<Record<number, Mode>>;
}

export interface Pod {
  /** Unlike all others'. */
  readonly name: string;
  /** One character, by which its app tells who it is. */
  readonly tag: string;
  readonly namespace: string;
  readonly account: string;
  readonly node: 'near' | 'far';
  readonly ipv4: string;
  readonly ipv6: string;
  /** Captured by its node's agent, and in the mesh as one that takes the tunnel. */
  readonly isEnrolled: boolean;
  /** The mesh has heard of it; of one that is enrolled always. */
  readonly isKnown: boolean;
  readonly labels: Labels;
  readonly isReady: boolean;
  readonly sameNode: SameNode;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly selector: Labels;
  /** Port of the pods by port of the service. */
  readonly ports: Readonly<Record<number, number>>;
  readonly isThere: boolean;
}

/** All that manifests say, at one moment. */
export interface World {
  readonly pods: readonly Pod[];
  readonly services: readonly Service[];
  /** How pods of a namespace talk on one node, where they do not say it themselves. */
  readonly sameNode: Readonly<Record<string, SameNode>>;
  readonly policies: readonly Policy[];
  readonly peers: readonly PeerAuthentication[];
}

export const ROOT_NAMESPACE = 'istio-system';
export const NAMESPACES = ['shop', 'pay', 'ops'] as const;
/** Every pod's app listens there. */
export const APP_PORTS = [8080, 8081, 8082] as const;
