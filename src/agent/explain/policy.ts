import type { Address } from '../../mesh/index.ts';
import { answerQuestion } from '../policy-answer.ts';
import type { PolicyAnswer } from '../policy-protocol.ts';
import type { QuestionSource } from '../policy-question.ts';
import { inboundExclusion } from './case.ts';
import { nameOf } from './names.ts';
import type { Arrival, Case, ExplainWorld, Finding } from './world.ts';

const WOULD = {
  deny: 'would deny it',
  allow: 'would allow it',
  'not-allow': 'would not allow it, and no other ALLOW policy does',
} as const;
const MOST_LINES = 40;

/** What policy says where the connection arrives. */
export function policySteps(world: ExplainWorld, situation: Case): readonly Finding[] {
  const { route, arrival, source } = situation;
  if (route?.kind === 'hbone' && route.via === 'waypoint')
    return [
      {
        topic: 'policy',
        state: 'unknown',
        text: 'The waypoint decides by the policies that are for it; what comes on from it carries the identity of the waypoint.',
        details: ['To see what policy says of a pod behind it: culvert policy test --from IDENTITY --to POD:PORT.'],
      },
    ];
  if (arrival === undefined || arrival.workload.protocol === 'tcp' || passesUnasked(situation, arrival)) return [];
  const { destination, workload } = arrival;
  const proves = route !== undefined && (route.kind === 'hbone' || route.kind === 'self');
  const answer = answerQuestion(world, {
    source: questionSource(situation, proves),
    target: { pod: { kind: 'address', address: destination.address }, port: destination.port },
    explain: true,
  });
  const name = nameOf(workload);
  const who = proves ? (answer.source.identity ?? source.name) : `${source.name}, which proves no identity,`;
  return [{ topic: 'policy', ...findingOf(answer, name, who, proves), details: detailsOf(answer, proves) }];
}

function passesUnasked({ route, source }: Case, { here, destination }: Arrival): boolean {
  const isPlain = route === undefined || route.kind === 'passthrough';
  return (
    isPlain && here?.kind === 'enrolled' && inboundExclusion(here.pod, source.addresses, destination.port) !== undefined
  );
}

function questionSource({ source, target }: Case, proves: boolean): QuestionSource {
  const { workload } = source;
  if (proves && workload !== undefined) return { kind: 'name', namespace: workload.namespace, name: workload.name };
  const family = target.destination.address.includes(':');
  const address: Address | undefined = source.addresses.find((each) => each.includes(':') === family);
  return address === undefined ? { kind: 'none' } : { kind: 'address', address };
}

type Verdict = Pick<Finding, 'state' | 'text' | 'because'>;

function findingOf(answer: PolicyAnswer, name: string, who: string, proves: boolean): Verdict {
  const { verdict, reason, text, policy, candidates } = answer;
  switch (verdict) {
    case 'allowed':
      return { state: 'good', text: `Policy lets ${who} in to ${name}: ${text}.` };
    case 'unknown':
      return { state: 'unknown', text: `What policy says cannot be told: ${text}.` };
    case 'denied': {
      const by = policy === undefined ? candidates.join(', ') : `${policy}`;
      const strict = !proves && /STRICT/.test(text);
      return {
        state: 'bad',
        text: `Policy does not let ${who} in to ${name}: ${text}.`,
        because:
          reason === 'not-allowed'
            ? `none of the policies that allow somebody in to ${name} allows ${proves ? 'it' : 'plaintext from it'}: ${by}`
            : strict
              ? `${name} takes no plaintext: policy ${by} asks for mutual TLS`
              : `policy ${by} of ${name} ${reason === 'unknown-policy' ? 'is not known' : 'denies it'}`,
      };
    }
  }
}

function detailsOf({ dryRun, notes, explanation, verdict }: PolicyAnswer, proves: boolean): string[] {
  return [
    ...dryRun.map(({ policy, would }) => `dry run: ${policy} ${WOULD[would]}`),
    // Of an address it says that another question is possible, which is the one that has been answered.
    ...(proves ? notes : []),
    ...(verdict === 'denied' ? explanation.slice(1, MOST_LINES) : []),
    ...(verdict === 'denied' ? ['To see what a change would do before it is made: culvert policy replay FILE.'] : []),
  ];
}
