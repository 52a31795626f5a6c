/** Pod to Workload (wire contract, section 12.3). */
import type { Address, Locality, Workload } from '../../mesh/index.ts';
import type { Node, Pod } from '../objects/index.ts';
import { sameIfEqual } from './memory.ts';
import { canonicalName, canonicalRevision, podWorkloadName } from './names.ts';
import type { PolicyKeys } from './policy-keys.ts';
import type { Selection } from './selection.ts';
import type { BuildSettings } from './settings.ts';
import { plainWorkload, tunnelOf } from './workload.ts';

const FINISHED = new Set(['Succeeded', 'Failed']);

/** What a pod's workload is made of besides the pod and what selects it. */
export interface PodSurroundings {
  readonly settings: BuildSettings;
  readonly locality: Locality;
  readonly waypoint: Workload['waypoint'];
  readonly applicationTunnel: Workload['applicationTunnel'];
  readonly sameNode: Workload['sameNode'];
}

/** What selects pods by their labels. */
export interface PodSelectors {
  readonly services: Selection;
  readonly policies: PolicyKeys;
}

/** What the workload of a pod was made of. */
interface MadePod extends PodSurroundings {
  readonly selectors: PodSelectors;
  readonly workload: Workload | undefined;
}

/** There are many pods, and a build asks for each: so what was made is looked at without making anything. */
export class PodBuilder {
  readonly #made = new WeakMap<Pod, MadePod>();

  /** Undefined: it has no address yet, or runs no more. The same as last time if everything else is. */
  build(pod: Pod, surroundings: PodSurroundings, selectors: PodSelectors): Workload | undefined {
    const last = this.#made.get(pod);
    const stays = last !== undefined && areSame(last, surroundings);
    if (stays && last.selectors.services === selectors.services && last.selectors.policies === selectors.policies)
      return last.workload;
    const workload = stays ? selectAgain(pod, last.workload, selectors) : buildPod(pod, surroundings, selectors);
    this.#made.set(pod, { ...surroundings, selectors, workload });
    return workload;
  }
}

function areSame(one: PodSurroundings, other: PodSurroundings): boolean {
  return (
    one.settings === other.settings &&
    one.locality === other.locality &&
    one.waypoint === other.waypoint &&
    one.applicationTunnel?.protocol === other.applicationTunnel?.protocol &&
    one.applicationTunnel?.port === other.applicationTunnel?.port &&
    one.sameNode === other.sameNode
  );
}

/** Services or policies have changed, but mostly others than this pod's. */
function selectAgain(pod: Pod, last: Workload | undefined, selectors: PodSelectors): Workload | undefined {
  if (last === undefined) return undefined;
  const services = sameIfEqual(last.services, selectors.services.ofPod(pod));
  const authorizationPolicies = sameIfEqual(last.authorizationPolicies, selectors.policies.of(pod.metadata.labels));
  if (services === last.services && authorizationPolicies === last.authorizationPolicies) return last;
  return { ...last, services, authorizationPolicies };
}

function buildPod(pod: Pod, surroundings: PodSurroundings, selectors: PodSelectors): Workload | undefined {
  const { metadata, spec, status } = pod;
  const addresses = addressesOf(pod);
  if (addresses.length === 0 || FINISHED.has(status?.phase ?? '')) return undefined;
  const { settings, locality, waypoint, applicationTunnel, sameNode } = surroundings;
  const { name, namespace, labels } = metadata;
  const workloadName = podWorkloadName(pod);
  return {
    ...plainWorkload(settings, { uid: `${settings.mesh.clusterId}//Pod/${namespace}/${name}`, name, namespace }),
    ...tunnelOf(metadata),
    addresses,
    node: spec.nodeName,
    serviceAccount: spec.serviceAccountName,
    waypoint,
    canonicalName: canonicalName(labels, workloadName),
    canonicalRevision: canonicalRevision(labels),
    workloadName,
    status: isReady(pod) ? 'healthy' : 'unhealthy',
    authorizationPolicies: selectors.policies.of(labels),
    services: selectors.services.ofPod(pod),
    applicationTunnel,
    locality,
    networkMode: spec.hostNetwork ? 'host' : 'standard',
    sameNode,
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
