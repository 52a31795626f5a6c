import {
  type Address,
  type MeshUpdate,
  type ReadModel,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';

/** What of the kernel path an update of the mesh is about. */
export interface Concern {
  /** Everything: all that there was has been replaced, or a setting has changed. The rest need not be complete then. */
  readonly all: boolean;
  /** Addresses at which something else is than before, or something that is to be treated otherwise. */
  readonly addresses: ReadonlySet<Address>;
  /** Services that have changed, or an endpoint of theirs. */
  readonly services: ReadonlySet<ServiceName>;
}

/** Must be asked before the update is applied: it is about what was there, too. */
export function concernOf(
  update: MeshUpdate,
  model: Pick<ReadModel, 'workload' | 'service' | 'settings' | 'isComplete'>,
): Concern {
  const addresses = new Set<Address>();
  const services = new Set<ServiceName>();
  if (update.complete) return { all: true, addresses, services };
  let all = update.settings !== undefined && !isSame(update.settings, model.settings);

  const about = (old: Workload | undefined, now: Workload | undefined): void => {
    for (const workload of [old, now])
      for (const name of Object.keys(workload?.services ?? {})) services.add(name as ServiceName);
    if (signatureOf(old) === signatureOf(now)) return;
    for (const workload of [old, now]) for (const address of workload?.addresses ?? []) addresses.add(address);
  };
  const aboutService = (name: ServiceName, old: Service | undefined, now: Service | undefined): void => {
    services.add(name);
    // Blocks of addresses are rare; what lies in one is not worth looking for.
    if ((old?.addressBlocks.length ?? 0) + (now?.addressBlocks.length ?? 0) > 0) all = true;
    if (old !== undefined && now !== undefined && isSame(placeOf(old), placeOf(now))) return;
    for (const service of [old, now]) for (const { address } of service?.addresses ?? []) addresses.add(address);
  };

  for (const workload of update.workloads) about(model.workload(workload.uid), workload);
  for (const service of update.services) {
    const name = serviceName(service);
    aboutService(name, model.service(name), service);
  }
  for (const key of update.removed) {
    about(model.workload(key), undefined);
    const service = model.service(key as ServiceName);
    if (service !== undefined) aboutService(key as ServiceName, service, undefined);
  }
  return { all, addresses, services };
}

const signatures = new WeakMap<Workload, string>();

/** All of a workload that an answer of the kernel path depends on, beside its policies. Equal ones are treated alike. */
export function signatureOf(workload: Workload | undefined): string {
  if (workload === undefined) return '';
  const known = signatures.get(workload);
  if (known !== undefined) return known;
  const { uid, namespace, trustDomain, serviceAccount, addresses, network, node, networkMode } = workload;
  const { protocol, waypoint, nativeTunnel, applicationTunnel, sameNode, services } = workload;
  const signature = JSON.stringify([
    [uid, namespace, trustDomain, serviceAccount, addresses, network, node, networkMode],
    [protocol, waypoint, nativeTunnel, applicationTunnel, sameNode, Object.keys(services).sort()],
  ]);
  signatures.set(workload, signature);
  return signature;
}

/** What makes an address a service's, and for whom. */
function placeOf({ addresses, visibility, loadBalancing, hostname, namespace }: Service): unknown {
  return [addresses, visibility, loadBalancing?.mode, hostname, namespace];
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
