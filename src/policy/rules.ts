import type { AuthorizationPolicy, PolicyName } from '../mesh/index.ts';
import type { Attempt } from './attempt.ts';
import type { CompiledPolicy } from './compiled.ts';
import type { Decision, DryRunOutcome } from './decision.ts';
import { type Explanation, explainPolicy } from './explain.ts';
import { CLOSED, type Openness, opennessOf } from './openness.ts';
import { RuleIndex } from './rule-index.ts';
import { Subject } from './subject.ts';

/** What applies to a workload, ready to decide (wire contract, section 5). Never altered: a change makes another one. */
export class Rules {
  /** By name. */
  readonly policies: readonly AuthorizationPolicy[];
  /** Names that the workload gives and nothing is known by. If there is one, nothing is let in. */
  readonly unknown: readonly string[];
  /** Whether an enforced policy looks at source addresses. */
  readonly dependsOnSourceAddress: boolean;
  readonly hasDryRun: boolean;

  readonly #compiled: readonly CompiledPolicy[];
  readonly #enforced: readonly CompiledPolicy[];
  readonly #deny: RuleIndex;
  /** Undefined: no enforced ALLOW policy applies. */
  readonly #allow: RuleIndex | undefined;
  readonly #dryRunDeny: RuleIndex;
  readonly #dryRunAllow: readonly CompiledPolicy[];
  readonly #dryRunAllowIndex: RuleIndex;
  /** Where it cannot be known what applies. */
  readonly #refusal: Decision | undefined;
  /** Where no enforced ALLOW policy matches. */
  readonly #otherwise: Decision;
  #openness: Openness | undefined;

  /** @param refusal what takes the place of ALLOW policies; undefined: nothing */
  constructor(compiled: readonly CompiledPolicy[], unknown: readonly string[], refusal: Decision | undefined) {
    this.policies = compiled.map(({ policy }) => policy);
    this.unknown = unknown;
    this.#compiled = compiled;
    this.#refusal = refusal;
    const those = (action: AuthorizationPolicy['action'], dryRun: boolean) =>
      compiled.filter(({ policy }) => policy.action === action && policy.dryRun === dryRun);
    const allow = those('allow', false);
    this.#enforced = compiled.filter(({ policy }) => !policy.dryRun);
    this.#deny = new RuleIndex(those('deny', false));
    this.#allow = allow.length === 0 ? undefined : new RuleIndex(allow);
    this.#dryRunDeny = new RuleIndex(those('deny', true));
    this.#dryRunAllow = those('allow', true);
    this.#dryRunAllowIndex = new RuleIndex(this.#dryRunAllow);
    this.hasDryRun = this.#enforced.length < compiled.length;
    this.dependsOnSourceAddress = this.#enforced.some((policy) => policy.looksAt('sourceIps', 'notSourceIps'));
    this.#otherwise = otherwise(
      compiled.length,
      allow.map(({ name }) => name),
    );
  }

  decide(attempt: Attempt): Decision {
    return this.#decide(new Subject(attempt));
  }

  /** Slow: for people. */
  explain(attempt: Attempt): Explanation {
    const subject = new Subject(attempt);
    return {
      decision: this.#decide(subject),
      policies: this.#compiled.map((policy) => explainPolicy(policy, subject)),
      unknown: this.unknown,
    };
  }

  /** What `decide` says of those who have no identity and come from no waypoint. */
  openness(): Openness {
    this.#openness ??= this.#refusal === undefined ? opennessOf(this.#parts()) : CLOSED;
    return this.#openness;
  }

  #parts() {
    return { deny: this.#deny, allow: this.#allow, policies: this.#enforced };
  }

  #decide(subject: Subject): Decision {
    const refusal = this.#deny.first(subject)?.decision ?? this.#refusal;
    const decision = refusal ?? this.#allow?.first(subject)?.decision ?? this.#otherwise;
    return this.hasDryRun ? this.#withDryRun(decision, subject, refusal !== undefined) : decision;
  }

  /** Wire contract, section 5.2: what a DENY has refused is not shown to ALLOW policies. */
  #withDryRun(decision: Decision, subject: Subject, isRefused: boolean): Decision {
    const dryRun: DryRunOutcome[] = this.#dryRunDeny
      .policies(subject)
      .map(({ name }) => ({ policy: name, would: 'deny' }));
    if (!isRefused) dryRun.push(...this.#dryRunAllowOutcomes(subject));
    return dryRun.length === 0 ? decision : { ...decision, dryRun };
  }

  #dryRunAllowOutcomes(subject: Subject): DryRunOutcome[] {
    const matched = this.#dryRunAllowIndex.policies(subject);
    if (matched.length > 0) return matched.map(({ name }) => ({ policy: name, would: 'allow' }));
    // Beside an enforced ALLOW policy another one only lets more in.
    if (this.#allow !== undefined) return [];
    return this.#dryRunAllow.map(({ name }) => ({ policy: name, would: 'not-allow' }));
  }
}

function otherwise(policies: number, allow: readonly PolicyName[]): Decision {
  const rest = { policy: undefined, rule: undefined, candidates: allow, dryRun: [] };
  if (policies === 0) return { allowed: true, reason: 'no-policy', text: 'no policy applies', ...rest };
  return allow.length === 0
    ? { allowed: true, reason: 'no-allow-policy', text: 'no ALLOW policy applies, and none denies', ...rest }
    : { allowed: false, reason: 'not-allowed', text: 'allow policies exist, but none allowed', ...rest };
}
