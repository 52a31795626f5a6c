import { formatEndpoint } from '../../mesh/index.ts';
import { uncapturedOf } from '../uncaptured.ts';
import { inboundExclusion, isLoopback, outboundExclusion } from './case.ts';
import { nameOf } from './names.ts';
import type { Case, ExplainWorld, Finding } from './world.ts';

/** Ports of the agent in each pod (wire contract, section 1.1). */
const AGENT_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008, 15053]);

/** Whether the connection comes to the agent at all, at either end. */
export function captureSteps(world: ExplainWorld, situation: Case): readonly Finding[] {
  return [...programs(world), ...outbound(world, situation), ...reserved(situation), ...inbound(situation)];
}

function programs({ faults }: ExplainWorld): readonly Finding[] {
  if (faults.length === 0) return [];
  return [
    {
      topic: 'capture',
      state: 'bad',
      text: 'Kernel programs of the agent do not run, so connections of this node may be refused, or go past the mesh.',
      details: [
        ...faults.map(({ name, fault }) => `${name}: ${fault}`),
        'The agent puts them back every second. If they go again, see culvert preflight for whose programs are beside them.',
      ],
      because: `the kernel program ${faults[0]?.name ?? ''} does not run`,
    },
  ];
}

function outbound(world: ExplainWorld, { source, target, departure }: Case): readonly Finding[] {
  const { here, name } = source;
  if (here?.kind !== 'enrolled' || departure.kind === 'refused') return [];
  const { destination } = target;
  const step = (state: Finding['state'], text: string, details: readonly string[] = []): Finding[] => [
    { topic: 'capture', state, text, details: [...details, ...wentPast(world, here.cookie)] },
  ];
  if (isLoopback(destination.address))
    return step(
      'note',
      `${destination.address} is within the pod itself, so the connection never leaves it and is not captured.`,
    );
  const exclusion = outboundExclusion(here.pod, destination);
  if (exclusion !== undefined)
    return step(
      'note',
      `Connections of ${name} to ${formatEndpoint(destination)} are not captured: its exclusions name ${exclusion}. They leave as the app sends them, without identity and encryption.`,
      ['To have them in the mesh, take it from the exclude-outbound settings of the pod and enrol it again.'],
    );
  return step('good', `Connections of ${name} are captured: the kernel leads them to the agent.`);
}

/** What of the pod's traffic went past the mesh. */
function wentPast(world: ExplainWorld, cookie: Parameters<ExplainWorld['counts']>[0]): string[] {
  const counts = Object.entries(uncapturedOf(world.counts(cookie)));
  if (counts.length === 0) return [];
  const told = counts.map(([reason, count]) => `${WENT_PAST[reason] ?? reason} ${count}`).join(', ');
  return [`Of its traffic so far went past the mesh: ${told}.`];
}

const WENT_PAST: Readonly<Record<string, string>> = {
  udp: 'sockets that sent UDP',
  'excluded-outbound': 'excluded connections',
  'excluded-inbound': 'excluded connections to it',
  'raw-socket': 'raw sockets',
  'nested-netns': 'connections from network namespaces of its own',
  rerouted: 'connections that a rule in the pod led elsewhere',
  'host-probe': "the kubelet's probes",
  'opened-before-enrolment': 'connections opened before it was enrolled',
};

function reserved({ target, arrival, route }: Case): readonly Finding[] {
  const port = arrival?.destination.port ?? target.destination.port;
  const isInMesh = arrival?.workload.protocol === 'hbone' || (route !== undefined && route.kind === 'refuse');
  if (!AGENT_PORTS.has(port) || !isInMesh || route?.kind === 'refuse') return [];
  return [
    {
      topic: 'capture',
      state: 'bad',
      text: `Port ${port} belongs to the agent in every pod of the mesh; what comes for an app there is reset.`,
      details: ['Let the app listen on another port. The agent has 15001, 15006, 15008 and 15053.'],
      because: `port ${port} belongs to the agent`,
    },
  ];
}

/** What the destination's own exclusions let past. */
function inbound({ source, arrival, route }: Case): readonly Finding[] {
  const isPlain = route === undefined || route.kind === 'passthrough';
  if (!isPlain || arrival?.here?.kind !== 'enrolled') return [];
  const { pod } = arrival.here;
  const exclusion = inboundExclusion(pod, source.addresses, arrival.destination.port);
  if (exclusion === undefined) return [];
  return [
    {
      topic: 'capture',
      state: 'note',
      text: `Plain connections to ${nameOf(arrival.workload)} like this one are not captured: its exclusions name ${exclusion}. They reach the app, and no policy is asked.`,
      details: [],
    },
  ];
}
