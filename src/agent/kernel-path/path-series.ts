import type { FlowSubject, ResponseFlags } from '../../mesh/index.ts';
import {
  CELLS_OF_A_SLOT,
  type LabelOptions,
  SERIES_CELL,
  type SeriesLabels,
  SeriesTable,
} from '../../telemetry/index.ts';
import type { FlowSampling, PathSeriesBook } from './ports.ts';
import type { JournalEntry, JournalFlow, JournalSlot, SeriesJournal } from './series-journal.ts';

interface PathSeriesDeps {
  readonly book: PathSeriesBook;
  /** Undefined: what is counted is forgotten with this process. */
  readonly journal: Pick<SeriesJournal, 'read' | 'isReady' | 'isFull' | 'append' | 'replace' | 'close'> | undefined;
  /** As whom the pods of this node see a flow; none: nobody of them is known. */
  subjectsOf(sample: FlowSampling['samples'][number]): readonly FlowSubject[];
}

export interface PathSeriesOptions extends LabelOptions {
  /** Seconds. Default: that of `SeriesTable`. */
  readonly idleSeconds?: number;
}

/** A flow of which something is counted although it has not ended. */
interface LiveFlow {
  /** One for each pod of this node that it is of. */
  readonly slots: readonly number[];
  sent: number;
  received: number;
  /** The round in which it was last seen. */
  seen: number;
}

/** Further ones are counted at their end. */
const MOST_LIVE = 100_000;
/** In one line of the journal. */
const FLOWS_A_LINE = 1000;
/** One that was not seen for so many rounds has ended, and nobody told of it. */
const ROUNDS_MISSED = 2;
const CELLS = Object.keys(SERIES_CELL).length;

/**
 * Istio's counters of the kernel path. A flow is counted at its end, or, if it lives long, from when it was first sampled on:
 * then with what it has moved since the last time.
 *
 * Invariant: what is exposed has been written down before the turn of the loop is over, together with what it is made of, so
 * that no flow is counted twice, and no counter falls, whenever this process ends.
 */
export class PathSeries {
  readonly #deps: PathSeriesDeps;
  readonly #table: SeriesTable;
  readonly #told: ReturnType<PathSeriesBook['source']>;
  readonly #slots = new Map<number, JournalSlot>();
  readonly #live = new Map<string, LiveFlow>();
  #round = 0;
  /** What the table is being asked for: a slot that it adds meanwhile has these labels. */
  #asked: { readonly subject: FlowSubject; readonly flags: ResponseFlags } | undefined;
  /** Cells as they have been written down last. */
  readonly #written: Float64Array;
  readonly #freed = new Set<number>();
  readonly #added = new Set<number>();
  readonly #changed = new Set<string>();
  readonly #over = new Set<string>();
  #isDirty = false;

  constructor(deps: PathSeriesDeps, options: PathSeriesOptions) {
    this.#deps = deps;
    const memory = SeriesTable.allocate();
    this.#table = new SeriesTable(
      memory,
      { added: (slot, labels) => this.#addedSlot(slot, labels), idle: (slot) => this.#told.idle(slot) },
      options,
    );
    this.#written = new Float64Array(this.#table.cells.length);
    this.#told = deps.book.source(this.#table.cells, (slot) => this.#freedSlot(slot));
  }

  /** Goes on from where an earlier agent was. Once, before anything is counted. */
  restore(): void {
    const { journal } = this.#deps;
    if (journal === undefined) return;
    const slots = new Map<number, JournalSlot>();
    const cells = new Map<number, readonly number[]>();
    const flows = new Map<string, JournalFlow>();
    for (const entry of journal.read()) {
      for (const slot of entry.freed) for (const map of [slots, cells]) map.delete(slot);
      for (const one of entry.added) slots.set(one.slot, one);
      for (const [slot = 0, ...numbers] of entry.cells) cells.set(slot, numbers);
      for (const flow of entry.flows) flows.set(flow.id, flow);
      for (const id of entry.over) flows.delete(id);
    }
    this.#restoreAll(slots, cells, flows);
    this.commit();
  }

