import {
  type Address,
  type Endpoint,
  familyOf,
  identityOf,
  type NetnsCookie,
  type Workload,
} from '../../mesh/index.ts';
import { type Decision, decisivePolicy, type PolicyBook, plaintextRules, type Rules } from '../../policy/index.ts';
import type { PathPod, PathPods } from './pods.ts';
import type { KernelFlow, PathModel, PathRouting } from './ports.ts';

/** All that decisions of the kernel path are made of. */
export interface PathWorld {
  readonly model: Pick<PathModel, 'isComplete' | 'workloadAt'>;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
  readonly routing: Pick<PathRouting, 'directTo'>;
  readonly pods: Pick<PathPods, 'get' | 'at'>;
  /** Whether somebody between the pod and another, at that address, rewrites the source of what comes directly. */
  isMasqueraded(source: NetnsCookie, to: NetnsCookie, destination: Address): boolean;
}

/** Why a connection is left to the tunnel. */
export type NoVerdictReason =
  /** Not all of the mesh is known. */
  | 'mesh-unknown'
  /** The pod is not served, is nobody of the mesh, or takes no tunnel. */
  | 'source-unknown'
  /** A service, a waypoint: the tunnel has to choose. */
  | 'tunnel'
  /** A workload that takes the tunnel, and is no pod that is enrolled on this node. */
  | 'not-on-node'
  /** Of several pods that have the address, or for a pod that is not (any more) who the mesh says: nobody knows. */
  | 'address-unclear'
  | 'itself'
  /** A port of the agent's. */
  | 'agent-port'
  /** One of both ends wants mutual TLS on one node, too. */
  | 'mutual-tls'
  | 'masqueraded'
  /** Policy asks for the source's address, which the kernel does not look at. */
  | 'source-address'
  | 'denied';

export type VerdictDecision =
  | { readonly kind: 'local'; readonly to: PathPod; readonly decision: Decision }
  | { readonly kind: 'outside' }
  | { readonly kind: 'none'; readonly reason: NoVerdictReason; readonly decision: Decision | undefined };

/** Ports that belong to the agent in each pod (layout.h, `agent_port`). */
const AGENT_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008, 15053]);

/**
 * Whether the kernel may let connections of a pod to this destination go past the tunnel. In doubt it may not.
 *
 * A verdict holds for every connection of the same pod to the same destination, so nothing else may matter.
 */
export function decideVerdict(world: PathWorld, source: PathPod | undefined, destination: Endpoint): VerdictDecision {
  if (!world.model.isComplete) return none('mesh-unknown');
  const client = source?.workload;
  if (source?.state !== 'enrolled' || client?.protocol !== 'hbone') return none('source-unknown');
  if (AGENT_PORTS.has(destination.port)) return none('agent-port');

  const direct = world.routing.directTo(client, destination);
  if (direct.kind === 'tunnel') return none('tunnel');
  const there = world.pods.at(destination.address);
  if (direct.kind === 'outside') return there === undefined ? { kind: 'outside' } : none('address-unclear');

  const { workload } = direct;
  if (there === undefined) return none('not-on-node');
  if (there === 'several' || there.workload?.uid !== workload.uid) return none('address-unclear');
  if (there === source) return none('itself');
  if (client.sameNode === 'mtls' || workload.sameNode === 'mtls') return none('mutual-tls');
  return decideLocal(world, source, client, there, destination);
}

function decideLocal(
  world: PathWorld,
  source: PathPod,
  client: Workload,
  to: PathPod,
  destination: Endpoint,
): VerdictDecision {
  const family = familyOf(destination.address);
  const sourceAddress = source.pod.addresses.find((address) => familyOf(address) === family);
  if (sourceAddress === undefined) return none('source-unknown');
  if (world.isMasqueraded(source.cookie, to.cookie, destination.address)) return none('masqueraded');
  if (to.rules.dependsOnSourceAddress) return none('source-address');
  // Nobody who comes this way comes through a waypoint: a waypoint ends the tunnel itself.
  const attempt = { source: identityOf(client), sourceAddress, destination, throughWaypoint: false };
  const decision = to.rules.decide(attempt);
  return decision.allowed ? { kind: 'local', to, decision } : none('denied', decision);
}

function none(reason: NoVerdictReason, decision?: Decision): VerdictDecision {
  return { kind: 'none', reason, decision };
}

/** Why a connection that is under way must end. */
export interface FlowFault {
  readonly text: string;
  /** Undefined: no policy says so by itself. */
  readonly policy: string | undefined;
  /** What policy says; undefined: it is not policy that forbids it. */
  readonly decision: Decision | undefined;
}

const WANTS_TLS: FlowFault = { text: 'pods of one node are to use mutual TLS', policy: undefined, decision: undefined };

/**
 * Whether a connection of the kernel path may go on; undefined: it may. What has left the mesh is left alone, as are
 * connections that would take another way by now: only what is forbidden ends.
 */
export function judgeFlow(world: PathWorld, flow: KernelFlow): FlowFault | undefined {
  switch (flow.kind) {
    case 'probe':
      return undefined;
    case 'outside':
      return judgeOutside(world, flow);
    case 'plain':
      return judgeInbound(world, flow, undefined);
    case 'local': {
      const client = world.pods.get(flow.source)?.judged?.workload;
      const there = world.pods.get(flow.destination);
      const wantsTls = client?.sameNode === 'mtls' || there?.judged?.workload.sameNode === 'mtls';
      return wantsTls && there?.state !== 'left' ? WANTS_TLS : judgeInbound(world, flow, client);
    }
  }
}

function judgeInbound({ pods }: PathWorld, flow: KernelFlow, client: Workload | undefined): FlowFault | undefined {
  const there = pods.get(flow.destination);
  if (there?.judged === undefined || there.state === 'left') return undefined;
  return faultOf(there.judged.rules.decide(attemptOf(flow, client)));
}

/** The destination has joined the mesh meanwhile: what reaches it like this is plaintext that nobody has signed. */
function judgeOutside(world: PathWorld, flow: KernelFlow): FlowFault | undefined {
  const found = plaintextRulesOf(world, flow);
  return found && faultOf(found.rules.decide(attemptOf(flow, undefined)));
}

/** What a flow that leads outside is subject to since its destination has joined the mesh; undefined: it has not. */
export function plaintextRulesOf(
  { model, book, pods }: PathWorld,
  { source, server }: KernelFlow,
): { readonly network: string; readonly rules: Rules } | undefined {
  const network = pods.get(source)?.judged?.workload.network;
  if (network === undefined) return undefined;
  const rules = plaintextRules(model, book, network, server.address);
  return rules && { network, rules };
}

function attemptOf({ client, server }: KernelFlow, source: Workload | undefined) {
  return {
    source: source && identityOf(source),
    sourceAddress: client.address,
    destination: server,
    throughWaypoint: false,
  };
}

function faultOf(decision: Decision): FlowFault | undefined {
  return decision.allowed ? undefined : { text: decision.text, policy: decisivePolicy(decision), decision };
}
