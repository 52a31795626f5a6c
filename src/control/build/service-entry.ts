/** ServiceEntry to Services, one for each host (wire contract, section 12.5). */
import { type MeshSettings, type Service, serviceName } from '../../mesh/index.ts';
import { objectName, type ServiceEntry } from '../objects/index.ts';
import { byAge } from './age.ts';
import type { Finding } from './finding.ts';
import { serviceEntryLoadBalancing } from './load-balancing.ts';
import type { Target, TargetPort } from './selection.ts';
import type { BuildSettings } from './settings.ts';
import type { Attachment } from './waypoints.ts';

const AUTO_ALLOCATE = 'networking.istio.io/enable-autoallocate-ip';

/** A host of a ServiceEntry that no other object of its namespace has. */
export interface OwnHost {
  readonly hostname: string;
  /** Preferred among services of that hostname in other namespaces. */
  readonly canonical: boolean;
}

/**
 * Which hosts belong to which entry: within a namespace to a Service first, then to the oldest entry. Canonical is the oldest
 * entry of all, unless a Service of any namespace has the host.
 *
 * @param taken names and hostnames of Kubernetes Services
 */
export function shareHosts(
  entries: readonly ServiceEntry[],
  taken: { readonly names: ReadonlySet<string>; readonly hostnames: ReadonlySet<string> },
  visibility: BuildSettings['serviceEntryVisibility'],
): { readonly hosts: ReadonlyMap<ServiceEntry, readonly OwnHost[]>; readonly findings: readonly Finding[] } {
  const owners = new Map<string, ServiceEntry>();
  const seen = new Set(taken.hostnames);
  const hosts = new Map<ServiceEntry, OwnHost[]>();
  const findings: Finding[] = [];
  for (const entry of visibility === 'none' ? [] : entries.toSorted(byAge)) {
    const own = new Map<string, OwnHost>();
    for (const [index, hostname] of entry.spec.hosts.entries()) {
      const name = serviceName({ namespace: entry.metadata.namespace, hostname });
      const owner = taken.names.has(name) ? 'a Service' : owners.get(name);
      if (owner !== undefined && owner !== entry) {
        const by = typeof owner === 'string' ? owner : objectName(owner);
        const text = `${hostname} belongs to ${by} in this namespace already.`;
        findings.push({ reason: 'conflict', text, object: entry, field: `spec.hosts[${index}]` });
        continue;
      }
      owners.set(name, entry);
      if (own.has(hostname)) continue;
      own.set(hostname, { hostname, canonical: visibility === 'public' && !seen.has(hostname) });
    }
    for (const { hostname } of own.values()) seen.add(hostname);
    hosts.set(entry, [...own.values()]);
  }
  return { hosts, findings };
}

/** The entry's services as endpoints see them. */
export function targetsOf(entry: ServiceEntry, hosts: readonly OwnHost[]): readonly Target[] {
  const { metadata, spec } = entry;
  return hosts.map(({ hostname }) => ({
    name: serviceName({ namespace: metadata.namespace, hostname }),
    object: metadata.name,
    kind: 'ServiceEntry',
    selector: spec.workloadSelector?.labels ?? {},
    ports: targetPorts(entry),
  }));
}

export function buildServices(
  entry: ServiceEntry,
  hosts: readonly OwnHost[],
  settings: BuildSettings,
  trafficDistribution: string | undefined,
  attachment: Attachment,
): readonly Service[] {
  const { metadata, spec } = entry;
  const { network } = settings.mesh;
  const blocks = spec.addresses.flatMap((each) => ('cidr' in each ? [{ network, cidr: each.cidr }] : []));
  return hosts.map(({ hostname, canonical }) => ({
    name: metadata.name,
    namespace: metadata.namespace,
    hostname,
    addresses: addressesOf(entry, hostname, settings.mesh),
    addressBlocks: blocks,
    ports: targetPorts(entry).map(({ servicePort, target }) => ({
      servicePort,
      targetPort: typeof target === 'number' ? target : 0,
    })),
    subjectAltNames: spec.subjectAltNames,
    waypoint: attachment.waypoint,
    weightedWaypoints: attachment.weightedWaypoints,
    loadBalancing: serviceEntryLoadBalancing(entry, trafficDistribution),
    ipFamilies: 'automatic',
    canonical,
    visibility: settings.serviceEntryVisibility === 'namespace' ? 'namespace' : 'public',
  }));
}

export function targetPorts({ spec }: ServiceEntry): readonly TargetPort[] {
  return spec.ports
    .filter(({ protocol }) => protocol !== 'UDP')
    .map(({ name, number, targetPort }) => ({ name, servicePort: number, target: targetPort ?? number }));
}

function addressesOf(entry: ServiceEntry, hostname: string, { network }: MeshSettings): Service['addresses'] {
  const given = entry.spec.addresses;
  if (given.length > 0) return given.flatMap((each) => ('address' in each ? [{ network, address: each.address }] : []));
  if (!isAllocated(entry, hostname)) return [];
  return (entry.status?.addresses ?? [])
    .filter(({ host }) => host === '' || host.toLowerCase() === hostname)
    .map(({ value }) => ({ network, address: value }));
}

/** Whether addresses that the control plane chose count for the host. */
function isAllocated({ metadata, spec }: ServiceEntry, hostname: string): boolean {
  if (metadata.labels[AUTO_ALLOCATE]?.toLowerCase() === 'false' || spec.resolution === 'NONE') return false;
  return !hostname.startsWith('*.') || spec.resolution === 'DYNAMIC_DNS';
}
