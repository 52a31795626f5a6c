/**
 * How long a file must have been left alone before what it holds is believed. No event tells that a writer has finished, so
 * what looks as if there were more to come is looked at again later. In units of the source's debounce.
 */
import type { ParsedManifest } from './parse.ts';

/** Any change. */
export const QUIET = 1;
/** Half of the text may be missing, or the file is being replaced by another of its name. */
const QUIET_IF_CUT = 3;
/** The text makes no sense, or there is none: nothing is lost by waiting, the last good state stays meanwhile. */
const QUIET_IF_BROKEN = 10;

export const QUIET_IF_GONE = QUIET_IF_CUT;

/** @param last the last good text of that file */
export function quietFor(last: string | undefined, text: string, parsed: ParsedManifest): number {
  if (parsed.issues.length > 0 || (text === '' && last !== '')) return QUIET_IF_BROKEN;
  return isCut(last, text) ? QUIET_IF_CUT : QUIET;
}

/** It is how the last one began, or its last line is not finished although the last one's was. */
function isCut(last: string | undefined, text: string): boolean {
  if (last === undefined) return !text.endsWith('\n');
  return last.startsWith(text) || (last.endsWith('\n') && !text.endsWith('\n'));
}
