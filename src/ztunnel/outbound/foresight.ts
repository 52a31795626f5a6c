import { type Endpoint, familyOf, type ReadModel, type Service, type Workload } from '../../mesh/index.ts';
import { type Candidates, groupOf } from './candidates.ts';
import type { EndpointCosts, EndpointHealth } from './endpoints.ts';
import { type Route, type RouteModel, route } from './route.ts';

/** One of the endpoints that a service has for a port. */
export interface EndpointState {
  readonly workload: Workload;
  readonly endpoint: Endpoint;
  /** What its health is kept under. */
  readonly key: string;
  /** How often it is chosen, in proportion to the others; 0: it gets nothing but a probe now and then. */
  readonly weight: number;
  /** What this node has seen of it; undefined: nothing. */
  readonly health: EndpointHealth | undefined;
}

/**
 * Where a connection would most probably be led, for somebody who only asks: nothing is counted, and no probe is used up.
 */
export function likelyRoute(
  model: RouteModel,
  costs: Pick<EndpointCosts, 'weights'>,
  source: Workload,
  destination: Endpoint,
): Route {
  return route(model, source, destination, (candidates) => likeliest(candidates, costs), { random: () => 0 });
}

/** The endpoints of a port of a service as the balancer sees them now. `source`: whoever connects. */
export function endpointsOf(
  model: Pick<ReadModel, 'endpoints'>,
  costs: Pick<EndpointCosts, 'weights' | 'healthOf'>,
  service: Service,
  port: number,
  source: Workload,
): readonly EndpointState[] {
  const group = groupOf(service, model.endpoints(service), port, source, 'destination');
  const weights = costs.weights(group);
  const states: EndpointState[] = [];
  for (const [index, { workload, addresses, port: target }] of group.members.entries()) {
    const key = group.keys[index] ?? '';
    const address = addresses.find((each) => familyOf(each) === familyOf(source.addresses[0] ?? each)) ?? addresses[0];
    if (address !== undefined)
      states.push({
        workload,
        endpoint: { address, port: target },
        key,
        weight: weights[index] ?? 0,
        health: costs.healthOf(key),
      });
  }
  return states;
}

function likeliest(candidates: Candidates, costs: Pick<EndpointCosts, 'weights'>): number {
  const weights = costs.weights(candidates);
  return weights.reduce((best, weight, index) => (weight > (weights[best] ?? 0) ? index : best), 0);
}