  /** @param subjects as whom the pods of this node see it; not looked at if something of it is counted already */
  ended(id: string, subjects: readonly FlowSubject[], bytes: Moved, flags: ResponseFlags): void {
    this.#isDirty = true;
    const live = this.#live.get(id);
    if (live !== undefined) {
      this.#moved(live, bytes);
      this.#close(id, live, flags);
      return;
    }
    for (const subject of subjects) {
      const slot = this.#open(subject);
      this.#add(slot, bytes);
      this.#closed(slot, subject, flags);
    }
  }

  sampled({ round, samples }: FlowSampling): void {
    if (round !== this.#round) this.#begin(round);
    for (const sample of samples) {
      const live = this.#live.get(sample.id);
      if (live !== undefined) {
        live.seen = round;
        if (sample.bytes !== undefined && this.#moved(live, sample.bytes)) this.#changed.add(sample.id);
      } else if (sample.bytes !== undefined && this.#live.size < MOST_LIVE) {
        this.#begun(sample.id, this.#deps.subjectsOf(sample), sample.bytes);
      }
    }
  }

  /** @param nowSeconds of a clock that never goes back */
  sweep(nowSeconds: number): void {
    this.#table.sweep(nowSeconds);
  }

  /** Writes down what has changed. To be called before the turn of the loop is over in which something was counted. */
  commit(): void {
    const { journal } = this.#deps;
    if (!this.#isDirty || journal === undefined || !journal.isReady) return;
    if (journal.isFull) journal.replace(this.#all());
    else journal.append(this.#news());
    this.#written.set(this.#table.cells);
    for (const pending of [this.#freed, this.#added, this.#changed, this.#over]) pending.clear();
    // What could not be written is written again, with everything else, even if nothing more is counted.
    this.#isDirty = journal.isFull;
  }

  close(): void {
    this.commit();
    this.#deps.journal?.close();
  }

  // --- flows ----------------------------------------------------------------------------------------------------------

  #begun(id: string, subjects: readonly FlowSubject[], bytes: Moved): void {
    if (subjects.length === 0) return;
    this.#isDirty = true;
    const live: LiveFlow = { slots: subjects.map((subject) => this.#open(subject)), ...NOTHING, seen: this.#round };
    this.#live.set(id, live);
    this.#changed.add(id);
    this.#moved(live, bytes);
  }

  /** False: nothing. */
  #moved(live: LiveFlow, { sent, received }: Moved): boolean {
    const more = { sent: Math.max(0, sent - live.sent), received: Math.max(0, received - live.received) };
    if (more.sent === 0 && more.received === 0) return false;
    this.#isDirty = true;
    live.sent += more.sent;
    live.received += more.received;
    for (const slot of live.slots) this.#add(slot, more);
    return true;
  }

  #close(id: string, live: LiveFlow, flags: ResponseFlags): void {
    this.#isDirty = true;
    this.#live.delete(id);
    this.#changed.delete(id);
    this.#over.add(id);
    for (const slot of live.slots) {
      const labels = this.#slots.get(slot);
      if (labels !== undefined) this.#closed(slot, labels.subject, flags);
    }
  }

  /** The end of those that are not there any more was not told of: how they ended nobody knows. */
  #begin(round: number): void {
    this.#round = round;
    for (const [id, live] of this.#live) if (live.seen + ROUNDS_MISSED < round) this.#close(id, live, '-');
  }

  // --- the table ------------------------------------------------------------------------------------------------------

  #open(subject: FlowSubject): number {
    const slot = this.#slotOf(subject, '-');
    this.#table.opened(slot);
    return slot;
  }

  #closed(slot: number, subject: FlowSubject, flags: ResponseFlags): void {
    this.#asked = { subject, flags };
    this.#table.closed(slot, subject, flags);
  }

  #slotOf(subject: FlowSubject, flags: ResponseFlags): number {
    this.#asked = { subject, flags };
    return this.#table.slotOf(subject, flags);
  }

  #slotOfOther(subject: FlowSubject, flags: ResponseFlags): number {
    this.#asked = { subject, flags };
    return this.#table.slotOfOther(subject, flags);
  }

  /** Received is what the client has sent, whoever reports it (wire contract, section 9.1). */
  #add(slot: number, { sent, received }: Moved): void {
    const { cells } = this.#table;
    const at = slot * CELLS_OF_A_SLOT;
    cells[at + SERIES_CELL.received] = (cells[at + SERIES_CELL.received] ?? 0) + sent;
    cells[at + SERIES_CELL.sent] = (cells[at + SERIES_CELL.sent] ?? 0) + received;
  }

  #addedSlot(slot: number, labels: SeriesLabels): void {
    const isOther = labels.source_workload === 'other' && labels.source_principal === 'other';
    if (this.#asked !== undefined) this.#slots.set(slot, { slot, ...this.#asked, isOther });
    this.#added.add(slot);
    this.#told.added(slot, labels);
  }

  #freedSlot(slot: number): void {
    this.#table.freed(slot);
    this.#slots.delete(slot);
    this.#added.delete(slot);
    this.#freed.add(slot);
    this.#isDirty = true;
  }

