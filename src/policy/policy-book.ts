import type { ApplicablePolicies, AuthorizationPolicy, PolicyName, ReadModel, Workload } from '../mesh/index.ts';
import { CompiledPolicy } from './compiled.ts';
import type { Decision } from './decision.ts';
import { Interned } from './interned.ts';
import { Rules } from './rules.ts';

const WORKLOAD_UNKNOWN = new Rules([], [], {
  allowed: false,
  reason: 'workload-unknown',
  policy: undefined,
  rule: undefined,
  candidates: [],
  text: 'workload not found',
  dryRun: [],
});

/** What of a workload says which policies apply to it. */
type Governed = Pick<Workload, 'namespace' | 'authorizationPolicies'>;

interface Found {
  readonly version: number;
  readonly rules: Rules;
}

/** Keeps ready what applies to whom. Nothing outlives the workloads and the holders of the rules that it is for. */
export class PolicyBook {
  readonly #model: Pick<ReadModel, 'policiesOf' | 'policyVersion'>;
  readonly #compiled = new WeakMap<AuthorizationPolicy, CompiledPolicy>();
  /** By what they say: a policy that is sent again unchanged is the one that it was. */
  readonly #byText = new Interned<CompiledPolicy>();
  /** By the policies. */
  readonly #rules = new Interned<Rules>();
  readonly #found = new WeakMap<Governed, Found>();
  readonly #ids = new WeakMap<CompiledPolicy, number>();
  #lastId = 0;

  constructor(model: Pick<ReadModel, 'policiesOf' | 'policyVersion'>) {
    this.#model = model;
  }

  /**
   * The very same object as long as nothing that applies has changed, also for another workload to which the same policies
   * apply. Undefined: one that refuses everything, `workload-unknown`.
   */
  rulesFor(workload: Governed | undefined): Rules {
    if (workload === undefined) return WORKLOAD_UNKNOWN;
    const version = this.#model.policyVersion;
    const found = this.#found.get(workload);
    if (found?.version === version) return found.rules;
    const rules = this.#rulesOf(this.#model.policiesOf(workload));
    this.#found.set(workload, { version, rules });
    return rules;
  }

  #rulesOf({ policies, unknown }: ApplicablePolicies): Rules {
    const compiled = [...new Set(policies.map((policy) => this.#compile(policy)))].sort(byName);
    const missing = [...new Set(unknown)].sort();
    const key = JSON.stringify([compiled.map((policy) => this.#ids.get(policy)), missing]);
    return this.#rules.get(key, () => new Rules(compiled, missing, refusalOf(missing)));
  }

  #compile(policy: AuthorizationPolicy): CompiledPolicy {
    const known = this.#compiled.get(policy);
    if (known !== undefined) return known;
    const compiled = this.#byText.get(JSON.stringify(policy), () => this.#identified(new CompiledPolicy(policy)));
    this.#compiled.set(policy, compiled);
    return compiled;
  }

  #identified(policy: CompiledPolicy): CompiledPolicy {
    this.#lastId += 1;
    this.#ids.set(policy, this.#lastId);
    return policy;
  }
}

/** So that of several that match always the same one is named, in whatever order they came. */
function byName(a: CompiledPolicy, b: CompiledPolicy): number {
  if (a.name === b.name) return 0;
  return a.name < b.name ? -1 : 1;
}

/** A policy that is not known may deny anything, so nothing is let in until it is. */
function refusalOf([missing]: readonly string[]): Decision | undefined {
  if (missing === undefined) return undefined;
  return {
    allowed: false,
    reason: 'unknown-policy',
    policy: missing as PolicyName,
    rule: undefined,
    candidates: [],
    text: `policy not known: ${missing}`,
    dryRun: [],
  };
}
