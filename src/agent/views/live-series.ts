import type { FlowPath } from '../../mesh/index.ts';
import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels } from '../../telemetry/index.ts';
import type { SeriesReader } from '../tunnel-use.ts';
import { edgeId, labelledEnds } from './map-names.ts';
import type { LiveEdge } from './traffic-map.ts';

/** What all writers together have counted; all but `open` only grow. */
export interface LiveTotals {
  readonly opened: Readonly<Record<FlowPath, number>>;
  readonly open: number;
  readonly failed: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

interface Slot {
  readonly labels: SeriesLabels;
  readonly path: FlowPath;
  /** Who sees it and both ends; empty: it is one of `other`. */
  readonly key: string;
}

/** One writer's. */
interface Table {
  readonly slots: Map<number, Slot>;
  /**
   * Opened less closed, by key, of slots that are not read any more: what a slot has opened another may have closed. Void
   * when the writer has ended: nothing of it is open then.
   */
  readonly open: Map<string, number>;
  readonly isKernel: boolean;
}

type Sums = { -readonly [K in keyof Omit<LiveTotals, 'opened'>]: number } & {
  readonly opened: Record<FlowPath, number>;
};

interface Measured {
  readonly edge: Omit<LiveEdge, 'open' | 'bytesPerSecond'>;
  open: number;
  bytes: number;
}

/** Asked again sooner, it says the same. */
const LEAST_BETWEEN_MS = 1_000;
/** A rate is over so long at least: the kernel path measures what is open every 5 s. */
const RATE_MS = 10_000;
const OTHER = 'other';

/**
 * Stands between the writers of series and their reader, and reads them too: so a connection that transfers for an hour is
 * seen while it does, not when it ends.
 */
export class LiveSeries {
  readonly #now: () => number;
  readonly #tables = new Map<Float64Array, Table>();
  readonly #past: Sums = emptySums();
  #measuredAt = Number.NEGATIVE_INFINITY;
  #rated: { readonly at: number; readonly bytes: ReadonlyMap<string, number> } | undefined;
  #rates: ReadonlyMap<string, number> = new Map();
  #edges: readonly LiveEdge[] = [];

  constructor(deps: { readonly now: () => number }) {
    this.#now = deps.now;
  }

  /** @param writer whose connections these are: the kernel path's, or the tunnel's */
  reader(next: SeriesReader, writer: 'kernel' | 'tunnel'): SeriesReader {
    return {
      source: (cells, freed) => {
        const table: Table = { slots: new Map(), open: new Map(), isKernel: writer === 'kernel' };
        this.#tables.set(cells, table);
        const reader = next.source(cells, freed);
        return {
          added: (slot, labels) => {
            table.slots.set(slot, slotOf(labels, table.isKernel));
            reader.added(slot, labels);
          },
          idle: (slot) => {
            // Before the reader says that the slot may be used for others.
            this.#putAside(cells, slot, table);
            reader.idle(slot);
          },
          gone: () => {
            for (const slot of [...table.slots.keys()]) this.#putAside(cells, slot, table);
            this.#tables.delete(cells);
            reader.gone();
          },
        };
      },
    };
  }

  totals(): LiveTotals {
    const sums = { ...this.#past, opened: { ...this.#past.opened } };
    for (const [cells, { slots, open }] of this.#tables) {
      for (const left of open.values()) sums.open += left;
      for (const [slot, { path }] of slots) {
        addTo(sums, cells, slot, path);
        sums.open += openOf(cells, slot);
      }
    }
    return { ...sums, open: Math.max(0, sums.open) };
  }

  /** The edges: what is open at this moment, and rates of the last 10 s or so, if it is asked as often. */
  edges(): readonly LiveEdge[] {
    const now = this.#now();
    if (now - this.#measuredAt < LEAST_BETWEEN_MS) return this.#edges;
    this.#measuredAt = now;
    const measured = this.#measure();
    this.#rate(measured, now);
    this.#edges = Array.from(measured, ([key, { edge, open }]) => ({
      ...edge,
      open: Math.max(0, open),
      bytesPerSecond: this.#rates.get(key) ?? 0,
    }));
    return this.#edges;
  }

