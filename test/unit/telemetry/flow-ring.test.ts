import test from 'ava';
import type { FlowDecision, FlowRecord, FlowSubject, NetnsCookie, SpiffeId } from '../../../src/mesh/index.ts';
import {
  allocateFlowRing,
  type FlowBatch,
  type FlowEnd,
  FlowReader,
  FlowWriter,
  type FlowWriterOptions,
} from '../../../src/telemetry/index.ts';
import { end, party, subject } from './flow-subjects.ts';

const pod = 0xffff_ffff_0000_0007n as NetnsCookie;

interface Ring {
  readonly writer: FlowWriter;
  readonly reader: FlowReader;
  /** Not read yet. */
  readonly sent: FlowBatch[];
  /** Reads what was sent; a message is a copy. */
  read(): FlowRecord[];
}

function ring(records = 8, options: FlowWriterOptions = {}): Ring {
  const memory = allocateFlowRing(records);
  const sent: FlowBatch[] = [];
  const writer = new FlowWriter(memory, (batch) => sent.push(structuredClone(batch)), options);
  const reader = new FlowReader(memory);
  return { writer, reader, sent, read: () => sent.splice(0).flatMap((batch) => reader.read(batch)) };
}

/** What comes out of what goes in. */
function through(it: Ring, what: FlowSubject, how: FlowEnd): FlowRecord | undefined {
  it.writer.write(pod, what, how);
  it.writer.flush();
  return it.read()[0];
}

const denied: FlowDecision = { allowed: false, reason: 'denied', policy: 'shop/deny', text: 'explicitly denied' };

const rows: ReadonlyArray<readonly [law: string, subject: FlowSubject, end: FlowEnd]> = [
  ['everything that is known', subject(), end({ decision: denied, dryRun: [{ policy: 'shop/dry', would: 'deny' }] })],
  [
    'nothing that need not be known',
    subject({
      client: undefined,
      authority: undefined,
      source: undefined,
      destination: undefined,
      sourceIdentity: undefined,
      destinationIdentity: undefined,
      service: undefined,
    }),
    end({ connectMs: undefined, firstByteMs: undefined, roundTripUs: undefined, retransmits: undefined }),
  ],
  [
    'the other choices',
    subject({ direction: 'inbound', path: 'passthrough', security: 'none', waypoint: 'shop/gate' }),
    end({ stage: 'early', ended: 'no-endpoint', error: 'no healthy upstream', kind: 'plain', attempts: 3 }),
  ],
  [
    'big numbers',
    subject({ path: 'kernel', security: 'kernel' }),
    end({ id: 'fedcba9876543210ffffffff00000001', stage: 'addressed', bytesSent: 2 ** 52, retransmits: 2 ** 31 }),
  ],
];

for (const [law, what, how] of rows)
  test(`a record comes out as it went in: ${law}`, (t) => {
    const before = Date.now();
    const record = through(ring(), what, how);
    t.deepEqual(record, { ...what, ...how, pod, endedAt: record?.endedAt ?? 0 });
    t.true((record?.endedAt ?? 0) >= before && (record?.endedAt ?? 0) <= Date.now());
  });

test('nothing is told of nothing', (t) => {
  const it = ring();
  it.writer.flush();
  t.deepEqual(it.sent, []);
  t.is(it.writer.pending, 0);
});

test('what records have in common is sent once, and is one object when read', (t) => {
  const it = ring();
  const [one, two] = [subject(), subject()];
  it.writer.write(pod, one, end());
  it.writer.write(pod, two, end());
  it.writer.flush();
  const nouns = it.sent[0]?.nouns ?? [];
  t.is(nouns.filter((noun) => typeof noun === 'object').length, 3, 'two parties and a service');
  t.is(new Set(nouns).size, nouns.length);
  const [first, second] = it.read();
  t.is(first?.source, second?.source);
  t.is(first?.service, second?.service);
  it.writer.write(pod, one, end());
  it.writer.flush();
  t.deepEqual(it.sent[0]?.nouns, []);
  t.deepEqual(it.read()[0]?.source, party('buyer'));
});

