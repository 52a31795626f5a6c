import {
  type Address,
  type Endpoint,
  familyOf,
  type ReadModel,
  type Service,
  type Workload,
} from '../../mesh/index.ts';
import { groupOf } from './candidates.ts';
import type { EndpointCosts } from './endpoints.ts';

/** Where a connection goes that might need no agent, as `route` would lead it. */
export type Direct =
  /** To a workload that takes the tunnel, addressed as such. */
  | { readonly kind: 'workload'; readonly workload: Workload }
  /** To nothing of the mesh (undefined), or to a workload that takes no tunnel. */
  | { readonly kind: 'outside'; readonly workload: Workload | undefined }
  /** A service, something with a waypoint, the source itself, or nowhere: not without the agent. */
  | { readonly kind: 'tunnel' };

/** An endpoint of a service, as somebody who draws by weight may choose it. */
export interface Backend {
  readonly workload: Workload;
  readonly endpoint: Endpoint;
  /** A whole number, at most 1,000; 0: it gets no connection. */
  readonly weight: number;
}

const TUNNEL: Direct = { kind: 'tunnel' };
const OUTSIDE: Direct = { kind: 'outside', workload: undefined };

/**
 * Where connections of `source` to an endpoint go, if nothing has to be chosen for them: of a service, the endpoint is the one
 * that was chosen. In doubt: to the tunnel.
 */
export function directTo(
  model: Pick<ReadModel, 'settings' | 'workloadAt' | 'serviceAt'>,
  source: Workload,
  { address }: Endpoint,
): Direct {
  const own = model.settings.network;
  if (isOfHost(address) || source.addresses.includes(address)) return TUNNEL;
  if (model.serviceAt(source.network, address, source.namespace) !== undefined) return TUNNEL;
  if (own !== source.network && model.serviceAt(own, address, source.namespace) !== undefined) return TUNNEL;
  const workload = model.workloadAt(source.network, address);
  if (workload === undefined) return OUTSIDE;
  // It reads what comes to it in the tunnel's own way, or wants it led through another.
  if (workload.waypoint !== undefined || workload.nativeTunnel || workload.applicationTunnel !== undefined)
    return TUNNEL;
  return workload.protocol === 'tcp' ? { kind: 'outside', workload } : { kind: 'workload', workload };
}

/**
 * The endpoints of a port of a service for connections of one family, weighted as the balancer sees them now.
 *
 * @param source whoever connects; only its place counts: locality, node, cluster and network
 * @returns undefined: each connection has to be led by the agent (a waypoint, no selection, a service that not everybody
 *   sees), or there is nothing to choose from
 */
export function backendsOf(
  model: Pick<ReadModel, 'endpoints'>,
  costs: Pick<EndpointCosts, 'weights'>,
  service: Service,
  port: number,
  family: 4 | 6,
  source: Workload,
): readonly Backend[] | undefined {
  if (!isChosenFreely(service)) return undefined;
  const group = groupOf(service, model.endpoints(service), port, source, 'destination');
  const weights = costs.weights(group);
  const backends: Backend[] = [];
  for (const [index, { workload, addresses, port: target }] of group.members.entries()) {
    const address = addresses.find((each) => familyOf(each) === family);
    // A socket of one family cannot be connected to the other: such endpoints are for those who come by the agent.
    if (address !== undefined)
      backends.push({ workload, endpoint: { address, port: target }, weight: weights[index] ?? 0 });
  }
  return backends.some(({ weight }) => weight > 0) ? backends : undefined;
}

/** Whether an endpoint of it may be chosen without the agent: no waypoint, a selection, and everybody sees it. */
export function isChosenFreely({ waypoint, weightedWaypoints, loadBalancing, visibility }: Service): boolean {
  const hasWaypoint = waypoint !== undefined || weightedWaypoints.length > 0;
  return !hasWaypoint && loadBalancing?.mode !== 'passthrough' && visibility === 'public';
}

function isOfHost(address: Address): boolean {
  return address.startsWith('127.') || address === '::1' || address === '0.0.0.0' || address === '::';
}
