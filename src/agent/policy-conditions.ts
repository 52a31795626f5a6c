import { type AuthorizationPolicy, policyName } from '../mesh/index.ts';
import type { PolicyConditionStatus } from './status-protocol.ts';

/** The status names so many: a mesh may be full of faults. */
const MOST_CONDITIONS = 100;

/**
 * What an operator should know of policies that are not enforced as written, or not at all: the unknown first, then the
 * partial, then dry runs, each by name; 100 at most.
 *
 * @param unknown names that pods of this node give and nobody knows
 */
export function policyConditions(
  policies: Iterable<AuthorizationPolicy>,
  unknown: readonly string[],
): PolicyConditionStatus[] {
  const partial: PolicyConditionStatus[] = [];
  const dryRun: PolicyConditionStatus[] = [];
  for (const policy of policies) {
    if (policy.partial === true)
      partial.push({ policy: policyName(policy), condition: 'partial', text: policy.partialBecause ?? PARTIAL });
    if (policy.dryRun) dryRun.push({ policy: policyName(policy), condition: 'dry-run', text: DRY_RUN });
  }
  const lost = unknown.map((policy): PolicyConditionStatus => ({ policy, condition: 'unknown', text: UNKNOWN }));
  return [lost, partial, dryRun].flatMap((each) => each.sort(byPolicy)).slice(0, MOST_CONDITIONS);
}

const UNKNOWN = 'not known, so pods of this node that it is for let nobody in';
const PARTIAL = 'denies more, or allows less, than is written in it';
const DRY_RUN = 'evaluated and counted, never enforced';

function byPolicy(a: PolicyConditionStatus, b: PolicyConditionStatus): number {
  return a.policy < b.policy ? -1 : Number(a.policy > b.policy);
}
