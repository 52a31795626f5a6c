/** EndpointSlice to Workloads: endpoints that are no pods (wire contract, section 12.4). */
import { type Address, parseAddress, type Workload } from '../../mesh/index.ts';
import type { EndpointSlice } from '../objects/index.ts';
import type { PolicyKeys } from './policy-keys.ts';
import { slicePorts, type Target } from './selection.ts';
import type { BuildSettings } from './settings.ts';
import { plainWorkload } from './workload.ts';

/** Nothing is known of such an endpoint, others may have its address: so it is not found by address. */
export function buildSlice(
  slice: EndpointSlice,
  settings: BuildSettings,
  owner: Target,
  policies: PolicyKeys,
): readonly Workload[] {
  const { name, namespace } = slice.metadata;
  if (slice.addressType === 'FQDN') return [];
  const services = { [owner.name]: slicePorts(slice, owner) };
  return slice.endpoints.flatMap(({ addresses: texts, conditions, targetRef }) => {
    const addresses = texts.map(parseAddress).filter((each): each is Address => each !== undefined);
    const [first] = addresses;
    if (first === undefined || targetRef?.kind === 'Pod') return [];
    const uid = `${settings.mesh.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${first}`;
    const workload: Workload = {
      ...plainWorkload(settings, { uid, name, namespace }),
      addresses,
      status: conditions?.ready === false ? 'unhealthy' : 'healthy',
      services,
      authorizationPolicies: policies.of({}),
      networkMode: 'host',
    };
    return [workload];
  });
}
