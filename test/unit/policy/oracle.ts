/**
 * What the wire contract says of L4 policy (sections 5.1 to 5.3), said once more and slowly: no index, no cache, nothing
 * shared with src/policy, so that a mistake there is not made here. Also what the lab's fuzz holds the kernel to.
 */
import type {
  AuthorizationPolicy,
  PolicyClause,
  PolicyMatch,
  PolicyRule,
  StringMatch,
} from '../../../src/mesh/index.ts';

export interface OracleWorkload {
  readonly namespace: string;
  readonly authorizationPolicies: readonly string[];
}

export interface OracleAttempt {
  readonly source: string | undefined;
  readonly sourceAddress: string;
  readonly destination: { readonly address: string; readonly port: number };
  readonly throughWaypoint: boolean;
}

export interface OracleAnswer {
  readonly allowed: boolean;
  readonly reason: string;
  /** `namespace/name#rule` of all that could be named as the reason. */
  readonly because: readonly string[];
  /** Sorted. */
  readonly candidates: readonly string[];
  /** `namespace/name would`, sorted. */
  readonly dryRun: readonly string[];
}

/** @param policies all there are in the mesh */
export function judge(
  policies: Iterable<AuthorizationPolicy>,
  workload: OracleWorkload | undefined,
  attempt: OracleAttempt,
): OracleAnswer {
  if (workload === undefined) return no('workload-unknown');
  const all = [...policies];
  const applicable = all.filter((policy) => applies(policy, workload));
  const missing = workload.authorizationPolicies.filter((name) => !all.some((policy) => nameOf(policy) === name));
  const those = (action: string, dryRun: boolean) =>
    applicable.filter((policy) => policy.action === action && policy.dryRun === dryRun);
  const matching = (some: readonly AuthorizationPolicy[]) =>
    some.filter((each) => rulesThatMatch(each, attempt).length > 0);
  const because = (some: readonly AuthorizationPolicy[]) => some.flatMap((each) => rulesThatMatch(each, attempt));

  const wouldDeny = matching(those('deny', true)).map((policy) => `${nameOf(policy)} deny`);
  const denying = because(those('deny', false));
  if (denying.length > 0) return { ...no('denied', wouldDeny), because: denying };
  if (missing.length > 0) return { ...no('unknown-policy', wouldDeny), because: missing };

  const enforced = those('allow', false);
  const [tried, would] = [those('allow', true), matching(those('allow', true))];
  const dryRun = [
    ...wouldDeny,
    ...would.map((policy) => `${nameOf(policy)} allow`),
    ...(would.length === 0 && enforced.length === 0 ? tried.map((policy) => `${nameOf(policy)} not-allow`) : []),
  ].sort();
  if (enforced.length === 0) {
    const reason = applicable.length === 0 ? 'no-policy' : 'no-allow-policy';
    return { allowed: true, reason, because: [], candidates: [], dryRun };
  }
  const allowing = because(enforced);
  if (allowing.length > 0) return { allowed: true, reason: 'allowed', because: allowing, candidates: [], dryRun };
  return { ...no('not-allowed', dryRun), candidates: enforced.map(nameOf).sort() };
}

function no(reason: string, dryRun: readonly string[] = []): OracleAnswer {
  return { allowed: false, reason, because: [], candidates: [], dryRun: dryRun.toSorted() };
}

function nameOf({ namespace, name }: AuthorizationPolicy): string {
  return `${namespace}/${name}`;
}

function applies(policy: AuthorizationPolicy, workload: OracleWorkload): boolean {
  if (workload.authorizationPolicies.includes(nameOf(policy))) return true;
  if (policy.scope === 'global') return true;
  return policy.scope === 'namespace' && policy.namespace === workload.namespace;
}

function rulesThatMatch(policy: AuthorizationPolicy, attempt: OracleAttempt): string[] {
  return policy.rules.flatMap((rule, index) =>
    isLeftToWaypoint(policy, rule, attempt) || !rule.clauses.every((clause) => clauseMatches(clause, attempt))
      ? []
      : [`${nameOf(policy)}#${index}`],
  );
}