  // --- the journal ----------------------------------------------------------------------------------------------------

  #restoreAll(
    slots: ReadonlyMap<number, JournalSlot>,
    cells: ReadonlyMap<number, readonly number[]>,
    flows: ReadonlyMap<string, JournalFlow>,
  ): void {
    const places = new Map<number, number>();
    for (const [slot, { subject, flags, isOther }] of slots)
      places.set(slot, isOther ? this.#slotOfOther(subject, flags) : this.#slotOf(subject, flags));
    for (const { id, sent, received, slots: old } of flows.values()) {
      const now = old.flatMap((slot) => places.get(slot) ?? []);
      this.#live.set(id, { slots: now, sent, received, seen: this.#round });
      for (const slot of now) this.#table.opened(slot);
    }
    for (const place of places.values()) this.#table.cells.fill(0, ...boundsOf(place));
    for (const [slot, numbers] of cells) {
      const place = places.get(slot);
      if (place === undefined) continue;
      const [at] = boundsOf(place);
      for (const [cell, number] of numbers.slice(0, CELLS).entries())
        this.#table.cells[at + cell] = (this.#table.cells[at + cell] ?? 0) + number;
    }
    this.#isDirty = true;
  }

  #news(): JournalEntry {
    return {
      freed: [...this.#freed],
      added: [...this.#added].flatMap((slot) => this.#slots.get(slot) ?? []),
      cells: [...this.#slots.keys()].filter((slot) => this.#hasChanged(slot)).map((slot) => this.#cellsOf(slot)),
      flows: [...this.#changed].flatMap((id) => this.#flowOf(id)),
      over: [...this.#over],
    };
  }

  *#all(): Generator<JournalEntry> {
    const nothing = { freed: [], added: [], cells: [], flows: [], over: [] };
    const cells = [...this.#slots.keys()].map((slot) => this.#cellsOf(slot));
    yield { ...nothing, added: [...this.#slots.values()], cells };
    const ids = [...this.#live.keys()];
    for (let at = 0; at < ids.length; at += FLOWS_A_LINE)
      yield { ...nothing, flows: ids.slice(at, at + FLOWS_A_LINE).flatMap((id) => this.#flowOf(id)) };
  }

  #flowOf(id: string): JournalFlow[] {
    const live = this.#live.get(id);
    return live === undefined ? [] : [{ id, sent: live.sent, received: live.received, slots: live.slots }];
  }

  #cellsOf(slot: number): number[] {
    const [at] = boundsOf(slot);
    return [slot, ...this.#table.cells.subarray(at, at + CELLS)];
  }

  #hasChanged(slot: number): boolean {
    const [at] = boundsOf(slot);
    for (let cell = at; cell < at + CELLS; cell += 1)
      if (this.#table.cells[cell] !== this.#written[cell] || this.#added.has(slot)) return true;
    return false;
  }
}

/** Payload, by the client and to it. */
export interface Moved {
  readonly sent: number;
  readonly received: number;
}

const NOTHING: Moved = { sent: 0, received: 0 };

function boundsOf(slot: number): [from: number, to: number] {
  return [slot * CELLS_OF_A_SLOT, (slot + 1) * CELLS_OF_A_SLOT];
}
