import { styleText } from 'node:util';
import type { Output } from './exit.ts';

/** How important words look. */
const STYLES = { good: 'green', bad: 'red', doubtful: 'yellow', strong: 'bold' } as const;

/** Coloured where colours are seen. Not for cells of a table: those are counted by their letters. */
export function paint(output: Output, style: keyof typeof STYLES, text: string): string {
  return output.hasColors === true ? styleText(STYLES[style], text, { validateStream: false }) : text;
}

/** Control characters must not reach a terminal: names and texts come from others. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}
