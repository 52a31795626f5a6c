import {
  type Address,
  type Endpoint,
  FLOW_PATHS,
  type FlowDecision,
  type FlowDryRun,
  type FlowId,
  type FlowRecord,
  type FlowStage,
  type NetnsCookie,
  type PolicyName,
  type SpiffeId,
} from '../mesh/index.ts';
import {
  ALLOWED,
  ATTEMPTS,
  DECIDED,
  FIRST_TEXT,
  type FlowValues,
  HALVES_OF_A_RECORD,
  type IdPrefix,
  LAST_TEXT,
  NUMBER,
  NUMBERS_OF_A_RECORD,
  OUTBOUND,
  PATH_BITS,
  PORT,
  SECURITY,
  SECURITY_SHIFT,
  STAGE_SHIFT,
  STAGES,
  WORD,
  WORDS_OF_A_RECORD,
  WORDS_OF_AN_ID,
} from './flow-columns.ts';

/** Places to begin with. */
const FIRST_PLACES = 16;
/** A longer text, of a peer, say, is cut. */
const MOST_LETTERS = 1_000;

/**
 * The records of one pod; when there are as many as may be kept, a new one takes the place of the oldest. A record is kept
 * as numbers, some 170 bytes, in arrays that grow with use; a text, of which there are few different ones, is kept once.
 */
export class KeptFlows {
  readonly #most: number;
  readonly #values: FlowValues;
  #capacity = 0;
  #bits = new Uint16Array(0);
  #halves = new Uint16Array(0);
  #words = new Uint32Array(0);
  #numbers = new Float64Array(0);
  /** Ever added; modulo the capacity it is the next place. */
  #added = 0;
  #lastGone = 0;

  /** @param most records that are kept */
  constructor(most: number, values: FlowValues) {
    this.#most = most;
    this.#values = values;
  }

