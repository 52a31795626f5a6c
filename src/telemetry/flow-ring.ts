import type {
  FlowDecision,
  FlowDryRun,
  FlowParty,
  FlowRecord,
  FlowSecurity,
  FlowService,
  FlowStage,
  FlowSubject,
} from '../mesh/index.ts';

/** What a record says of a connection's end. */
export type FlowEnd = Omit<FlowRecord, keyof FlowSubject | 'pod' | 'endedAt'>;

/** What records only have the number of: a text, or an object that many of them share. */
export type FlowNoun = string | FlowParty | FlowService | FlowDecision | readonly FlowDryRun[];

/** Says that there are records in the ring. Sent in order, and each is read before the next. */
export interface FlowBatch {
  /** Records since the last batch. */
  readonly count: number;
  /** Further nouns: their numbers follow those before. */
  readonly nouns: readonly FlowNoun[];
  /** The numbers of nouns begin anew, with these. */
  readonly isAnew: boolean;
}

/** Records that a ring has room for. */
const RECORDS = 8192;

/** Counters, each modulo 2^32. */
export const WRITTEN = 0;
export const READ = 1;
export const DROPPED = 2;
/** Keeps what follows aligned, and on another line of the CPU's cache. */
const HEADER_BYTES = 64;

/** 64-bit numbers of a record. NaN: undefined. */
export const NUMBER = {
  endedAt: 0,
  durationMs: 1,
  bytesSent: 2,
  bytesReceived: 3,
  connectMs: 4,
  firstByteMs: 5,
  roundTripUs: 6,
  retransmits: 7,
} as const;
export const NUMBERS = 8;

/** 32-bit words of a record; of nouns their number, 0: undefined. */
export const WORD = {
  id: 0,
  client: 4,
  asked: 6,
  server: 8,
  dialled: 10,
  authority: 12,
  source: 13,
  destination: 14,
  sourceIdentity: 15,
  destinationIdentity: 16,
  service: 17,
  waypoint: 18,
  ended: 19,
  error: 20,
  decision: 21,
  dryRun: 22,
  kind: 23,
  attempts: 24,
  choices: 25,
} as const;
export const WORDS = 26;

const NUMBER_BYTES = NUMBERS * Float64Array.BYTES_PER_ELEMENT;
const POD_BYTES = BigUint64Array.BYTES_PER_ELEMENT;
const WORD_BYTES = WORDS * Uint32Array.BYTES_PER_ELEMENT;

export const DIRECTIONS = ['inbound', 'outbound'] as const;
export const SECURITIES = ['none', 'mutual_tls', 'kernel'] as const satisfies readonly FlowSecurity[];
export const STAGES = ['early', 'addressed', 'connected'] as const satisfies readonly FlowStage[];

/** Hexadecimal digits of a flow's id in a word, and words of an id. */
export const DIGITS_OF_A_WORD = 8;
export const WORDS_OF_AN_ID = 4;

/** The memory of a ring as both ends see it: a part for each kind of number. */
export class Cells {
  readonly header: Uint32Array;
  readonly numbers: Float64Array;
  readonly pods: BigUint64Array;
  readonly words: Uint32Array;
  readonly size: number;

  constructor(memory: SharedArrayBuffer) {
    const size = (memory.byteLength - HEADER_BYTES) / (NUMBER_BYTES + POD_BYTES + WORD_BYTES);
    const podsAt = HEADER_BYTES + size * NUMBER_BYTES;
    this.size = size;
    this.header = new Uint32Array(memory, 0, HEADER_BYTES / Uint32Array.BYTES_PER_ELEMENT);
    this.numbers = new Float64Array(memory, HEADER_BYTES, size * NUMBERS);
    this.pods = new BigUint64Array(memory, podsAt, size);
    this.words = new Uint32Array(memory, podsAt + size * POD_BYTES, size * WORDS);
  }
}

/**
 * Memory of a ring.
 *
 * @param records that it has room for: a power of two
 */
export function allocateFlowRing(records = RECORDS): SharedArrayBuffer {
  return new SharedArrayBuffer(HEADER_BYTES + records * (NUMBER_BYTES + POD_BYTES + WORD_BYTES));
}
