/** What all workloads have in common, wherever they come from (wire contract, sections 12.2 to 12.4). */
import { DEFAULT_TRUST_DOMAIN, type Locality, type Workload } from '../../mesh/index.ts';
import type { BuildSettings } from './settings.ts';

export const UNKNOWN_LOCALITY: Locality = { region: '', zone: '', subzone: '' };

/** A workload of which nothing is known but what the mesh says of all. */
export function plainWorkload(
  { mesh, sameNode }: BuildSettings,
  { uid, name, namespace }: Pick<Workload, 'uid' | 'name' | 'namespace'>,
): Workload {
  return {
    uid,
    name,
    namespace,
    addresses: [],
    network: mesh.network,
    node: '',
    hostname: '',
    protocol: 'tcp',
    trustDomain: mesh.trustDomain === DEFAULT_TRUST_DOMAIN ? '' : mesh.trustDomain,
    serviceAccount: '',
    waypoint: undefined,
    canonicalName: '',
    canonicalRevision: '',
    workloadType: 'pod',
    workloadName: '',
    nativeTunnel: false,
    authorizationPolicies: [],
    status: 'healthy',
    clusterId: mesh.clusterId,
    networkGateway: undefined,
    services: {},
    applicationTunnel: undefined,
    locality: UNKNOWN_LOCALITY,
    networkMode: 'standard',
    capacity: 1,
    sameNode,
  };
}

/** Whether it takes tunnelled connections: led to it by an agent, or ended by itself. */
export function tunnelOf({
  labels,
  annotations,
}: {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}): Pick<Workload, 'protocol' | 'nativeTunnel'> {
  const nativeTunnel = labels['networking.istio.io/tunnel']?.includes('http') ?? false;
  const isLed = annotations['ambient.istio.io/redirection'] === 'enabled';
  return { protocol: isLed || nativeTunnel ? 'hbone' : 'tcp', nativeTunnel };
}
