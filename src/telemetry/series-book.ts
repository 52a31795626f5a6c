import type { TextFamily } from './exposition.ts';
import { labelText } from './exposition.ts';
import { OTHER } from './namespace-bound.ts';
import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels } from './series.ts';
import { SeriesBudget } from './series-budget.ts';

export interface SeriesBookOptions {
  /** Shared with whatever else is exposed by label sets that workloads bring into being. Default: one of its own, of 20,000. */
  readonly budget?: SeriesBudget;
  /** What a writer that has ended leaves behind, and nobody counts any more, is exposed for this long. Default: 600. */
  readonly idleSeconds?: number;
}

/** What a table's writer says of its slots (see `SeriesTable`). */
export interface SeriesSource {
  added(slot: number, labels: SeriesLabels): void;
  idle(slot: number): void;
  /** It counts no more: what its slots hold is put aside at once. */
  gone(): void;
}

/** What is exposed of a label set: opened and bytes are only counted under the flag `-`, failures only under the others. */
const OF_CLEAN = ['opened', 'closed', 'received', 'sent'] as const;
const OF_FLAGGED = ['closed', 'failed'] as const;
const CELLS = 5;
const CLEAN = '-';
const FLAGS = [
  '-',
  'DENY',
  'CONNECT',
  'TLS_FAILURE',
  'H2_HANDSHAKE_FAILURE',
  'NETWORK_POLICY',
  'IDENTITY_ERROR',
  'CERT_REVOKED',
];
const REPORTERS = ['source', 'destination'];
/** One of each reporter and flag. */
const OTHER_SERIES = REPORTERS.length * (OF_CLEAN.length + (FLAGS.length - 1) * OF_FLAGGED.length);
/** Label sets in a slice of the exposition. */
const SLICE = 250;

const KEPT_OF_OTHER: ReadonlySet<string> = new Set(['reporter', 'request_protocol', 'response_flags']);

/** A slot of somebody's table. */
interface Place {
  readonly cells: Float64Array;
  readonly at: number;
  readonly entry: Entry;
}

/** A label set that is exposed. */
interface Entry {
  readonly key: string;
  readonly text: string;
  readonly isClean: boolean;
  /** Never leaves. */
  readonly isOther: boolean;
  /** Counted by slots that are put aside. */
  readonly folded: Float64Array;
  readonly places: Set<Place>;
  /** Without places: until when it is still exposed, in seconds. */
  restsUntil: number;
}

/**
 * Merges what several writers count of the same connections, and exposes it within a budget of series. What finds no room
 * is counted under label sets of `other`, so that nothing is lost and no counter ever falls.
 *
 * What holds:
 * - A label set is exposed for as long as a writer has a slot for it. Then it leaves; when it comes back it begins at zero,
 *   which Prometheus takes for the reset that it is.
 * - A slot's numbers are put aside before its writer may use it for others, so they are in exactly one place at any time.
 */
export class SeriesBook {
  readonly families: readonly TextFamily[];
  readonly #budget: SeriesBudget;
  readonly #idleSeconds: number;
  readonly #entries = new Map<string, Entry>();

  constructor(options: SeriesBookOptions = {}) {
    this.#budget = options.budget ?? new SeriesBudget();
    this.#idleSeconds = options.idleSeconds ?? 600;
    this.#budget.reserve(OTHER_SERIES);
    this.families = [
      this.#family('istio_tcp_connections_opened_total', 'Connections of which it was known where they go', 'opened'),
      this.#family('istio_tcp_connections_closed_total', 'Connections that have ended', 'closed'),
      this.#family('istio_tcp_connections_failed_total', 'Connections that ended in a failure (unstable)', 'failed'),
      this.#family('istio_tcp_received_bytes_total', 'Payload from client to server', 'received'),
      this.#family('istio_tcp_sent_bytes_total', 'Payload from server to client', 'sent'),
    ];
  }

