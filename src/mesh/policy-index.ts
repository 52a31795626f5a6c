import { type AuthorizationPolicy, type PolicyName, policyName } from './policy.ts';
import type { Workload } from './workload.ts';

/** What applies to a workload (wire contract, section 5.1). */
export interface ApplicablePolicies {
  /** In a fixed order: global ones, those of the namespace, those that the workload names. */
  readonly policies: readonly AuthorizationPolicy[];
  /** Names that the workload gives and nothing is known by. */
  readonly unknown: readonly string[];
}

/** Authorization policies by name and by what they apply to. */
export class PolicyIndex {
  readonly #byName = new Map<PolicyName, AuthorizationPolicy>();
  readonly #global = new Map<PolicyName, AuthorizationPolicy>();
  readonly #byNamespace = new Map<string, Map<PolicyName, AuthorizationPolicy>>();
  #version = 0;

  /** Another one after each change. */
  get version(): number {
    return this.#version;
  }

  values(): IterableIterator<AuthorizationPolicy> {
    return this.#byName.values();
  }

  put(policy: AuthorizationPolicy): void {
    const name = policyName(policy);
    this.delete(name);
    this.#byName.set(name, policy);
    if (policy.scope === 'global') this.#global.set(name, policy);
    else if (policy.scope === 'namespace') {
      const all = this.#byNamespace.get(policy.namespace) ?? new Map<PolicyName, AuthorizationPolicy>();
      this.#byNamespace.set(policy.namespace, all.set(name, policy));
    }
    this.#version += 1;
  }

  delete(name: PolicyName): void {
    const policy = this.#byName.get(name);
    if (policy === undefined) return;
    this.#byName.delete(name);
    this.#global.delete(name);
    const all = this.#byNamespace.get(policy.namespace);
    if (all?.delete(name) && all.size === 0) this.#byNamespace.delete(policy.namespace);
    this.#version += 1;
  }

  of(workload: Pick<Workload, 'namespace' | 'authorizationPolicies'>): ApplicablePolicies {
    const policies = [...this.#global.values(), ...(this.#byNamespace.get(workload.namespace)?.values() ?? [])];
    const unknown: string[] = [];
    for (const name of workload.authorizationPolicies) {
      const policy = this.#byName.get(name as PolicyName);
      if (policy === undefined) unknown.push(name);
      else if (!appliesUnnamed(policy, workload.namespace)) policies.push(policy);
    }
    return { policies, unknown };
  }
}

function appliesUnnamed({ scope, namespace }: AuthorizationPolicy, of: string): boolean {
  return scope === 'global' || (scope === 'namespace' && namespace === of);
}
