import type { Address, Endpoint, FlowPath, FlowRecord, NetnsCookie, SpiffeId } from '../mesh/index.ts';

export interface RecentFlowsDeps {
  /** Whether the pod is still captured: connections of a withdrawn one live on, and nobody asks for them any more. */
  isKnown(pod: NetnsCookie): boolean;
}

export interface RecentFlowsOptions {
  /** Records kept of each pod. Default: 1,000. */
  readonly perPod?: number;
}

/**
 * The connections that ended last, of each pod of this node.
 *
 * A busy node ends thousands a second, so a record is kept as numbers in arrays that are made once for a pod (about 70
 * bytes a record), and a text, of which there are few different ones, is kept once.
 */
export class RecentFlows {
  readonly #deps: RecentFlowsDeps;
  readonly #perPod: number;
  readonly #texts = new Texts();
  readonly #rings = new Map<NetnsCookie, Ring>();

  constructor(deps: RecentFlowsDeps, options: RecentFlowsOptions = {}) {
    this.#deps = deps;
    this.#perPod = options.perPod ?? 1_000;
  }

  /** In the order in which they ended. Those of pods that are not known are left out. */
  add(records: readonly FlowRecord[]): void {
    this.#forgetWithdrawn();
    for (const record of records) this.#ringOf(record.pod)?.add(record);
  }

  /** The newest last. */
  of(pod: NetnsCookie): readonly FlowRecord[] {
    this.#forgetWithdrawn();
    return this.#rings.get(pod)?.records(pod) ?? [];
  }

  forget(pod: NetnsCookie): void {
    this.#rings.get(pod)?.clear();
    this.#rings.delete(pod);
  }

  /** Different texts that are held, for tests. */
  get textCount(): number {
    return this.#texts.count;
  }

  #ringOf(pod: NetnsCookie): Ring | undefined {
    const found = this.#rings.get(pod);
    if (found !== undefined || !this.#deps.isKnown(pod)) return found;
    const made = new Ring(this.#perPod, this.#texts);
    this.#rings.set(pod, made);
    return made;
  }

  #forgetWithdrawn(): void {
    for (const pod of this.#rings.keys()) if (!this.#deps.isKnown(pod)) this.forget(pod);
  }
}

/** Texts that are in use, each once. Number 0 is no text. */
class Texts {
  readonly #numbers = new Map<string, number>();
  readonly #texts: Array<string | undefined> = [undefined];
  readonly #uses: number[] = [0];
  readonly #free: number[] = [];

  get count(): number {
    return this.#numbers.size;
  }

  hold(text: string | undefined): number {
    if (text === undefined) return 0;
    const known = this.#numbers.get(text);
    if (known !== undefined) {
      this.#uses[known] = (this.#uses[known] ?? 0) + 1;
      return known;
    }
    const number = this.#free.pop() ?? this.#texts.length;
    this.#numbers.set(text, number);
    this.#texts[number] = text;
    this.#uses[number] = 1;
    return number;
  }

  release(number: number): void {
    const text = this.#texts[number];
    if (text === undefined) return;
    const left = (this.#uses[number] ?? 0) - 1;
    this.#uses[number] = left;
    if (left > 0) return;
    this.#numbers.delete(text);
    this.#texts[number] = undefined;
    this.#free.push(number);
  }

  read(number: number): string | undefined {
    return this.#texts[number];
  }
}

const PATHS: readonly FlowPath[] = ['kernel', 'tunnel', 'plain', 'passthrough'];
const OUTBOUND = 0x80;

/** Columns of a record's texts, and of its other whole numbers. */
const TEXT = { client: 0, server: 1, source: 2, destination: 3, service: 4, ended: 5, decision: 6 } as const;
const TEXTS_OF_A_RECORD = 7;
const PORT = { client: 0, server: 1 } as const;
const NUMBER = { endedAt: 0, bytesSent: 1, bytesReceived: 2, durationMs: 3 } as const;
const NUMBERS_OF_A_RECORD = 4;

/** The records of one pod; a new one takes the place of the oldest. */
class Ring {
  readonly #capacity: number;
  readonly #texts: Texts;
  readonly #kinds: Uint8Array;
  readonly #ports: Uint16Array;
  readonly #words: Uint32Array;
  readonly #numbers: Float64Array;
  /** Ever added; modulo the capacity it is the next place. */
  #added = 0;

