/** Policies in few words, so that a case fits one line. */
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  type PolicyMatch,
  type PolicyRule,
  parseCidr,
  ReadModel,
  type SpiffeId,
  type StringMatch,
  type Workload,
} from '../../../src/mesh/index.ts';
import { type Attempt, PolicyBook, type Rules } from '../../../src/policy/index.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';

type Fields = { readonly [Field in keyof PolicyMatch]?: ReadonlyArray<string | number> };
/** One match, or clauses of matches. */
type RuleWords = Fields | ReadonlyArray<readonly Fields[]>;

/** `*`, `x*`, `*x`, `x`, as in an AuthorizationPolicy. */
export function stringMatch(text: string): StringMatch {
  if (text === '*') return { kind: 'presence' };
  if (text.endsWith('*')) return { kind: 'prefix', value: text.slice(0, -1) };
  return text.startsWith('*') ? { kind: 'suffix', value: text.slice(1) } : { kind: 'exact', value: text };
}

function block(text: string): Cidr {
  const parsed = parseCidr(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
  if (parsed === undefined) throw new Error(`not a block: ${text}`);
  return parsed;
}

function account(text: string) {
  const [namespace = '', serviceAccount = ''] = text.split('/');
  return { namespace, serviceAccount };
}

export function match(fields: Fields): PolicyMatch {
  const texts = (field: keyof PolicyMatch) => (fields[field] ?? []).map(String);
  const numbers = (field: keyof PolicyMatch) => (fields[field] ?? []).map(Number);
  return {
    namespaces: texts('namespaces').map(stringMatch),
    notNamespaces: texts('notNamespaces').map(stringMatch),
    principals: texts('principals').map(stringMatch),
    notPrincipals: texts('notPrincipals').map(stringMatch),
    sourceIps: texts('sourceIps').map(block),
    notSourceIps: texts('notSourceIps').map(block),
    destinationIps: texts('destinationIps').map(block),
    notDestinationIps: texts('notDestinationIps').map(block),
    destinationPorts: numbers('destinationPorts'),
    notDestinationPorts: numbers('notDestinationPorts'),
    serviceAccounts: texts('serviceAccounts').map(account),
    notServiceAccounts: texts('notServiceAccounts').map(account),
  };
}

function rule(words: RuleWords): PolicyRule {
  const clauses = Array.isArray(words) ? (words as ReadonlyArray<readonly Fields[]>) : [[words as Fields]];
  return { clauses: clauses.map((matches) => ({ matches: matches.map(match) })), unlessThroughWaypoint: false };
}

/** `shop/allow`, of the namespace. */
export function allow(...rules: readonly RuleWords[]): AuthorizationPolicy {
  return {
    namespace: 'shop',
    name: 'allow',
    scope: 'namespace',
    action: 'allow',
    rules: rules.map(rule),
    dryRun: false,
  };
}

/** `shop/deny`, of the namespace. */
export function deny(...rules: readonly RuleWords[]): AuthorizationPolicy {
  return { ...allow(...rules), name: 'deny', action: 'deny' };
}

export function named(name: string, policy: AuthorizationPolicy): AuthorizationPolicy {
  const [namespace = '', own = ''] = name.split('/');
  return { ...policy, namespace, name: own };
}

/** For workloads that name it. */
export function selected(policy: AuthorizationPolicy): AuthorizationPolicy {
  return { ...policy, scope: 'workload-selector' };
}

export function global(policy: AuthorizationPolicy): AuthorizationPolicy {
  return { ...policy, namespace: 'istio-system', scope: 'global' };
}

export function dryRun(policy: AuthorizationPolicy): AuthorizationPolicy {
  return { ...policy, name: `dry-${policy.name}`, dryRun: true };
}

export function unlessThroughWaypoint(policy: AuthorizationPolicy): AuthorizationPolicy {
  return { ...policy, rules: policy.rules.map((each) => ({ ...each, unlessThroughWaypoint: true })) };
}

/** Of account `web` of namespace `front`, from 10.1.2.3 to 10.0.0.1:8080, not through a waypoint. */
export const ATTEMPT: Attempt = {
  source: 'spiffe://cluster.local/ns/front/sa/web' as SpiffeId,
  sourceAddress: '10.1.2.3' as Address,
  destination: { address: '10.0.0.1' as Address, port: 8080 },
  throughWaypoint: false,
};

/** `ns/account`, or a whole SPIFFE id. */
export function by(who: string): Partial<Attempt> {
  const [namespace, serviceAccount] = who.split('/');
  const id = who.includes(':') ? who : `spiffe://cluster.local/ns/${namespace}/sa/${serviceAccount}`;
  return { source: id as SpiffeId };
}

/** No identity. */
export const nobody: Partial<Attempt> = { source: undefined };

export function from(sourceAddress: string): Partial<Attempt> {
  return { sourceAddress: sourceAddress as Address };
}

/** `8080`, or `address 8080`. */
export function to(where: string): Partial<Attempt> {
  const [port, address = '10.0.0.1'] = where.split(' ').toReversed();
  return { destination: { address: address as Address, port: Number(port) } };
}

export const throughWaypoint: Partial<Attempt> = { throughWaypoint: true };

/** A workload of `shop` that names these policies. */
export function naming(...authorizationPolicies: readonly string[]): Workload {
  return workload({ authorizationPolicies });
}

export function meshOf(policies: readonly AuthorizationPolicy[]): ReadModel {
  const mesh = new ReadModel();
  mesh.apply(meshUpdate({ policies: [...policies] }));
  return mesh;
}

/** What applies to a workload of `shop`. */
export function rulesOf(policies: readonly AuthorizationPolicy[], of: Workload | undefined = naming()): Rules {
  return new PolicyBook(meshOf(policies)).rulesFor(of);
}
