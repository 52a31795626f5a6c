import type { FlowParty, FlowService, FlowSubject, ResponseFlags } from '../mesh/index.ts';
import { CELLS_OF_A_SLOT, type LabelOptions, SERIES_CELL, type SeriesLabels, seriesLabels } from './series.ts';

export interface SeriesTableOptions extends LabelOptions {
  /** Slots, those of `other` included; more than 16. Default: 4,096. */
  readonly slots?: number;
  /** A slot of which nothing is open and nothing was counted for this long is given up. Default: 600. */
  readonly idleSeconds?: number;
}

/** Who reads the table's cells. */
export interface SeriesReader {
  /** From now on the slot's cells are of these labels. */
  added(slot: number, labels: SeriesLabels): void;
  /** The slot's cells do not change any more. When they have been put aside, `freed` is to be called: now, or later. */
  idle(slot: number): void;
}

const DEFAULT_SLOTS = 4096;
const DEFAULT_IDLE_SECONDS = 600;

const { opened: OPENED, closed: CLOSED, failed: FAILED, received: RECEIVED, sent: SENT } = SERIES_CELL;

const FLAG_AT: Readonly<Record<ResponseFlags, number>> = {
  '-': 0,
  DENY: 1,
  CONNECT: 2,
  TLS_FAILURE: 3,
  H2_HANDSHAKE_FAILURE: 4,
  NETWORK_POLICY: 5,
  IDENTITY_ERROR: 6,
  CERT_REVOKED: 7,
};
const FLAGS = Object.keys(FLAG_AT).length;

/** One for each reporter and flag. */
const SLOTS_OF_OTHER = 2 * FLAGS;

/** Texts that labels are made of, and their characters together; beyond this, slots are looked up anew. */
const MOST_TEXTS = 65_536;
const MOST_CHARACTERS = 8 * 1024 * 1024;

const FREE = 0;
const USED = 1;
/** Given up, but its reader has not put its cells aside yet. */
const IDLE = 2;

/**
 * Counts connections by their labels, in cells that others read (see series.ts). The writer's side: the thread that has it
 * is the only one that writes.
 *
 * What holds:
 * - A connection is opened in the slot of its labels with the flag `-`, and closed once, in that of the same labels with its
 *   final flag.
 * - Where no slot is left, connections are counted in slots of `other`, which are never given up.
 * - A slot gets other labels only after its reader has put aside what it had counted.
 */
export class SeriesTable {
  /** A slot's cells begin at `slot * CELLS_OF_A_SLOT`; see `SERIES_CELL`. Bytes are added here, in slots of the flag `-`. */
  readonly cells: Float64Array;

  readonly #reader: SeriesReader;
  readonly #kernelPathAs: LabelOptions['kernelPathAs'];
  readonly #idleSeconds: number;
  /** The first slot of `other`. */
  readonly #otherAt: number;
  readonly #state: Uint8Array;
  /** Connections that are open in a slot. */
  readonly #open: Int32Array;
  /** What a slot had counted when it was looked at last; -1: never. */
  readonly #seen: Float64Array;
  /** When it had last changed. */
  readonly #changedAt: Float64Array;
  readonly #keys: string[] = [];
  readonly #slots = new Map<string, number>();
  readonly #freed: number[] = [];
  /** The first slot that was never used. */
  #fresh = 0;
  readonly #texts = new Map<string, number>();
  #ids = new WeakMap<object, number>();
  #lastId = 0;
  #characters = 0;

  /** @param memory of `allocate`, or of the same size; all zero */
  constructor(memory: SharedArrayBuffer | ArrayBuffer, reader: SeriesReader, options: SeriesTableOptions) {
    const slots = options.slots ?? DEFAULT_SLOTS;
    this.cells = new Float64Array(memory, 0, slots * CELLS_OF_A_SLOT);
    this.#reader = reader;
    this.#kernelPathAs = options.kernelPathAs;
    this.#idleSeconds = options.idleSeconds ?? DEFAULT_IDLE_SECONDS;
    this.#otherAt = slots - SLOTS_OF_OTHER;
    this.#state = new Uint8Array(slots);
    this.#open = new Int32Array(slots);
    this.#seen = new Float64Array(slots);
    this.#changedAt = new Float64Array(slots);
  }

  /** Memory that several threads see. */
  static allocate(slots = DEFAULT_SLOTS): SharedArrayBuffer {
    return new SharedArrayBuffer(slots * CELLS_OF_A_SLOT * Float64Array.BYTES_PER_ELEMENT);
  }

  /** Where such connections are counted: for as long as one is open in it, else until the turn of the loop is over. */
  slotOf(subject: FlowSubject, flags: ResponseFlags): number {
    const key = this.#keyOf(subject, flags);
    return this.#slots.get(key) ?? this.#take(key, subject, flags);
  }

  /** Where connections are counted for which there is no slot: by direction and flags alone. */
  slotOfOther(subject: FlowSubject, flags: ResponseFlags): number {
    return this.#otherOf(subject, flags);
  }

  /** @param slot of the flag `-` */
  opened(slot: number): void {
    this.#open[slot] = (this.#open[slot] ?? 0) + 1;
    this.#add(slot, OPENED);
  }

  /**
   * Once for each `opened`.
   *
   * @param slot where it was opened
   * @param flags how it has ended
   */
  closed(slot: number, subject: FlowSubject, flags: ResponseFlags): void {
    this.#open[slot] = (this.#open[slot] ?? 0) - 1;
    if (flags === '-') {
      this.#add(slot, CLOSED);
      return;
    }
    const last = slot >= this.#otherAt ? this.#otherOf(subject, flags) : this.slotOf(subject, flags);
    this.#add(last, CLOSED);
    this.#add(last, FAILED);
  }

