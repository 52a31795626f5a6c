/** What other policies would have made of connections that have been seen. Pure. */
import { type Address, type AuthorizationPolicy, policyName, ReadModel, type SpiffeId } from '../mesh/index.ts';
import { type Attempt, type Decision, PolicyBook } from '../policy/index.ts';

/** Connections that are the same to policy, as an agent tells of them. */
export interface SeenFlow {
  readonly direction: 'inbound' | 'outbound';
  readonly identity?: string | undefined;
  readonly sourceAddress?: string | undefined;
  readonly destination: { readonly address: string; readonly port: number };
  /** Uid of the destination. */
  readonly workload: string;
  readonly throughWaypoint: boolean;
  readonly count: number;
  /** When the last one ended, ISO 8601. */
  readonly last: string;
}

export interface SeenWorkload {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly authorizationPolicies: readonly string[];
}

/** Connections of late, and the policies that are in force at their destinations. */
export interface Seen {
  readonly flows: readonly SeenFlow[];
  readonly workloads: readonly SeenWorkload[];
  readonly policies: readonly AuthorizationPolicy[];
}

/** The selector policies of a workload under the proposed ones. */
export interface ProposedNames {
  readonly names: readonly string[];
  /** What it could be instead, since nobody knows the workload's labels: each with the object that it hangs on. */
  readonly otherwise: ReadonlyArray<{ readonly names: readonly string[]; readonly because: string }>;
}

/** Other policies: added to those in force, or in place of the ones with the same names. */
export interface Proposal {
  readonly policies: readonly AuthorizationPolicy[];
  namesOf(workload: SeenWorkload): ProposedNames;
}

/** `unsure`: it hangs on what is not known. */
export type Outcome = 'refused' | 'allowed' | 'unsure' | 'still-refused' | 'still-allowed';

/** Connections that would fare alike, from one source to one port. */
export interface FlowChange {
  readonly outcome: Outcome;
  /** The identity; without one the address. */
  readonly source: string;
  /** `namespace/name`. */
  readonly destination: string;
  readonly port: number;
  readonly count: number;
  /** ISO 8601. */
  readonly last: string;
  /** Which policy and rule would decide, or what it hangs on. */
  readonly by: string;
}

/** The ones with the most connections first. */
export function changesOf(seen: Seen, proposal: Proposal): FlowChange[] {
  const now = bookOf(seen.policies);
  const then = bookOf([...seen.policies, ...proposal.policies]);
  const workloads = new Map(seen.workloads.map((each) => [each.uid, each]));
  const named = new Map<string, ProposedNames>();
  const rows = new Map<string, Row>();
  for (const flow of seen.flows) {
    const workload = workloads.get(flow.workload);
    if (workload === undefined) continue;
    const proposed = named.get(workload.uid) ?? proposal.namesOf(workload);
    named.set(workload.uid, proposed);
    const { outcome, by } = compare(flow, workload, proposed, { now, then });
    const source = flow.identity ?? flow.sourceAddress ?? 'an unknown address';
    const row = {
      outcome,
      by,
      source,
      destination: `${workload.namespace}/${workload.name}`,
      port: flow.destination.port,
    };
    add(rows, row, flow);
  }
  return [...rows.values()].map(finish).toSorted((one, other) => other.count - one.count);
}

interface Row extends Omit<FlowChange, 'count'> {
  readonly inbound: number;
  readonly outbound: number;
}

function add(
  rows: Map<string, Row>,
  row: Omit<FlowChange, 'count' | 'last'>,
  { direction, count, last }: SeenFlow,
): void {
  const key = JSON.stringify(row);
  const found = rows.get(key) ?? { ...row, last, inbound: 0, outbound: 0 };
  rows.set(key, {
    ...found,
    [direction]: found[direction] + count,
    last: last > found.last ? last : found.last,
  });
}

/** Between two pods of one node both ends tell of the same connection. */
function finish({ inbound, outbound, ...row }: Row): FlowChange {
  return { ...row, count: Math.max(inbound, outbound) };
}

interface Books {
  readonly now: PolicyBook;
  readonly then: PolicyBook;
}

interface Verdict {
  readonly outcome: Outcome;
  readonly by: string;
}

function compare(flow: SeenFlow, workload: SeenWorkload, proposed: ProposedNames, { now, then }: Books): Verdict {
  const before = decide(now, workload, workload.authorizationPolicies, flow);
  const after = decide(then, workload, proposed.names, flow);
  if (before === undefined || after === undefined)
    return { outcome: 'unsure', by: "a policy looks at the client's address, which is not known" };
  for (const { names, because } of proposed.otherwise)
    if (decide(then, workload, names, flow)?.allowed !== after.allowed)
      return {
        outcome: 'unsure',
        by: `${because}: the labels of ${workload.namespace}/${workload.name} are not known`,
      };
  if (after.allowed) return { outcome: before.allowed ? 'still-allowed' : 'allowed', by: deciderOf(after) };
  return { outcome: before.allowed ? 'refused' : 'still-refused', by: deciderOf(after) };
}

/** Undefined: it hangs on an address that is not known. */
function decide(
  book: PolicyBook,
  { namespace }: SeenWorkload,
  authorizationPolicies: readonly string[],
  { identity, sourceAddress, destination, throughWaypoint }: SeenFlow,
): Decision | undefined {
  const rules = book.rulesFor({ namespace, authorizationPolicies });
  if (sourceAddress === undefined && rules.dependsOnSourceAddress) return undefined;
  const attempt: Attempt = {
    source: identity as SpiffeId | undefined,
    sourceAddress: (sourceAddress ?? '0.0.0.0') as Address,
    destination: { address: destination.address as Address, port: destination.port },
    throughWaypoint,
  };
  return rules.decide(attempt);
}

function deciderOf({ reason, policy, rule, candidates }: Decision): string {
  if (reason === 'not-allowed') return `no rule of ${candidates.join(', ')}`;
  if (reason === 'unknown-policy') return `${policy}, which is not known`;
  if (policy === undefined) return reason === 'no-policy' ? 'no policy' : 'no ALLOW policy';
  return rule === undefined ? policy : `${policy}, rule ${rule + 1}`;
}

/** Of several with one name the last counts. */
function bookOf(policies: readonly AuthorizationPolicy[]): PolicyBook {
  const model = new ReadModel();
  const byName = new Map(policies.map((policy) => [policyName(policy), policy]));
  model.apply({
    complete: true,
    workloads: [],
    services: [],
    removed: [],
    policies: [...byName.values()],
    removedPolicies: [],
    settings: undefined,
  });
  return new PolicyBook(model);
}
