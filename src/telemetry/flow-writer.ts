import { type Endpoint, FLOW_PATHS, type FlowStage, type FlowSubject, type NetnsCookie } from '../mesh/index.ts';
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

export interface FlowWriterOptions {
  /** Nouns that have a number, before they begin anew. Default: 65,536. */
  readonly mostNouns?: number;
  /** Characters of all of them together, before they begin anew. Default: 8,388,608. */
  readonly mostCharacters?: number;
}

const MOST_NOUNS = 65_536;
const MOST_CHARACTERS_OF_ALL = 8 * 1024 * 1024;
/** Nouns that one record may need at most. */
const MOST_OF_A_RECORD = 16;
/** Peers choose some of the texts. */
const MOST_CHARACTERS = 512;

/**
 * Puts records of connections into memory that another thread reads: as numbers of a fixed size, and what they have in common
 * only once. Never waits: where there is no room, the record is counted and gone.
 */
export class FlowWriter {
  readonly #cells: Cells;
  readonly #send: (batch: FlowBatch) => void;
  readonly #mostNouns: number;
  readonly #mostCharacters: number;
  readonly #numbers = new Map<string, number>();
  #numbersOfObjects = new WeakMap<object, number>();
  /** Not sent yet. */
  #nouns: FlowNoun[] = [];
  #isAnew = false;
  /** Of all that have a number. */
  #characters = 0;
  #pending = 0;

  /** @param send takes what `flush` makes; its reader is given them in order */
  constructor(memory: SharedArrayBuffer, send: (batch: FlowBatch) => void, options: FlowWriterOptions = {}) {
    this.#cells = new Cells(memory);
    this.#send = send;
    this.#mostNouns = options.mostNouns ?? MOST_NOUNS;
    this.#mostCharacters = options.mostCharacters ?? MOST_CHARACTERS_OF_ALL;
  }

  /** Records that `flush` would tell of. */
  get pending(): number {
    return this.#pending;
  }

  /** @returns false: there was no room */
  write(pod: NetnsCookie, subject: FlowSubject, end: FlowEnd): boolean {
    const { header, size } = this.#cells;
    const written = header[WRITTEN] ?? 0;
    if ((written - Atomics.load(header, READ)) >>> 0 >= size) {
      Atomics.add(header, DROPPED, 1);
      return false;
    }
    if (this.#numbers.size + MOST_OF_A_RECORD > this.#mostNouns || this.#characters >= this.#mostCharacters)
      this.#beginAnew();
    const place = written % size;
    this.#cells.pods[place] = pod;
    this.#writeNumbers(place * NUMBERS, end);
    this.#writeSubject(place * WORDS, subject);
    this.#writeEnd(place * WORDS, end);
    this.#writeChoices(place * WORDS, subject, end.stage);
    Atomics.store(header, WRITTEN, (written + 1) >>> 0);
    this.#pending += 1;
    return true;
  }

  /** Tells of what has been written. */
  flush(): void {
    if (this.#pending === 0) return;
    const batch = { count: this.#pending, nouns: this.#nouns, isAnew: this.#isAnew };
    this.#pending = 0;
    this.#nouns = [];
    this.#isAnew = false;
    this.#send(batch);
  }

  /** What is in the ring still has the old numbers, so it is told of first. */
  #beginAnew(): void {
    this.flush();
    this.#numbers.clear();
    this.#numbersOfObjects = new WeakMap();
    this.#nouns = [];
    this.#characters = 0;
    this.#isAnew = true;
  }

  #writeNumbers(at: number, end: FlowEnd): void {
    const { numbers } = this.#cells;
    numbers[at + NUMBER.endedAt] = Date.now();
    numbers[at + NUMBER.durationMs] = end.durationMs;
    numbers[at + NUMBER.bytesSent] = end.bytesSent;
    numbers[at + NUMBER.bytesReceived] = end.bytesReceived;
    numbers[at + NUMBER.connectMs] = end.connectMs ?? Number.NaN;
    numbers[at + NUMBER.firstByteMs] = end.firstByteMs ?? Number.NaN;
    numbers[at + NUMBER.roundTripUs] = end.roundTripUs ?? Number.NaN;
    numbers[at + NUMBER.retransmits] = end.retransmits ?? Number.NaN;
  }

  #writeSubject(at: number, subject: FlowSubject): void {
    const { words } = this.#cells;
    this.#writeEndpoint(at + WORD.client, subject.client);
    this.#writeEndpoint(at + WORD.asked, subject.asked);
    this.#writeEndpoint(at + WORD.server, subject.server);
    this.#writeEndpoint(at + WORD.dialled, subject.dialled);
    words[at + WORD.authority] = this.#text(subject.authority);
    words[at + WORD.source] = this.#object(subject.source);
    words[at + WORD.destination] = this.#object(subject.destination);
    words[at + WORD.sourceIdentity] = this.#text(subject.sourceIdentity);
    words[at + WORD.destinationIdentity] = this.#text(subject.destinationIdentity);
    words[at + WORD.service] = this.#object(subject.service);
    words[at + WORD.waypoint] = this.#text(subject.waypoint);
  }

