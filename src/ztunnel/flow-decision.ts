import type { FlowDecision } from '../mesh/index.ts';
import { type Decision, decisivePolicy } from '../policy/index.ts';

const TOLD = new WeakMap<Decision, FlowDecision>();

/** What a flow says of a decision: the same object for the same decision, which most connections share. */
export function flowDecisionOf(decision: Decision): FlowDecision {
  const known = TOLD.get(decision);
  if (known !== undefined) return known;
  const { allowed, reason, text } = decision;
  const told: FlowDecision = { allowed, reason, policy: decisivePolicy(decision), text };
  TOLD.set(decision, told);
  return told;
}
