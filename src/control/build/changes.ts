import type { MeshUpdate, Service, ServiceName, Workload } from '../../mesh/index.ts';
import type { BuiltMesh } from './mesh-builder.ts';

/** A built mesh as a complete update. */
export function completeUpdate(mesh: BuiltMesh): MeshUpdate {
  return {
    complete: true,
    workloads: [...mesh.workloads.values()],
    services: [...mesh.services.values()],
    removed: [],
    policies: [...mesh.policies.values()],
    removedPolicies: [],
    settings: mesh.settings,
  };
}

/**
 * What leads from one build to the next of the same builder; undefined if nothing does. Workloads are sent again when a
 * service of theirs comes, or changes its health policy: a client need not have kept them as its endpoints (wire contract,
 * section 4.6).
 */
export function changes(last: BuiltMesh, next: BuiltMesh): MeshUpdate | undefined {
  const services = [...next.services].filter(([name, service]) => service !== last.services.get(name));
  const attachedAgain = new Set(
    services.filter(([name, service]) => attachesAnew(last.services.get(name), service)).map(([name]) => name),
  );
  const workloads: Workload[] = [];
  for (const [uid, workload] of next.workloads)
    if (workload !== last.workloads.get(uid) || (attachedAgain.size > 0 && isIn(workload, attachedAgain)))
      workloads.push(workload);
  const removed = [...goneFrom(last.workloads, next.workloads), ...goneFrom(last.services, next.services)];
  const policies = [...next.policies].filter(([name, policy]) => policy !== last.policies.get(name));
  const removedPolicies = goneFrom(last.policies, next.policies);
  const settings = next.settings === last.settings ? undefined : next.settings;
  const count = services.length + workloads.length + removed.length + policies.length + removedPolicies.length;
  if (count === 0 && settings === undefined) return undefined;
  return {
    complete: false,
    workloads,
    services: services.map(([, service]) => service),
    removed,
    policies: policies.map(([, policy]) => policy),
    removedPolicies,
    settings,
  };
}

function attachesAnew(last: Service | undefined, next: Service): boolean {
  return last === undefined || healthPolicyOf(last) !== healthPolicyOf(next);
}

function healthPolicyOf({ loadBalancing }: Service): string {
  return loadBalancing?.healthPolicy ?? 'only-healthy';
}

function isIn(workload: Workload, services: ReadonlySet<ServiceName>): boolean {
  return Object.keys(workload.services).some((name) => services.has(name as ServiceName));
}

function goneFrom<Name extends string>(last: ReadonlyMap<Name, unknown>, next: ReadonlyMap<Name, unknown>): Name[] {
  return [...last.keys()].filter((name) => !next.has(name));
}