  #writeEnd(at: number, end: FlowEnd): void {
    const { words } = this.#cells;
    writeId(words, at + WORD.id, end.id);
    words[at + WORD.ended] = this.#text(end.ended);
    words[at + WORD.error] = this.#text(end.error);
    words[at + WORD.decision] = this.#object(end.decision);
    words[at + WORD.dryRun] = end.dryRun.length === 0 ? 0 : this.#object(end.dryRun);
    words[at + WORD.kind] = this.#text(end.kind);
    words[at + WORD.attempts] = end.attempts;
  }

  #writeChoices(at: number, { direction, path, security }: FlowSubject, stage: FlowStage): void {
    this.#cells.words[at + WORD.choices] =
      DIRECTIONS.indexOf(direction) |
      (FLOW_PATHS.indexOf(path) << 8) |
      (SECURITIES.indexOf(security) << 16) |
      (STAGES.indexOf(stage) << 24);
  }

  #writeEndpoint(at: number, endpoint: Endpoint | undefined): void {
    const { words } = this.#cells;
    words[at] = this.#text(endpoint?.address);
    words[at + 1] = endpoint?.port ?? 0;
  }

  #text(text: string | undefined): number {
    if (text === undefined) return 0;
    if (text.length > MOST_CHARACTERS) return this.#text(text.slice(0, MOST_CHARACTERS));
    return this.#numbers.get(text) ?? this.#newNumber(text, text);
  }

  #object(noun: Exclude<FlowNoun, string> | undefined): number {
    if (noun === undefined) return 0;
    const known = this.#numbersOfObjects.get(noun);
    if (known !== undefined) return known;
    // Another object may say the same. No text that is sent as such begins like this.
    const key = `\0${JSON.stringify(noun)}`;
    const number = this.#numbers.get(key) ?? this.#newNumber(key, noun);
    this.#numbersOfObjects.set(noun, number);
    return number;
  }

  #newNumber(key: string, noun: FlowNoun): number {
    const number = this.#numbers.size + 1;
    this.#numbers.set(key, number);
    this.#characters += key.length;
    this.#nouns.push(noun);
    return number;
  }
}

function writeId(words: Uint32Array, at: number, id: string): void {
  for (let word = 0; word < WORDS_OF_AN_ID; word += 1) {
    let value = 0;
    for (let digit = 0; digit < DIGITS_OF_A_WORD; digit += 1)
      value = (value << 4) | valueOfDigit(id.charCodeAt(word * DIGITS_OF_A_WORD + digit));
    words[at + word] = value;
  }
}

/** Of '0' to '9' and 'a' to 'f'. */
function valueOfDigit(code: number): number {
  return code < 58 ? code - 48 : code - 87;
}
