/** What the demo prints: acts, lines, progress, claims. Nothing is wider than 80 columns but what others have said. */
import { styleText } from 'node:util';
import { table } from '../src/cli/table.ts';

const indent = '  ';
/** On a terminal progress is one line that is written over; in a file it stays. */
const isLive = process.stdout.isTTY === true;

interface Claim {
  readonly text: string;
  readonly holds: boolean;
}

const claims: Claim[] = [];
let isPending = false;

/** Begins an act. */
export function act(text: string): void {
  print(`\n${styleText('bold', text)}\n`);
}

/** A line of what was seen. */
export function say(text = ''): void {
  print(`${indent}${text}`.trimEnd());
}

/** A command, as one would type it. */
export function command(where: string, text: string): void {
  say(`${styleText('dim', `${where}$`)} ${styleText('cyan', text)}`);
}

/** What takes a moment. */
export function doing(text: string): void {
  const line = `${indent}${styleText('dim', `... ${text}`)}`;
  if (isLive) process.stdout.write(`\r\x1b[K${line}`);
  else console.log(line);
  isPending = isLive;
}

/** What somebody else has said, cut to the width of the terminal. */
export function quote(text: string): void {
  const width = isLive ? process.stdout.columns - indent.length : Number.POSITIVE_INFINITY;
  for (const line of text.trimEnd().split('\n'))
    say(line.length > width ? `${line.slice(0, width - 1)}${styleText('dim', '>')}` : line);
}

/** What must hold; kept for the summary. */
export function claim(text: string, holds: boolean): void {
  claims.push({ text, holds });
  say(marked({ text, holds }));
}

export function rows(head: readonly string[], lines: ReadonlyArray<readonly string[]>): void {
  const [first = '', ...rest] = table(head, lines).trimEnd().split('\n');
  say(styleText('bold', first));
  for (const line of rest) say(line);
}

/** How many claims hold, and which do not. */
export function verdict(seconds: number): boolean {
  const broken = claims.filter(({ holds }) => !holds);
  print('');
  for (const each of broken) say(marked(each));
  const line = `demo: ${claims.length - broken.length} of ${claims.length} claims hold, in ${seconds.toFixed(0)} s`;
  print(styleText(['bold', broken.length === 0 ? 'green' : 'red'], line));
  return broken.length === 0;
}

/** Takes an unfinished line of progress away. */
export function clear(): void {
  if (isPending) process.stdout.write('\r\x1b[K');
  isPending = false;
}

function print(text: string): void {
  clear();
  console.log(text);
}

function marked({ text, holds }: Claim): string {
  return `${holds ? styleText('green', '[ok]') : styleText('red', '[NO]')} ${text}`;
}
