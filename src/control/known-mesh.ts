import { isDeepStrictEqual } from 'node:util';
import {
  type AuthorizationPolicy,
  type MeshSettings,
  type MeshUpdate,
  type PolicyName,
  policyName,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../mesh/index.ts';

/**
 * What a follower of the mesh has been told so far. After a connection was lost the whole mesh comes again; this makes of
 * it what has changed meanwhile, so that whatever stayed as it was is not touched.
 */
export class KnownMesh {
  readonly #workloads = new Map<string, Workload>();
  readonly #services = new Map<ServiceName, Service>();
  readonly #policies = new Map<PolicyName, AuthorizationPolicy>();
  #settings: MeshSettings | undefined;
  #complete = false;

  /** Takes an update in. Returns what is new in it; undefined: nothing. */
  take(update: MeshUpdate): MeshUpdate | undefined {
    const news = update.complete && this.#complete ? this.#changesTo(update) : update;
    if (news.complete) this.forget();
    for (const workload of news.workloads) this.#workloads.set(workload.uid, workload);
    for (const service of news.services) this.#services.set(serviceName(service), service);
    for (const key of news.removed) {
      this.#workloads.delete(key);
      this.#services.delete(key as ServiceName);
    }
    for (const policy of news.policies) this.#policies.set(policyName(policy), policy);
    for (const name of news.removedPolicies) this.#policies.delete(name);
    this.#settings = news.settings ?? this.#settings;
    this.#complete ||= news.complete;
    return news.complete || hasContent(news) ? news : undefined;
  }

  /** The next complete update is news, whole. */
  forget(): void {
    this.#workloads.clear();
    this.#services.clear();
    this.#policies.clear();
    this.#settings = undefined;
    this.#complete = false;
  }

  #changesTo(whole: MeshUpdate): MeshUpdate {
    const remaining = new Set<string | ServiceName>([
      ...whole.workloads.map(({ uid }) => uid),
      ...whole.services.map(serviceName),
    ]);
    const policies = new Set(whole.policies.map(policyName));
    return {
      complete: false,
      workloads: whole.workloads.filter((each) => !isDeepStrictEqual(each, this.#workloads.get(each.uid))),
      services: whole.services.filter((each) => !isDeepStrictEqual(each, this.#services.get(serviceName(each)))),
      removed: [...this.#workloads.keys(), ...this.#services.keys()].filter((key) => !remaining.has(key)),
      policies: whole.policies.filter((each) => !isDeepStrictEqual(each, this.#policies.get(policyName(each)))),
      removedPolicies: [...this.#policies.keys()].filter((name) => !policies.has(name)),
      settings: isDeepStrictEqual(whole.settings, this.#settings) ? undefined : whole.settings,
    };
  }
}

function hasContent(update: MeshUpdate): boolean {
  return (
    update.workloads.length > 0 ||
    update.services.length > 0 ||
    update.removed.length > 0 ||
    update.policies.length > 0 ||
    update.removedPolicies.length > 0 ||
    update.settings !== undefined
  );
}
