import test from 'ava';
import {
  CELLS_OF_A_SLOT,
  openMetrics,
  SERIES_CELL,
  SeriesBook,
  type SeriesBookOptions,
  SeriesBudget,
  type SeriesLabels,
  SeriesTable,
  seriesLabels,
} from '../../../src/telemetry/index.ts';
import { flowRecord, party } from './flow-records.ts';

const SLOTS = 128;

function bookOf(options: SeriesBookOptions = {}) {
  const metrics = openMetrics({ process: false });
  const book = new SeriesBook(options);
  metrics.add(book.families);
  return { book, text: async () => parse(await metrics.text()) };
}

/** Of Istio's TCP families: values by name and labels. */
function parse(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line.startsWith('istio_tcp_'));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

function labelsOf(name: string, flags: Parameters<typeof seriesLabels>[1] = '-'): SeriesLabels {
  return seriesLabels(flowRecord({ destination: party(name) }), flags, 'kernel');
}

/** A writer with memory of its own. */
function writerOf(book: SeriesBook) {
  const cells = new Float64Array(SLOTS * CELLS_OF_A_SLOT);
  const freed: number[] = [];
  const source = book.source(cells, (slot) => {
    freed.push(slot);
    cells.fill(0, slot * CELLS_OF_A_SLOT, (slot + 1) * CELLS_OF_A_SLOT);
  });
  const count = (slot: number, cell: keyof typeof SERIES_CELL, value: number): void => {
    cells[slot * CELLS_OF_A_SLOT + SERIES_CELL[cell]] = value;
  };
  return { ...source, count, freed };
}

function sum(samples: ReadonlyMap<string, number>, name: string): number {
  return [...samples].filter(([key]) => key.startsWith(name)).reduce((total, [, value]) => total + value, 0);
}

