import type { PolicyClause, PolicyMatch, PolicyRule, StringMatch } from '../mesh/index.ts';
import { type Block, parseBlock } from './blocks.ts';
import { accountKey } from './values.ts';

/**
 * What a connection must bring for a rule to be worth looking at; the rule itself is always looked at in full. `block`: that
 * the source is in; `nobody`: no identity; `somebody`: any; `anything`: no such thing is known.
 */
export type Anchor =
  | { readonly kind: 'principal' | 'account' | 'namespace'; readonly key: string }
  | { readonly kind: 'port'; readonly key: number }
  | { readonly kind: 'block'; readonly key: Block }
  | { readonly kind: 'nobody' | 'somebody' | 'anything' };

/** How few connections bring it: the fewer the better. */
const BREADTH: Record<Anchor['kind'], number> = {
  principal: 0,
  account: 1,
  namespace: 2,
  port: 3,
  block: 4,
  nobody: 5,
  somebody: 6,
  anything: 7,
};

const ANYTHING: readonly Anchor[] = [{ kind: 'anything' }];

/** One of these is brought by every connection that the rule matches: those of its narrowest clause. */
export function anchorsOf(rule: PolicyRule): readonly Anchor[] {
  return narrowest(rule.clauses.map(ofClause));
}

function narrowest(choices: ReadonlyArray<readonly Anchor[]>): readonly Anchor[] {
  let best = ANYTHING;
  for (const choice of choices) if (breadthOf(choice) < breadthOf(best)) best = choice;
  return best;
}

/** That of the broadest. None at all: no connection brings it. */
function breadthOf(anchors: readonly Anchor[]): number {
  return anchors.reduce((broadest, { kind }) => Math.max(broadest, BREADTH[kind]), -1);
}

/** Alternatives without a field never hold, so they ask for nothing. */
function ofClause({ matches }: PolicyClause): readonly Anchor[] {
  if (matches.length === 0) return ANYTHING;
  return matches.filter((match) => !isEmpty(match)).flatMap(ofMatch);
}

function isEmpty(match: PolicyMatch): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}

function ofMatch(wanted: PolicyMatch): readonly Anchor[] {
  const choices = [
    wanted.principals.map(ofPrincipal),
    wanted.serviceAccounts.map((account): Anchor => ({ kind: 'account', key: accountKey(account) })),
    wanted.namespaces.map(ofNamespace),
    wanted.destinationPorts.map((key): Anchor => ({ kind: 'port', key })),
    wanted.sourceIps.map((cidr): Anchor => ({ kind: 'block', key: parseBlock(cidr) })),
  ].filter((choice) => choice.length > 0);
  return narrowest(isNobodyOnly(wanted) ? [...choices, [{ kind: 'nobody' }]] : choices);
}

function isNobodyOnly({ notPrincipals }: PolicyMatch): boolean {
  return notPrincipals.some(({ kind }) => kind === 'presence');
}

/** Whole parts of `trust-domain/ns/namespace/sa/account` that the text holds: no part has a slash in it. */
function ofPrincipal(match: StringMatch): Anchor {
  if (match.kind === 'presence') return { kind: 'somebody' };
  if (match.kind === 'exact') return { kind: 'principal', key: match.value };
  const parts = match.value.split('/');
  if (match.kind === 'prefix') {
    const [, , namespace] = parts;
    return namespace !== undefined && parts.length > 3 ? { kind: 'namespace', key: namespace } : { kind: 'somebody' };
  }
  const [namespace, , serviceAccount] = parts.slice(-3);
  return namespace !== undefined && serviceAccount !== undefined && parts.length > 3
    ? { kind: 'account', key: accountKey({ namespace, serviceAccount }) }
    : { kind: 'somebody' };
}

/** Nobody's namespace is empty, so a prefix may match nobody too. */
function ofNamespace(match: StringMatch): Anchor {
  if (match.kind === 'presence') return { kind: 'somebody' };
  return match.kind === 'exact' ? { kind: 'namespace', key: match.value } : { kind: 'anything' };
}
