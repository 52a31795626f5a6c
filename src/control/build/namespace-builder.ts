/** The workloads and services of one namespace. */
import { type Locality, type Service, type ServiceName, serviceName, type Workload } from '../../mesh/index.ts';
import { type KubernetesObject, type Namespace, objectName, type ServiceEntry } from '../objects/index.ts';
import { buildSlice } from './endpoint-slice.ts';
import type { Finding } from './finding.ts';
import type { NamespaceGroup } from './groups.ts';
import { TRAFFIC_DISTRIBUTION } from './load-balancing.ts';
import { areSame, Memo, Steady, sameIfEqual } from './memory.ts';
import { PodBuilder, type PodSurroundings } from './pod.ts';
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
}

export interface NamespaceMesh {
  /** By uid. */
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<ServiceName, Service>;
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
  readonly #others = new Memo<readonly Workload[]>();
  #selection: { readonly parts: readonly unknown[]; readonly selection: Selection } | undefined;
  #last: Made | undefined;

  build(group: NamespaceGroup, around: Surroundings, hostsOf: HostsOf): NamespaceMesh {
    const { pods, services, slices, serviceEntries, workloadEntries } = group;
    const hosts = serviceEntries.map(hostsOf);
    const parts = [around, ...services, ...slices, ...serviceEntries, ...hosts, ...workloadEntries, ...pods];
    if (this.#last !== undefined && areSame(this.#last.parts, parts)) return this.#last;
    const build = new Build(this.#last);
    const targets = this.#buildServices(group, around, hostsOf, build);
    const selection = this.#select([...targets.values()].flat(), group);
    this.#buildPods(group, selection, around, build);
    this.#buildOthers(group, selection, targets, around, build);
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
    selection: Selection,
    { localities, settings, waypoints }: Surroundings,
    build: Build,
  ): void {
    for (const pod of group.pods) {
      const surroundings: PodSurroundings = {
        settings: settings.mesh,
        locality: localities.get(pod.spec.nodeName) ?? UNKNOWN_LOCALITY,
        waypoint: build.attach(pod, waypoints.ofWorkload(pod.metadata)).waypoint,
        applicationTunnel: waypoints.tunnelOf(pod.metadata),
      };
      const workload = this.#pods.build(pod, surroundings, selection);
      if (workload !== undefined) build.addWorkload(workload, pod);
    }
  }

  #buildOthers(
    group: NamespaceGroup,
    selection: Selection,
    targets: ReadonlyMap<KubernetesObject, readonly Target[]>,
    { settings, waypoints }: Surroundings,
    build: Build,
  ): void {
    const add = (object: KubernetesObject, inputs: readonly unknown[], make: () => readonly Workload[]) => {
      for (const workload of this.#others.of(object, inputs, make)) build.addWorkload(workload, object);
    };
    for (const entry of group.workloadEntries) {
      const { waypoint } = build.attach(entry, waypoints.ofWorkload(entry.metadata));
      add(entry, [settings, selection, waypoint], () => {
        const workload = buildWorkloadEntry(entry, settings, selection, waypoint);
        return workload === undefined ? [] : [workload];
      });
    }
    for (const entry of group.serviceEntries) {
      const own = targets.get(entry) ?? [];
      // Its label is meant for its services first: that the waypoint is none for workloads is no mistake.
      const { waypoint } = waypoints.ofWorkload(entry.metadata);
      add(entry, [settings, own, waypoint], () => buildEndpoints(entry, settings, own, waypoint));
    }
    for (const slice of group.slices) {
      const owner = selection.ownerOf(slice);
      if (owner !== undefined) add(slice, [settings, owner], () => buildSlice(slice, settings.mesh, owner));
    }
  }
}

/** One build under way: takes in what is made, and keeps what is equal to the last one's. */
class Build {
  readonly #last: NamespaceMesh | undefined;
  readonly #workloads = new Map<string, Workload>();
  readonly #services = new Map<ServiceName, Service>();
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

  finish(): NamespaceMesh {
    return { workloads: this.#workloads, services: this.#services, findings: this.#findings };
  }
}
