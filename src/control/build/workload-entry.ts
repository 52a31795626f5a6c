/** WorkloadEntry and the endpoints of a ServiceEntry to Workloads (wire contract, section 12.4). */
import { type Locality, parseAddress, type Workload } from '../../mesh/index.ts';
import type { ServiceEntry, WorkloadEntry, WorkloadEntrySpec } from '../objects/index.ts';
import { canonicalName, canonicalRevision, labelledName } from './names.ts';
import type { PolicyKeys } from './policy-keys.ts';
import { entryPorts, type Selection, type Target } from './selection.ts';
import type { BuildSettings } from './settings.ts';
import { plainWorkload, tunnelOf, UNKNOWN_LOCALITY } from './workload.ts';

const GROUP = 'istio.io/autoRegistrationGroup';
const RESOLVED_BY_NAME: ReadonlySet<string> = new Set(['DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS']);

type Labels = Readonly<Record<string, string>>;

/** Undefined: it cannot be reached over a network. */
export function buildWorkloadEntry(
  { metadata, spec }: WorkloadEntry,
  settings: BuildSettings,
  selection: Selection,
  policies: PolicyKeys,
  waypoint: Workload['waypoint'],
): Workload | undefined {
  const { name, namespace, annotations } = metadata;
  const labels = { ...spec.labels, ...metadata.labels };
  const place = placeOf(spec);
  if (place === undefined) return undefined;
  const uid = `${settings.mesh.clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`;
  return {
    ...plainWorkload(settings, { uid, name, namespace }),
    ...place,
    ...tunnelOf({ labels, annotations }),
    ...namesOf(labels, annotations[GROUP] || name),
    waypoint,
    authorizationPolicies: policies.of(labels),
    services: selection.ofEntry(labels, spec.ports),
  };
}

/** Nothing if it selects workloads instead. */
export function buildEndpoints(
  entry: ServiceEntry,
  settings: BuildSettings,
  targets: readonly Target[],
  policies: PolicyKeys,
  waypoint: Workload['waypoint'],
): readonly Workload[] {
  const { name, namespace, annotations } = entry.metadata;
  return endpointsOf(entry, targets).flatMap(({ spec, of }) => {
    const place = placeOf(spec);
    if (place === undefined) return [];
    const labels = { ...entry.metadata.labels, ...spec.labels };
    const uid = `${settings.mesh.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${name}/${spec.address}`;
    const workload: Workload = {
      ...plainWorkload(settings, { uid, name, namespace }),
      ...place,
      ...tunnelOf({ labels, annotations }),
      ...namesOf(labels, name),
      waypoint,
      authorizationPolicies: policies.of(labels),
      services: Object.fromEntries(of.map((target) => [target.name, entryPorts(spec.ports, target)])),
    };
    return [workload];
  });
}

/** Its own, each of all hosts; without any, each host is one if DNS is to be asked. */
function endpointsOf(
  { spec }: ServiceEntry,
  targets: readonly Target[],
): ReadonlyArray<{ readonly spec: WorkloadEntrySpec; readonly of: readonly Target[] }> {
  if (spec.workloadSelector !== undefined) return [];
  if (spec.endpoints.length > 0) return spec.endpoints.map((each) => ({ spec: each, of: targets }));
  if (!RESOLVED_BY_NAME.has(spec.resolution)) return [];
  return targets.map((target) => ({
    spec: {
      address: target.name.slice(target.name.indexOf('/') + 1),
      ports: {},
      labels: {},
      network: '',
      locality: '',
      weight: undefined,
      serviceAccount: '',
    },
    of: [target],
  }));
}

function namesOf(labels: Labels, name: string): Pick<Workload, 'workloadName' | 'canonicalName' | 'canonicalRevision'> {
  const workloadName = labelledName(labels, name);
  return {
    workloadName,
    canonicalName: canonicalName(labels, workloadName),
    canonicalRevision: canonicalRevision(labels),
  };
}

function placeOf(spec: WorkloadEntrySpec): Partial<Workload> | undefined {
  if (spec.address === '' || spec.address.startsWith('unix://')) return undefined;
  const address = parseAddress(spec.address);
  return {
    ...(address === undefined ? { hostname: spec.address.toLowerCase() } : { addresses: [address] }),
    ...(spec.network === '' ? {} : { network: spec.network }),
    ...(spec.weight === undefined || spec.weight === 0 ? {} : { capacity: spec.weight }),
    serviceAccount: spec.serviceAccount,
    locality: localityOf(spec.locality),
  };
}

/** `region/zone/subzone`; what is missing is unknown. */
function localityOf(text: string): Locality {
  if (text === '') return UNKNOWN_LOCALITY;
  const [region = '', zone = '', subzone = ''] = text.split('/');
  return { region, zone, subzone };
}
