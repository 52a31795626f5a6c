/** Kubernetes objects to workloads, services and policies (wire contract, sections 5.4, 5.5 and 12, without other networks). */
import {
  type AuthorizationPolicy,
  type GatewayAddress,
  type Locality,
  type MeshSettings,
  type PolicyName,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';
import { type KubernetesObject, objectName, type ServiceEntry } from '../objects/index.ts';
import type { Conversion } from './authorization.ts';
import type { Finding } from './finding.ts';
import { type Groups, groupObjects } from './groups.ts';
import { areSame, Steady, sameIfEqual } from './memory.ts';
import { type HostsOf, NamespaceBuilder, type Surroundings } from './namespace-builder.ts';
import { staticStrict, staticStrictName } from './peer-authentication.ts';
import { nodeLocality } from './pod.ts';
import { type MeshPolicies, meshPolicies, type PolicyObject } from './policies.ts';
import { hostnameOf, isSent } from './service.ts';
import { type OwnHost, shareHosts } from './service-entry.ts';
import { type BuildSettings, settingsOf } from './settings.ts';
import { gatewayAddress, Waypoints } from './waypoints.ts';

export interface MeshBuilderOptions {
  /** Where the ConfigMap `culvert` is. Default: istio-system. */
  readonly rootNamespace?: string;
}

/** The mesh as the objects say it. Never altered afterwards. */
export interface BuiltMesh {
  /** By uid. */
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<ServiceName, Service>;
  readonly policies: ReadonlyMap<PolicyName, AuthorizationPolicy>;
  /** What has become of each object that says who may connect. */
  readonly conversions: ReadonlyMap<PolicyObject, Conversion>;
  readonly settings: MeshSettings;
  readonly findings: readonly Finding[];
}

/** Builds once. */
export function buildMesh(objects: Iterable<KubernetesObject>, options: MeshBuilderOptions = {}): BuiltMesh {
  return new MeshBuilder(options).build(objects);
}

/**
 * Builds again and again. The result depends on the objects only; but what came out equal last time is the same object now,
 * and costs next to nothing if the objects that it is made of are the same. So an object must not be altered, but replaced.
 */
export class MeshBuilder {
  readonly #rootNamespace: string;
  readonly #localities = new Steady<Locality>();
  readonly #addresses = new Steady<GatewayAddress | undefined>();
  readonly #hosts = new Steady<readonly OwnHost[]>();
  #builders: ReadonlyMap<string, NamespaceBuilder> = new Map();
  #settings: BuildSettings | undefined;
  #policies: MeshPolicies | undefined;
  #strict: AuthorizationPolicy | undefined;
  #around: { readonly parts: readonly unknown[]; readonly surroundings: Surroundings } | undefined;

  constructor(options: MeshBuilderOptions = {}) {
    this.#rootNamespace = options.rootNamespace ?? 'istio-system';
  }

  build(objects: Iterable<KubernetesObject>): BuiltMesh {
    const groups = groupObjects(objects);
    const settings = this.#settingsOf(groups);
    const around = this.#surroundingsOf(groups, settings);
    const { hostsOf, findings } = this.#shareHosts(groups, settings);
    const workloads = new Map<string, Workload>();
    const services = new Map<ServiceName, Service>();
    const policies = new Map<PolicyName, AuthorizationPolicy>(this.#strictPolicy(groups, settings));
    const conversions = new Map<PolicyObject, Conversion>();
    const builders = new Map<string, NamespaceBuilder>();
    for (const group of groups.byNamespace.values()) {
      const builder = this.#builders.get(group.name) ?? new NamespaceBuilder();
      builders.set(group.name, builder);
      // Uids and names have the namespace in them: what two namespaces make never meets.
      const made = builder.build(group, around, hostsOf);
      for (const [uid, workload] of made.workloads) workloads.set(uid, workload);
      for (const [name, service] of made.services) services.set(name, service);
      for (const [name, policy] of made.policies) policies.set(name, policy);
      for (const [object, conversion] of made.conversions) conversions.set(object, conversion);
      findings.push(...made.findings);
    }
    this.#builders = builders;
    this.#hosts.turn();
    return { workloads, services, policies, conversions, settings: settings.mesh, findings };
  }

  #settingsOf({ configs, namespaces }: Groups): BuildSettings {
    const root = this.#rootNamespace;
    const labels = namespaces.get(root)?.metadata.labels ?? {};
    this.#settings = sameIfEqual(this.#settings, settingsOf(configs.get(root)?.meshConfig, root, labels));
    return this.#settings;
  }

  /** As soon as there is a PeerAuthentication, whatever it says. */
  #strictPolicy({ byNamespace }: Groups, { mesh }: BuildSettings): Array<readonly [PolicyName, AuthorizationPolicy]> {
    if (![...byNamespace.values()].some(({ peerAuthentications }) => peerAuthentications.length > 0)) return [];
    this.#strict = sameIfEqual(this.#strict, staticStrict(mesh.rootNamespace));
    return [[staticStrictName(mesh.rootNamespace), this.#strict]];
  }

  #surroundingsOf(groups: Groups, settings: BuildSettings): Surroundings {
    const { gateways, classes, namespaces, nodes, byNamespace } = groups;
    const { rootNamespace } = settings.mesh;
    const policies = sameIfEqual(this.#policies, meshPolicies(byNamespace.get(rootNamespace), rootNamespace));
    this.#policies = policies;
    const localities = new Map(
      [...nodes].map(([name, node]) => [name, this.#localities.keep(name, nodeLocality(node))] as const),
    );
    this.#localities.turn();
    const parts: unknown[] = [settings, policies];
    for (const map of [gateways, classes, namespaces, localities]) parts.push(...map.keys(), ...map.values());
    if (this.#around !== undefined && areSame(this.#around.parts, parts)) return this.#around.surroundings;
    const addresses = new Map(
      [...gateways].map(([name, gateway]) => [
        name,
        this.#addresses.keep(name, gatewayAddress(gateway, settings.mesh.network)),
      ]),
    );
    this.#addresses.turn();
    const waypoints = new Waypoints({ gateways, classes, namespaces, addresses });
    this.#around = { parts, surroundings: { settings, namespaces, waypoints, localities, policies } };
    return this.#around.surroundings;
  }

  #shareHosts(
    { byNamespace }: Groups,
    { mesh, serviceEntryVisibility }: BuildSettings,
  ): { readonly hostsOf: HostsOf; readonly findings: Finding[] } {
    const entries: ServiceEntry[] = [];
    const taken = { names: new Set<string>(), hostnames: new Set<string>() };
    for (const group of byNamespace.values()) {
      entries.push(...group.serviceEntries);
      for (const service of group.services) {
        if (!isSent(service)) continue;
        const hostname = hostnameOf(service, mesh);
        taken.names.add(serviceName({ namespace: group.name, hostname }));
        taken.hostnames.add(hostname);
      }
    }
    const shared = shareHosts(entries, taken, serviceEntryVisibility);
    const hosts = new Map(
      entries.map((entry) => [entry, this.#hosts.keep(objectName(entry), shared.hosts.get(entry) ?? [])]),
    );
    return { hostsOf: (entry) => hosts.get(entry) ?? [], findings: [...shared.findings] };
  }
}
