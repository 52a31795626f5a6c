/** Pod to Workload (wire contract, section 12.3). */
import type { Address, Locality, MeshSettings, Workload } from '../../mesh/index.ts';
import type { Node, Pod } from '../objects/index.ts';
import { sameIfEqual } from './memory.ts';
import { canonicalName, canonicalRevision, podWorkloadName } from './names.ts';
import type { Selection } from './selection.ts';
import { plainWorkload, tunnelOf } from './workload.ts';

const FINISHED = new Set(['Succeeded', 'Failed']);

/** What a pod's workload is made of besides the pod and the services that select it. */
export interface PodSurroundings {
  readonly settings: MeshSettings;
  readonly locality: Locality;
  readonly waypoint: Workload['waypoint'];
  readonly applicationTunnel: Workload['applicationTunnel'];
}

/** What the workload of a pod was made of. */
interface MadePod extends PodSurroundings {
  readonly selection: Selection;
  readonly workload: Workload | undefined;
}

/** There are many pods, and a build asks for each: so what was made is looked at without making anything. */
export class PodBuilder {
  readonly #made = new WeakMap<Pod, MadePod>();

  /** Undefined: it has no address yet, or runs no more. The same as last time if everything else is. */
  build(pod: Pod, surroundings: PodSurroundings, selection: Selection): Workload | undefined {
    const last = this.#made.get(pod);
    const stays = last !== undefined && areSame(last, surroundings);
    if (stays && last.selection === selection) return last.workload;
    const workload = stays ? selectAgain(pod, last.workload, selection) : buildPod(pod, surroundings, selection);
    this.#made.set(pod, { ...surroundings, selection, workload });
    return workload;
  }
}

function areSame(one: PodSurroundings, other: PodSurroundings): boolean {
  return (
    one.settings === other.settings &&
    one.locality === other.locality &&
    one.waypoint === other.waypoint &&
    one.applicationTunnel?.protocol === other.applicationTunnel?.protocol &&
    one.applicationTunnel?.port === other.applicationTunnel?.port
  );
}

/** Services have changed, but mostly others than this pod's. */
function selectAgain(pod: Pod, last: Workload | undefined, selection: Selection): Workload | undefined {
  if (last === undefined) return undefined;
  const services = sameIfEqual(last.services, selection.ofPod(pod));
  return services === last.services ? last : { ...last, services };
}

function buildPod(pod: Pod, surroundings: PodSurroundings, selection: Selection): Workload | undefined {
  const { metadata, spec, status } = pod;
  const addresses = addressesOf(pod);
  if (addresses.length === 0 || FINISHED.has(status?.phase ?? '')) return undefined;
  const { settings, locality, waypoint, applicationTunnel } = surroundings;
  const { name, namespace, labels } = metadata;
  const workloadName = podWorkloadName(pod);
  return {
    ...plainWorkload(settings, { uid: `${settings.clusterId}//Pod/${namespace}/${name}`, name, namespace }),
    ...tunnelOf(metadata),
    addresses,
    node: spec.nodeName,
    serviceAccount: spec.serviceAccountName,
    waypoint,
    canonicalName: canonicalName(labels, workloadName),
    canonicalRevision: canonicalRevision(labels),
    workloadName,
    status: isReady(pod) ? 'healthy' : 'unhealthy',
    services: selection.ofPod(pod),
    applicationTunnel,
    locality,
    networkMode: spec.hostNetwork ? 'host' : 'standard',
  };
}

export function nodeLocality({ metadata: { labels } }: Node): Locality {
  return {
    region: labels['topology.kubernetes.io/region'] ?? '',
    zone: labels['topology.kubernetes.io/zone'] ?? '',
    subzone: labels['topology.istio.io/subzone'] ?? '',
  };
}

function addressesOf({ status }: Pod): readonly Address[] {
  if (status === undefined) return [];
  const all = status.podIPs.map(({ ip }) => ip);
  if (all.length > 0) return [...new Set(all)];
  return status.podIP === undefined ? [] : [status.podIP];
}

function isReady({ metadata, status }: Pod): boolean {
  const ready = status?.conditions.find(({ type }) => type === 'Ready');
  return ready?.status === 'True' && metadata.deletionTimestamp === '';
}