  constructor(capacity: number, texts: Texts) {
    this.#capacity = capacity;
    this.#texts = texts;
    this.#kinds = new Uint8Array(capacity);
    this.#ports = new Uint16Array(capacity * 2);
    this.#words = new Uint32Array(capacity * TEXTS_OF_A_RECORD);
    this.#numbers = new Float64Array(capacity * NUMBERS_OF_A_RECORD);
  }

  add(record: FlowRecord): void {
    const at = this.#added % this.#capacity;
    const words = at * TEXTS_OF_A_RECORD;
    this.#releaseTexts(at);
    this.#added += 1;
    this.#kinds[at] = PATHS.indexOf(record.path) | (record.direction === 'outbound' ? OUTBOUND : 0);
    this.#ports[at * 2 + PORT.client] = record.client?.port ?? 0;
    this.#ports[at * 2 + PORT.server] = record.server.port;
    this.#words[words + TEXT.client] = this.#texts.hold(record.client?.address);
    this.#words[words + TEXT.server] = this.#texts.hold(record.server.address);
    this.#words[words + TEXT.source] = this.#texts.hold(record.sourceIdentity);
    this.#words[words + TEXT.destination] = this.#texts.hold(record.destinationIdentity);
    this.#words[words + TEXT.service] = this.#texts.hold(record.service);
    this.#words[words + TEXT.ended] = this.#texts.hold(record.ended);
    this.#words[words + TEXT.decision] = this.#texts.hold(record.decision);
    const numbers = at * NUMBERS_OF_A_RECORD;
    this.#numbers[numbers + NUMBER.endedAt] = record.endedAt;
    this.#numbers[numbers + NUMBER.bytesSent] = record.bytesSent;
    this.#numbers[numbers + NUMBER.bytesReceived] = record.bytesReceived;
    this.#numbers[numbers + NUMBER.durationMs] = record.durationMs;
  }

  records(pod: NetnsCookie): FlowRecord[] {
    const first = Math.max(0, this.#added - this.#capacity);
    return Array.from({ length: this.#added - first }, (_, index) => this.#read(pod, (first + index) % this.#capacity));
  }

  clear(): void {
    for (let at = 0; at < this.#capacity; at += 1) this.#releaseTexts(at);
    this.#added = 0;
  }

  #read(pod: NetnsCookie, at: number): FlowRecord {
    const kind = this.#kinds[at] ?? 0;
    const serverPort = this.#ports[at * 2 + PORT.server] ?? 0;
    const server: Endpoint = { address: (this.#text(at, TEXT.server) ?? '') as Address, port: serverPort };
    return {
      pod,
      endedAt: this.#number(at, NUMBER.endedAt),
      direction: (kind & OUTBOUND) === 0 ? 'inbound' : 'outbound',
      path: PATHS[kind & ~OUTBOUND] ?? 'plain',
      client: this.#client(at),
      server,
      sourceIdentity: this.#text(at, TEXT.source) as SpiffeId | undefined,
      destinationIdentity: this.#text(at, TEXT.destination) as SpiffeId | undefined,
      service: this.#text(at, TEXT.service),
      ended: this.#text(at, TEXT.ended) ?? '',
      decision: this.#text(at, TEXT.decision),
      bytesSent: this.#number(at, NUMBER.bytesSent),
      bytesReceived: this.#number(at, NUMBER.bytesReceived),
      durationMs: this.#number(at, NUMBER.durationMs),
    };
  }

  #client(at: number): Endpoint | undefined {
    const address = this.#text(at, TEXT.client);
    return address === undefined
      ? undefined
      : { address: address as Address, port: this.#ports[at * 2 + PORT.client] ?? 0 };
  }

  #text(at: number, column: number): string | undefined {
    return this.#texts.read(this.#words[at * TEXTS_OF_A_RECORD + column] ?? 0);
  }

  #number(at: number, column: number): number {
    return this.#numbers[at * NUMBERS_OF_A_RECORD + column] ?? 0;
  }

  #releaseTexts(at: number): void {
    const words = at * TEXTS_OF_A_RECORD;
    for (let column = 0; column < TEXTS_OF_A_RECORD; column += 1) {
      this.#texts.release(this.#words[words + column] ?? 0);
      this.#words[words + column] = 0;
    }
  }
}
