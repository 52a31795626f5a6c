import {
  type AuthorizationPolicy,
  type PolicyMatch,
  type PolicyName,
  type PolicyRule,
  policyName,
} from '../mesh/index.ts';
import { type Anchor, anchorsOf } from './anchors.ts';
import type { Decision } from './decision.ts';
import type { Subject } from './subject.ts';
import { DestinationIps, Namespaces, Ports, Principals, ServiceAccounts, SourceIps, type Values } from './values.ts';

export type Field = keyof PolicyMatch;

/** One field of a match: one of the values, or, negated, none. */
export class Condition {
  readonly field: Field;
  readonly #values: Values;
  readonly #negated: boolean;

  constructor(field: Field, values: Values, negated: boolean) {
    this.field = field;
    this.#values = values;
    this.#negated = negated;
  }

  holds(subject: Subject): boolean {
    return this.#values.some(subject) !== this.#negated;
  }
}

/** One of the alternatives of a clause: its fields AND. */
export class CompiledMatch {
  readonly wanted: PolicyMatch;
  readonly conditions: readonly Condition[];

  constructor(match: PolicyMatch) {
    this.wanted = match;
    this.conditions = conditionsOf(match);
  }

  /** Without a field it never holds. */
  holds(subject: Subject): boolean {
    const conditions = this.conditions;
    for (const condition of conditions) if (!condition.holds(subject)) return false;
    return conditions.length > 0;
  }
}

/** Cheap and telling ones first. */
function conditionsOf(match: PolicyMatch): Condition[] {
  const conditions: Condition[] = [];
  const add = <Value>(
    field: Field,
    values: readonly Value[],
    negated: boolean,
    kind: new (values: readonly Value[]) => Values,
  ) => {
    if (values.length > 0) conditions.push(new Condition(field, new kind(values), negated));
  };
  add('destinationPorts', match.destinationPorts, false, Ports);
  add('notDestinationPorts', match.notDestinationPorts, true, Ports);
  add('principals', match.principals, false, Principals);
  add('notPrincipals', match.notPrincipals, true, Principals);
  add('serviceAccounts', match.serviceAccounts, false, ServiceAccounts);
  add('notServiceAccounts', match.notServiceAccounts, true, ServiceAccounts);
  add('namespaces', match.namespaces, false, Namespaces);
  add('notNamespaces', match.notNamespaces, true, Namespaces);
  add('sourceIps', match.sourceIps, false, SourceIps);
  add('notSourceIps', match.notSourceIps, true, SourceIps);
  add('destinationIps', match.destinationIps, false, DestinationIps);
  add('notDestinationIps', match.notDestinationIps, true, DestinationIps);
  return conditions;
}

/** Alternatives OR. */
export class CompiledClause {
  readonly matches: readonly CompiledMatch[];

  constructor(matches: readonly CompiledMatch[]) {
    this.matches = matches;
  }

  /** Without an alternative it holds. */
  holds(subject: Subject): boolean {
    const matches = this.matches;
    for (const match of matches) if (match.holds(subject)) return true;
    return matches.length === 0;
  }
}

/** Clauses AND. */
export class CompiledRule {
  readonly clauses: readonly CompiledClause[];
  readonly anchors: readonly Anchor[];
  readonly unlessThroughWaypoint: boolean;
  /** What it says where it is enforced and decides. */
  readonly decision: Decision;

  constructor(rule: PolicyRule, action: AuthorizationPolicy['action'], decision: Decision) {
    this.clauses = rule.clauses.map(
      ({ matches }) => new CompiledClause(matches.map((match) => new CompiledMatch(match))),
    );
    this.anchors = anchorsOf(rule);
    this.unlessThroughWaypoint = action === 'deny' && rule.unlessThroughWaypoint;
    this.decision = decision;
  }

  /** Without a clause it holds. */
  holds(subject: Subject): boolean {
    if (this.unlessThroughWaypoint && subject.throughWaypoint) return false;
    for (const clause of this.clauses) if (!clause.holds(subject)) return false;
    return true;
  }
}

export class CompiledPolicy {
  readonly policy: AuthorizationPolicy;
  readonly name: PolicyName;
  /** OR; without one it never matches. */
  readonly rules: readonly CompiledRule[];

  constructor(policy: AuthorizationPolicy) {
    this.policy = policy;
    this.name = policyName(policy);
    this.rules = policy.rules.map(
      (rule, index) => new CompiledRule(rule, policy.action, decisionOf(this.name, policy.action, index)),
    );
  }

  /** Whether one of these fields is used anywhere. */
  looksAt(...fields: readonly Field[]): boolean {
    return this.policy.rules.some(({ clauses }) =>
      clauses.some(({ matches }) => matches.some((match) => fields.some((field) => match[field].length > 0))),
    );
  }
}

function decisionOf(policy: PolicyName, action: AuthorizationPolicy['action'], rule: number): Decision {
  const rest = { policy, rule, candidates: [], dryRun: [] };
  return action === 'allow'
    ? { allowed: true, reason: 'allowed', text: `allowed by: ${policy}`, ...rest }
    : { allowed: false, reason: 'denied', text: `explicitly denied by: ${policy}`, ...rest };
}
