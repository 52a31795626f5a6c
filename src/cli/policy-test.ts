import type { PolicyAnswer } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { paint, printable } from './paint.ts';

export interface PolicyTestDeps {
  /** Answered by the agent, or from manifests. */
  ask(): Promise<PolicyAnswer>;
}

const CODES = { allowed: exitCode.ok, denied: exitCode.failed, unknown: exitCode.undecided } as const;
const STYLE = { allowed: 'good', denied: 'bad', unknown: 'doubtful' } as const;
const WORDS = { allowed: 'allowed', denied: 'denied', unknown: 'cannot tell' } as const;
const WOULD = {
  deny: 'would deny it',
  allow: 'would allow it',
  'not-allow': 'would not allow it, and no other ALLOW policy does',
} as const;

/** `culvert policy test`: whether one may connect to another, and why. */
export async function policyTest(deps: PolicyTestDeps, options: { json: boolean }, output: Output): Promise<ExitCode> {
  const answer = await deps.ask();
  output.out(options.json ? `${JSON.stringify(answer, undefined, 2)}\n` : formatAnswer(answer, output));
  return CODES[answer.verdict];
}

/** For people. */
export function formatAnswer(answer: PolicyAnswer, output: Output): string {
  const { verdict, text, source, destination, dryRun, notes, explanation } = answer;
  const lines = [
    `${paint(output, STYLE[verdict], WORDS[verdict])}: ${printable(text)}`,
    ...(destination.pod === undefined ? [] : partyLines(source, destination, destination.pod)),
    ...dryRun.map(({ policy, would }) => `  dry run: ${printable(policy)} ${WOULD[would]}`),
    ...notes.map((note) => `  note: ${printable(note)}`),
  ];
  if (explanation.length > 0) lines.push('', ...explanation.map(printable));
  return `${lines.join('\n')}\n`;
}

function partyLines(source: PolicyAnswer['source'], { addresses, port }: PolicyAnswer['destination'], pod: string) {
  return [
    `  from  ${printable(sourceText(source))}`,
    `  to    ${printable(`${pod}, port ${port}, at ${addresses.join(', ')}`)}`,
  ];
}

/** Addresses that are named; a service account may have thousands. */
const SOME = 3;

function sourceText({ identity, pod, addresses }: PolicyAnswer['source']): string {
  const who = identity ?? 'nobody who proves an identity (plaintext)';
  const more = addresses.length > SOME ? ` and ${addresses.length - SOME} more` : '';
  const at = addresses.length === 0 ? '' : `, at ${addresses.slice(0, SOME).join(', ')}${more}`;
  return `${pod === undefined ? '' : `${pod}: `}${who}${at}`;
}
