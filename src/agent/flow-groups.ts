/** Recent connections, counted by what policy sees of them. Pure. */
import { type FlowRecord, isWaypointOf, type ReadModel, type SpiffeId, type Workload } from '../mesh/index.ts';
import type { FlowGroup, RecentFlowsAnswer } from './policy-protocol.ts';

export type FlowMesh = Pick<ReadModel, 'settings' | 'workloadAt' | 'policiesOf' | 'service' | 'members' | 'gateway'>;

/** Ends that are policy's doing (docs/errors.md, why a connection ended). */
const REFUSED: ReadonlySet<string> = new Set(['policy-denied', 'policy-changed']);

/** Reason of the decision of a connection of the node's kubelet, which no policy is asked about. */
export const KUBELET_PROBE = 'kubelet-probe';

/** @param records of one pod, the newest last */
export function groupFlows(mesh: FlowMesh, records: readonly FlowRecord[]): RecentFlowsAnswer {
  const groups = new Map<string, Group>();
  const workloads = new Map<string, Workload>();
  let outsideMesh = 0;
  for (const record of records) {
    if (record.decision?.reason === KUBELET_PROBE) continue;
    const workload = mesh.workloadAt(mesh.settings.network, record.server.address);
    if (workload === undefined || workload.protocol === 'tcp') outsideMesh += 1;
    // From here it goes to the waypoint, which makes a connection of its own; the other end tells of that one.
    else if (record.direction === 'inbound' || workload.waypoint === undefined) {
      workloads.set(workload.uid, workload);
      count(groups, record, workload);
    }
  }
  const policies = new Set([...workloads.values()].flatMap((workload) => mesh.policiesOf(workload).policies));
  return {
    flows: [...groups.values()].map((group) => ({
      ...group.said,
      throughWaypoint: isWaypointOf(mesh, group.workload, group.identity),
    })),
    workloads: [...workloads.values()].map(({ uid, namespace, name, protocol, authorizationPolicies }) => ({
      uid,
      namespace,
      name,
      protocol,
      authorizationPolicies: [...authorizationPolicies],
    })),
    policies: [...policies],
    rootNamespace: mesh.settings.rootNamespace,
    outsideMesh,
  };
}

interface Group {
  readonly workload: Workload;
  readonly identity: SpiffeId | undefined;
  said: Omit<FlowGroup, 'throughWaypoint'>;
}

function count(groups: Map<string, Group>, record: FlowRecord, workload: Workload): void {
  const { direction, sourceIdentity: identity, client, server, ended, endedAt } = record;
  const key = `${direction} ${identity} ${client?.address} ${server.address} ${server.port}`;
  const last = groups.get(key);
  groups.set(key, {
    workload,
    identity,
    said: {
      direction,
      ...(identity === undefined ? {} : { identity }),
      ...(client === undefined ? {} : { sourceAddress: client.address }),
      destination: { address: server.address, port: server.port },
      workload: workload.uid,
      count: (last?.said.count ?? 0) + 1,
      refused: (last?.said.refused ?? 0) + (REFUSED.has(ended) ? 1 : 0),
      last: new Date(endedAt).toISOString(),
    },
  });
}
