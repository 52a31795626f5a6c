import {
  type Address,
  type MeshSettings,
  type MeshUpdate,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../../../src/mesh/index.ts';

export const meshSettings: MeshSettings = {
  trustDomain: 'cluster.local',
  clusterDomain: 'cluster.local',
  rootNamespace: 'istio-system',
  network: '',
  clusterId: 'Kubernetes',
};

/** A healthy pod of the mesh on node n1. */
export function workload(changes: Partial<Workload> = {}): Workload {
  const { name = 'web-0', namespace = 'shop' } = changes;
  return {
    uid: `Kubernetes//Pod/${namespace}/${name}`,
    name,
    namespace,
    addresses: ['10.0.0.1' as Address],
    network: '',
    node: 'n1',
    hostname: '',
    protocol: 'hbone',
    trustDomain: '',
    serviceAccount: '',
    waypoint: undefined,
    canonicalName: name,
    canonicalRevision: 'latest',
    workloadType: 'pod',
    workloadName: name,
    nativeTunnel: false,
    authorizationPolicies: [],
    status: 'healthy',
    clusterId: 'Kubernetes',
    networkGateway: undefined,
    services: {},
    applicationTunnel: undefined,
    locality: { region: '', zone: '', subzone: '' },
    networkMode: 'standard',
    capacity: 1,
    sameNode: 'kernel',
    ...changes,
  };
}

export function service(changes: Partial<Service> = {}): Service {
  const { name = 'web', namespace = 'shop' } = changes;
  return {
    name,
    namespace,
    hostname: `${name}.${namespace}.svc.cluster.local`,
    addresses: [{ network: '', address: '10.96.0.1' as Address }],
    addressBlocks: [],
    ports: [{ servicePort: 80, targetPort: 8080 }],
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: undefined,
    ipFamilies: 'automatic',
    canonical: true,
    visibility: 'public',
    ...changes,
  };
}

/** What has changed, unless it is said to be complete. */
export function meshUpdate(changes: Partial<MeshUpdate> = {}): MeshUpdate {
  const settings = changes.complete ? meshSettings : undefined;
  return {
    complete: false,
    workloads: [],
    services: [],
    removed: [],
    policies: [],
    removedPolicies: [],
    settings,
    ...changes,
  };
}

/** The mesh as a list: what a read model keeps, without its look-ups. */
export class FakeMesh {
  readonly workloads = new Map<string, Workload>();
  readonly services = new Map<ServiceName, Service>();
  settings: MeshSettings | undefined;
  /** How often the whole of it was asked for. */
  snapshots = 0;

  apply(update: MeshUpdate): void {
    if (update.complete) {
      this.workloads.clear();
      this.services.clear();
    }
    for (const each of update.workloads) this.workloads.set(each.uid, each);
    for (const each of update.services) this.services.set(serviceName(each), each);
    for (const key of update.removed) {
      this.workloads.delete(key);
      this.services.delete(key as ServiceName);
    }
    this.settings = update.settings ?? this.settings;
  }

  snapshot(): MeshUpdate {
    this.snapshots += 1;
    const { settings } = this;
    const [workloads, services] = [[...this.workloads.values()], [...this.services.values()]];
    return { complete: true, workloads, services, removed: [], policies: [], removedPolicies: [], settings };
  }
}
