/** Policies as the admin endpoint writes them (wire contract, section 9.5). Pure. */
import type { AuthorizationPolicy, PolicyMatch, StringMatch } from '../../mesh/index.ts';

const SCOPES: Readonly<Record<AuthorizationPolicy['scope'], string>> = {
  global: 'Global',
  namespace: 'Namespace',
  'workload-selector': 'WorkloadSelector',
};

export function policyJson(policy: AuthorizationPolicy): Record<string, unknown> {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: SCOPES[policy.scope],
    action: policy.action === 'allow' ? 'Allow' : 'Deny',
    rules: policy.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(matchJson))),
    dryRun: policy.dryRun,
  };
}

/** Empty fields are left out. */
function matchJson(match: PolicyMatch): Record<string, unknown> {
  const fields: Record<string, readonly unknown[]> = {
    namespaces: match.namespaces.map(textJson),
    notNamespaces: match.notNamespaces.map(textJson),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    principals: match.principals.map(textJson),
    notPrincipals: match.notPrincipals.map(textJson),
    sourceIps: match.sourceIps,
    notSourceIps: match.notSourceIps,
    destinationIps: match.destinationIps,
    notDestinationIps: match.notDestinationIps,
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, values]) => values.length > 0));
}

function textJson(match: StringMatch): Record<string, unknown> {
  switch (match.kind) {
    case 'exact':
      return { Exact: match.value };
    case 'prefix':
      return { Prefix: match.value };
    case 'suffix':
      return { Suffix: match.value };
    case 'presence':
      return { Presence: [] };
  }
}
