import type { Output } from '../../../src/cli/exit.ts';

/** What a command writes. */
export function capture(hasColors = false): { written: { out: string; error: string }; output: Output } {
  const written = { out: '', error: '' };
  const output = {
    hasColors,
    out(text: string) {
      written.out += text;
    },
    error(text: string) {
      written.error += text;
    },
  };
  return { written, output };
}
