import test from 'ava';
import { Latency, SlidingLatency } from '../../../../src/agent/views/latency.ts';
import { LiveSeries } from '../../../../src/agent/views/live-series.ts';
import { PodRates } from '../../../../src/agent/views/pod-rates.ts';
import { PolicyTally } from '../../../../src/agent/views/policy-hits.ts';
import { RecentCounts } from '../../../../src/agent/views/recent-counts.ts';
import { Samples } from '../../../../src/agent/views/samples.ts';
import { SlidingCounts } from '../../../../src/agent/views/sliding-counts.ts';
import { TrafficMap } from '../../../../src/agent/views/traffic-map.ts';
import type { Address, FlowParty, FlowRecord, NetnsCookie, SpiffeId } from '../../../../src/mesh/index.ts';
import { CELLS_OF_A_SLOT, type MapEdge, SERIES_CELL, seriesLabels } from '../../../../src/telemetry/index.ts';

const MINUTE = 60_000;
const START = 1_000 * MINUTE;

/** A clock that a test moves. */
function clockAt(start = START): { now: () => number; advance(ms: number): void } {
  let at = start;
  return {
    now: () => at,
    advance: (ms) => {
      at += ms;
    },
  };
}

function party(namespace: string, name: string): FlowParty {
  return {
    ...{ workload: `${name}-1`, namespace, cluster: 'Kubernetes', workloadName: name },
    ...{ canonicalName: name, canonicalRevision: 'latest', region: undefined, zone: undefined },
    identity: `spiffe://cluster.local/ns/${namespace}/sa/${name}` as SpiffeId,
  };
}

function flow(changes: Partial<FlowRecord> = {}): FlowRecord {
  const endpoint = { address: '10.0.0.2' as Address, port: 80 };
  return {
    id: '0'.repeat(32),
    pod: 1n as NetnsCookie,
    direction: 'outbound',
    path: 'tunnel',
    client: { address: '10.0.0.1' as Address, port: 40_000 },
    ...{ asked: endpoint, server: endpoint, dialled: endpoint, authority: undefined },
    source: party('shop', 'web'),
    destination: party('shop', 'cart'),
    sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId,
    destinationIdentity: 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId,
    service: undefined,
    waypoint: undefined,
    security: 'mutual_tls',
    stage: 'connected',
    endedAt: START,
    durationMs: 10,
    ended: 'clean',
    error: undefined,
    decision: undefined,
    dryRun: [],
    attempts: 1,
    bytesSent: 100,
    bytesReceived: 900,
    connectMs: 2,
    ...{ firstByteMs: undefined, roundTripUs: undefined, retransmits: undefined, kind: undefined },
    ...changes,
  };
}

function times(count: number, record: FlowRecord): FlowRecord[] {
  return Array.from({ length: count }, () => record);
}

test('what is older than the window is in no sum', (t) => {
  const counts = new SlidingCounts(2);
  counts.add(0, 5, START);
  counts.add(1, 7, START + 30_000);
  t.is(counts.sum(0, START + 60_000), 5);
  t.is(counts.sum(0, START + 70_000), 0);
  t.is(counts.sum(1, START + 70_000), 7);
  t.is(counts.sum(1, START + 1_000 * MINUTE), 0, 'also when nothing was added since');
  counts.add(0, 1, START + 70_000);
  t.is(counts.sum(0, START + 70_000), 1);
});

test('a rate is per second of what the window covers', (t) => {
  const counts = new SlidingCounts(1);
  for (let second = 0; second < 120; second += 1) counts.add(0, 3, START + second * 1_000);
  t.true(Math.abs(counts.rate(0, START + 119_999) - 3) < 0.1);
});

test('quantiles are as near as the bounds are', (t) => {
  const latency = new SlidingLatency();
  for (let ms = 1; ms <= 100; ms += 1) latency.add(ms, START);
  const near = (value: number | undefined, wanted: number): boolean =>
    t.true(value !== undefined && value > wanted / 1.5 && value < wanted * 1.5, `${value} for ${wanted}`);
  near(latency.quantile(0.5, START), 50);
  near(latency.quantile(0.99, START), 99);
  t.is(latency.quantile(0.5, START + 2 * MINUTE), undefined);
  const once = new Latency();
  once.add(0);
  once.add(1e9);
  t.is(once.take(0.5, 0.99).length, 2);
  t.deepEqual(once.take(0.5), [undefined], 'what was taken is gone');
});

