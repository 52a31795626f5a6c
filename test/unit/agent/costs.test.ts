import test from 'ava';
import { TunnelCosts } from '../../../src/agent/costs.ts';
import { type NamespaceUse, type SeriesReader, TunnelUse } from '../../../src/agent/tunnel-use.ts';
import { CELLS_OF_A_SLOT, SERIES_CELL, type SeriesLabels } from '../../../src/telemetry/index.ts';

interface Worker {
  cpuSeconds: number;
  memoryBytes: number;
}

function setUp() {
  const workers: Worker[] = [
    { cpuSeconds: 0, memoryBytes: 600 },
    { cpuSeconds: 0, memoryBytes: 400 },
  ];
  const use = new Map<string, NamespaceUse>();
  return { workers, use, costs: new TunnelCosts({ workers: () => workers, use: () => use }) };
}

function sum(costs: TunnelCosts, what: 'cpuSeconds' | 'memoryBytes'): number {
  return Object.values(costs.costs()).reduce((total, cost) => total + cost[what], 0);
}

/** The same numbers each time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}

test('whatever namespaces do, their shares add up to what the workers have used', (t) => {
  const next = random(7);
  const { workers, use, costs } = setUp();
  for (let interval = 0; interval < 500; interval += 1) {
    for (const worker of workers) worker.cpuSeconds += next() * 5;
    for (const namespace of ['a', 'b', 'c', 'd'])
      if (next() < 0.6) {
        const { connections = 0, bytes = 0 } = use.get(namespace) ?? {};
        const [more, open] = [Math.floor(next() * 100), Math.floor(next() * 20)];
        use.set(namespace, { connections: connections + more, bytes: bytes + next() * 1e9, open });
      }
    costs.take();
    const used = workers.reduce((total, { cpuSeconds }) => total + cpuSeconds, 0);
    t.true(Math.abs(sum(costs, 'cpuSeconds') - used) < 1e-6 * used);
    t.true(Math.abs(sum(costs, 'memoryBytes') - 1000) < 1e-6);
  }
});

test('time is charged to those who were at work in it, by bytes and connections', (t) => {
  const { workers, use, costs } = setUp();
  use.set('bulk', { connections: 0, bytes: 0, open: 1 });
  use.set('many', { connections: 0, bytes: 0, open: 3 });
  use.set('idle', { connections: 5, bytes: 5, open: 0 });
  costs.take();
  use.set('bulk', { connections: 0, bytes: 160_000_000, open: 1 });
  use.set('many', { connections: 3_000, bytes: 0, open: 3 });
  for (const worker of workers) worker.cpuSeconds = 2;
  costs.take();
  const { bulk, many, idle } = costs.costs();
  t.is(bulk?.cpuSeconds, 1);
  t.is(many?.cpuSeconds, 3);
  t.is(idle?.cpuSeconds, 0);
  t.is(bulk?.memoryBytes, 250);
  t.is(many?.memoryBytes, 750);
});

test('time in which nobody was at work is nobody’s', (t) => {
  const { workers, costs } = setUp();
  for (const worker of workers) worker.cpuSeconds = 1;
  costs.take();
  t.deepEqual(costs.costs(), { '-': { cpuSeconds: 2, memoryBytes: 1000 } });
});

test('what has been charged never falls, not even when a worker’s successor tells of less', (t) => {
  const { workers, use, costs } = setUp();
  use.set('a', { connections: 1, bytes: 0, open: 1 });
  for (const worker of workers) worker.cpuSeconds = 3;
  costs.take();
  t.is(costs.costs().a?.cpuSeconds, 6);
  for (const worker of workers) worker.cpuSeconds = 1;
  costs.take();
  t.is(costs.costs().a?.cpuSeconds, 6);
  use.set('a', { connections: 2, bytes: 0, open: 1 });
  for (const worker of workers) worker.cpuSeconds = 4;
  costs.take();
  t.is(costs.costs().a?.cpuSeconds, 8);
});

function labels(namespace: string, reporter = 'source', flags = '-'): SeriesLabels {
  const local = reporter === 'source' ? 'source' : 'destination';
  return { reporter, response_flags: flags, [`${local}_workload_namespace`]: namespace };
}

function count(cells: Float64Array, slot: number, what: Partial<Record<keyof typeof SERIES_CELL, number>>): void {
  for (const [name, more] of Object.entries(what)) {
    const at = slot * CELLS_OF_A_SLOT + SERIES_CELL[name as keyof typeof SERIES_CELL];
    cells[at] = (cells[at] ?? 0) + more;
  }
}

function tap() {
  const told: string[] = [];
  const reader: SeriesReader = {
    source: (cells, freed) => ({
      added: (slot) => told.push(`added ${slot}`),
      idle: (slot) => {
        told.push(`idle ${slot}`);
        cells.fill(0, slot * CELLS_OF_A_SLOT, (slot + 1) * CELLS_OF_A_SLOT);
        freed(slot);
      },
      gone: () => told.push('gone'),
    }),
  };
  const cells = new Float64Array(8 * CELLS_OF_A_SLOT);
  const use = new TunnelUse(reader);
  return { told, cells, use, source: use.source(cells, () => undefined) };
}

test('use is added up by the namespace of the local pod, whichever side it is on', (t) => {
  const { cells, use, source, told } = tap();
  source.added(0, labels('shop'));
  source.added(1, labels('shop', 'destination'));
  source.added(2, labels('shop', 'source', 'DENY'));
  source.added(3, labels('bank'));
  count(cells, 0, { opened: 3, closed: 1, sent: 10, received: 5 });
  count(cells, 1, { opened: 1, closed: 1, sent: 1 });
  count(cells, 2, { closed: 1 });
  count(cells, 3, { opened: 2 });
  t.deepEqual(
    [...use.totals()],
    [
      ['shop', { connections: 4, bytes: 16, open: 1 }],
      ['bank', { connections: 2, bytes: 0, open: 2 }],
    ],
  );
  t.deepEqual(told, ['added 0', 'added 1', 'added 2', 'added 3']);
});

test('use never falls, when a slot is given to others and when its writer ends', (t) => {
  const { cells, use, source } = tap();
  source.added(0, labels('shop'));
  count(cells, 0, { opened: 3, closed: 3, sent: 10 });
  source.idle(0);
  t.deepEqual(use.totals().get('shop'), { connections: 3, bytes: 10, open: 0 });
  source.added(0, labels('bank'));
  count(cells, 0, { opened: 5, closed: 1, sent: 7 });
  t.deepEqual(use.totals().get('bank'), { connections: 5, bytes: 7, open: 4 });
  source.gone();
  t.deepEqual(use.totals().get('bank'), { connections: 5, bytes: 7, open: 0 });
  t.deepEqual(use.totals().get('shop'), { connections: 3, bytes: 10, open: 0 });
});

test('beyond 200 namespaces the rest are counted together', (t) => {
  const { use, source } = tap();
  for (let each = 0; each < 300; each += 1) source.added(each, labels(`n${each}`));
  t.is(use.totals().size, 201);
  t.true(use.totals().has('other'));
});