  /**
   * A writer's table.
   *
   * @param cells read at any moment
   * @param freed called when the numbers of an idle slot have been put aside
   */
  source(cells: Float64Array, freed: (slot: number) => void): SeriesSource {
    const places = new Map<number, Place>();
    return {
      added: (slot, labels) => void places.set(slot, this.#place(cells, slot, labels)),
      idle: (slot) => {
        const place = places.get(slot);
        places.delete(slot);
        if (place !== undefined) this.#leave(place, 0);
        freed(slot);
      },
      gone: () => {
        const until = performance.now() / 1000 + this.#idleSeconds;
        for (const place of places.values()) this.#leave(place, until);
        places.clear();
      },
    };
  }

  counts(): {
    readonly series: number;
    readonly budget: number;
    readonly evicted: number;
    readonly overflowed: number;
  } {
    const { used, limit, evicted, overflowed } = this.#budget;
    return { series: used, budget: limit, evicted, overflowed };
  }

  /**
   * Lets go of what ended writers have left behind. To be called now and then.
   *
   * @param nowSeconds of `performance.now()`
   */
  sweep(nowSeconds = performance.now() / 1000): void {
    for (const entry of this.#entries.values()) this.#evictIfIdle(entry, nowSeconds);
  }

  #place(cells: Float64Array, slot: number, labels: SeriesLabels): Place {
    const entry = this.#entryOf(labels);
    const place = { cells, at: slot * CELLS_OF_A_SLOT, entry };
    entry.places.add(place);
    return place;
  }

  #entryOf(labels: SeriesLabels): Entry {
    const text = labelText(labels);
    const known = this.#entries.get(text);
    if (known !== undefined) return known;
    const isOther = labels.destination_workload === OTHER && labels.source_principal === OTHER;
    if (isOther) {
      this.#budget.takeReserved(seriesOf(labels));
      return this.#newEntry(text, labels, true);
    }
    if (this.#budget.take(seriesOf(labels))) return this.#newEntry(text, labels, false);
    return this.#entryOf(otherOf(labels));
  }

  #newEntry(text: string, labels: SeriesLabels, isOther: boolean): Entry {
    const entry: Entry = {
      key: text,
      // Written at once: what was joined of many pieces takes several times the room, and is joined anew by every scrape.
      text: Buffer.from(text).toString(),
      isClean: labels.response_flags === CLEAN,
      isOther,
      folded: new Float64Array(CELLS),
      places: new Set(),
      restsUntil: 0,
    };
    this.#entries.set(entry.text, entry);
    return entry;
  }

  #leave(place: Place, restsUntil: number): void {
    const { entry, cells, at } = place;
    for (let cell = 0; cell < CELLS; cell += 1)
      entry.folded[cell] = (entry.folded[cell] ?? 0) + (cells[at + cell] ?? 0);
    entry.places.delete(place);
    entry.restsUntil = Math.max(entry.restsUntil, restsUntil);
    this.#evictIfIdle(entry, performance.now() / 1000);
  }

  #evictIfIdle(entry: Entry, nowSeconds: number): void {
    if (entry.isOther || entry.places.size > 0 || nowSeconds < entry.restsUntil) return;
    this.#entries.delete(entry.key);
    this.#budget.giveBack(entry.isClean ? OF_CLEAN.length : OF_FLAGGED.length);
  }

  #family(name: string, help: string, cell: keyof typeof SERIES_CELL): TextFamily {
    return { name, help, type: 'counter', slices: () => this.#slices(name, cell) };
  }

  *#slices(name: string, cell: keyof typeof SERIES_CELL): Generator<string> {
    const index = SERIES_CELL[cell];
    const [ofClean, ofFlagged] = [isIn(OF_CLEAN, cell), isIn(OF_FLAGGED, cell)];
    let slice = '';
    let count = 0;
    for (const { isClean, text, folded, places } of this.#entries.values()) {
      if (!(isClean ? ofClean : ofFlagged)) continue;
      let value = folded[index] ?? 0;
      for (const { cells, at } of places) value += cells[at + index] ?? 0;
      slice += `${name}${text} ${value}\n`;
      count += 1;
      if (count % SLICE !== 0) continue;
      yield slice;
      slice = '';
    }
    yield slice;
  }
}

function isIn(cells: readonly string[], cell: string): boolean {
  return cells.includes(cell);
}

function seriesOf(labels: SeriesLabels): number {
  return labels.response_flags === CLEAN ? OF_CLEAN.length : OF_FLAGGED.length;
}

/** Localities are left out. */
function otherOf(labels: SeriesLabels): SeriesLabels {
  return Object.fromEntries(
    Object.entries(labels)
      .filter(([name]) => !name.endsWith('_region') && !name.endsWith('_zone'))
      .map(([name, value]) => [name, KEPT_OF_OTHER.has(name) ? value : OTHER]),
  );
}
