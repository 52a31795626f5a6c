import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels, SeriesTable } from '../../../src/telemetry/index.ts';
import type { SeriesSource, SeriesSources } from '../../../src/ztunnel/index.ts';

type Cell = keyof typeof SERIES_CELL;

/** What a slot has counted. */
interface Counted {
  readonly labels: SeriesLabels;
  readonly counts: Readonly<Record<Cell, number>>;
}

interface Source {
  readonly cells: Float64Array;
  readonly labels: Map<number, SeriesLabels>;
}

/** Keeps what others count, and puts idle slots aside at once. */
export class FakeSeries implements SeriesSources {
  readonly #sources = new Set<Source>();
  readonly #aside: Counted[] = [];

  source(cells: Float64Array, freed: (slot: number) => void): SeriesSource {
    const source: Source = { cells, labels: new Map() };
    this.#sources.add(source);
    const putAside = (slot: number): void => {
      this.#aside.push(...countedOf(source, slot));
      source.labels.delete(slot);
    };
    return {
      added: (slot, labels) => void source.labels.set(slot, labels),
      idle: (slot) => {
        putAside(slot);
        freed(slot);
      },
      gone: () => {
        for (const slot of [...source.labels.keys()]) putAside(slot);
        this.#sources.delete(source);
      },
    };
  }

  /** A table that is counted here. */
  table(slots = 64): SeriesTable {
    const memory = SeriesTable.allocate(slots);
    const source = this.source(new Float64Array(memory), (slot) => table.freed(slot));
    const table: SeriesTable = new SeriesTable(memory, source, { kernelPathAs: 'kernel', slots });
    return table;
  }

  /** Of all that has these labels. */
  sum(cell: Cell, labels: SeriesLabels = {}): number {
    return this.counted(labels).reduce((sum, { counts }) => sum + counts[cell], 0);
  }

  counted(wanted: SeriesLabels = {}): Counted[] {
    const live = [...this.#sources].flatMap((source) =>
      [...source.labels.keys()].flatMap((slot) => countedOf(source, slot)),
    );
    return [...this.#aside, ...live].filter(({ labels }) =>
      Object.entries(wanted).every(([name, value]) => labels[name] === value),
    );
  }
}

function countedOf({ cells, labels }: Source, slot: number): Counted[] {
  const own = labels.get(slot);
  if (own === undefined) return [];
  const count = (cell: Cell): number => cells[slot * CELLS_OF_A_SLOT + SERIES_CELL[cell]] ?? 0;
  const counts = {
    opened: count('opened'),
    closed: count('closed'),
    failed: count('failed'),
    received: count('received'),
    sent: count('sent'),
  };
  return [{ labels: own, counts }];
}
