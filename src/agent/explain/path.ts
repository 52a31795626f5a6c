import { formatEndpoint } from '../../mesh/index.ts';
import type { PathAnswer } from '../kernel-path/answer.ts';
import { nameOf } from './names.ts';
import type { Case, ExplainWorld, Finding } from './world.ts';

/** Why connections go through the tunnel although both ends might not need it. */
const WHY_NOT: Readonly<Record<Exclude<PathAnswer['may'], 'local' | 'outside'>, string>> = {
  'mesh-unknown': 'not all of the mesh is known yet',
  'source-unknown': 'the source is not served here, or takes no tunnel',
  tunnel: 'a choice has to be made that the kernel cannot make',
  'not-on-node': 'the two are not on one node',
  'address-unclear': 'several pods of this node have that address, or not the one that the mesh expects',
  itself: 'it stays within the pod',
  'agent-port': 'the port belongs to the agent',
  'mutual-tls': 'one of the two asks for mutual TLS also on one node (culvert.dev/same-node, or sameNode of the mesh)',
  masqueraded: 'something on the way rewrites the source address, which the kernel path depends on',
  'source-address': "a policy of the destination looks at the client's address, which the kernel does not",
  denied: 'policy does not allow it',
};

/** How it travels, and how it is secured on the way. */
export function pathSteps(world: ExplainWorld, { route, source, departure }: Case): readonly Finding[] {
  if (route === undefined || route.kind === 'refuse' || route.kind === 'self') return [];
  const step = (text: string, details: readonly string[] = []): Finding[] => [
    { topic: 'path', state: 'good', text, details },
  ];
  if (departure.kind === 'elsewhere')
    return route.kind === 'hbone'
      ? step(`Through the tunnel, by mutual TLS, to ${formatEndpoint(route.nextHop)}.`)
      : step('In the clear.');
  const cookie = source.here?.kind === 'enrolled' ? source.here.cookie : undefined;
  const answer = cookie === undefined ? undefined : world.path.answerOn(cookie, route.destination);
  if (route.kind !== 'hbone') {
    if (answer?.may !== 'outside') return step('In the clear, passed on by the agent.');
    return step(
      answer.isWritten
        ? 'In the clear, past the agent: the kernel lets it out directly.'
        : 'In the clear: the first connection is passed on by the agent, those that follow go out directly.',
      offText(answer),
    );
  }
  if (answer?.may === 'local')
    return step(
      answer.isWritten
        ? `On the kernel path: both are on this node and policy allows it, so it goes from pod to pod within the kernel, which vouches for both; nothing is encrypted because nothing leaves the node.`
        : `Both are on this node and policy allows it: the first connection goes through the tunnel, by mutual TLS; those that follow go from pod to pod within the kernel.`,
      offText(answer),
    );
  const why = answer === undefined || answer.may === 'outside' ? 'tunnel' : answer.may;
  const isLocal = route.workload.node === world.node;
  return step(
    `Through the tunnel, by mutual TLS, to ${nameOf(route.workload)} at ${formatEndpoint(route.nextHop)}${why === 'not-on-node' ? ` on node ${route.workload.node}` : ''}.`,
    isLocal ? [`Not on the kernel path: ${WHY_NOT[why]}.`] : [],
  );
}

function offText({ state }: PathAnswer): string[] {
  if (state === 'on') return [];
  return [
    `The kernel path is ${state === 'failed' ? 'out of order' : state} at present, so it goes by the agent nevertheless.`,
  ];
}