test('what has no room is counted, and nothing else is lost', (t) => {
  const it = ring(4);
  const ids = Array.from({ length: 10 }, (_, turn) => turn.toString(16).padStart(32, '0'));
  const written = ids.map((id) => it.writer.write(pod, subject(), end({ id })));
  t.deepEqual(written, [...Array(4).fill(true), ...Array(6).fill(false)]);
  t.is(it.reader.dropped, 6);
  t.is(it.reader.unread, 4);
  it.writer.flush();
  t.deepEqual(
    it.read().map(({ id }) => id),
    ids.slice(0, 4),
  );
  t.true(it.writer.write(pod, subject(), end()), 'there is room again');
  t.is(it.reader.dropped, 6);
});

test('every record is either read or counted as dropped, in order, however writer and reader take turns', (t) => {
  const it = ring(16, { mostNouns: 40 });
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 0x7fffffff;
    return seed % below;
  };
  const kept: string[] = [];
  const read: string[] = [];
  let dropped = 0;
  for (let turn = 0; turn < 20_000; turn += 1) {
    const id = turn.toString(16).padStart(32, '0');
    const source = party(`p${random(50)}`);
    if (it.writer.write(pod, subject({ source, authority: id }), end({ id })))
      kept.push(`${id} ${source.workload} ${id}`);
    else dropped += 1;
    if (random(8) === 0) it.writer.flush();
    if (random(24) === 0)
      read.push(...it.read().map(({ id, source, authority }) => `${id} ${source?.workload} ${authority}`));
  }
  it.writer.flush();
  read.push(...it.read().map(({ id, source, authority }) => `${id} ${source?.workload} ${authority}`));
  t.true(dropped > 100, 'some had no room');
  t.is(it.reader.dropped, dropped);
  t.deepEqual(read, kept);
  t.is(it.reader.unread, 0);
});

test('when the numbers of nouns begin anew, what is in the ring is told of first', (t) => {
  const it = ring(8, { mostNouns: 30 });
  for (let turn = 0; turn < 8; turn += 1)
    it.writer.write(pod, subject({ authority: `a${turn}` }), end({ error: `e${turn}` }));
  it.writer.flush();
  t.true(it.sent.length > 1);
  t.deepEqual(
    it.sent.map(({ isAnew }) => isAnew),
    [false, ...Array(it.sent.length - 1).fill(true)],
  );
  t.true(it.sent.every(({ nouns }) => nouns.length <= 30));
  t.deepEqual(
    it.read().map(({ authority, error }) => `${authority} ${error}`),
    Array.from({ length: 8 }, (_, turn) => `a${turn} e${turn}`),
  );
});

test('nouns are let go of when they are long in all, however few they are', (t) => {
  const it = ring(64, { mostCharacters: 10_000 });
  for (let turn = 0; turn < 64; turn += 1) {
    const source = party('buyer', { workload: `${turn}`.padStart(2000, 'x') });
    it.writer.write(pod, subject({ source }), end());
  }
  it.writer.flush();
  const lengths = it.sent.map(({ nouns }) => JSON.stringify(nouns).length);
  t.true(Math.max(...lengths) < 15_000);
  t.deepEqual(
    it.read().map(({ source }) => source?.workload?.replaceAll('x', '')),
    Array.from({ length: 64 }, (_, turn) => `${turn}`),
  );
});

test('texts that peers choose are cut', (t) => {
  const long = 'x'.repeat(10_000);
  const record = through(ring(), subject({ authority: long, sourceIdentity: long as SpiffeId }), end({ error: long }));
  for (const text of [record?.authority, record?.sourceIdentity, record?.error]) t.is(text, 'x'.repeat(512));
});

test('counters go on past the end of their numbers', (t) => {
  const memory = allocateFlowRing(8);
  new Uint32Array(memory, 0, 2).fill(0xffff_fffd);
  const sent: FlowBatch[] = [];
  const writer = new FlowWriter(memory, (batch) => sent.push(batch));
  const reader = new FlowReader(memory);
  for (let turn = 0; turn < 8; turn += 1) t.true(writer.write(pod, subject(), end({ attempts: turn })));
  t.false(writer.write(pod, subject(), end()));
  t.is(reader.unread, 8);
  writer.flush();
  t.deepEqual(
    sent.flatMap((batch) => reader.read(batch)).map(({ attempts }) => attempts),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  t.is(reader.unread, 0);
});
