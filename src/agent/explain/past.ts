/** What happened to one connection that is over. Pure. */
import { formatEndpoint } from '../../mesh/index.ts';
import type { ExplainStep, Explanation, FlowView } from '../../telemetry/index.ts';
import { isDenied } from '../flow-query.ts';
import { endMeaningOf } from './end-meaning.ts';
import { many } from './names.ts';
import { firstSentence, lowered } from './sentences.ts';
import { agoText, spanText } from './times.ts';

/**
 * @param records of one connection: one for each pod of this node that took part in it, at least one, in the order in which they ended
 * @param now milliseconds since the epoch
 */
export function explainPast(records: readonly FlowView[], now: number): Explanation {
  const steps = records.flatMap((record) => stepsOf(record, now));
  const unclean = records.find(({ ended }) => ended !== 'clean') ?? records[0];
  return {
    connects: records.every(({ ended }) => ended === 'clean'),
    steps,
    conclusion: unclean === undefined ? 'Nothing is known of it.' : conclusionOf(unclean),
  };
}

function stepsOf(flow: FlowView, now: number): ExplainStep[] {
  return [who(flow, now), way(flow), ...security(flow), ...policy(flow), timing(flow), end(flow)];
}

function who(flow: FlowView, now: number): ExplainStep {
  const { podNamespace, podName, direction, endedAt, durationMs, id, stage } = flow;
  const side = direction === 'outbound' ? 'left' : 'reached';
  const began = new Date(endedAt - durationMs).toISOString();
  const came =
    stage === 'connected'
      ? ''
      : stage === 'early'
        ? ' It never became known where it leads.'
        : ' It was never connected.';
  return {
    topic: 'flow',
    state: 'note',
    text: `From ${fromText(flow)} to ${toText(flow)}, as this node saw it ${side === 'left' ? 'leave' : 'reach'} the pod ${podNamespace}/${podName}. It began at ${began} and ended ${agoText(now - endedAt)}, after ${spanText(durationMs)}.${came}`,
    details: [`id ${id}`],
  };
}

function way(flow: FlowView): ExplainStep {
  const { asked, server, dialled, service, waypoint, attempts, path, kind, stage, direction } = flow;
  const to = service === undefined ? formatEndpoint(asked) : `${service.hostname} (${formatEndpoint(asked)})`;
  const led = waypoint === undefined ? `led to ${formatEndpoint(server)}` : `led to the waypoint ${waypoint}`;
  const details = [
    ...(formatEndpoint(dialled) === formatEndpoint(server)
      ? []
      : [
          direction === 'inbound'
            ? `it arrived at ${formatEndpoint(dialled)}`
            : `the agent's own connection: ${formatEndpoint(dialled)}`,
        ]),
    ...(attempts > 1 ? [`${many(attempts, 'endpoint')} were tried, one after the other`] : []),
  ];
  const probe = kind === 'probe' ? ", as a probe of the node's kubelet" : '';
  const text =
    stage === 'early'
      ? `It asked for ${to}.`
      : direction === 'inbound'
        ? `It was for ${to}, and came ${PATHS[path]}${probe}.`
        : `It asked for ${to}, and was ${led} ${PATHS[path]}.`;
  return stage === 'early'
    ? { topic: 'route', state: 'bad', text, details: [] }
    : { topic: 'route', state: 'good', text, details };
}

const PATHS = {
  kernel: 'on the kernel path',
  tunnel: 'through the tunnel',
  plain: 'in the clear',
  passthrough: 'in the clear, since it is outside the mesh',
} as const;

function security({ security: by, sourceIdentity, destinationIdentity, stage }: FlowView): ExplainStep[] {
  if (stage === 'early') return [];
  const isProven = stage === 'connected' || (sourceIdentity !== undefined && destinationIdentity !== undefined);
  const parties = [
    ...(sourceIdentity === undefined ? [] : [`client: ${sourceIdentity}`]),
    ...(destinationIdentity === undefined ? [] : [`server: ${destinationIdentity}`]),
  ];
  return [
    {
      topic: 'security',
      state: by === 'none' || !isProven ? 'note' : 'good',
      text: (isProven ? SECURED : UNSECURED)[by],
      details: parties,
    },
  ];
}

const SECURED = {
  mutual_tls: 'It was encrypted, and both ends had proven who they are (mutual TLS).',
  kernel: 'It did not leave the node: the kernel vouched for both ends, and nothing was encrypted.',
  none: 'It was in the clear, and nobody had proven who they are.',
} as const;