  #rate(measured: ReadonlyMap<string, Measured>, now: number): void {
    const before = this.#rated;
    if (before !== undefined && now - before.at < RATE_MS) return;
    const bytes = new Map(Array.from(measured, ([key, each]) => [key, each.bytes]));
    this.#rated = { at: now, bytes };
    if (before === undefined) return;
    // An edge of which nothing was known then has begun meanwhile.
    this.#rates = new Map(
      Array.from(bytes, ([key, sum]) => {
        const grown = sum - (before.bytes.get(key) ?? 0);
        return [key, Math.max(0, (grown * 1000) / (now - before.at))];
      }),
    );
  }

  #measure(): Map<string, Measured> {
    const measured = new Map<string, Measured>();
    for (const [cells, { slots, open }] of this.#tables) {
      for (const [slot, { labels, key }] of slots) {
        if (key === '') continue;
        const known = measured.get(key) ?? begin(labels);
        measured.set(key, known);
        known.open += openOf(cells, slot);
        known.bytes += bytesOf(cells, slot);
      }
      for (const [key, left] of open) {
        const known = measured.get(key);
        if (known !== undefined) known.open += left;
      }
    }
    return measured;
  }

  #putAside(cells: Float64Array, slot: number, { slots, open }: Table): void {
    const known = slots.get(slot);
    if (known === undefined) return;
    slots.delete(slot);
    addTo(this.#past, cells, slot, known.path);
    const left = (open.get(known.key) ?? 0) + openOf(cells, slot);
    if (left === 0) open.delete(known.key);
    else open.set(known.key, left);
  }
}

function begin(labels: SeriesLabels): Measured {
  const [from, to] = labelledEnds(labels);
  const direction = labels.reporter === 'source' ? 'outbound' : 'inbound';
  return { edge: { from, to, direction }, open: 0, bytes: 0 };
}

function slotOf(labels: SeriesLabels, isKernel: boolean): Slot {
  const [from, to] = labelledEnds(labels);
  const isOther = labels.source_workload === OTHER && labels.destination_workload === OTHER;
  return {
    labels,
    path: isKernel ? 'kernel' : pathOf(labels),
    key: isOther ? '' : `${labels.reporter} ${edgeId(from, to)}`,
  };
}

function pathOf(labels: SeriesLabels): FlowPath {
  if (labels.connection_security_policy === 'mutual_tls') return 'tunnel';
  return labels.destination_workload === 'unknown' ? 'passthrough' : 'plain';
}

function emptySums(): Sums {
  return {
    opened: { kernel: 0, tunnel: 0, plain: 0, passthrough: 0 },
    open: 0,
    failed: 0,
    bytesSent: 0,
    bytesReceived: 0,
  };
}

function addTo(sums: Sums, cells: Float64Array, slot: number, path: FlowPath): void {
  const at = slot * CELLS_OF_A_SLOT;
  sums.opened[path] += cells[at + SERIES_CELL.opened] ?? 0;
  sums.failed += cells[at + SERIES_CELL.failed] ?? 0;
  sums.bytesSent += cells[at + SERIES_CELL.sent] ?? 0;
  sums.bytesReceived += cells[at + SERIES_CELL.received] ?? 0;
}

/** Opened is counted in the slot of the flag `-`, closed in that of the end: what is open is the difference over all. */
function openOf(cells: Float64Array, slot: number): number {
  const at = slot * CELLS_OF_A_SLOT;
  return (cells[at + SERIES_CELL.opened] ?? 0) - (cells[at + SERIES_CELL.closed] ?? 0);
}

function bytesOf(cells: Float64Array, slot: number): number {
  const at = slot * CELLS_OF_A_SLOT;
  return (cells[at + SERIES_CELL.received] ?? 0) + (cells[at + SERIES_CELL.sent] ?? 0);
}
