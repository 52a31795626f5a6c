import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels } from '../../../src/telemetry/index.ts';

type Counts = Record<keyof typeof SERIES_CELL, number>;

/** Reads one table of series; what is idle is put aside at once. */
export class FakeSeriesBook {
  readonly #labels = new Map<number, SeriesLabels>();
  #cells: Float64Array = new Float64Array();
  #freed: (slot: number) => void = () => undefined;
  /** Slots that were given up. */
  readonly idle: SeriesLabels[] = [];

  source(cells: Float64Array, freed: (slot: number) => void) {
    this.#cells = cells;
    this.#freed = freed;
    return {
      added: (slot: number, labels: SeriesLabels): void => void this.#labels.set(slot, labels),
      idle: (slot: number): void => {
        const labels = this.#labels.get(slot);
        if (labels !== undefined) this.idle.push(labels);
        this.#labels.delete(slot);
        this.#freed(slot);
      },
      gone: (): void => this.#labels.clear(),
    };
  }

  /** Counts of all series with these labels. */
  counts(wanted: SeriesLabels): Counts {
    const sums: Counts = { opened: 0, closed: 0, failed: 0, received: 0, sent: 0 };
    for (const [slot, labels] of this.#labels) {
      if (Object.entries(wanted).some(([name, value]) => labels[name] !== value)) continue;
      for (const name of Object.keys(sums) as Array<keyof Counts>)
        sums[name] += this.#cells[slot * CELLS_OF_A_SLOT + SERIES_CELL[name]] ?? 0;
    }
    return sums;
  }

  get size(): number {
    return this.#labels.size;
  }
}
