import type { ExplainStep, Explanation, FlowView } from '../../telemetry/index.ts';
import { AgentError } from '../errors.ts';
import { captureSteps } from './capture.ts';
import { caseOf } from './case.ts';
import { certificateSteps } from './certificates.ts';
import { conclude } from './conclusion.ts';
import { lastFlowsStep } from './last-flows.ts';
import { findSource, findTarget } from './names.ts';
import { explainPast } from './past.ts';
import { pathSteps } from './path.ts';
import { policySteps } from './policy.ts';
import { routeSteps } from './route.ts';
import { destinationSteps, sourceStep } from './source.ts';
import { spanText } from './times.ts';
import type { ExplainDeps, ExplainNode, ExplainWorld, Finding } from './world.ts';

export interface NodeExplainOptions {
  /** This node's name, as workloads have it. */
  readonly node: string;
}

/** Says what becomes of a connection and why, or what became of one. Decides nothing itself, and changes nothing. */
export class NodeExplain {
  readonly #deps: ExplainDeps;
  readonly #node: string;

  constructor(deps: ExplainDeps, options: NodeExplainOptions) {
    this.#deps = deps;
    this.#node = options.node;
  }

  /**
   * What would become of a connection now.
   *
   * @param from pod, service, address or SPIFFE id
   * @param to pod, service or address, and a port unless it has but one
   * @throws AgentError BAD_REQUEST: a name means nothing
   */
  pair({ from, to }: { readonly from: string; readonly to: string }, node: ExplainNode): Explanation {
    const world: ExplainWorld = { ...this.#deps, ...node, node: this.#node };
    if (!world.mesh.isComplete) return meshUnknown(world);
    const source = findSource(world, from);
    const target = findTarget(world, to, source);
    const situation = caseOf(world, source, target);
    const findings: Finding[] = [
      ...link(world),
      sourceStep(world, situation),
      ...captureSteps(world, situation),
      ...routeSteps(world, situation),
      ...destinationSteps(world, situation),
      ...policySteps(world, situation),
      ...certificateSteps(world, situation),
      ...pathSteps(world, situation),
      lastFlowsStep(world, situation),
    ];
    return { ...conclude(situation, findings), steps: findings.map(told) };
  }

  /**
   * What became of a connection.
   *
   * @param id of the flow, or the beginning of it
   * @throws AgentError BAD_REQUEST: there is none, or there are several
   */
  flow(id: string, now: number): Explanation {
    return explainPast(findFlow(this.#deps.flows, id), now);
  }
}

function told({ topic, state, text, details }: Finding): ExplainStep {
  return { topic, state, text, details };
}

/** @throws AgentError BAD_REQUEST */
function findFlow(flows: ExplainDeps['flows'], id: string): readonly FlowView[] {
  const wanted = id.toLowerCase();
  if (!/^[0-9a-f]{4,32}$/.test(wanted))
    throw new AgentError(
      'BAD_REQUEST',
      `flow: ${JSON.stringify(id.slice(0, 64))} is no flow's id: hexadecimal digits, at least the first 4 of 32; culvert flows lists them`,
    );
  const found = flows.find(wanted);
  const ids = [...new Set(found.map((each) => each.id))];
  if (ids.length === 0)
    throw new AgentError(
      'BAD_REQUEST',
      `flow: this node keeps no flow ${wanted}; only the last ones of each pod are kept (--flows-per-pod), and only those that have ended`,
    );
  if (ids.length > 1)
    throw new AgentError(
      'BAD_REQUEST',
      `flow: ${ids.length} flows begin with ${wanted}: ${ids.slice(0, 3).join(', ')}; write more of it`,
    );
  return found;
}

/** Whether what is known of the mesh is up to date. */
function link({ link: control, now }: ExplainWorld): readonly Finding[] {
  const status = control.status();
  if (status.connected) return [];
  return [
    {
      topic: 'mesh',
      state: 'note',
      text: `The control process has been away for ${spanText(now - status.since)}. What follows is by what was known then, which stays in force.`,
      details: status.reason === undefined ? [] : [status.reason],
    },
  ];
}

function meshUnknown({ link: control }: ExplainWorld): Explanation {
  const status = control.status();
  const why = status.connected || status.reason === undefined ? [] : [status.reason];
  return {
    connects: false,
    steps: [
      {
        topic: 'mesh',
        state: 'bad',
        text: 'Nothing is known of the mesh yet, so nobody can be looked up. Connections of enrolled pods wait 5 s for it, and are reset.',
        details: [...why, 'Is the control process running? culvert status shows the link to it.'],
      },
    ],
    conclusion: 'Nothing would connect: nothing is known of the mesh yet.',
  };
}
