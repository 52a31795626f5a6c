import type { SpiffeId } from './identity.ts';
import type { ReadModel } from './read-model.ts';
import { type GatewayAddress, identityOf, type ServiceName, type Workload } from './workload.ts';

/** What finding the waypoints of a workload asks of the mesh. */
export type WaypointModel = Pick<ReadModel, 'gateway' | 'service' | 'members'>;

/**
 * Who a connection to a workload comes from when it comes through a waypoint: the identities of its own waypoint, and of the
 * waypoints of its services, weighted ones too. Of a waypoint's instances also those that are not healthy: what they have
 * open they finish.
 */
export function waypointIdentities(model: WaypointModel, destination: Workload): ReadonlySet<SpiffeId> {
  const identities = new Set<SpiffeId>();
  for (const reference of referencesOf(model, destination)) {
    const gateway = model.gateway(reference);
    if (gateway?.kind === 'workload') identities.add(identityOf(gateway.workload));
    else if (gateway !== undefined)
      for (const { workload } of model.members(gateway.service)) identities.add(identityOf(workload));
  }
  return identities;
}

/** Whether an identity is that of a waypoint of the workload's. Undefined, which is nobody's, is not. */
export function isWaypointOf(model: WaypointModel, destination: Workload, identity: SpiffeId | undefined): boolean {
  return identity !== undefined && waypointIdentities(model, destination).has(identity);
}

function* referencesOf(model: WaypointModel, { waypoint, services }: Workload): Generator<GatewayAddress> {
  if (waypoint !== undefined) yield waypoint;
  for (const name of Object.keys(services)) {
    const service = model.service(name as ServiceName);
    if (service === undefined) continue;
    if (service.waypoint !== undefined) yield service.waypoint;
    for (const { destination } of service.weightedWaypoints) yield destination;
  }
}
