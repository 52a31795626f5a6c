/** What is to be said of each policy of some manifests, beyond what is wrong with it. Pure. */
import type { ManifestReading, ReadPolicy } from '../control/index.ts';
import { type AuthorizationPolicy, identityOf, type MeshSettings, policyName, type Workload } from '../mesh/index.ts';
import { asksForIdentity, policySentences, ruleSentence } from './policy-sentences.ts';

/** `warning`: probably not what is meant. `note`: as it is meant, but one should know. */
export interface Remark {
  readonly severity: 'problem' | 'warning' | 'note';
  readonly text: string;
  readonly field: string | undefined;
  /** What to do. */
  readonly advice: string | undefined;
}

export interface CheckedPolicy {
  readonly policy: ReadPolicy;
  /** What it is and whom it is for. */
  readonly heading: string;
  /** Those that it applies to; undefined: the manifests have no workloads at all, so it cannot be told. */
  readonly workloads: readonly Workload[] | undefined;
  /** Of those, the ones that are not in the mesh. */
  readonly outside: readonly Workload[];
  /** What it would do. */
  readonly sentences: readonly string[];
  readonly remarks: readonly Remark[];
}

export function checkPolicies(reading: ManifestReading): CheckedPolicy[] {
  const known = knownOf(reading);
  return reading.policies.map((policy) => {
    const workloads =
      known.workloads.length === 0 ? undefined : known.workloads.filter((each) => applies(policy, each, known));
    const outside = workloads?.filter(({ protocol, nativeTunnel }) => protocol === 'tcp' && !nativeTunnel) ?? [];
    return {
      policy,
      workloads,
      outside,
      heading: headingOf(policy, known),
      sentences: policy.kind === 'PeerAuthentication' ? mtlsSentences(policy) : sentencesOf(policy),
      remarks: [
        ...reachRemarks(policy, workloads, outside),
        ...(policy.policy === undefined ? [] : contentRemarks(policy.policy, policy, known)),
      ],
    };
  });
}

interface Known {
  readonly workloads: readonly Workload[];
  readonly namespaces: ReadonlySet<string>;
  /** Without `spiffe://`, as policies name them. */
  readonly principals: ReadonlySet<string>;
  readonly settings: MeshSettings | undefined;
  readonly rootNamespace: string;
}

function knownOf({ mesh: { workloads, settings } }: ManifestReading): Known {
  return {
    workloads,
    namespaces: new Set(workloads.map(({ namespace }) => namespace)),
    principals: new Set(workloads.map((each) => identityOf(each).slice('spiffe://'.length))),
    settings,
    rootNamespace: settings?.rootNamespace ?? 'istio-system',
  };
}

function applies(read: ReadPolicy, workload: Workload, known: Known): boolean {
  const { policy, selector, selected, namespace, kind } = read;
  if (policy?.scope === 'workload-selector' && !isShared(policy, read))
    return workload.authorizationPolicies.includes(policyName(policy));
  if (Object.keys(selector).length > 0 && kind === 'PeerAuthentication')
    return selected.some((each) => each.namespace === workload.namespace && each.name === workload.name);
  return namespace === known.rootNamespace || workload.namespace === namespace;
}

/** The policy that all STRICT PeerAuthentications without exceptions have in common, which is the root namespace's. */
function isShared(policy: AuthorizationPolicy, { kind, name }: ReadPolicy): boolean {
  return kind === 'PeerAuthentication' && !policy.name.endsWith(`_${name}`);
}

function headingOf({ kind, namespace, selector, policy, mtls }: ReadPolicy, { rootNamespace }: Known): string {
  const labels = Object.entries(selector).map(([key, value]) => `${key}=${value}`);
  const reach = namespace === rootNamespace ? 'all namespaces' : `namespace ${namespace}`;
  const whom =
    labels.length > 0
      ? `workloads of ${reach} with ${labels.join(', ')}`
      : namespace === rootNamespace
        ? 'all workloads of the mesh'
        : `all workloads of ${reach}`;
  if (kind === 'PeerAuthentication') return `mutual TLS ${mtls}, for ${whom}`;
  if (policy === undefined) return `not enforced by agents; for ${whom}`;
  return `${policy.action.toUpperCase()}${policy.dryRun ? ', dry run' : ''}, for ${whom}`;
}

function sentencesOf({ policy, condition }: ReadPolicy): string[] {
  if (policy === undefined) return [condition.message];
  const ifEnforced = policy.dryRun
    ? ['It is a dry run: evaluated, logged and counted, never enforced. If it were enforced:']
    : [];
  return [...ifEnforced, ...policySentences(policy)];
}

