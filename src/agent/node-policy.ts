import type { NetnsCookie } from '../mesh/index.ts';
import { type FlowMesh, groupFlows } from './flow-groups.ts';
import { type AnswerDeps, answerQuestion } from './policy-answer.ts';
import type { PolicyAnswer, RecentFlowsAnswer } from './policy-protocol.ts';
import { parseQuestionSource, parseQuestionTarget } from './policy-question.ts';
import type { RecentFlows } from './recent-flows.ts';

export interface NodePolicyDeps extends AnswerDeps {
  readonly mesh: AnswerDeps['mesh'] & FlowMesh;
  readonly flows: Pick<RecentFlows, 'of'>;
}

/** Policy as this node knows it, for people who ask: what would be decided, and what has gone on. Decides nothing itself. */
export class NodePolicy {
  readonly #deps: NodePolicyDeps;

  constructor(deps: NodePolicyDeps) {
    this.#deps = deps;
  }

  /**
   * Whether one may connect to another.
   *
   * @throws AgentError BAD_REQUEST: the question is not understood
   */
  test({ from, to, explain }: { from: string; to: string; explain: boolean }): PolicyAnswer {
    const question = { source: parseQuestionSource(from), target: parseQuestionTarget(to), explain };
    return answerQuestion(this.#deps, question);
  }

  /** What went on at a pod of this node, and which policies it met. Undefined: no such pod. */
  recentFlows(pod: NetnsCookie | undefined): RecentFlowsAnswer {
    return groupFlows(this.#deps.mesh, pod === undefined ? [] : this.#deps.flows.of(pod));
  }
}
