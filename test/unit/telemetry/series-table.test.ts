import test from 'ava';
import type { FlowSubject, ResponseFlags } from '../../../src/mesh/index.ts';
import {
  CELLS_OF_A_SLOT,
  SERIES_CELL,
  type SeriesLabels,
  SeriesTable,
  type SeriesTableOptions,
} from '../../../src/telemetry/index.ts';
import { party, subject } from './flow-subjects.ts';

/** Slots of `other`: one for each reporter and flag. */
const OTHER = 16;

interface Counted {
  readonly table: SeriesTable;
  readonly told: string[];
  readonly labels: Map<number, SeriesLabels>;
  cell(slot: number, name: keyof typeof SERIES_CELL): number;
}

function table(options: Partial<SeriesTableOptions> = {}): Counted {
  const slots = options.slots ?? 64;
  const told: string[] = [];
  const labels = new Map<number, SeriesLabels>();
  const memory = SeriesTable.allocate(slots);
  const cells = new Float64Array(memory);
  const it = new SeriesTable(
    memory,
    {
      added: (slot, own) => {
        told.push(`added ${slot}`);
        labels.set(slot, own);
      },
      idle: (slot) => void told.push(`idle ${slot}`),
    },
    { kernelPathAs: 'kernel', slots, ...options },
  );
  return { table: it, told, labels, cell: (slot, name) => cells[slot * CELLS_OF_A_SLOT + SERIES_CELL[name]] ?? 0 };
}

function open({ table }: Counted, it: FlowSubject): number {
  const slot = table.slotOf(it, '-');
  table.opened(slot);
  return slot;
}

test('connections with the same labels are counted together, whoever they are of', (t) => {
  const all = table();
  const slot = open(all, subject());
  t.is(open(all, subject({ source: party('buyer', { workload: 'buyer-2' }), asked: subject().server })), slot);
  t.is(all.cell(slot, 'opened'), 2);
  t.deepEqual(all.told, [`added ${slot}`]);
  t.like(all.labels.get(slot), {
    reporter: 'source',
    source_workload: 'buyer',
    destination_workload: 'cart',
    destination_service_name: 'shop',
    response_flags: '-',
    connection_security_policy: 'mutual_tls',
  });
});

const others: ReadonlyArray<readonly [label: string, other: Partial<FlowSubject>]> = [
  ['reporter', { direction: 'inbound' }],
  ['connection_security_policy', { security: 'none' }],
  ['source_workload', { source: party('lender') }],
  ['source_cluster', { source: party('buyer', { cluster: 'far' }) }],
  ['source_principal', { sourceIdentity: undefined }],
  ['destination_workload', { destination: party('till') }],
  ['destination_principal', { destination: party('cart', { identity: undefined }) }],
  ['destination_zone', { destination: party('cart', { zone: 'z1' }) }],
  ['destination_service', { service: undefined }],
];

for (const [label, other] of others)
  test(`what differs in ${label} is counted apart`, (t) => {
    const all = table();
    const [one, two] = [open(all, subject()), open(all, subject(other))];
    t.not(one, two);
    t.not(all.labels.get(one)?.[label], all.labels.get(two)?.[label]);
    t.deepEqual([all.cell(one, 'opened'), all.cell(two, 'opened')], [1, 1]);
  });

test('what is closed with a flag is closed and failed under that flag, and nowhere else', (t) => {
  const all = table();
  const slot = open(all, subject());
  open(all, subject());
  all.table.closed(slot, subject(), 'DENY');
  all.table.closed(slot, subject(), '-');
  const denied = all.table.slotOf(subject(), 'DENY');
  t.deepEqual([all.cell(slot, 'opened'), all.cell(slot, 'closed'), all.cell(slot, 'failed')], [2, 1, 0]);
  t.deepEqual([all.cell(denied, 'opened'), all.cell(denied, 'closed'), all.cell(denied, 'failed')], [0, 1, 1]);
  t.is(all.labels.get(denied)?.response_flags, 'DENY');
});

test('opened is closed and open together, whatever comes, with too few slots and slots that are given up', (t) => {
  const all = table({ slots: OTHER + 12, idleSeconds: 2 });
  const aside = { opened: 0, closed: 0 };
  const flags: ResponseFlags[] = ['-', 'DENY', 'CONNECT', 'NETWORK_POLICY'];
  const held: Array<{ slot: number; it: FlowSubject }> = [];
  let seed = 1;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 0x7fffffff;
    return seed % below;
  };
  const total = (name: 'opened' | 'closed'): number =>
    [...all.labels.keys()].reduce((sum, slot) => sum + all.cell(slot, name), aside[name]);
  let opened = 0;
  for (let step = 0; step < 5000; step += 1) {
    if (random(2) === 0) {
      const it = subject({ source: party(`p${random(20)}`) });
      held.push({ slot: open(all, it), it });
      opened += 1;
    } else if (held.length > 0) {
      const [{ slot, it } = { slot: 0, it: subject() }] = held.splice(random(held.length), 1);
      all.table.closed(slot, it, flags[random(flags.length)] ?? '-');
    }
    if (step % 50 === 0) all.table.sweep(step / 50);
    const idle = all.told.filter((line) => line.startsWith('idle')).map((line) => Number(line.slice(5)));
    all.told.length = 0;
    for (const slot of idle) {
      aside.opened += all.cell(slot, 'opened');
      aside.closed += all.cell(slot, 'closed');
      all.labels.delete(slot);
      all.table.freed(slot);
    }
    t.is(total('opened') - total('closed'), held.length);
  }
  t.is(total('opened'), opened);
});