test('of a clean label set there are opened, closed and bytes; of a flagged one closed and failed', async (t) => {
  const { book, text } = bookOf();
  const writer = writerOf(book);
  writer.added(0, labelsOf('cart'));
  writer.added(1, labelsOf('cart', 'DENY'));
  for (const slot of [0, 1])
    for (const cell of ['opened', 'closed', 'failed', 'received', 'sent'] as const) writer.count(slot, cell, 1 + slot);
  const names = [...(await text()).keys()].map((key) => key.replace(/\{.*response_flags="([^"]*)".*/, ' $1')).sort();
  t.deepEqual(names, [
    'istio_tcp_connections_closed_total -',
    'istio_tcp_connections_closed_total DENY',
    'istio_tcp_connections_failed_total DENY',
    'istio_tcp_connections_opened_total -',
    'istio_tcp_received_bytes_total -',
    'istio_tcp_sent_bytes_total -',
  ]);
});

test('labels stand in the order of the contract', async (t) => {
  const { book, text } = bookOf();
  const labels = labelsOf('cart');
  writerOf(book).added(0, labels);
  const [first = ''] = (await text()).keys();
  t.deepEqual(
    [...first.matchAll(/(\w+)="/g)].map(([, name]) => name),
    Object.keys(labels),
  );
});

test('what several writers count of the same label set is one sum', async (t) => {
  const { book, text } = bookOf();
  const writers = [writerOf(book), writerOf(book), writerOf(book)];
  for (const [index, writer] of writers.entries()) {
    writer.added(index, labelsOf('cart'));
    writer.count(index, 'opened', 10 ** index);
  }
  const samples = await text();
  t.is(sum(samples, 'istio_tcp_connections_opened_total'), 111);
  t.is([...samples.keys()].filter((key) => key.startsWith('istio_tcp_connections_opened_total')).length, 1);
});

test('a slot that is idle leaves when no writer has the label set any more, and is only then free', async (t) => {
  const { book, text } = bookOf();
  const [one, other] = [writerOf(book), writerOf(book)];
  for (const writer of [one, other]) {
    writer.added(0, labelsOf('cart'));
    writer.count(0, 'opened', 5);
  }
  one.idle(0);
  t.deepEqual(one.freed, [0]);
  t.is(sum(await text(), 'istio_tcp_connections_opened_total'), 10, 'nothing is lost while it is exposed');
  other.idle(0);
  t.is((await text()).size, 0);
  t.like(book.counts(), { series: 0, evicted: 4 });
  one.added(0, labelsOf('cart'));
  one.count(0, 'opened', 1);
  t.is(sum(await text(), 'istio_tcp_connections_opened_total'), 1, 'it begins anew');
});

test('what a writer that has ended leaves behind goes on being exposed, and leaves when it is idle', async (t) => {
  const { book, text } = bookOf({ idleSeconds: 600 });
  const writer = writerOf(book);
  writer.added(0, labelsOf('cart'));
  writer.count(0, 'opened', 5);
  writer.gone();
  book.sweep();
  t.is(sum(await text(), 'istio_tcp_connections_opened_total'), 5);
  const next = writerOf(book);
  next.added(0, labelsOf('cart'));
  next.count(0, 'opened', 1);
  t.is(sum(await text(), 'istio_tcp_connections_opened_total'), 6, 'a counter never falls');
  next.gone();
  book.sweep(performance.now() / 1000 + 601);
  t.is((await text()).size, 0);
});

test('beyond the budget label sets are summed into other, exactly, and the budget holds', async (t) => {
  const limit = 100;
  const { book, text } = bookOf({ budget: new SeriesBudget(limit) });
  const writer = writerOf(book);
  let last = 0;
  for (let slot = 0; slot < SLOTS; slot += 1) {
    writer.added(slot, labelsOf(`app-${slot}`, slot % 2 === 0 ? '-' : 'CONNECT'));
    writer.count(slot, slot % 2 === 0 ? 'opened' : 'failed', slot);
    const other = othersOf(await text());
    t.true(other >= last, 'other never falls');
    last = other;
  }
  const samples = await text();
  t.true(samples.size <= limit, `${samples.size}`);
  t.true(book.counts().series <= limit);
  const total = sum(samples, 'istio_tcp_connections_opened_total') + sum(samples, 'istio_tcp_connections_failed_total');
  t.is(total, (SLOTS * (SLOTS - 1)) / 2, 'nothing is lost');
  t.true(book.counts().overflowed > 0);
  for (let slot = 0; slot < SLOTS; slot += 1) writer.idle(slot);
  t.is(othersOf(await text()), last, 'other stays, with all that was ever counted in it');
});

function othersOf(samples: ReadonlyMap<string, number>): number {
  return [...samples]
    .filter(([key]) => key.includes('source_workload="other"'))
    .reduce((all, [, value]) => all + value, 0);
}

test('a full table and a used up budget count in the same label sets of other', async (t) => {
  const { book, text } = bookOf({ budget: new SeriesBudget(40) });
  const memory = SeriesTable.allocate(20);
  const writer = { source: undefined as ReturnType<SeriesBook['source']> | undefined };
  const table = new SeriesTable(
    memory,
    { added: (slot, labels) => writer.source?.added(slot, labels), idle: () => undefined },
    { kernelPathAs: 'kernel', slots: 20 },
  );
  writer.source = book.source(table.cells, () => undefined);
  for (let index = 0; index < 30; index += 1) {
    const subject = flowRecord({ destination: party(`app-${index}`) });
    table.opened(table.slotOf(subject, '-'));
  }
  const samples = await text();
  const opened = [...samples].filter(([key]) => key.startsWith('istio_tcp_connections_opened_total'));
  t.is(opened.filter(([key]) => key.includes('destination_workload="other"')).length, 1);
  t.is(sum(samples, 'istio_tcp_connections_opened_total'), 30);
});

test('100,000 label sets that come and go leave nothing behind', async (t) => {
  const { book, text } = bookOf();
  const writer = writerOf(book);
  for (let index = 0; index < 100_000; index += 1) {
    const slot = index % SLOTS;
    if (index >= SLOTS) writer.idle(slot);
    writer.added(slot, labelsOf(`app-${index}`));
    writer.count(slot, 'opened', 1);
  }
  t.is(book.counts().series, SLOTS * 4);
  for (let slot = 0; slot < SLOTS; slot += 1) writer.idle(slot);
  t.is(book.counts().series, 0);
  t.is((await text()).size, 0);
  t.is(book.counts().evicted, 400_000);
});