  /** How many there are. */
  get count(): number {
    return Math.min(this.#added, this.#most);
  }

  /** How many had to make room, and the sequence number of the last of them; 0: none had. */
  get gone(): number {
    return this.#added - this.count;
  }

  get lastGone(): number {
    return this.#lastGone;
  }

  add(record: FlowRecord, sequence: number): void {
    if (this.#added === this.#capacity && this.#capacity < this.#most) this.#grow();
    const at = this.#added % this.#capacity;
    if (this.#added >= this.#most) {
      this.#lastGone = this.#numbers[at * NUMBERS_OF_A_RECORD + NUMBER.sequence] ?? 0;
      this.#release(at);
    }
    this.#added += 1;
    this.#bits[at] = bitsOf(record);
    this.#putHalves(at, record);
    this.#putWords(at, record);
    this.#putNumbers(at, record, sequence);
  }

  /** The first one, counted from the oldest that is kept, whose sequence number is above this one. */
  firstAfter(sequence: number): number {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sequence(this.place(middle)) > sequence) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Where one is, by which it is asked about. @param index counted from the oldest that is kept */
  place(index: number): number {
    const at = this.gone + index;
    return at < this.#capacity ? at : at % this.#capacity;
  }

  sequence(at: number): number {
    return this.#numbers[at * NUMBERS_OF_A_RECORD + NUMBER.sequence] ?? 0;
  }

  word(at: number, column: number): number {
    return this.#words[at * WORDS_OF_A_RECORD + column] ?? 0;
  }

  /** What policy said; undefined: it was not asked. */
  allowed(at: number): boolean | undefined {
    const bits = this.#bits[at] ?? 0;
    return (bits & DECIDED) === 0 ? undefined : (bits & ALLOWED) !== 0;
  }

  isConnected(at: number): boolean {
    return this.#stage(at) === 'connected';
  }

  /** Places of those whose id begins so. */
  withId({ words, masks }: IdPrefix): number[] {
    const [wanted = 0, mask = 0] = [words[0], masks[0]];
    const found: number[] = [];
    for (let at = 0; at < this.count; at += 1)
      // As signed numbers, which is how `&` leaves them.
      if (((this.#words[at * WORDS_OF_A_RECORD] ?? 0) & mask) === (wanted & mask) && this.#hasId(at, words, masks))
        found.push(at);
    return found;
  }

  read(pod: NetnsCookie, at: number): FlowRecord {
    const bits = this.#bits[at] ?? 0;
    return {
      id: this.#id(at),
      pod,
      stage: this.#stage(at),
      direction: (bits & OUTBOUND) === 0 ? 'inbound' : 'outbound',
      path: FLOW_PATHS[bits & PATH_BITS] ?? 'plain',
      client: this.#endpoint(at, 'client'),
      asked: this.#endpoint(at, 'asked') ?? NOWHERE,
      server: this.#endpoint(at, 'server') ?? NOWHERE,
      dialled: this.#endpoint(at, 'dialled') ?? NOWHERE,
      authority: this.#text(at, WORD.authority),
      source: this.#values.parties.read(this.word(at, WORD.source)),
      destination: this.#values.parties.read(this.word(at, WORD.destination)),
      sourceIdentity: this.#text(at, WORD.sourceIdentity) as SpiffeId | undefined,
      destinationIdentity: this.#text(at, WORD.destinationIdentity) as SpiffeId | undefined,
      service: this.#values.services.read(this.word(at, WORD.service)),
      waypoint: this.#text(at, WORD.waypoint),
      security: SECURITY[(bits >> SECURITY_SHIFT) & 3] ?? 'none',
      endedAt: this.#number(at, NUMBER.endedAt) ?? 0,
      durationMs: this.#number(at, NUMBER.durationMs) ?? 0,
      ended: this.#text(at, WORD.ended) ?? '',
      error: this.#text(at, WORD.error),
      decision: this.#decision(at, bits),
      dryRun: dryRunFrom(this.#text(at, WORD.dryRun)),
      attempts: this.#halves[at * HALVES_OF_A_RECORD + ATTEMPTS] ?? 0,
      bytesSent: this.#number(at, NUMBER.bytesSent) ?? 0,
      bytesReceived: this.#number(at, NUMBER.bytesReceived) ?? 0,
      connectMs: this.#number(at, NUMBER.connectMs),
      firstByteMs: this.#number(at, NUMBER.firstByteMs),
      roundTripUs: this.#number(at, NUMBER.roundTripUs),
      retransmits: this.#number(at, NUMBER.retransmits),
      kind: this.#text(at, WORD.kind),
    };
  }

  /** Lets go of all that is held. */
  clear(): void {
    for (let at = 0; at < this.count; at += 1) this.#release(at);
    this.#added = 0;
  }

  // --- places ---------------------------------------------------------------------------------------------------------

  /** Before anything had to make room, so all lie in their order. */
  #grow(): void {
    this.#capacity = Math.min(Math.max(FIRST_PLACES, this.#capacity * 2), this.#most);
    const [bits, halves, words, numbers] = [this.#bits, this.#halves, this.#words, this.#numbers];
    this.#bits = new Uint16Array(this.#capacity);
    this.#halves = new Uint16Array(this.#capacity * HALVES_OF_A_RECORD);
    this.#words = new Uint32Array(this.#capacity * WORDS_OF_A_RECORD);
    this.#numbers = new Float64Array(this.#capacity * NUMBERS_OF_A_RECORD);
    this.#bits.set(bits);
    this.#halves.set(halves);
    this.#words.set(words);
    this.#numbers.set(numbers);
  }

  // --- writing --------------------------------------------------------------------------------------------------------

  #putHalves(at: number, { client, asked, server, dialled, attempts }: FlowRecord): void {
    const halves = at * HALVES_OF_A_RECORD;
    this.#halves[halves + PORT.client] = client?.port ?? 0;
    this.#halves[halves + PORT.asked] = asked.port;
    this.#halves[halves + PORT.server] = server.port;
    this.#halves[halves + PORT.dialled] = dialled.port;
    this.#halves[halves + ATTEMPTS] = Math.min(attempts, 0xffff);
  }

  #putWords(at: number, record: FlowRecord): void {
    const { parties, services } = this.#values;
    for (let word = 0; word < WORDS_OF_AN_ID; word += 1)
      this.#put(at, WORD.id + word, Number.parseInt(record.id.slice(word * 8, word * 8 + 8), 16));
    this.#hold(at, WORD.client, record.client?.address);
    this.#hold(at, WORD.asked, record.asked.address);
    this.#hold(at, WORD.server, record.server.address);
    this.#hold(at, WORD.dialled, record.dialled.address);
    this.#hold(at, WORD.authority, record.authority);
    this.#hold(at, WORD.sourceIdentity, record.sourceIdentity);
    this.#hold(at, WORD.destinationIdentity, record.destinationIdentity);
    this.#hold(at, WORD.waypoint, record.waypoint);
    this.#hold(at, WORD.ended, record.ended);
    this.#hold(at, WORD.error, record.error);
    this.#hold(at, WORD.reason, record.decision?.reason);
    this.#hold(at, WORD.policy, record.decision?.policy);
    this.#hold(at, WORD.decision, record.decision?.text);
    this.#hold(at, WORD.dryRun, record.dryRun.length === 0 ? undefined : JSON.stringify(record.dryRun));
    this.#hold(at, WORD.kind, record.kind);
    this.#put(at, WORD.source, parties.hold(record.source));
    this.#put(at, WORD.destination, parties.hold(record.destination));
    this.#put(at, WORD.service, services.hold(record.service));
  }

  #putNumbers(at: number, record: FlowRecord, sequence: number): void {
    const numbers = at * NUMBERS_OF_A_RECORD;
    this.#numbers[numbers + NUMBER.sequence] = sequence;
    this.#numbers[numbers + NUMBER.endedAt] = record.endedAt;
    this.#numbers[numbers + NUMBER.durationMs] = record.durationMs;
    this.#numbers[numbers + NUMBER.bytesSent] = record.bytesSent;
    this.#numbers[numbers + NUMBER.bytesReceived] = record.bytesReceived;
    this.#numbers[numbers + NUMBER.connectMs] = record.connectMs ?? Number.NaN;
    this.#numbers[numbers + NUMBER.firstByteMs] = record.firstByteMs ?? Number.NaN;
    this.#numbers[numbers + NUMBER.roundTripUs] = record.roundTripUs ?? Number.NaN;
    this.#numbers[numbers + NUMBER.retransmits] = record.retransmits ?? Number.NaN;
  }

  #hold(at: number, column: number, text: string | undefined): void {
    // A dry run's text is read back: it is ours, and short.
    const kept = text !== undefined && text.length > MOST_LETTERS && column !== WORD.dryRun ? cut(text) : text;
    this.#put(at, column, this.#values.texts.hold(kept));
  }

  #put(at: number, column: number, word: number): void {
    this.#words[at * WORDS_OF_A_RECORD + column] = word;
  }

  #release(at: number): void {
    const { texts, parties, services } = this.#values;
    for (let column = FIRST_TEXT; column <= LAST_TEXT; column += 1) texts.release(this.word(at, column));
    parties.release(this.word(at, WORD.source));
    parties.release(this.word(at, WORD.destination));
    services.release(this.word(at, WORD.service));
  }