test('when no slot is left, connections are counted as others, at most one slot for each reporter and flag', (t) => {
  const all = table({ slots: OTHER + 2 });
  open(all, subject({ source: party('one') }));
  open(all, subject({ source: party('two') }));
  const first = open(all, subject({ source: party('three') }));
  const second = open(all, subject({ source: party('four') }));
  t.is(first, second);
  t.is(all.cell(first, 'opened'), 2);
  all.table.closed(first, subject({ source: party('three') }), 'CONNECT');
  const inbound = open(all, subject({ direction: 'inbound', source: party('three') }));
  t.is(all.told.length, 5);
  t.deepEqual(
    [...all.labels.values()].slice(2).map(({ reporter, response_flags }) => `${reporter} ${response_flags}`),
    ['source -', 'source CONNECT', 'destination -'],
  );
  const labels = Object.entries(all.labels.get(inbound) ?? {});
  t.deepEqual(
    labels.filter(([, value]) => value !== 'other'),
    [
      ['reporter', 'destination'],
      ['request_protocol', 'tcp'],
      ['response_flags', '-'],
    ],
  );
  t.true(labels.length > 20);
});

test('what was opened among others is closed among others, even if a slot is free by then', (t) => {
  const all = table({ slots: OTHER + 1, idleSeconds: 1 });
  const own = open(all, subject());
  const late = subject({ source: party('late') });
  const other = open(all, late);
  all.table.closed(own, subject(), '-');
  all.table.sweep(0);
  all.table.sweep(1);
  all.table.freed(own);
  all.table.closed(other, late, 'DENY');
  t.is(all.told.filter((line) => line.startsWith('added')).length, 3);
  t.true([...all.labels.values()].every(({ source_workload }) => source_workload !== 'late'));
});

test('a slot is given up only when nothing of it is open and nothing was counted for long', (t) => {
  const all = table({ idleSeconds: 10 });
  const slot = open(all, subject());
  const idle = (): boolean => all.told.includes(`idle ${slot}`);
  all.table.sweep(0);
  all.table.sweep(100);
  t.false(idle(), 'something is open');
  all.table.closed(slot, subject(), '-');
  all.table.sweep(101);
  all.table.sweep(110);
  t.false(idle(), 'the time is not over');
  all.table.closed(open(all, subject()), subject(), '-');
  all.table.sweep(111);
  all.table.sweep(120);
  t.false(idle(), 'something was counted meanwhile');
  all.table.sweep(121);
  t.true(idle());
});

test('the idle time of a slot begins when its last connection ends, however that ends', (t) => {
  const all = table({ idleSeconds: 10 });
  const slot = open(all, subject());
  for (const now of [0, 50, 99]) all.table.sweep(now);
  all.table.closed(slot, subject(), 'CONNECT');
  all.table.sweep(100);
  t.false(all.told.includes(`idle ${slot}`));
  all.table.sweep(110);
  t.true(all.told.includes(`idle ${slot}`));
});

test('a slot is used again only after its reader has put it aside, and begins at nothing', (t) => {
  const all = table({ slots: OTHER + 1, idleSeconds: 1 });
  const slot = open(all, subject());
  all.table.closed(slot, subject(), '-');
  all.table.sweep(0);
  all.table.sweep(1);
  t.true(all.told.includes(`idle ${slot}`));
  t.not(open(all, subject()), slot, 'its reader has still to read it');
  t.deepEqual([all.cell(slot, 'opened'), all.cell(slot, 'closed')], [1, 1]);
  all.table.freed(slot);
  all.table.freed(slot);
  t.is(open(all, subject({ source: party('another') })), slot);
  t.deepEqual([all.cell(slot, 'opened'), all.cell(slot, 'closed')], [1, 0]);
  t.is(all.labels.get(slot)?.source_workload, 'another');
  t.not(open(all, subject({ source: party('a third') })), slot, 'it is free once, whoever says so twice');
});

test('a slot that is in use cannot be freed', (t) => {
  const all = table();
  const slot = open(all, subject());
  all.table.freed(slot);
  t.is(all.cell(slot, 'opened'), 1);
  t.is(open(all, subject()), slot);
});

test('labels that peers choose are counted on, however many there have been', (t) => {
  const all = table({ slots: OTHER + 2 });
  const slot = open(all, subject());
  for (let turn = 0; turn < 70_000; turn += 1) all.table.slotOf(subject({ source: party(`p${turn}`) }), '-');
  all.table.closed(slot, subject(), '-');
  t.deepEqual([all.cell(slot, 'opened'), all.cell(slot, 'closed')], [1, 1]);
});
