import type { FlowParty, FlowService } from './flow.ts';
import { identityOf, type Service, type Workload } from './workload.ts';

const PARTIES = new WeakMap<Workload, FlowParty>();
const SERVICES = new WeakMap<Service, FlowService>();

/** What a flow says of a workload: the same object for the same workload. */
export function flowPartyOf(workload: Workload | undefined): FlowParty | undefined {
  if (workload === undefined) return undefined;
  const known = PARTIES.get(workload);
  if (known !== undefined) return known;
  const party: FlowParty = {
    workload: workload.name,
    namespace: workload.namespace,
    cluster: workload.clusterId || undefined,
    workloadName: workload.workloadName || undefined,
    canonicalName: workload.canonicalName || undefined,
    canonicalRevision: workload.canonicalRevision || undefined,
    region: workload.locality.region || undefined,
    zone: workload.locality.zone || undefined,
    identity: identityIfValid(workload),
  };
  PARTIES.set(workload, party);
  return party;
}

/** The same object for the same service. */
export function flowServiceOf(service: Service | undefined): FlowService | undefined {
  if (service === undefined) return undefined;
  const known = SERVICES.get(service);
  if (known !== undefined) return known;
  const { name, namespace, hostname } = service;
  const made: FlowService = { name, namespace, hostname };
  SERVICES.set(service, made);
  return made;
}

/** Undefined: its names make no identity. */
function identityIfValid(workload: Workload): FlowParty['identity'] {
  try {
    return identityOf(workload);
  } catch {
    return undefined;
  }
}
