import type { AuthorizationPolicy, PolicyMatch, PolicyName, ServiceAccountMatch, StringMatch } from '../mesh/index.ts';
import type { CompiledClause, CompiledMatch, CompiledPolicy, CompiledRule } from './compiled.ts';
import type { Decision } from './decision.ts';
import type { Subject } from './subject.ts';

/** A field of a match that does not hold. */
export interface FieldExplanation {
  readonly field: keyof PolicyMatch;
  /** What the policy says, as one would write it: `*` for any, `x*`, `*x`. */
  readonly wanted: readonly string[];
  /** What the connection brings; undefined: it has no identity. */
  readonly found: string | undefined;
}

/** One of the alternatives of a clause. */
export interface MatchExplanation {
  readonly matched: boolean;
  /** It has no field at all, so it never matches. */
  readonly isEmpty: boolean;
  readonly failed: readonly FieldExplanation[];
}

export interface ClauseExplanation {
  readonly matched: boolean;
  readonly matches: readonly MatchExplanation[];
}

export interface RuleExplanation {
  readonly matched: boolean;
  /** It does not hold for this connection, because it comes from a waypoint of the destination. */
  readonly leftToWaypoint: boolean;
  readonly clauses: readonly ClauseExplanation[];
}

export interface PolicyExplanation {
  readonly policy: PolicyName;
  readonly action: AuthorizationPolicy['action'];
  readonly scope: AuthorizationPolicy['scope'];
  readonly dryRun: boolean;
  readonly matched: boolean;
  readonly rules: readonly RuleExplanation[];
}

/** A decision with everything that led to it. */
export interface Explanation {
  readonly decision: Decision;
  /** All that apply, by name. */
  readonly policies: readonly PolicyExplanation[];
  /** Names that the workload gives and nothing is known by. */
  readonly unknown: readonly string[];
}

export function explainPolicy({ policy, name, rules }: CompiledPolicy, subject: Subject): PolicyExplanation {
  const explained = rules.map((rule) => explainRule(rule, subject));
  const { action, scope, dryRun } = policy;
  return { policy: name, action, scope, dryRun, matched: explained.some(({ matched }) => matched), rules: explained };
}

function explainRule(rule: CompiledRule, subject: Subject): RuleExplanation {
  return {
    matched: rule.holds(subject),
    leftToWaypoint: rule.unlessThroughWaypoint && subject.throughWaypoint,
    clauses: rule.clauses.map((clause) => explainClause(clause, subject)),
  };
}

function explainClause(clause: CompiledClause, subject: Subject): ClauseExplanation {
  return { matched: clause.holds(subject), matches: clause.matches.map((match) => explainMatch(match, subject)) };
}

function explainMatch(match: CompiledMatch, subject: Subject): MatchExplanation {
  const failed = match.conditions
    .filter((condition) => !condition.holds(subject))
    .map(({ field }) => ({ field, wanted: wantedOf(match.wanted, field), found: foundOf(field, subject) }));
  return { matched: match.holds(subject), isEmpty: match.conditions.length === 0, failed };
}

function wantedOf(match: PolicyMatch, field: keyof PolicyMatch): string[] {
  const values: ReadonlyArray<StringMatch | ServiceAccountMatch | string | number> = match[field];
  return values.map((value) => {
    if (typeof value !== 'object') return `${value}`;
    return 'kind' in value ? textOfMatch(value) : `${value.namespace}/${value.serviceAccount}`;
  });
}

function textOfMatch(match: StringMatch): string {
  switch (match.kind) {
    case 'exact':
      return match.value;
    case 'prefix':
      return `${match.value}*`;
    case 'suffix':
      return `*${match.value}`;
    case 'presence':
      return '*';
  }
}

function foundOf(field: keyof PolicyMatch, { source, attempt }: Subject): string | undefined {
  switch (field) {
    case 'principals':
    case 'notPrincipals':
      return source.principal;
    case 'namespaces':
    case 'notNamespaces':
      return source.namespace || undefined;
    case 'serviceAccounts':
    case 'notServiceAccounts':
      return source.account;
    case 'sourceIps':
    case 'notSourceIps':
      return attempt.sourceAddress;
    case 'destinationIps':
    case 'notDestinationIps':
      return attempt.destination.address;
    case 'destinationPorts':
    case 'notDestinationPorts':
      return `${attempt.destination.port}`;
  }
}

/** The same for people: one sentence a line, two spaces deeper a level. Rules, clauses and matches are counted from 1. */
export function explanationLines({ decision, policies, unknown }: Explanation): string[] {
  return [
    `${decision.allowed ? 'allowed' : 'denied'}: ${decision.text}`,
    ...unknown.map((name) => `policy ${name} is named by the workload and not known`),
    ...policies.flatMap(policyLines),
  ];
}

function policyLines({ policy, action, scope, dryRun, matched, rules }: PolicyExplanation): string[] {
  const kind = `${dryRun ? 'dry-run ' : ''}${action.toUpperCase()}, ${scope}`;
  const none = rules.length === 0 ? ': it has no rule' : '';
  return [
    `${policy} (${kind}) ${matched ? 'matches' : 'does not match'}${none}`,
    ...rules.flatMap((rule, index) => ruleLines(rule, index)),
  ];
}

function ruleLines({ matched, leftToWaypoint, clauses }: RuleExplanation, index: number): string[] {
  if (matched) return [`  rule ${index + 1} matches${clauses.length === 0 ? ': it asks for nothing' : ''}`];
  if (leftToWaypoint) return [`  rule ${index + 1} is left to the waypoint that the connection comes from`];
  return [`  rule ${index + 1} does not match`, ...clauses.flatMap((clause, place) => clauseLines(clause, place))];
}

function clauseLines({ matched, matches }: ClauseExplanation, index: number): string[] {
  if (matched) return [];
  return matches.flatMap(({ isEmpty, failed }, place) => {
    const where = `    clause ${index + 1}, match ${place + 1}: `;
    if (isEmpty) return [`${where}it has no field, so it never matches`];
    return failed.map((field) => `${where}${fieldText(field)}`);
  });
}

function fieldText({ field, wanted, found }: FieldExplanation): string {
  const list = wanted.join(', ');
  const what = found ?? 'no identity';
  return field.startsWith('not') ? `${field}: ${what} is among ${list}` : `${field}: ${what} is none of ${list}`;
}
