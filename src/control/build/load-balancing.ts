import type { LoadBalancing, LoadBalancingScope } from '../../mesh/index.ts';
import type { Service, ServiceEntry } from '../objects/index.ts';

export const TRAFFIC_DISTRIBUTION = 'networking.istio.io/traffic-distribution';

const SAME_ZONE: readonly LoadBalancingScope[] = ['network', 'region', 'zone'];
/** By lower-cased name; what is not here is no preference. */
const PREFERENCES: Readonly<Record<string, readonly LoadBalancingScope[]>> = {
  preferclose: SAME_ZONE,
  prefersamezone: SAME_ZONE,
  prefersamenode: [...SAME_ZONE, 'subzone', 'node'],
};

/**
 * Wire contract, section 12.5.1.
 *
 * @param ofNamespace the namespace's own traffic distribution, if it has one
 */
export function serviceLoadBalancing(service: Service, ofNamespace: string | undefined): LoadBalancing | undefined {
  const { spec, metadata } = service;
  const healthPolicy = spec.publishNotReadyAddresses ? 'allow-all' : 'only-healthy';
  if (spec.internalTrafficPolicy === 'Local') return { routingPreference: ['node'], mode: 'strict', healthPolicy };
  const distribution = spec.trafficDistribution ?? metadata.annotations[TRAFFIC_DISTRIBUTION] ?? ofNamespace;
  return preferring(distribution, healthPolicy);
}

export function serviceEntryLoadBalancing(
  entry: ServiceEntry,
  ofNamespace: string | undefined,
): LoadBalancing | undefined {
  if (entry.spec.resolution === 'NONE')
    return { routingPreference: [], mode: 'passthrough', healthPolicy: 'allow-all' };
  return preferring(entry.metadata.annotations[TRAFFIC_DISTRIBUTION] ?? ofNamespace, 'only-healthy');
}

function preferring(
  distribution: string | undefined,
  healthPolicy: LoadBalancing['healthPolicy'],
): LoadBalancing | undefined {
  const routingPreference = PREFERENCES[distribution?.toLowerCase() ?? ''];
  if (routingPreference !== undefined) return { routingPreference, mode: 'failover', healthPolicy };
  return healthPolicy === 'allow-all' ? { routingPreference: [], mode: 'unspecified', healthPolicy } : undefined;
}