function isLeftToWaypoint(policy: AuthorizationPolicy, rule: PolicyRule, attempt: OracleAttempt): boolean {
  return (
    policy.action === 'deny' && rule.unlessThroughWaypoint && attempt.throughWaypoint && attempt.source !== undefined
  );
}

function clauseMatches(clause: PolicyClause, attempt: OracleAttempt): boolean {
  return clause.matches.length === 0 || clause.matches.some((match) => matchMatches(match, attempt));
}

function matchMatches(match: PolicyMatch, attempt: OracleAttempt): boolean {
  const [, namespace = '', account] = /^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(attempt.source ?? '') ?? [];
  const principal = account === undefined ? undefined : attempt.source?.replace('spiffe://', '');
  const { sourceAddress, destination } = attempt;

  const isPrincipal = (wanted: StringMatch) => principal !== undefined && textMatches(wanted, principal);
  const isNamespace = (wanted: StringMatch) => textMatches(wanted, namespace);
  const isAccount = (wanted: { namespace: string; serviceAccount: string }) =>
    wanted.namespace === namespace && wanted.serviceAccount === account;
  const isSource = (block: string) => isWithin(sourceAddress, block);
  const isDestination = (block: string) => isWithin(destination.address, block);
  const isPort = (port: number) => port === destination.port;

  const answers = [
    ...ofField(match.principals, match.notPrincipals, isPrincipal),
    ...ofField(match.namespaces, match.notNamespaces, isNamespace),
    ...ofField(match.serviceAccounts, match.notServiceAccounts, isAccount),
    ...ofField(match.sourceIps, match.notSourceIps, isSource),
    ...ofField(match.destinationIps, match.notDestinationIps, isDestination),
    ...ofField(match.destinationPorts, match.notDestinationPorts, isPort),
  ];
  return answers.length > 0 && answers.every((answer) => answer);
}

/** Nothing of a field that is not set. */
function ofField<Value>(
  wanted: readonly Value[],
  unwanted: readonly Value[],
  isIt: (value: Value) => boolean,
): boolean[] {
  const answers: boolean[] = [];
  if (wanted.length > 0) answers.push(wanted.some(isIt));
  if (unwanted.length > 0) answers.push(!unwanted.some(isIt));
  return answers;
}

function textMatches(wanted: StringMatch, text: string): boolean {
  if (wanted.kind === 'presence') return text.length > 0;
  const { value } = wanted;
  if (wanted.kind === 'exact') return text === value;
  if (wanted.kind === 'prefix') return text.slice(0, value.length) === value;
  return text.length >= value.length && text.slice(text.length - value.length) === value;
}

function isWithin(address: string, block: string): boolean {
  const [network = '', length] = block.split('/');
  const [one, other] = [bitsOf(address), bitsOf(network)];
  const bits = length === undefined ? other.length : Number(length);
  // The block of mapped addresses that was written as IPv6.
  const significant = network.includes(':') && other.length === 32 ? bits - 96 : bits;
  return one.length === other.length && one.slice(0, significant) === other.slice(0, significant);
}

/** The address as zeros and ones: 32 of IPv4, also where it is mapped, else 128. */
function bitsOf(address: string): string {
  if (!address.includes(':'))
    return address
      .split('.')
      .map(Number)
      .map((byte) => byte.toString(2).padStart(8, '0'))
      .join('');
  const [head = '', tail] = address.split('::');
  const groupsOf = (text: string) => (text === '' ? [] : text.split(':')).flatMap(groupsIn);
  const [first, last] = [groupsOf(head), groupsOf(tail ?? '')];
  const gap = tail === undefined ? [] : new Array<string>(8 - first.length - last.length).fill('0');
  const bits = [...first, ...gap, ...last]
    .map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0'))
    .join('');
  const mapped = `${'0'.repeat(80)}${'1'.repeat(16)}`;
  return bits.startsWith(mapped) ? bits.slice(mapped.length) : bits;
}

/** The last of an IPv6 address may be written as IPv4. */
function groupsIn(group: string): string[] {
  if (!group.includes('.')) return [group];
  const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
  return [(a * 256 + b).toString(16), (c * 256 + d).toString(16)];
}