/** A mode is more than the policy that it makes, which may make none, or one that others share. */
function mtlsSentences({ policy, mtls, condition }: ReadPolicy): string[] {
  if (condition.status === 'False') return [condition.message];
  const rules = policy?.rules.map((rule) => `  ${ruleSentence(rule)}`) ?? [];
  if (rules.length > 0) return ['It refuses:', ...rules];
  return mtls === 'UNSET'
    ? ['It says nothing, so what holds around it holds.']
    : ['It refuses nobody: plaintext is let in as far as the other policies allow.'];
}

function reachRemarks(
  { namespace, selector, condition }: ReadPolicy,
  workloads: readonly Workload[] | undefined,
  outside: readonly Workload[],
): Remark[] {
  // What is not enforced anywhere has been said already.
  if (workloads === undefined || condition.status === 'False') return [];
  if (workloads.length === 0) {
    const isBySelector = Object.keys(selector).length > 0;
    return [
      {
        severity: 'warning',
        field: isBySelector ? 'spec.selector' : 'metadata.namespace',
        text: isBySelector
          ? 'spec.selector selects nothing: no workload of these manifests has all of its labels'
          : `it applies to nothing: no workload of these manifests is in namespace ${namespace}`,
        advice: isBySelector ? 'correct the labels, or ignore this if the pods come later' : 'correct the namespace',
      },
    ];
  }
  if (outside.length === 0) return [];
  const [first] = outside;
  return [
    {
      severity: 'warning',
      field: undefined,
      text: `${outside.length} of its ${workloads.length} workloads ${outside.length === 1 ? 'is' : 'are'} not in the mesh, so it is not enforced there (${first?.namespace}/${first?.name}${outside.length > 1 ? ', ...' : ''})`,
      advice: 'enrol these pods',
    },
  ];
}

function contentRemarks(policy: AuthorizationPolicy, read: ReadPolicy, known: Known): Remark[] {
  const note = (text: string, advice?: string): Remark => ({ severity: 'note', field: undefined, text, advice });
  const remarks: Remark[] = [];
  // Rules that have been left out are a problem of their own.
  const isEmptyAsWritten = policy.rules.length === 0 && read.condition.ignored.length === 0;
  if (isEmptyAsWritten && policy.action === 'allow')
    remarks.push(note('an ALLOW policy without rules lets nobody in', 'if everybody is meant, write rules: [{}]'));
  if (isEmptyAsWritten && policy.action === 'deny')
    remarks.push({
      severity: 'warning',
      field: 'spec.rules',
      text: 'a DENY policy without rules does nothing',
      advice: 'if everybody is to be refused, write rules: [{}]',
    });
  if (policy.dryRun)
    remarks.push(note('it is a dry run and refuses nobody', 'remove the annotation istio.io/dry-run to enforce it'));
  if (policy.rules.some(asksForIdentity))
    remarks.push(
      note(
        'who would lose access for want of an identity cannot be told from manifests',
        `culvert policy replay ${read.place.file} shows it from the connections that an agent has seen`,
      ),
    );
  return [...remarks, ...nameRemarks(policy, known)];
}

/** Names that nothing in the manifests has. */
function nameRemarks({ rules }: AuthorizationPolicy, known: Known): Remark[] {
  const texts = new Set<string>();
  const matches = rules.flatMap(({ clauses }) => clauses.flatMap((clause) => clause.matches));
  for (const match of matches) {
    for (const each of [...match.namespaces, ...match.notNamespaces])
      if (each.kind === 'exact') addNamespace(texts, each.value, known);
    for (const { namespace } of [...match.serviceAccounts, ...match.notServiceAccounts])
      addNamespace(texts, namespace, known);
    for (const each of [...match.principals, ...match.notPrincipals])
      if (each.kind === 'exact') addPrincipal(texts, each.value, known);
  }
  return [...texts].map((text) => ({
    severity: 'warning',
    field: 'spec.rules',
    text,
    advice: 'correct the name, or ignore this if what it names comes later',
  }));
}

function addNamespace(texts: Set<string>, namespace: string, { namespaces }: Known): void {
  if (namespaces.size > 0 && !namespaces.has(namespace))
    texts.add(`it names namespace ${namespace}, in which these manifests have no workload`);
}

function addPrincipal(texts: Set<string>, principal: string, { principals, settings }: Known): void {
  const [trustDomain] = principal.split('/');
  if (principal.startsWith('spiffe://'))
    texts.add(`principal ${principal} never matches: principals are written without spiffe://`);
  else if (settings !== undefined && trustDomain !== settings.trustDomain)
    texts.add(`principal ${principal} is of another trust domain than the mesh's, ${settings.trustDomain}`);
  else if (principals.size > 0 && !principals.has(principal))
    texts.add(`it names principal ${principal}, which no workload of these manifests has`);
}