/** It did not come so far. */
const UNSECURED = {
  mutual_tls: 'It was to be encrypted, with proof of who is at either end (mutual TLS).',
  kernel: 'It was not to leave the node: the kernel vouches for both ends, and nothing is encrypted.',
  none: 'It was to go in the clear, without proof of who is at either end.',
} as const;

function policy({ decision, dryRun }: FlowView): ExplainStep[] {
  const details = dryRun.map(
    ({ policy: name, would }) => `dry run: ${name} would ${would === 'not-allow' ? 'not allow it' : `${would} it`}`,
  );
  if (decision === undefined) {
    const text = 'Policy was not asked here: it is asked where a connection arrives.';
    return details.length === 0 ? [] : [{ topic: 'policy', state: 'note', text, details }];
  }
  if (decision.reason === 'kubelet-probe')
    return [
      {
        topic: 'policy',
        state: 'good',
        text: "It was a probe of the node's kubelet, which no policy is asked about.",
        details,
      },
    ];
  const isNamed = decision.policy === undefined || decision.text.includes(decision.policy);
  const by = isNamed ? '' : `, by ${decision.policy}`;
  const text = `Policy ${decision.allowed ? 'let it in' : 'refused it'}${by}: ${decision.text}.`;
  return [{ topic: 'policy', state: decision.allowed ? 'good' : 'bad', text, details }];
}

function timing(flow: FlowView): ExplainStep {
  const { connectMs, firstByteMs, durationMs, roundTripUs, retransmits, bytesSent, bytesReceived } = flow;
  const parts = [
    ...(connectMs === undefined ? [] : [`connected after ${connectMs.toFixed(1)} ms`]),
    ...(firstByteMs === undefined ? [] : [`first byte of the answer after ${firstByteMs.toFixed(1)} ms`]),
    `over after ${spanText(durationMs)}`,
  ];
  const details = [
    `bytes: ${bytesSent} from the client, ${bytesReceived} from the server`,
    ...(roundTripUs === undefined ? [] : [`round trip to the server: ${(roundTripUs / 1000).toFixed(2)} ms`]),
    ...(retransmits === undefined || retransmits === 0 ? [] : [`segments sent again: ${retransmits}`]),
  ];
  const text = parts.join(', ');
  return { topic: 'timing', state: 'note', text: `${text[0]?.toUpperCase() ?? ''}${text.slice(1)}.`, details };
}

function end(flow: FlowView): ExplainStep {
  const { ended, error } = flow;
  const { meaning, todo } = endMeaningOf(flow);
  const details = [
    ...(error === undefined ? [] : [`what the log says: ${error}`]),
    ...(ended === 'clean' ? [] : [`what to do: ${todo}`]),
  ];
  return {
    topic: 'end',
    state: ended === 'clean' ? 'good' : 'bad',
    text: `It ended with ${ended}: ${meaning}`,
    details,
  };
}

/** One sentence. */
function conclusionOf(flow: FlowView): string {
  const { ended, decision } = flow;
  const subject = `The connection of ${fromText(flow)} to ${toText(flow)}`;
  if (ended === 'clean') return `${subject} went well from beginning to end.`;
  const policyName = decision?.policy === undefined ? '' : ` (${decision.policy})`;
  const { meaning, todo } = endMeaningOf(flow);
  if (isDenied(flow)) return `${subject} was refused by policy${policyName}${todoText(todo)}.`;
  return `${subject} ended with ${ended}: ${lowered(firstSentence(meaning))}${todoText(todo)}.`;
}

/** What to do, where it is a thing to do and not a question. */
function todoText(todo: string): string {
  const first = firstSentence(todo);
  if (first.endsWith('?')) return '';
  return first === 'Nothing' ? '; there is nothing to be done' : `; what to do: ${lowered(first)}`;
}

function fromText({ source, client }: FlowView): string {
  if (source?.workload !== undefined) return `${source.namespace}/${source.workload}`;
  return client?.address ?? 'somebody who was gone at once';
}

/** Where it arrives, that is the pod; where it leaves, what was asked for. */
function toText({ service, destination, asked, direction }: FlowView): string {
  if (direction === 'inbound' && destination?.workload !== undefined)
    return `${destination.namespace}/${destination.workload}`;
  if (service !== undefined) return `the service ${service.namespace}/${service.name}`;
  return destination?.workload === undefined
    ? formatEndpoint(asked)
    : `${destination.namespace}/${destination.workload}`;
}
