import type { Address } from './address.ts';
import type { SpiffeId } from './identity.ts';
import type { AuthorizationPolicy } from './policy.ts';
import { type ApplicablePolicies, PolicyIndex } from './policy-index.ts';
import { ServiceIndex } from './service-index.ts';
import type { ServiceEndpoint } from './service-record.ts';
import { DEFAULT_SETTINGS, type MeshSettings, type MeshUpdate } from './update.ts';
import {
  type GatewayAddress,
  identityOf,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from './workload.ts';
import { WorkloadIndex } from './workload-index.ts';

/**
 * The mesh as one node sees it: workloads and services by address and by name. Each look-up costs one or two map accesses,
 * at any size (CIDR blocks of services: one for each prefix length in use).
 *
 * Ingest is that of the Workload API (wire contract, section 4.6): a workload replaces the one with its uid and is taken out
 * of and put into services; endpoints of a service that is not known wait for it. In one thing it is kinder: endpoints wait
 * also when their service is removed, and follow a change of its health policy, so that what is read depends only on what
 * there is, not on the order in which it came.
 */
export class ReadModel {
  #workloads = new WorkloadIndex();
  #services = new ServiceIndex();
  #policies = new PolicyIndex();
  /** Policies of the indexes before this one. */
  #policyVersions = 0;
  #settings = DEFAULT_SETTINGS;
  #isComplete = false;

  /** Whether a complete update has been applied. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Until a source has told any: the defaults. */
  get settings(): MeshSettings {
    return this.#settings;
  }

  apply(update: MeshUpdate): void {
    if (update.complete) {
      this.#workloads = new WorkloadIndex();
      this.#services = new ServiceIndex();
      this.#policyVersions += this.#policies.version + 1;
      this.#policies = new PolicyIndex();
    }
    for (const service of update.services) this.#services.put(service);
    for (const workload of update.workloads) {
      const old = this.#workloads.put(workload);
      if (old !== undefined) this.#services.detach(old);
      this.#services.attach(workload);
    }
    for (const key of update.removed) this.#remove(key);
    for (const policy of update.policies) this.#policies.put(policy);
    for (const name of update.removedPolicies) this.#policies.delete(name);
    this.#settings = update.settings ?? this.#settings;
    this.#isComplete ||= update.complete;
  }

  /** Everything, as one complete update. */
  snapshot(): MeshUpdate {
    return {
      complete: true,
      workloads: [...this.#workloads.values()],
      services: [...this.#services.services()],
      removed: [],
      policies: [...this.#policies.values()],
      removedPolicies: [],
      settings: this.#settings,
    };
  }

  workload(uid: string): Workload | undefined {
    return this.#workloads.get(uid);
  }

  /** Never one in host network mode; where several own the address, see wire contract, section 6.6. */
  workloadAt(network: string, address: Address): Workload | undefined {
    return this.#workloads.at(network, address);
  }

  /** Another number after each change of any policy. */
  get policyVersion(): number {
    return this.#policyVersions + this.#policies.version;
  }

  /** Every policy. */
  policies(): IterableIterator<AuthorizationPolicy> {
    return this.#policies.values();
  }

  /** Wire contract, section 5.1. */
  policiesOf(workload: Pick<Workload, 'namespace' | 'authorizationPolicies'>): ApplicablePolicies {
    return this.#policies.of(workload);
  }

  service(name: ServiceName): Service | undefined {
    return this.#services.record(name)?.service;
  }

  /** Wire contract, section 6.2. `clientNamespace` undefined: visibility is not looked at. */
  serviceAt(network: string, address: Address, clientNamespace: string | undefined): Service | undefined {
    return this.#services.at(network, address, clientNamespace);
  }

  /** Exact or wildcard hostname, in any case of letters; which of several: wire contract, section 6.2. */
  serviceByHostname(hostname: string, clientNamespace: string | undefined): Service | undefined {
    return this.#services.withHostname(hostname, clientNamespace);
  }

  /**
   * Endpoints that are attached: healthy ones, or all where the service's health policy allows all. The array is never
   * altered, and is the same one until an endpoint or the service changes.
   */
  endpoints(service: Service): readonly ServiceEndpoint[] {
    return this.#services.record(serviceName(service))?.attached ?? [];
  }

  /** Every endpoint, healthy or not. */
  members(service: Service): Iterable<ServiceEndpoint> {
    return this.#services.record(serviceName(service))?.endpoints() ?? [];
  }

  /** One endpoint, healthy or not. */
  endpoint(service: Service, uid: string): ServiceEndpoint | undefined {
    return this.#services.record(serviceName(service))?.endpoint(uid);
  }

  /** The workload that a pod of this node is. */
  localWorkload(node: string, namespace: string, name: string, serviceAccount: string): Workload | undefined {
    for (const workload of this.#workloads.named(node, name))
      if (workload.namespace === namespace && (workload.serviceAccount || 'default') === (serviceAccount || 'default'))
        return workload;
    return undefined;
  }

  /** Identities of the HBONE workloads on a node: those that its agent needs certificates of (wire contract, section 3.5). */
  identitiesOn(node: string): ReadonlySet<SpiffeId> {
    const identities = new Set<SpiffeId>();
    for (const workload of this.#workloads.onNode(node))
      if (workload.protocol === 'hbone' || workload.nativeTunnel) identities.add(identityOf(workload));
    return identities;
  }

  /** What a gateway reference leads to (wire contract, sections 2.9 and 6.1). */
  gateway(
    reference: GatewayAddress,
  ):
    | { readonly kind: 'service'; readonly service: Service }
    | { readonly kind: 'workload'; readonly workload: Workload }
    | undefined {
    const { destination } = reference;
    const isNamed = destination.kind === 'hostname';
    const service = isNamed
      ? this.service(serviceName(destination))
      : this.serviceAt(destination.network, destination.address, undefined);
    if (service !== undefined) return { kind: 'service', service };
    const workload = isNamed
      ? this.#workloads.withHostname(destination.namespace, destination.hostname)
      : this.workloadAt(destination.network, destination.address);
    return workload && { kind: 'workload', workload };
  }

  /** A uid; else, with exactly one slash, a service's name (wire contract, section 4.6). What is not known is ignored. */
  #remove(key: string): void {
    const workload = this.#workloads.delete(key);
    if (workload !== undefined) this.#services.detach(workload);
    else if (key.split('/').length === 2) this.#services.delete(key as ServiceName);
  }
}
