import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { FlowSample } from '../../../src/agent/index.ts';
import { PathSeries, type PathSeriesOptions } from '../../../src/agent/kernel-path/path-series.ts';
import { SeriesJournal } from '../../../src/agent/kernel-path/series-journal.ts';
import { type FlowSubject, flowPartyOf } from '../../../src/mesh/index.ts';
import { FakeLog } from '../../contract/fakes/log.ts';
import { FakeSeriesBook } from '../../contract/fakes/series-book.ts';
import { at, DB, db, WEB, web } from './path-world.ts';

const outbound: FlowSubject = {
  direction: 'outbound',
  path: 'kernel',
  client: at('10.0.0.1', 40_000),
  asked: at('10.0.0.2', 5432),
  server: at('10.0.0.2', 5432),
  dialled: at('10.0.0.2', 5432),
  authority: undefined,
  source: flowPartyOf(web),
  destination: flowPartyOf(db),
  sourceIdentity: flowPartyOf(web)?.identity,
  destinationIdentity: flowPartyOf(db)?.identity,
  service: { name: 'db', namespace: 'shop', hostname: 'db.shop.svc' },
  waypoint: undefined,
  security: 'kernel',
};
const inbound: FlowSubject = { ...outbound, direction: 'inbound' };
const both = [outbound, inbound];

function sample(id: string, sent?: number, received = 0): FlowSample {
  return {
    ...{ id, kind: 'local', source: WEB, destination: DB, asked: undefined },
    ...{ client: at('10.0.0.1', 40_000), server: at('10.0.0.2', 5432) },
    bytes: sent === undefined ? undefined : { sent, received },
  };
}

/** A counter of the kernel path, and what an agent that comes after it finds. */
class Run {
  readonly book = new FakeSeriesBook();
  readonly log = new FakeLog();
  readonly series: PathSeries;
  readonly path: string;
  subjects: readonly FlowSubject[] = both;
  #round = 0;

  constructor(path: string, options: Partial<PathSeriesOptions> & { bootId?: string } = {}) {
    this.path = path;
    const journal = new SeriesJournal({ log: this.log.log }, { path, bootId: options.bootId ?? 'boot' });
    this.series = new PathSeries(
      { book: this.book, journal, subjectsOf: () => this.subjects },
      { kernelPathAs: 'kernel', ...options },
    );
    this.series.restore();
  }