test('counts of 10 minutes: the most frequent first, a bounded number of texts, and none that is older', (t) => {
  const counts = new RecentCounts(3);
  for (const text of ['a', 'b', 'b', 'c', 'd', 'e', 'e']) counts.add(text, START);
  t.deepEqual(counts.read(START), { other: 3, b: 2, a: 1, c: 1 });
  counts.add('b', START + 5 * MINUTE);
  t.deepEqual(counts.read(START + 11 * MINUTE), { b: 1 });
  counts.add('x', START + 11 * MINUTE);
  t.deepEqual(counts.read(START + 11 * MINUTE), { b: 1, x: 1 }, 'room that was left is used');
});

test('an edge tells of its last minute: how much, how fast, how secured, how it ended', (t) => {
  const clock = clockAt();
  const map = new TrafficMap(clock);
  map.add(times(60, flow()));
  const [edge] = map.edges([]);
  t.like(edge, {
    isFromHere: true,
    isToHere: false,
    edge: {
      id: 'shop/web>shop/cart',
      connectionsPerSecond: 1,
      bytesPerSecond: 1_000,
      security: 'mutual_tls',
      health: 'good',
    },
  });
  t.true(Math.abs((edge?.edge.p50Ms ?? 0) - 2) < 1);
  t.like(map.details('shop/web>shop/cart', []), { ended: { clean: 60 }, paths: { tunnel: 60 } });
  clock.advance(2 * MINUTE);
  t.like(map.edges([])[0], { edge: { connectionsPerSecond: 0, health: 'idle', p50Ms: undefined } });
  clock.advance(10 * MINUTE);
  t.deepEqual(map.edges([]), [], 'after ten minutes it is forgotten');
  t.is(map.details('shop/web>shop/cart', []), undefined);
});

test('a connection between two pods of the node counts once', (t) => {
  const map = new TrafficMap(clockAt());
  map.add(times(60, flow({ path: 'kernel', security: 'kernel' })));
  map.add(times(60, flow({ path: 'kernel', security: 'kernel', direction: 'inbound' })));
  t.like(map.edges([]), [{ isFromHere: true, isToHere: true, edge: { connectionsPerSecond: 1, security: 'kernel' } }]);
});

const HEALTHS: ReadonlyArray<readonly [good: number, bad: number, health: MapEdge['health']]> = [
  [100, 0, 'good'],
  [1_000, 5, 'good'],
  [99, 1, 'degraded'],
  [4, 1, 'bad'],
  [0, 1, 'bad'],
];
for (const [good, bad, health] of HEALTHS) {
  test(`${good} clean ends and ${bad} failures are ${health}, whether failed or denied`, (t) => {
    const refused = { allowed: false, reason: 'not-allowed', policy: undefined, text: '' } as const;
    for (const [changes, field] of [
      [{ ended: 'dial-refused' }, 'failedPerSecond'],
      [{ ended: 'policy-denied', decision: refused }, 'deniedPerSecond'],
      [{ ended: 'tunnel-refused', error: 'http status: 401 Unauthorized' }, 'deniedPerSecond'],
    ] as const) {
      const map = new TrafficMap(clockAt());
      map.add([...times(good, flow()), ...times(bad, flow(changes))]);
      const [seen] = map.edges([]);
      t.is(seen?.edge.health, health);
      t.is((seen?.edge[field] ?? 0) > 0, bad > 0);
    }
  });
}

test('what is partly in the clear is called so', (t) => {
  const map = new TrafficMap(clockAt());
  map.add([...times(9, flow()), flow({ path: 'plain', security: 'none' })]);
  t.is(map.edges([])[0]?.edge.security, 'mixed');
  map.add(times(9, flow({ path: 'kernel', security: 'kernel', destination: party('shop', 'db') })));
  t.is(map.edges([])[1]?.edge.security, 'kernel');
});

