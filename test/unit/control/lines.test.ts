import test from 'ava';
import { LineReader } from '../../../src/control/lines.ts';

function read(maxBytes: number, chunks: readonly string[]): string[] {
  const lines: string[] = [];
  const reader = new LineReader(maxBytes, (line) => lines.push(line.toString()));
  for (const chunk of chunks) reader.take(Buffer.from(chunk));
  return lines;
}

for (const [title, chunks, lines] of [
  ['one line in one piece', ['ab\n'], ['ab']],
  ['two lines in one piece', ['ab\ncd\n'], ['ab', 'cd']],
  ['a line in pieces', ['a', 'b', '\n'], ['ab']],
  ['the end of one line and the beginning of the next', ['ab\nc', 'd\ne'], ['ab', 'cd']],
  ['empty lines', ['\n\n'], ['', '']],
  ['a line of the longest length', ['abcde', 'fgh\n'], ['abcdefgh']],
] as Array<[string, string[], string[]]>)
  test(`reads ${title}`, (t) => t.deepEqual(read(8, chunks), lines));

for (const [title, chunks] of [
  ['that has ended', ['abcdefghi\n']],
  ['in pieces', ['abcdefgh', 'i\n']],
  ['that has no end', ['abcdefgh', 'i']],
] as Array<[string, string[]]>)
  test(`refuses a line beyond the bound ${title}`, (t) =>
    void t.throws(() => read(8, chunks), { instanceOf: RangeError }));
