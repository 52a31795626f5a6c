import { DEFAULT_TRUST_DOMAIN } from './identity.ts';
import type { AuthorizationPolicy, PolicyName } from './policy.ts';
import type { Service, ServiceName, Workload } from './workload.ts';

/** Settings of the whole mesh: the ConfigMap `culvert` in the root namespace. */
export interface MeshSettings {
  readonly trustDomain: string;
  readonly clusterDomain: string;
  readonly rootNamespace: string;
  /** The network that the cluster's own workloads are on; empty: the one and only. */
  readonly network: string;
  readonly clusterId: string;
}

/** What holds where nothing is said (wire contract, section 10). */
export const DEFAULT_SETTINGS: MeshSettings = {
  trustDomain: DEFAULT_TRUST_DOMAIN,
  clusterDomain: 'cluster.local',
  rootNamespace: 'istio-system',
  network: '',
  clusterId: 'Kubernetes',
};

/**
 * What has changed in the mesh since the update before: the shape of a delta xDS response (wire contract, section 4.3), so
 * that any source of it fits. Applied as a whole: additions in any order, then removals.
 */
export interface MeshUpdate {
  /** This is all there is: what is not named is gone. The first update of a source, and one after it lost its place. */
  readonly complete: boolean;
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  /** Workloads by uid, services by name. */
  readonly removed: ReadonlyArray<string | ServiceName>;
  readonly policies: readonly AuthorizationPolicy[];
  readonly removedPolicies: readonly PolicyName[];
  /** Undefined: as before. */
  readonly settings: MeshSettings | undefined;
}
