import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { FlowMetrics, SeriesBook, SeriesBudget, SeriesTable } from '../../../src/telemetry/index.ts';
import { flowRecord, party } from './flow-records.ts';

const CONNECTIONS = 100_000;
const IDLE_SECONDS = 600;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** MiB in use when all that can be is collected. */
function heap(): number {
  collect();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

/** A worker's table, and what the main thread makes of it. */
function world() {
  const budget = new SeriesBudget();
  const book = new SeriesBook({ budget, idleSeconds: IDLE_SECONDS });
  const flows = new FlowMetrics({ budget, idleSeconds: IDLE_SECONDS });
  const reader = { source: undefined as ReturnType<SeriesBook['source']> | undefined };
  const table = new SeriesTable(
    SeriesTable.allocate(),
    {
      added: (slot, labels) => reader.source?.added(slot, labels),
      idle: (slot) => reader.source?.idle(slot),
    },
    { kernelPathAs: 'kernel', idleSeconds: IDLE_SECONDS },
  );
  reader.source = book.source(table.cells, (slot) => table.freed(slot));
  return { budget, book, flows, table };
}

/** Each connection from a pod of another name, in one of many namespaces. */
function churn({ table, flows, budget }: ReturnType<typeof world>, prefix: string): number {
  let most = 0;
  for (let index = 0; index < CONNECTIONS; index += 1) {
    const record = flowRecord({ source: party(`${prefix}-${index}`, `ns-${index % 1000}`) });
    const slot = table.slotOf(record, '-');
    table.opened(slot);
    table.closed(slot, record, index % 10 === 0 ? 'CONNECT' : '-');
    flows.add([record]);
    most = Math.max(most, budget.used);
  }
  return most;
}

test('100,000 connections of changing names stay in the budget, and leave nothing behind when they are idle', (t) => {
  const all = world();
  const rest = (seconds: number): void => {
    for (const now of [seconds, seconds + IDLE_SECONDS + 1]) {
      all.table.sweep(now);
      all.book.sweep(now + performance.now() / 1000);
      all.flows.sweep(now + performance.now() / 1000);
    }
  };
  // What is compiled and grown once, stays.
  churn(all, 'first');
  rest(0);
  const before = heap();
  const most = churn(all, 'second');
  t.true(most <= 20_000, `${most}`);
  t.true(most > 15_000, 'the budget was used');
  rest(1000);
  const after = heap();
  t.true(after <= before * 1.1, `${before.toFixed(1)} MiB before, ${after.toFixed(1)} MiB after`);
  t.log(`${before.toFixed(1)} MiB before, ${after.toFixed(1)} MiB after`);
  t.true(all.book.counts().series < 1000, 'only others are left');
});
