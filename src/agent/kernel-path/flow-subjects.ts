import {
  type Address,
  type FlowDecision,
  type FlowSubject,
  flowPartyOf,
  flowServiceOf,
  identityOf,
  type Service,
  type ServiceName,
  type SpiffeId,
  type Workload,
} from '../../mesh/index.ts';
import { type Decision, type DryRunOutcome, decisivePolicy } from '../../policy/index.ts';
import { KUBELET_PROBE } from '../flow-groups.ts';
import type { PathPod, PathPods } from './pods.ts';
import type { FlowBetween, PathModel } from './ports.ts';

interface FlowSubjectsDeps {
  readonly model: Pick<PathModel, 'settings' | 'workloadAt' | 'serviceAt' | 'service'>;
  readonly pods: Pick<PathPods, 'get'>;
}

/** A flow as the mesh knows it at present. */
export interface KnownFlow {
  /** The pods of this node that it is of; undefined: that end is none. */
  readonly source: PathPod | undefined;
  readonly destination: PathPod | undefined;
  /** As each of them sees it; undefined: that end is no pod of this node. */
  readonly outbound: FlowSubject | undefined;
  readonly inbound: FlowSubject | undefined;
}

/** What policy says of a flow. */
export interface FlowAnswer {
  /** Undefined: nobody is asked about it. */
  readonly decision: FlowDecision | undefined;
  readonly dryRun: readonly DryRunOutcome[];
}

const PROBE: FlowDecision = {
  allowed: true,
  reason: KUBELET_PROBE,
  policy: undefined,
  text: 'the kubelet of this node asks how its pod is, which policy does not decide about',
};
const TOLD = new WeakMap<Decision, FlowDecision>();

/** Who and what a flow of the kernel path is about. */
export class FlowSubjects {
  readonly #deps: FlowSubjectsDeps;

  constructor(deps: FlowSubjectsDeps) {
    this.#deps = deps;
  }

  of(flow: FlowBetween): KnownFlow {
    const { model, pods } = this.#deps;
    const [source, destination] = [pods.get(flow.source), pods.get(flow.destination)];
    const { network } = model.settings;
    const client = this.#workloadOf(source, flow.client.address);
    const server = this.#workloadOf(destination, flow.server.address);
    const service = flow.asked && model.serviceAt(network, flow.asked.address, client?.namespace);
    const proven = flow.kind === 'local' && source !== undefined ? client : undefined;
    const sourceIdentity = proven && identityOf(proven);
    const destinationIdentity = proven && server && identityOf(server);
    const outbound: FlowSubject = {
      direction: 'outbound',
      path: 'kernel',
      client: flow.client,
      asked: flow.asked ?? flow.server,
      server: flow.server,
      dialled: flow.server,
      authority: undefined,
      source: flowPartyOf(client),
      destination: flowPartyOf(server),
      sourceIdentity,
      destinationIdentity,
      service: flowServiceOf(service),
      waypoint: undefined,
      security: sourceIdentity !== undefined && destinationIdentity !== undefined ? 'kernel' : 'none',
    };
    return {
      source,
      destination,
      outbound: source && outbound,
      inbound: destination && {
        ...outbound,
        direction: 'inbound',
        asked: flow.server,
        service: flowServiceOf(service ?? this.#guess(server, flow.server.port)),
      },
    };
  }

  /** A pod that is gone is what it was: somebody else may have its address by now. */
  #workloadOf(pod: PathPod | undefined, address: Address): Workload | undefined {
    const { model } = this.#deps;
    const own = pod?.workload ?? pod?.judged?.workload;
    if (own !== undefined || pod?.state === 'left') return own;
    return model.workloadAt(model.settings.network, address);
  }

  /** Which of the workload's services was probably asked for: as the tunnel guesses (wire contract, section 6.7). */
  #guess(workload: Workload | undefined, port: number): Service | undefined {
    for (const [name, own] of Object.entries(workload?.services ?? {})) {
      const service = this.#deps.model.service(name as ServiceName);
      if (service !== undefined && [...own, ...service.ports].some(({ targetPort }) => targetPort === port))
        return service;
    }
    return undefined;
  }

  /** By what applies now: nobody was asked when the flow was made, because a verdict, or an open port, had the answer. */
  answerTo(flow: FlowBetween, destination: PathPod | undefined, source: SpiffeId | undefined): FlowAnswer {
    if (flow.kind === 'probe') return { decision: PROBE, dryRun: [] };
    if (destination === undefined || flow.kind === 'outside') return { decision: undefined, dryRun: [] };
    const { client, server } = flow;
    const attempt = { source, sourceAddress: client.address, destination: server, throughWaypoint: false };
    // What the mesh knows no more is judged by what it was: its flows end with it, and were not forbidden.
    const { rules } = destination.judged ?? destination;
    const decision = rules.decide(attempt);
    return { decision: told(decision), dryRun: decision.dryRun };
  }
}

/** The same object for the same decision, which most flows share. */
export function told(decision: Decision): FlowDecision {
  const known = TOLD.get(decision);
  if (known !== undefined) return known;
  const { allowed, reason, text } = decision;
  const made: FlowDecision = { allowed, reason, policy: decisivePolicy(decision), text };
  TOLD.set(decision, made);
  return made;
}
