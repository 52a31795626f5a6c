import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels } from '../telemetry/index.ts';

/** What one namespace's pods of this node have the tunnel do. */
export interface NamespaceUse {
  /** Both only grow. */
  readonly connections: number;
  readonly bytes: number;
  /** At this moment. */
  readonly open: number;
}

/** Reads what a writer counts; `SeriesBook` fits. */
export interface SeriesReader {
  source(
    cells: Float64Array,
    freed: (slot: number) => void,
  ): { added(slot: number, labels: SeriesLabels): void; idle(slot: number): void; gone(): void };
}

/** Namespaces with numbers of their own; further ones are counted together as `other`. */
const MOST_NAMESPACES = 200;
const OTHER = 'other';

interface Use {
  connections: number;
  bytes: number;
  open: number;
}

/** One writer's. */
interface Table {
  /** The namespace of each slot in use. */
  readonly slots: Map<number, string>;
  /** Opened less closed, of slots that are not read any more. Void when the writer has ended: nothing of it is open then. */
  readonly open: Map<string, number>;
}

/**
 * Stands between the tunnel's workers and the reader of their series, and adds up what they count by namespace of the pod
 * of this node. Not for the kernel path, which costs the tunnel nothing.
 */
export class TunnelUse implements SeriesReader {
  readonly #reader: SeriesReader;
  /** Of slots that are not read any more. */
  readonly #past = new Map<string, Use>();
  readonly #tables = new Map<Float64Array, Table>();

  constructor(reader: SeriesReader) {
    this.#reader = reader;
  }

  source(cells: Float64Array, freed: (slot: number) => void): ReturnType<SeriesReader['source']> {
    const table: Table = { slots: new Map(), open: new Map() };
    this.#tables.set(cells, table);
    const reader = this.#reader.source(cells, freed);
    return {
      added: (slot, labels) => {
        table.slots.set(slot, this.#known(namespaceOf(labels)));
        reader.added(slot, labels);
      },
      idle: (slot) => {
        // Before the reader says that the slot may be used for others.
        const namespace = table.slots.get(slot);
        table.slots.delete(slot);
        if (namespace !== undefined) this.#putAside(cells, slot, namespace, table);
        reader.idle(slot);
      },
      gone: () => {
        for (const [slot, namespace] of table.slots) this.#putAside(cells, slot, namespace, table);
        this.#tables.delete(cells);
        reader.gone();
      },
    };
  }

  /** By namespace. */
  totals(): ReadonlyMap<string, NamespaceUse> {
    const sums = new Map(Array.from(this.#past, ([namespace, use]) => [namespace, { ...use }]));
    for (const [cells, { slots, open }] of this.#tables) {
      for (const [namespace, count] of open) useOf(sums, namespace).open += count;
      for (const [slot, namespace] of slots) {
        const use = useOf(sums, namespace);
        addSlot(use, cells, slot);
        use.open += openOf(cells, slot);
      }
    }
    return sums;
  }

  #putAside(cells: Float64Array, slot: number, namespace: string, { open }: Table): void {
    addSlot(useOf(this.#past, namespace), cells, slot);
    open.set(namespace, (open.get(namespace) ?? 0) + openOf(cells, slot));
  }

  /** A namespace that has had numbers of its own keeps them: they must not fall. */
  #known(namespace: string): string {
    const label = this.#past.has(namespace) || this.#past.size < MOST_NAMESPACES ? namespace : OTHER;
    useOf(this.#past, label);
    return label;
  }
}

function namespaceOf(labels: SeriesLabels): string {
  const namespace =
    labels.reporter === 'source' ? labels.source_workload_namespace : labels.destination_workload_namespace;
  return namespace ?? 'unknown';
}

function useOf(uses: Map<string, Use>, namespace: string): Use {
  const known = uses.get(namespace);
  if (known !== undefined) return known;
  const made = { connections: 0, bytes: 0, open: 0 };
  uses.set(namespace, made);
  return made;
}

function addSlot(use: Use, cells: Float64Array, slot: number): void {
  const at = slot * CELLS_OF_A_SLOT;
  use.connections += cells[at + SERIES_CELL.opened] ?? 0;
  use.bytes += (cells[at + SERIES_CELL.received] ?? 0) + (cells[at + SERIES_CELL.sent] ?? 0);
}

/** Opened is counted in the slot of the flag `-`, closed in that of the end: what is open is the difference over all. */
function openOf(cells: Float64Array, slot: number): number {
  const at = slot * CELLS_OF_A_SLOT;
  return (cells[at + SERIES_CELL.opened] ?? 0) - (cells[at + SERIES_CELL.closed] ?? 0);
}