test('whoever is not of the mesh is outside, and a service without an endpoint has its own name', (t) => {
  const map = new TrafficMap(clockAt());
  const service = { name: 'gone', namespace: 'shop', hostname: 'gone.shop.svc.cluster.local' };
  map.add([
    flow({ destination: undefined, path: 'passthrough', security: 'none' }),
    flow({ source: undefined, direction: 'inbound' }),
    flow({ destination: undefined, service, stage: 'addressed', ended: 'no-healthy-upstream' }),
    flow({ stage: 'early', source: party('shop', 'nobody') }),
  ]);
  t.deepEqual(
    map.edges([]).map(({ edge }) => edge.id),
    ['shop/web>outside', 'outside>shop/cart', 'shop/web>shop/gone'],
  );
});

test('an edge that nobody ever looks at is forgotten as well', (t) => {
  const clock = clockAt();
  const map = new TrafficMap(clock);
  map.add([flow()]);
  map.sweep();
  t.is(map.size, 1);
  clock.advance(10 * MINUTE + 1);
  map.sweep();
  t.is(map.size, 0);
});

test('edges are bounded, and it is said that some are left out', (t) => {
  const clock = clockAt();
  const map = new TrafficMap(clock, { most: 10 });
  for (let at = 0; at < 50; at += 1) map.add([flow({ destination: party('shop', `server-${at}`) })]);
  t.is(map.edges([]).length, 10);
  t.true(map.isCut);
  clock.advance(11 * MINUTE);
  map.add([flow({ destination: party('shop', 'late') })]);
  t.deepEqual(
    map.edges([]).map(({ edge }) => edge.id),
    ['shop/web>shop/late'],
    'idle ones make room',
  );
  t.false(map.isCut);
});

/** A writer of series over its own memory. */
function writerOf(series: LiveSeries, kind: 'kernel' | 'tunnel') {
  const cells = new Float64Array(8 * CELLS_OF_A_SLOT);
  const passed: string[] = [];
  const next = {
    source: () => ({
      added: (slot: number) => void passed.push(`added ${slot}`),
      idle: (slot: number) => void passed.push(`idle ${slot}`),
      gone: () => void passed.push('gone'),
    }),
  };
  const source = series.reader(next, kind).source(cells, () => undefined);
  const count = (slot: number, cell: keyof typeof SERIES_CELL, by: number): void => {
    const at = slot * CELLS_OF_A_SLOT + SERIES_CELL[cell];
    cells[at] = (cells[at] ?? 0) + by;
  };
  return { source, count, passed };
}

test('a long transfer is on the map while it lasts, although no connection has ended', (t) => {
  const clock = clockAt();
  const series = new LiveSeries(clock);
  const { source, count } = writerOf(series, 'tunnel');
  source.added(0, seriesLabels(flow(), '-', 'kernel'));
  count(0, 'opened', 1);
  t.like(series.edges()[0], { open: 1, bytesPerSecond: 0, direction: 'outbound' });
  clock.advance(10_000);
  count(0, 'received', 5_000_000);
  const [edge] = new TrafficMap(clock).edges(series.edges());
  t.like(edge, {
    isFromHere: true,
    edge: { id: 'shop/web>shop/cart', open: 1, bytesPerSecond: 500_000, health: 'good' },
  });
  t.is(series.edges()[0]?.bytesPerSecond, 500_000, 'asked again at once, it says the same');
});

