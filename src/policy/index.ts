export type { Attempt } from './attempt.ts';
export { type Decision, type DecisionReason, type DryRunOutcome, decisivePolicy } from './decision.ts';
export type {
  ClauseExplanation,
  Explanation,
  FieldExplanation,
  MatchExplanation,
  PolicyExplanation,
  RuleExplanation,
} from './explain.ts';
export { explanationLines } from './explain.ts';
export type { Answer, Guard, Permit } from './guards.ts';
export { Guards } from './guards.ts';
export type { Openness } from './openness.ts';
export { plaintextRules } from './plaintext.ts';
export { PolicyBook } from './policy-book.ts';
export type { Rules } from './rules.ts';
