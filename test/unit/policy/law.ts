import test from 'ava';
import type { AuthorizationPolicy, Workload } from '../../../src/mesh/index.ts';
import type { Attempt, Decision } from '../../../src/policy/index.ts';
import { judge } from './oracle.ts';
import { ATTEMPT, naming, rulesOf } from './policies.ts';

/**
 * What holds; the answer: the reason, and where it is named the policy with its rule; what there is in the mesh; what is not
 * as in `ATTEMPT`; whom it goes to: else a workload of `shop` that names no policy.
 */
export type Law = readonly [
  title: string,
  answer: string,
  policies: readonly AuthorizationPolicy[],
  changes?: Partial<Attempt>,
  workload?: Workload,
];

const YES = new Set(['no-policy', 'no-allow-policy', 'allowed']);

function answerOf({ reason, policy, rule }: Decision): string {
  if (policy === undefined) return reason;
  return `${reason} ${policy}${rule === undefined ? '' : `#${rule}`}`;
}

/** One test for each. The oracle must say the same. */
export function laws(section: string, table: readonly Law[]): void {
  for (const [title, answer, policies, changes, workload] of table)
    test(`${section}: ${title}`, (t) => {
      const attempt = { ...ATTEMPT, ...changes };
      const decision = rulesOf(policies, workload).decide(attempt);
      const [reason = '', named] = answer.split(' ');
      t.is(named === undefined ? decision.reason : answerOf(decision), answer);
      t.is(decision.allowed, YES.has(reason));
      const oracle = judge(policies, workload ?? naming(), attempt);
      t.is(oracle.reason, decision.reason);
      t.is(oracle.allowed, decision.allowed);
    });
}
