import { formatEndpoint } from '../../mesh/index.ts';
import type { FlowView } from '../../telemetry/index.ts';
import { isDenied } from '../flow-query.ts';
import { endMeaningOf } from './end-meaning.ts';
import { nameOf } from './names.ts';
import { firstSentence, lowered } from './sentences.ts';
import { agoText } from './times.ts';
import type { Case, ExplainWorld, Finding } from './world.ts';

const MOST_TOLD = 5;
/** Of an id: so many tell the flows of a node apart. */
const SHOWN_DIGITS = 16;
/** Among which those to the same port are looked for. */
const MOST_LOOKED_AT = 200;
/** What is older says nothing of now. */
const RECENT_MS = 5 * 60_000;

/** What the last connections between the two ended with. */
export function lastFlowsStep(world: ExplainWorld, situation: Case): Finding {
  const flows = flowsBetween(world, situation);
  const last = flows.at(-1);
  if (last === undefined)
    return {
      topic: 'flows',
      state: 'note',
      text: 'No connection between the two has ended at a pod of this node lately.',
      details: [],
    };
  const ago = agoText(world.now - last.endedAt);
  const details = flows.map((flow) => flowText(flow, world.now)).reverse();
  if (last.ended === 'clean')
    return { topic: 'flows', state: 'good', text: `The last one between the two ended well, ${ago}.`, details };
  const { meaning, todo } = endMeaningOf(last);
  const finding = {
    topic: 'flows',
    text: `The last one between the two ended with ${last.ended}, ${ago}: ${meaning}`,
    details: [`What to do: ${todo}`, ...details],
  };
  if (world.now - last.endedAt >= RECENT_MS || !speaksAgainst(last, situation)) return { ...finding, state: 'note' };
  const because = `the last connection, ${ago}, could not be made: ${lowered(firstSentence(meaning))}`;
  return { ...finding, state: 'bad', because };
}

/** The last ones to the same port, the newest last. */
function flowsBetween(world: ExplainWorld, { source, target, arrival }: Case): readonly FlowView[] {
  const from = source.workload === undefined ? source.addresses[0] : nameOf(source.workload);
  const to = target.service?.hostname ?? (target.workload === undefined ? undefined : nameOf(target.workload));
  const pod = (source.here ?? arrival?.here)?.pod.uid;
  const { flows } = world.flows.page({
    // Of one pod all that are kept are looked at.
    ...(pod === undefined ? {} : { pod }),
    ...(from === undefined ? {} : { from }),
    to: to ?? target.destination.address,
    limit: MOST_LOOKED_AT,
  });
  const isToPort = ({ asked, server }: FlowView): boolean =>
    asked.port === target.destination.port || server.port === (arrival ?? target).destination.port;
  return flows.filter(isToPort).slice(-MOST_TOLD);
}

/** Whether the next would end like it, as far as one can tell: nothing that is looked at above would have shown it. */
function speaksAgainst(flow: FlowView, { arrival }: Case): boolean {
  // Policy is asked above, and may have changed since.
  if (flow.stage === 'connected' || !/^(dial|tunnel)-/.test(flow.ended) || isDenied(flow)) return false;
  return arrival === undefined || flow.server.address === arrival.destination.address;
}

function flowText(flow: FlowView, now: number): string {
  const { id, endedAt, ended, error, path, server, decision } = flow;
  const policy = decision?.policy === undefined ? '' : `, policy ${decision.policy}`;
  const why = error === undefined ? '' : ` (${error})`;
  return `${agoText(now - endedAt)}: ${ended}${why}, ${path}, to ${formatEndpoint(server)}${policy} [${id.slice(0, SHOWN_DIGITS)}]`;
}
