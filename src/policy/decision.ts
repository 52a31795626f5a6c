import type { PolicyName } from '../mesh/index.ts';

/**
 * Why:
 * - `no-policy`: none applies;
 * - `no-allow-policy`: no enforced ALLOW policy applies, and nothing denies it;
 * - `allowed`: an ALLOW policy matches;
 * - `denied`: a DENY policy matches;
 * - `not-allowed`: ALLOW policies apply, and none of them matches;
 * - `unknown-policy`: the workload names a policy that nobody knows, which could deny anything;
 * - `workload-unknown`: nobody knows the destination, so nobody knows its policies.
 */
export type DecisionReason =
  | 'no-policy'
  | 'no-allow-policy'
  | 'allowed'
  | 'denied'
  | 'not-allowed'
  | 'unknown-policy'
  | 'workload-unknown';

/** What a dry-run policy would have done; `not-allow`: refuse, as the only kind of ALLOW policy there is. */
export interface DryRunOutcome {
  readonly policy: PolicyName;
  readonly would: 'deny' | 'allow' | 'not-allow';
}

/** A yes or a no, and who said it. */
export interface Decision {
  readonly allowed: boolean;
  readonly reason: DecisionReason;
  /** The policy that decided. Of `unknown-policy`: the one that is missing. */
  readonly policy: PolicyName | undefined;
  /** Which of its rules matched, from 0. */
  readonly rule: number | undefined;
  /** Of `not-allowed`: the ALLOW policies one of which would have had to match. */
  readonly candidates: readonly PolicyName[];
  /** For logs (wire contract, section 5.6). */
  readonly text: string;
  /** Never part of the answer (wire contract, section 5.2). */
  readonly dryRun: readonly DryRunOutcome[];
}

/** The policy to look at first: the one that decided, or one of those that would have had to match. */
export function decisivePolicy({
  policy,
  candidates,
}: Pick<Decision, 'policy' | 'candidates'>): PolicyName | undefined {
  return policy ?? candidates[0];
}