  #hasId(at: number, words: readonly number[], masks: readonly number[]): boolean {
    return words.every((word, index) => {
      const mask = masks[index] ?? 0;
      return (this.word(at, WORD.id + index) & mask) === (word & mask);
    });
  }

  // --- reading --------------------------------------------------------------------------------------------------------

  #id(at: number): FlowId {
    let id = '';
    for (let word = 0; word < WORDS_OF_AN_ID; word += 1)
      id += this.word(at, WORD.id + word)
        .toString(16)
        .padStart(8, '0');
    return id;
  }

  #stage(at: number): FlowStage {
    return STAGES[((this.#bits[at] ?? 0) >> STAGE_SHIFT) & 3] ?? 'early';
  }

  #decision(at: number, bits: number): FlowDecision | undefined {
    if ((bits & DECIDED) === 0) return undefined;
    return {
      allowed: (bits & ALLOWED) !== 0,
      reason: this.#text(at, WORD.reason) ?? '',
      policy: this.#text(at, WORD.policy) as PolicyName | undefined,
      text: this.#text(at, WORD.decision) ?? '',
    };
  }

  #endpoint(at: number, which: keyof typeof PORT): Endpoint | undefined {
    const address = this.#text(at, WORD[which]);
    if (address === undefined) return undefined;
    return { address: address as Address, port: this.#halves[at * HALVES_OF_A_RECORD + PORT[which]] ?? 0 };
  }

  #text(at: number, column: number): string | undefined {
    return this.#values.texts.read(this.word(at, column));
  }

  #number(at: number, column: number): number | undefined {
    const number = this.#numbers[at * NUMBERS_OF_A_RECORD + column];
    return number === undefined || Number.isNaN(number) ? undefined : number;
  }
}

const NOWHERE: Endpoint = { address: '0.0.0.0' as Address, port: 0 };

function bitsOf({ path, direction, stage, security, decision }: FlowRecord): number {
  return (
    FLOW_PATHS.indexOf(path) |
    (direction === 'outbound' ? OUTBOUND : 0) |
    (STAGES.indexOf(stage) << STAGE_SHIFT) |
    (SECURITY.indexOf(security) << SECURITY_SHIFT) |
    (decision === undefined ? 0 : DECIDED) |
    (decision?.allowed === true ? ALLOWED : 0)
  );
}

function cut(text: string): string {
  return `${text.slice(0, MOST_LETTERS)}...`;
}

function dryRunFrom(text: string | undefined): readonly FlowDryRun[] {
  return text === undefined ? [] : (JSON.parse(text) as FlowDryRun[]);
}