test('totals never fall: not when a slot is freed, nor when a writer ends', (t) => {
  const series = new LiveSeries(clockAt());
  const tunnel = writerOf(series, 'tunnel');
  const kernel = writerOf(series, 'kernel');
  tunnel.source.added(0, seriesLabels(flow(), '-', 'kernel'));
  tunnel.source.added(1, seriesLabels(flow({ destination: undefined, security: 'none' }), '-', 'kernel'));
  kernel.source.added(0, seriesLabels(flow({ security: 'kernel' }), '-', 'mutual_tls'));
  tunnel.count(0, 'opened', 3);
  tunnel.count(0, 'sent', 10);
  tunnel.count(1, 'opened', 2);
  kernel.count(0, 'opened', 5);
  kernel.count(0, 'closed', 4);
  const before = series.totals();
  t.deepEqual(before.opened, { kernel: 5, tunnel: 3, plain: 0, passthrough: 2 });
  t.is(before.open, 6);
  tunnel.source.idle(0);
  t.deepEqual(series.totals(), before);
  tunnel.source.gone();
  kernel.source.gone();
  t.deepEqual(series.totals(), { ...before, open: 0 }, 'and nothing is open');
  t.deepEqual(tunnel.passed, ['added 0', 'added 1', 'idle 0', 'gone'], 'the reader is told everything');
});

test('what one slot has opened and another closed is not open, whichever of them is freed first', (t) => {
  const clock = clockAt();
  const series = new LiveSeries(clock);
  const { source, count } = writerOf(series, 'tunnel');
  source.added(0, seriesLabels(flow(), '-', 'kernel'));
  source.added(1, seriesLabels(flow(), 'CONNECT', 'kernel'));
  count(0, 'opened', 8);
  count(0, 'closed', 2);
  count(1, 'closed', 5);
  t.is(series.edges()[0]?.open, 1);
  source.idle(1);
  clock.advance(5_000);
  t.is(series.edges()[0]?.open, 1);
  t.is(series.totals().open, 1);
});

test('samples are rates since the one before, and an hour of them is kept', (t) => {
  const samples = new Samples();
  const totals = (count: number) => ({
    opened: { kernel: count, tunnel: 0, plain: 0, passthrough: 0 },
    ...{ open: 2, failed: 0, bytesSent: count * 10, bytesReceived: 0 },
  });
  for (let at = 0; at <= 730; at += 1) {
    if (at === 730) samples.add([flow({ connectMs: 4 }), flow({ ended: 'policy-denied' })]);
    samples.take(totals(at * 50), START + at * 5_000);
  }
  const read = samples.read();
  t.is(read.length, 720);
  t.true(read.every(({ at }, index) => index === 0 || at - (read[index - 1]?.at ?? 0) === 5_000));
  t.like(read.at(-1), { opened: { kernel: 10 }, open: 2, bytesSent: 100, denied: 0.2 });
  t.is(read[0]?.connectP50Ms, undefined);
  t.true((read.at(-1)?.connectP50Ms ?? 0) > 1);
});

test('policies: who allowed, who denied and when, and what a dry run would have done', (t) => {
  const tally = new PolicyTally();
  const decision = (allowed: boolean, policy: 'shop/a' | undefined) => ({ allowed, policy, reason: '', text: '' });
  tally.add([
    flow({ decision: decision(true, 'shop/a') }),
    flow({ decision: decision(false, 'shop/a'), endedAt: START + 1 }),
    flow({ decision: decision(true, undefined), dryRun: [{ policy: 'shop/dry', would: 'not-allow' }] }),
    flow({ dryRun: [{ policy: 'shop/dry', would: 'allow' }] }),
  ]);
  t.deepEqual(tally.of('shop/a'), { allowed: 1, denied: 1, wouldDeny: 0, lastDenied: START + 1 });
  t.is(tally.of('shop/dry').wouldDeny, 1);
  tally.keep(new Set(['shop/dry']));
  t.is(tally.of('shop/a').allowed, 0);
});

test('pods: each its own, and one that has left is forgotten', (t) => {
  const clock = clockAt();
  const rates = new PodRates(clock);
  rates.add([...times(60, flow()), flow({ pod: 2n as NetnsCookie, ended: 'dial-refused' })]);
  t.like(rates.of(1n as NetnsCookie), { openedPerSecond: 1, bytesPerSecond: 1_000, failedPerSecond: 0 });
  t.true(rates.of(2n as NetnsCookie).failedPerSecond > 0);
  rates.keep(new Set([2n as NetnsCookie]));
  t.is(rates.of(1n as NetnsCookie).openedPerSecond, 0);
});
