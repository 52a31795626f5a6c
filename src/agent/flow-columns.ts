/** How the record of a flow is laid out in arrays of numbers. */
import type { FlowParty, FlowSecurity, FlowService, FlowStage } from '../mesh/index.ts';
import { HeldValues } from './held-values.ts';

/** What the records of all pods have in common. */
export class FlowValues {
  readonly texts = new HeldValues<string>();
  readonly parties = new HeldValues<FlowParty>();
  readonly services = new HeldValues<FlowService>();
}

export const SECURITY: readonly FlowSecurity[] = ['none', 'kernel', 'mutual_tls'];
export const STAGES: readonly FlowStage[] = ['early', 'addressed', 'connected'];

/** Bits of a record. */
export const PATH_BITS = 3;
export const OUTBOUND = 4;
export const STAGE_SHIFT = 3;
export const SECURITY_SHIFT = 5;
export const DECIDED = 0x80;
export const ALLOWED = 0x100;

/** Columns of whole numbers: the id, then what is held under a number. */
export const WORD = {
  id: 0,
  client: 4,
  asked: 5,
  server: 6,
  dialled: 7,
  authority: 8,
  sourceIdentity: 9,
  destinationIdentity: 10,
  waypoint: 11,
  ended: 12,
  error: 13,
  reason: 14,
  policy: 15,
  decision: 16,
  dryRun: 17,
  kind: 18,
  source: 19,
  destination: 20,
  service: 21,
} as const;
export const WORDS_OF_A_RECORD = 22;
export const WORDS_OF_AN_ID = 4;
export const FIRST_TEXT = WORD.client;
export const LAST_TEXT = WORD.kind;
export const PORT = { client: 0, asked: 1, server: 2, dialled: 3 } as const;
export const ATTEMPTS = 4;
export const HALVES_OF_A_RECORD = 5;
export const NUMBER = {
  sequence: 0,
  endedAt: 1,
  durationMs: 2,
  bytesSent: 3,
  bytesReceived: 4,
  connectMs: 5,
  firstByteMs: 6,
  roundTripUs: 7,
  retransmits: 8,
} as const;
export const NUMBERS_OF_A_RECORD = 9;

/** The beginning of a flow's id, made ready for comparing. */
export interface IdPrefix {
  readonly words: readonly number[];
  readonly masks: readonly number[];
}

/** @param prefix hexadecimal digits, 1 to 32 */
export function idPrefix(prefix: string): IdPrefix {
  const words: number[] = [];
  const masks: number[] = [];
  for (let word = 0; word < WORDS_OF_AN_ID; word += 1) {
    const digits = prefix.slice(word * 8, word * 8 + 8);
    words.push(Number.parseInt(digits.padEnd(8, '0'), 16));
    masks.push(Number.parseInt('f'.repeat(digits.length).padEnd(8, '0'), 16));
  }
  return { words, masks };
}
