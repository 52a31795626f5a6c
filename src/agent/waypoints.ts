import {
  type GatewayAddress,
  identityOf,
  type ReadModel,
  type ServiceName,
  type SpiffeId,
  type Workload,
} from '../mesh/index.ts';

type WaypointMesh = Pick<ReadModel, 'service' | 'members' | 'gateway'>;

/** Whether an identity is that of a waypoint of the workload: its own, or one of a service that it is an endpoint of. */
export function isWaypointOf(mesh: WaypointMesh, workload: Workload, identity: SpiffeId | undefined): boolean {
  return identity !== undefined && waypointsOf(mesh, workload).some((each) => answersAs(mesh, each, identity));
}

function waypointsOf(mesh: WaypointMesh, workload: Workload): GatewayAddress[] {
  const own = workload.waypoint === undefined ? [] : [workload.waypoint];
  const ofServices = Object.keys(workload.services).flatMap((name) => {
    const service = mesh.service(name as ServiceName);
    if (service === undefined) return [];
    const weighted = service.weightedWaypoints.map(({ destination }) => destination);
    return service.waypoint === undefined ? weighted : [service.waypoint, ...weighted];
  });
  return [...own, ...ofServices];
}

function answersAs(mesh: WaypointMesh, reference: GatewayAddress, identity: SpiffeId): boolean {
  const gateway = mesh.gateway(reference);
  if (gateway === undefined) return false;
  if (gateway.kind === 'workload') return identityOf(gateway.workload) === identity;
  // Also those that are not healthy: what they have open they finish.
  for (const { workload } of mesh.members(gateway.service)) if (identityOf(workload) === identity) return true;
  return false;
}
