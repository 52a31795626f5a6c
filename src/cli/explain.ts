import { callAgent, runDirectory } from '../agent/index.ts';
import type { ExplainStep, Explanation } from '../telemetry/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { paint, printable } from './paint.ts';

type Question = { readonly from: string; readonly to: string } | { readonly flow: string };

/** Columns that the text of a step may take. */
const WIDTH = 110;
const STYLES = { good: 'good', bad: 'bad', unknown: 'doubtful', note: 'strong' } as const;
const MARKS = { good: 'ok', bad: 'NO', unknown: '?', note: 'i' } as const;

/** `culvert explain`: what becomes of a connection and why, or what became of one. */
export async function explain(
  question: Question,
  options: { readonly run: string; readonly json: boolean },
  output: Output,
): Promise<ExitCode> {
  const { explanation } = await callAgent<'explain'>(
    { method: 'explain', ...question },
    { path: runDirectory(options.run).socket },
  );
  output.out(options.json ? `${JSON.stringify(explanation, undefined, 2)}\n` : formatExplanation(explanation, output));
  return explanation.connects ? exitCode.ok : exitCode.failed;
}

/** For people. */
export function formatExplanation({ steps, conclusion, connects }: Explanation, output: Output): string {
  const topics = Math.max(...steps.map(({ topic }) => topic.length), 0);
  const lines = steps.flatMap((step, index) => stepLines(step, topics, steps[index - 1]?.topic === step.topic, output));
  const last = wrapped(printable(conclusion), WIDTH).map((line) => paint(output, connects ? 'good' : 'bad', line));
  return `${[...lines, '', ...last].join('\n')}\n`;
}

function stepLines(step: ExplainStep, topics: number, isSameTopic: boolean, output: Output): string[] {
  const { topic, state, text, details } = step;
  const mark = paint(output, STYLES[state], MARKS[state].padEnd(2));
  const title = paint(output, 'strong', (isSameTopic ? '' : printable(topic)).padEnd(topics));
  const margin = ' '.repeat(topics + 5);
  const [first = '', ...rest] = wrapped(printable(text), WIDTH - margin.length);
  return [
    `${title}  ${mark} ${first}`,
    ...rest.map((line) => `${margin}${line}`),
    ...details.flatMap((detail) => detailLines(printable(detail), margin)),
  ];
}

/** A detail may begin with spaces: it belongs to the one before. */
function detailLines(detail: string, margin: string): string[] {
  const depth = detail.length - detail.trimStart().length;
  const [first = '', ...rest] = wrapped(detail.trimStart(), WIDTH - margin.length - depth - 2);
  const space = `${margin}${' '.repeat(depth)}`;
  return [`${space}- ${first}`, ...rest.map((line) => `${space}  ${line}`)];
}

/** At spaces; a word that is longer than the width stays whole. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