  /** The reader has put aside what an idle slot had counted. */
  freed(slot: number): void {
    if (this.#state[slot] !== IDLE) return;
    const at = slot * CELLS_OF_A_SLOT;
    this.cells.fill(0, at, at + CELLS_OF_A_SLOT);
    this.#state[slot] = FREE;
    this.#freed.push(slot);
  }

  /**
   * Gives up what is idle. To be called now and then.
   *
   * @param nowSeconds of a clock that never goes back
   */
  sweep(nowSeconds: number): void {
    for (let slot = 0; slot < this.#fresh; slot += 1) {
      if (this.#state[slot] !== USED) continue;
      const counted = this.#counted(slot);
      if (this.#open[slot] !== 0 || this.#seen[slot] !== counted) {
        this.#seen[slot] = counted;
        this.#changedAt[slot] = nowSeconds;
      } else if (nowSeconds - (this.#changedAt[slot] ?? 0) >= this.#idleSeconds) {
        this.#giveUp(slot);
      }
    }
    // Nobody uses a number any more.
    if (this.#slots.size === 0) this.#forgetTexts();
  }

  #take(key: string, subject: FlowSubject, flags: ResponseFlags): number {
    const slot = this.#freed.pop() ?? this.#nextFresh();
    if (slot === undefined) return this.#otherOf(subject, flags);
    this.#slots.set(key, slot);
    this.#keys[slot] = key;
    this.#state[slot] = USED;
    this.#seen[slot] = -1;
    this.#reader.added(slot, seriesLabels(subject, flags, this.#kernelPathAs));
    return slot;
  }

  #nextFresh(): number | undefined {
    if (this.#fresh === this.#otherAt) return undefined;
    this.#fresh += 1;
    return this.#fresh - 1;
  }

  #otherOf(subject: FlowSubject, flags: ResponseFlags): number {
    const slot = this.#otherAt + (subject.direction === 'inbound' ? FLAGS : 0) + FLAG_AT[flags];
    if (this.#state[slot] === FREE) {
      this.#state[slot] = USED;
      this.#reader.added(slot, otherLabels(subject, flags, this.#kernelPathAs));
    }
    return slot;
  }

  #giveUp(slot: number): void {
    const key = this.#keys[slot] ?? '';
    if (this.#slots.get(key) === slot) this.#slots.delete(key);
    this.#keys[slot] = '';
    this.#state[slot] = IDLE;
    this.#reader.idle(slot);
  }

  #counted(slot: number): number {
    const { cells } = this;
    const at = slot * CELLS_OF_A_SLOT;
    return (
      (cells[at + OPENED] ?? 0) +
      (cells[at + CLOSED] ?? 0) +
      (cells[at + FAILED] ?? 0) +
      (cells[at + RECEIVED] ?? 0) +
      (cells[at + SENT] ?? 0)
    );
  }

  #add(slot: number, cell: number): void {
    const at = slot * CELLS_OF_A_SLOT + cell;
    this.cells[at] = (this.cells[at] ?? 0) + 1;
  }

  /** Made of small numbers: texts of this length would take longer than all the rest. */
  #keyOf(
    { direction, security, source, destination, sourceIdentity, service }: FlowSubject,
    flags: ResponseFlags,
  ): string {
    return `${direction}${security}${flags} ${this.#party(source)} ${this.#party(destination)} ${this.#text(
      sourceIdentity,
    )} ${this.#service(service)}`;
  }

  #party(party: FlowParty | undefined): number {
    if (party === undefined) return 0;
    return this.#ids.get(party) ?? this.#remember(party, textOfParty(party));
  }

  #service(service: FlowService | undefined): number {
    if (service === undefined) return 0;
    return this.#ids.get(service) ?? this.#remember(service, textOfService(service));
  }

  #remember(thing: object, text: string): number {
    const id = this.#text(text);
    this.#ids.set(thing, id);
    return id;
  }

  #text(text: string | undefined): number {
    if (text === undefined) return 0;
    return this.#texts.get(text) ?? this.#newText(text);
  }

  /** Numbers are never given twice, so a key that was made halfway through is of nobody else. */
  #newText(text: string): number {
    if (this.#texts.size === MOST_TEXTS || this.#characters >= MOST_CHARACTERS) this.#forgetTexts();
    this.#lastId += 1;
    this.#characters += text.length;
    this.#texts.set(text, this.#lastId);
    return this.#lastId;
  }

  /** What is counted already stays where it is, until it is idle. */
  #forgetTexts(): void {
    this.#texts.clear();
    this.#characters = 0;
    this.#ids = new WeakMap();
    this.#slots.clear();
  }
}

function textOfParty(party: FlowParty): string {
  const { workloadName, canonicalName, canonicalRevision, namespace, cluster, region, zone, identity } = party;
  return JSON.stringify([workloadName, canonicalName, canonicalRevision, namespace, cluster, region, zone, identity]);
}

function textOfService({ name, namespace, hostname }: FlowService): string {
  return JSON.stringify([name, namespace, hostname]);
}

function otherLabels(
  subject: FlowSubject,
  flags: ResponseFlags,
  kernelPathAs: LabelOptions['kernelPathAs'],
): SeriesLabels {
  const nobody = { ...subject, source: undefined, destination: undefined };
  const labels: Record<string, string> = { ...seriesLabels(nobody, flags, kernelPathAs) };
  for (const name of Object.keys(labels)) if (!KEPT_OF_OTHER.has(name)) labels[name] = 'other';
  return labels;
}

const KEPT_OF_OTHER: ReadonlySet<string> = new Set(['reporter', 'request_protocol', 'response_flags']);
