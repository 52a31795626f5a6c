import {
  type Address,
  type Endpoint,
  FLOW_PATHS,
  type FlowDecision,
  type FlowDryRun,
  type FlowParty,
  type FlowRecord,
  type FlowService,
  type FlowSubject,
  type NetnsCookie,
  type SpiffeId,
} from '../mesh/index.ts';
import {
  Cells,
  DIGITS_OF_A_WORD,
  DIRECTIONS,
  DROPPED,
  type FlowBatch,
  type FlowEnd,
  type FlowNoun,
  NUMBER,
  NUMBERS,
  READ,
  SECURITIES,
  STAGES,
  WORD,
  WORDS,
  WORDS_OF_AN_ID,
  WRITTEN,
} from './flow-ring.ts';

const NO_DRY_RUN: readonly FlowDryRun[] = [];

/** The other end of a `FlowWriter`. */
export class FlowReader {
  readonly #cells: Cells;
  /** By number; the first is no noun's. */
  #nouns: Array<FlowNoun | undefined> = [undefined];

  constructor(memory: SharedArrayBuffer) {
    this.#cells = new Cells(memory);
  }

  /** Records for which there was no room, since the ring was made. */
  get dropped(): number {
    return Atomics.load(this.#cells.header, DROPPED);
  }

  /** Records that were written and not read. */
  get unread(): number {
    const { header } = this.#cells;
    return (Atomics.load(header, WRITTEN) - Atomics.load(header, READ)) >>> 0;
  }

  read({ count, nouns, isAnew }: FlowBatch): FlowRecord[] {
    if (isAnew) this.#nouns = [undefined];
    for (const noun of nouns) this.#nouns.push(noun);
    const { header, size } = this.#cells;
    const from = Atomics.load(header, READ);
    const records: FlowRecord[] = [];
    for (let at = 0; at < count; at += 1) records.push(this.#record(((from + at) >>> 0) % size));
    Atomics.store(header, READ, (from + count) >>> 0);
    return records;
  }

  #record(place: number): FlowRecord {
    const { numbers, pods } = this.#cells;
    const number = (cell: number): number => numbers[place * NUMBERS + cell] ?? 0;
    const measured = (cell: number): number | undefined => {
      const value = number(cell);
      return Number.isNaN(value) ? undefined : value;
    };
    return {
      ...this.#subject(place * WORDS),
      ...this.#end(place * WORDS),
      pod: (pods[place] ?? 0n) as NetnsCookie,
      endedAt: number(NUMBER.endedAt),
      durationMs: number(NUMBER.durationMs),
      bytesSent: number(NUMBER.bytesSent),
      bytesReceived: number(NUMBER.bytesReceived),
      connectMs: measured(NUMBER.connectMs),
      firstByteMs: measured(NUMBER.firstByteMs),
      roundTripUs: measured(NUMBER.roundTripUs),
      retransmits: measured(NUMBER.retransmits),
    };
  }

  #subject(at: number): FlowSubject {
    const choices = this.#word(at + WORD.choices);
    return {
      direction: DIRECTIONS[choices & 0xff] ?? 'inbound',
      path: FLOW_PATHS[(choices >> 8) & 0xff] ?? 'plain',
      client: this.#endpointIfAny(at + WORD.client),
      asked: this.#endpoint(at + WORD.asked),
      server: this.#endpoint(at + WORD.server),
      dialled: this.#endpoint(at + WORD.dialled),
      authority: this.#text(at + WORD.authority),
      source: this.#object<FlowParty>(at + WORD.source),
      destination: this.#object<FlowParty>(at + WORD.destination),
      sourceIdentity: this.#text(at + WORD.sourceIdentity) as SpiffeId | undefined,
      destinationIdentity: this.#text(at + WORD.destinationIdentity) as SpiffeId | undefined,
      service: this.#object<FlowService>(at + WORD.service),
      waypoint: this.#text(at + WORD.waypoint),
      security: SECURITIES[(choices >> 16) & 0xff] ?? 'none',
    };
  }

  #end(at: number): Omit<FlowEnd, keyof typeof NUMBER> {
    return {
      id: readId(this.#cells.words, at + WORD.id),
      stage: STAGES[this.#word(at + WORD.choices) >>> 24] ?? 'early',
      ended: this.#text(at + WORD.ended) ?? '',
      error: this.#text(at + WORD.error),
      decision: this.#object<FlowDecision>(at + WORD.decision),
      dryRun: this.#object<readonly FlowDryRun[]>(at + WORD.dryRun) ?? NO_DRY_RUN,
      attempts: this.#word(at + WORD.attempts),
      kind: this.#text(at + WORD.kind),
    };
  }

  #endpointIfAny(at: number): Endpoint | undefined {
    return this.#word(at) === 0 ? undefined : this.#endpoint(at);
  }

  #endpoint(at: number): Endpoint {
    return { address: (this.#text(at) ?? '') as Address, port: this.#word(at + 1) };
  }

  #text(at: number): string | undefined {
    const noun = this.#nouns[this.#word(at)];
    return typeof noun === 'string' ? noun : undefined;
  }

  /** The writer puts nothing else there. */
  #object<Noun extends Exclude<FlowNoun, string>>(at: number): Noun | undefined {
    const noun = this.#nouns[this.#word(at)];
    return typeof noun === 'string' ? undefined : (noun as Noun | undefined);
  }

  #word(at: number): number {
    return this.#cells.words[at] ?? 0;
  }
}

function readId(words: Uint32Array, at: number): string {
  let id = '';
  for (let word = 0; word < WORDS_OF_AN_ID; word += 1)
    id += (words[at + word] ?? 0).toString(16).padStart(DIGITS_OF_A_WORD, '0');
  return id;
}