  /** A whole round; then the turn of the loop is over. */
  round(...samples: FlowSample[]): void {
    this.#round += 1;
    this.series.sampled({ round: this.#round, samples });
    this.series.commit();
  }

  end(id: string, sent: number, received: number, flags: Parameters<PathSeries['ended']>[3] = '-'): void {
    this.series.ended(id, this.subjects, { sent, received }, flags);
    this.series.commit();
  }

  counts(reporter: 'source' | 'destination' = 'source', flags = '-') {
    return this.book.counts({ reporter, response_flags: flags });
  }
}

function place(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-series-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return join(folder, 'series');
}

test('a flow is counted by both of its pods, once it has ended', (t) => {
  const run = new Run(place(t));
  run.end('a', 100, 2000);
  for (const reporter of ['source', 'destination'] as const)
    t.deepEqual(run.counts(reporter), { opened: 1, closed: 1, failed: 0, received: 100, sent: 2000 });
});

test('what fails is closed under its flag, and its bytes are not', (t) => {
  const run = new Run(place(t));
  run.end('a', 5, 7, 'CONNECT');
  t.deepEqual(run.counts(), { opened: 1, closed: 0, failed: 0, received: 5, sent: 7 });
  t.deepEqual(run.counts('source', 'CONNECT'), { opened: 0, closed: 1, failed: 1, received: 0, sent: 0 });
});

test('bytes of a long flow rise while it runs, and none is counted twice', (t) => {
  const run = new Run(place(t));
  run.round(sample('a', 10, 1));
  t.like(run.counts(), { opened: 1, closed: 0, received: 10, sent: 1 });
  run.round(sample('a', 10, 1));
  run.round(sample('a', 60, 5));
  t.like(run.counts(), { opened: 1, received: 60, sent: 5 });
  run.end('a', 100, 9);
  t.deepEqual(run.counts('destination'), { opened: 1, closed: 1, failed: 0, received: 100, sent: 9 });
});

test('no counter falls when less is told than before', (t) => {
  const run = new Run(place(t));
  run.round(sample('a', 50, 50));
  run.round(sample('a', 20, 70));
  run.end('a', 30, 60);
  t.deepEqual(run.counts(), { opened: 1, closed: 1, failed: 0, received: 50, sent: 70 });
});

test('a flow that nobody could measure is not begun, and not lost either', (t) => {
  const run = new Run(place(t));
  run.round(sample('a'));
  t.is(run.book.size, 0);
  run.round(sample('a', 5));
  for (let round = 0; round < 5; round += 1) run.round(sample('a'));
  t.like(run.counts(), { opened: 1, closed: 0 });
});

test('a flow whose end nobody told is closed when it has not been seen for two rounds', (t) => {
  const run = new Run(place(t));
  run.round(sample('a', 5));
  run.round();
  run.round();
  t.like(run.counts(), { opened: 1, closed: 0 });
  run.round();
  t.like(run.counts(), { opened: 1, closed: 1, received: 5 });
});

test('of pods that nobody knows nothing is counted', (t) => {
  const run = new Run(place(t));
  run.subjects = [];
  run.round(sample('a', 5));
  run.end('b', 1, 1);
  t.is(run.book.size, 0);
});

// --- the next agent -----------------------------------------------------------------------------------------------------

test('the next agent goes on from where the last one was, however that ended', (t) => {
  const path = place(t);
  const first = new Run(path);
  first.end('a', 100, 2000);
  first.end('b', 1, 1, 'CONNECT');
  first.round(sample('c', 10, 20));
  // Killed: nothing is closed.
  const second = new Run(path);
  for (const flags of ['-', 'CONNECT'])
    for (const reporter of ['source', 'destination'] as const)
      t.deepEqual(second.counts(reporter, flags), first.counts(reporter, flags));
  second.end('c', 15, 30);
  t.deepEqual(second.counts(), { opened: 3, closed: 2, failed: 0, received: 116, sent: 2031 });
  const third = new Run(path);
  t.deepEqual(third.counts(), second.counts());
  third.end('d', 1, 0);
  t.like(third.counts(), { opened: 4, received: 117 });
});

test('what has ended while no agent was there is closed, though nobody tells', (t) => {
  const path = place(t);
  new Run(path).round(sample('c', 10, 20));
  const second = new Run(path);
  for (let round = 0; round < 3; round += 1) second.round();
  t.like(second.counts(), { opened: 1, closed: 1, received: 10, sent: 20 });
});

test('half a line at the end counts for nothing, and what follows it is not lost', (t) => {
  const path = place(t);
  const first = new Run(path);
  first.end('a', 100, 200);
  const whole = statSync(path).size;
  first.end('b', 100, 200);
  truncateSync(path, statSync(path).size - 3);
  t.true(statSync(path).size > whole);
  const second = new Run(path);
  t.like(second.counts(), { opened: 1, received: 100 });
  second.end('c', 1, 2);
  t.like(new Run(path).counts(), { opened: 2, received: 101 });
});

test('what is no journal, of another boot, or spoilt half-way is left at that', (t) => {
  const path = place(t);
  new Run(path).end('a', 100, 200);
  t.is(new Run(path, { bootId: 'other' }).book.size, 0);
  for (const content of ['', 'nonsense\n', '{"schema":1,"bootId":"boot"}\n{"freed":[-1]}\n']) {
    writeFileSync(path, content);
    t.is(new Run(path).book.size, 0);
  }
  const run = new Run(path);
  run.end('a', 100, 200);
  appendFileSync(path, 'nonsense\n');
  t.like(new Run(path).counts(), { opened: 1 });
});

test('series that were idle are forgotten by the next agent too', (t) => {
  const path = place(t);
  const first = new Run(path, { idleSeconds: 10 });
  first.end('a', 1, 1);
  for (const now of [0, 20, 40]) first.series.sweep(now);
  first.series.commit();
  t.is(first.book.size, 0);
  t.is(new Run(path).book.size, 0);
});

test('what has found no slot of its own is kept as such', (t) => {
  const path = place(t);
  const first = new Run(path);
  for (let index = 0; index < 5000; index += 1) {
    const source = { ...outbound, source: { ...outbound.source, workloadName: `w${index}` } };
    first.subjects = [source as FlowSubject];
    first.series.ended(`${index}`, first.subjects, { sent: 1, received: 2 }, '-');
  }
  first.series.commit();
  const other = { source_workload: 'other', reporter: 'source' };
  const counted = first.book.counts(other);
  t.true(counted.opened > 900);
  const second = new Run(path);
  t.deepEqual(second.book.counts(other), counted);
  t.like(second.book.counts({}), { opened: 5000, closed: 5000, received: 5000, sent: 10_000 });
});

test('the journal stays within bounds, whatever is counted', (t) => {
  const path = place(t);
  const run = new Run(path);
  for (let round = 1; round <= 300; round += 1)
    run.round(...Array.from({ length: 300 }, (_, index) => sample(`${index}`.padStart(32, '0'), round)));
  t.true(statSync(path).size < 6 * 1024 * 1024);
  t.is(readFileSync(path, 'utf8').split('\n').length < 400, true);
  t.deepEqual(new Run(path).counts(), run.counts());
});

test('a journal that cannot be written costs nothing but itself', (t) => {
  const run = new Run('/dev/null/series');
  run.end('a', 1, 2);
  t.like(run.counts(), { opened: 1 });
  t.is(run.log.entries.filter(({ level }) => level === 'warn').length, 1);
});

test('what could not be written is written as soon as it can be, though nothing more is counted', (t) => {
  const written: string[] = [];
  let isBroken = true;
  const write = (how: string): void => {
    if (!isBroken) written.push(how);
  };
  const journal = {
    read: () => [],
    isReady: true,
    get isFull() {
      return isBroken;
    },
    append: () => write('append'),
    replace: () => write('replace'),
    close: () => {},
  };
  const series = new PathSeries(
    { book: new FakeSeriesBook(), journal, subjectsOf: () => both },
    { kernelPathAs: 'kernel' },
  );
  series.ended('a', both, { sent: 1, received: 2 }, '-');
  series.commit();
  t.deepEqual(written, []);
  isBroken = false;
  series.commit();
  series.commit();
  t.is(written.length, 1);
});
