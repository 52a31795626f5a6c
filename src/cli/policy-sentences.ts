/** What a policy does, in plain sentences. Pure. */
import type { AuthorizationPolicy, PolicyClause, PolicyMatch, PolicyRule, StringMatch } from '../mesh/index.ts';

/** One line each, two spaces deeper a level. */
export function policySentences(policy: AuthorizationPolicy): string[] {
  const rules = policy.rules.map((rule, index) => `  rule ${index + 1}: ${ruleSentence(rule)}`);
  if (policy.action === 'deny')
    return rules.length === 0
      ? ['It refuses nobody: a DENY policy without a rule does nothing.']
      : ['It refuses:', ...rules, 'Everybody else is let in or refused by the other policies.'];
  return rules.length === 0
    ? ['It lets nobody in, so whatever no other ALLOW policy lets in is refused.']
    : ['It lets in:', ...rules, 'Everybody else is refused, unless another ALLOW policy lets them in.'];
}

/** `from namespace shop, to port 8080`. */
export function ruleSentence({ clauses, unlessThroughWaypoint }: PolicyRule): string {
  const saying = clauses.filter(({ matches }) => matches.length > 0);
  const who = saying.filter(saysWho).map(clauseSentence);
  const what = saying.filter((clause) => !saysWho(clause)).map(clauseSentence);
  const all = [...(who.length === 0 ? ['everybody'] : who), ...what].join(', ');
  return unlessThroughWaypoint ? `${all}; not if a waypoint of the destination asks, which looks at the rest` : all;
}

/** Whether it is the rule that only asks for a proven identity, as PeerAuthentication's STRICT does. */
export function asksForIdentity({ clauses }: PolicyRule): boolean {
  return clauses.some(({ matches }) => matches.some(({ notPrincipals }) => notPrincipals.some(isPresence)));
}

const WHO = [
  'principals',
  'notPrincipals',
  'serviceAccounts',
  'notServiceAccounts',
  'namespaces',
  'notNamespaces',
  'sourceIps',
  'notSourceIps',
] as const;

/** A match without any field lets nobody be meant, so it says that. */
function saysWho({ matches }: PolicyClause): boolean {
  return matches.some((match) => WHO.some((field) => match[field].length > 0) || isEmpty(match));
}

function isEmpty(match: PolicyMatch): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}

function clauseSentence({ matches }: PolicyClause): string {
  const alternatives = matches.map(matchSentence);
  return alternatives.length === 1 ? (alternatives[0] ?? '') : alternatives.map((each) => `(${each})`).join(' or ');
}

/** Field by field, in the order in which one would say them. */
const FIELDS: ReadonlyArray<(match: PolicyMatch) => string | undefined> = [
  ({ principals }) =>
    principals.some(isPresence) ? 'whoever proves an identity' : said('identity', principals.map(text)),
  ({ notPrincipals }) =>
    notPrincipals.some(isPresence)
      ? 'whoever proves no identity (plaintext)'
      : said('not identity', notPrincipals.map(text)),
  ({ serviceAccounts }) => said('service account', serviceAccounts.map(account)),
  ({ notServiceAccounts }) => said('not service account', notServiceAccounts.map(account)),
  ({ namespaces }) => said('from namespace', namespaces.map(text)),
  ({ notNamespaces }) => said('not from namespace', notNamespaces.map(text)),
  ({ sourceIps }) => said('from address', sourceIps),
  ({ notSourceIps }) => said('not from address', notSourceIps),
  ({ destinationIps }) => said('to address', destinationIps),
  ({ notDestinationIps }) => said('not to address', notDestinationIps),
  ({ destinationPorts }) => said('to port', destinationPorts.map(String)),
  ({ notDestinationPorts }) => said('to every port but', notDestinationPorts.map(String)),
];

function matchSentence(match: PolicyMatch): string {
  if (isEmpty(match)) return 'nobody (nothing is left of this part, so it never matches)';
  return FIELDS.flatMap((say) => say(match) ?? []).join(', ');
}

function said(what: string, values: readonly string[]): string | undefined {
  return values.length === 0 ? undefined : `${what} ${values.join(' or ')}`;
}

function isPresence({ kind }: StringMatch): boolean {
  return kind === 'presence';
}

function text(match: StringMatch): string {
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

function account({ namespace, serviceAccount }: { namespace: string; serviceAccount: string }): string {
  return `${namespace}/${serviceAccount}`;
}
