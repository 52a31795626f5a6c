/** The workloads, services and policies of one namespace. */
import {
  type AuthorizationPolicy,
  type Locality,
  type PolicyName,
  policyName,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';
import { type KubernetesObject, type Namespace, objectName, type Pod, type ServiceEntry } from '../objects/index.ts';
import type { Conversion } from './authorization.ts';
import { buildSlice } from './endpoint-slice.ts';
import type { Finding } from './finding.ts';
import type { NamespaceGroup } from './groups.ts';
import { TRAFFIC_DISTRIBUTION } from './load-balancing.ts';
import { areSame, Memo, Steady, sameIfEqual } from './memory.ts';
import { isStaticStrict } from './peer-authentication.ts';
import { PodBuilder, type PodSelectors, type PodSurroundings } from './pod.ts';
import { type MeshPolicies, PolicyBuilder, type PolicyObject } from './policies.ts';
import { SAME_NODE, sameNodeOf } from './same-node.ts';
import { Selection, type Target } from './selection.ts';
import { buildService, isSent, targetOf } from './service.ts';
import { buildServices, type OwnHost, targetsOf } from './service-entry.ts';
import type { BuildSettings } from './settings.ts';
import type { Attachment, Waypoints } from './waypoints.ts';
import { UNKNOWN_LOCALITY } from './workload.ts';
import { buildEndpoints, buildWorkloadEntry } from './workload-entry.ts';

/** What is around a namespace's own objects. The same object as long as nothing of it changes. */
export interface Surroundings {
  readonly settings: BuildSettings;
  readonly namespaces: ReadonlyMap<string, Namespace>;
  readonly waypoints: Waypoints;
  /** By node. */
  readonly localities: ReadonlyMap<string, Locality>;
  readonly policies: MeshPolicies;
}

export interface NamespaceMesh {
  /** By uid. */
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<ServiceName, Service>;
  readonly policies: ReadonlyMap<PolicyName, AuthorizationPolicy>;
  /** What has become of each object that says who may connect. */
  readonly conversions: ReadonlyMap<PolicyObject, Conversion>;
  readonly findings: readonly Finding[];
}

/** Which of its hosts an entry has to itself. The same array as long as they are the same. */
export type HostsOf = (entry: ServiceEntry) => readonly OwnHost[];

interface Made extends NamespaceMesh {
  /** All that it was made of. */
  readonly parts: readonly unknown[];
}

export class NamespaceBuilder {
  readonly #targets = new Steady<readonly Target[]>();
  readonly #services = new Memo<readonly Service[]>();
  readonly #pods = new PodBuilder();
  readonly #policies = new PolicyBuilder();
  readonly #others = new Memo<readonly Workload[]>();
  #selection: { readonly parts: readonly unknown[]; readonly selection: Selection } | undefined;
  #last: Made | undefined;

  build(group: NamespaceGroup, around: Surroundings, hostsOf: HostsOf): NamespaceMesh {
    const { pods, services, slices, serviceEntries, workloadEntries, authorizationPolicies, peerAuthentications } =
      group;
    const hosts = serviceEntries.map(hostsOf);
    const policyObjects = [...authorizationPolicies, ...peerAuthentications];
    const others = [...services, ...slices, ...serviceEntries, ...hosts, ...workloadEntries];
    const parts = [around, ...policyObjects, ...others, ...pods];
    if (this.#last !== undefined && areSame(this.#last.parts, parts)) return this.#last;
    const build = new Build(this.#last);
    const targets = this.#buildServices(group, around, hostsOf, build);
    const { keys, conversions } = this.#policies.build(group, around.policies);
    build.addPolicies(conversions);
    const selectors = { services: this.#select([...targets.values()].flat(), group), policies: keys };
    this.#buildPods(group, selectors, around, build);
    this.#buildOthers(group, selectors, targets, around, build);
    this.#targets.turn();
    this.#last = { ...build.finish(), parts };
    return this.#last;
  }

  /** Returns them as endpoints see them, by their objects. */
  #buildServices(
    group: NamespaceGroup,
    { settings, namespaces, waypoints }: Surroundings,
    hostsOf: HostsOf,
    build: Build,
  ): Map<KubernetesObject, readonly Target[]> {
    const distribution = namespaces.get(group.name)?.metadata.annotations[TRAFFIC_DISTRIBUTION];
    const targets = new Map<KubernetesObject, readonly Target[]>();
    for (const service of group.services) {
      if (!isSent(service)) continue;
      targets.set(service, this.#targets.keep(objectName(service), [targetOf(service, settings.mesh)]));
      const attachment = build.attach(service, waypoints.ofService(service.metadata));
      const inputs = [settings, distribution, attachment.waypoint, attachment.weightedWaypoints];
      const make = () => [buildService(service, settings.mesh, distribution, attachment)];
      build.addServices(this.#services.of(service, inputs, make));
    }
    for (const entry of group.serviceEntries) {
      const hosts = hostsOf(entry);
      targets.set(entry, this.#targets.keep(objectName(entry), targetsOf(entry, hosts)));
      const isPrivate = settings.serviceEntryVisibility === 'namespace';
      const attachment = build.attach(entry, waypoints.ofService(entry.metadata, isPrivate));
      const inputs = [settings, distribution, hosts, attachment.waypoint, attachment.weightedWaypoints];
      const make = () => buildServices(entry, hosts, settings, distribution, attachment);
      build.addServices(this.#services.of(entry, inputs, make));
    }
    return targets;
  }

  #select(targets: readonly Target[], { slices }: NamespaceGroup): Selection {
    const parts = [...targets, ...slices];
    if (this.#selection === undefined || !areSame(this.#selection.parts, parts))
      this.#selection = { parts, selection: new Selection(targets, slices) };
    return this.#selection.selection;
  }

  #buildPods(
    group: NamespaceGroup,
    selectors: PodSelectors,
    { localities, namespaces, settings, waypoints }: Surroundings,
    build: Build,
  ): void {
    const namespace = namespaces.get(group.name);
    const ofNamespace = namespace === undefined ? settings.sameNode : build.sameNode(namespace, settings.sameNode);
    for (const pod of group.pods) {
      const surroundings: PodSurroundings = {
        settings,
        locality: localities.get(pod.spec.nodeName) ?? UNKNOWN_LOCALITY,
        waypoint: build.attach(pod, waypoints.ofWorkload(pod.metadata)).waypoint,
        applicationTunnel: waypoints.tunnelOf(pod.metadata),
        sameNode: build.sameNode(pod, ofNamespace),
      };
      const workload = this.#pods.build(pod, surroundings, selectors);
      if (workload !== undefined) build.addWorkload(workload, pod);
    }
  }

  #buildOthers(
    group: NamespaceGroup,
    { services: selection, policies }: PodSelectors,
    targets: ReadonlyMap<KubernetesObject, readonly Target[]>,
    { settings, waypoints }: Surroundings,
    build: Build,
  ): void {
    const add = (object: KubernetesObject, inputs: readonly unknown[], make: () => readonly Workload[]) => {
      for (const workload of this.#others.of(object, inputs, make)) build.addWorkload(workload, object);
    };
    for (const entry of group.workloadEntries) {
      const { waypoint } = build.attach(entry, waypoints.ofWorkload(entry.metadata));
      add(entry, [settings, selection, policies, waypoint], () => {
        const workload = buildWorkloadEntry(entry, settings, selection, policies, waypoint);
        return workload === undefined ? [] : [workload];
      });
    }
    for (const entry of group.serviceEntries) {
      const own = targets.get(entry) ?? [];
      // Its label is meant for its services first: that the waypoint is none for workloads is no mistake.
      const { waypoint } = waypoints.ofWorkload(entry.metadata);
      add(entry, [settings, own, policies, waypoint], () => buildEndpoints(entry, settings, own, policies, waypoint));
    }
    for (const slice of group.slices) {
      const owner = selection.ownerOf(slice);
      if (owner !== undefined)
        add(slice, [settings, owner, policies], () => buildSlice(slice, settings, owner, policies));
    }
  }
}

/** One build under way: takes in what is made, and keeps what is equal to the last one's. */
class Build {
  readonly #last: NamespaceMesh | undefined;
  readonly #workloads = new Map<string, Workload>();
  readonly #services = new Map<ServiceName, Service>();
  readonly #policies = new Map<PolicyName, AuthorizationPolicy>();
  #conversions: ReadonlyMap<PolicyObject, Conversion> = new Map();
  readonly #findings: Finding[] = [];

  constructor(last: NamespaceMesh | undefined) {
    this.#last = last;
  }

  find(finding: Finding): void {
    this.#findings.push(finding);
  }

  /** Says what is wrong with it, unless nobody asked the object (wire contract, section 12.6, rule 3). */
  attach(object: KubernetesObject, attachment: Attachment): Attachment {
    const { refusal } = attachment;
    if (refusal === undefined) return attachment;
    const isWorkload = object.kind === 'Pod' || object.kind === 'WorkloadEntry';
    if (isWorkload && refusal.isInherited) return attachment;
    const { reason, text, key } = refusal;
    const part = key.endsWith('-weight') ? 'annotations' : 'labels';
    this.find({
      reason,
      text,
      object,
      field: refusal.isInherited ? undefined : `metadata.${part}[${JSON.stringify(key)}]`,
    });
    return attachment;
  }

  addServices(services: readonly Service[]): void {
    for (const service of services) {
      const name = serviceName(service);
      this.#services.set(name, sameIfEqual(this.#last?.services.get(name), service));
    }
  }

  /** The first of a uid stays. */
  addWorkload(workload: Workload, object: KubernetesObject): void {
    const { uid } = workload;
    if (this.#workloads.has(uid)) {
      this.find({ reason: 'duplicate', text: `There are several endpoints ${uid}.`, object, field: undefined });
      return;
    }
    this.#workloads.set(uid, sameIfEqual(this.#last?.workloads.get(uid), workload));
  }

  /** The policy that several objects share is none of theirs: it is left to whoever knows all of them. */
  addPolicies(conversions: ReadonlyMap<PolicyObject, Conversion>): void {
    this.#conversions = conversions;
    for (const [object, { policy, condition }] of conversions) {
      const { message: text, ignored } = condition;
      if (condition.reason !== 'Accepted')
        this.find({ reason: condition.reason, text, object, field: ignored[0]?.field, condition });
      if (policy === undefined || isStaticStrict(policy)) continue;
      const name = policyName(policy);
      this.#policies.set(name, sameIfEqual(this.#last?.policies.get(name), policy));
    }
  }

  /** What the object's annotation says, and says that it is wrong if it is. */
  sameNode(object: Namespace | Pod, otherwise: Workload['sameNode']): Workload['sameNode'] {
    const { value, isWrong } = sameNodeOf(object.metadata.annotations, otherwise);
    const field = `metadata.annotations[${JSON.stringify(SAME_NODE)}]`;
    if (isWrong) this.find({ reason: 'field', text: `${field} must be kernel or mtls; mtls counts.`, object, field });
    return value;
  }

  finish(): NamespaceMesh {
    return {
      workloads: this.#workloads,
      services: this.#services,
      policies: this.#policies,
      conversions: this.#conversions,
      findings: this.#findings,
    };
  }
}
