import type { FlowView } from '../../telemetry/index.ts';
import { ENDS, type EndMeaning } from './ends.ts';

/** What an end means for whoever has this record, as sentences of their own; of some the error tells more than the reason. */
export function endMeaningOf({ ended, error }: Pick<FlowView, 'ended' | 'error'>): EndMeaning {
  const known = (ended === 'tunnel-refused' && answerOf(error)) || ENDS.get(ended);
  if (!known) return { meaning: 'This version does not know what that means.', todo: 'See docs/errors.md.' };
  // Which direction it is about is plain from the record.
  const meaning = known.meaning.replace(/^(Inbound|Outbound)[^:]*: /, '');
  return { meaning: `${meaning[0]?.toUpperCase() ?? ''}${meaning.slice(1)}`, todo: known.todo };
}

/** Statuses of the other end's agent. */
function answerOf(error: string | undefined): EndMeaning | undefined {
  switch (/\b(401|503)\b/.exec(error ?? '')?.[1]) {
    case '401':
      return {
        meaning: 'The agent of the other end refused it, because policy does not let this client in.',
        todo: "Run culvert explain with the same id on the other end's node: it names the policy.",
      };
    case '503':
      return {
        meaning: 'The agent of the other end could not reach the app: most often, nobody listens at the port.',
        todo: "See the app; culvert explain with the same id on the other end's node says more.",
      };
    default:
      return undefined;
  }
}
