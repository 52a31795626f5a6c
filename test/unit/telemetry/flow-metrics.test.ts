import test from 'ava';
import type { FlowRecord } from '../../../src/mesh/index.ts';
import { FlowMetrics, openMetrics, SeriesBudget } from '../../../src/telemetry/index.ts';
import { flowRecord, party } from './flow-records.ts';

function metricsOf(budget?: SeriesBudget) {
  const metrics = openMetrics({ process: false });
  const flows = new FlowMetrics(budget === undefined ? {} : { budget });
  metrics.add(flows.families);
  return { flows, text: () => metrics.text() };
}

const LABELS = 'reporter="source",path="tunnel",namespace="shop"';

test('a connection is one observation of each thing that was measured', async (t) => {
  const { flows, text } = metricsOf();
  flows.add([flowRecord({ durationMs: 1500, connectMs: 1.5, firstByteMs: 30, roundTripUs: 250, retransmits: 3 })]);
  const said = await text();
  for (const line of [
    `culvert_connection_duration_seconds_bucket{${LABELS},le="1"} 0`,
    `culvert_connection_duration_seconds_bucket{${LABELS},le="10"} 1`,
    `culvert_connection_duration_seconds_bucket{${LABELS},le="+Inf"} 1`,
    `culvert_connection_duration_seconds_sum{${LABELS}} 1.5`,
    `culvert_connection_duration_seconds_count{${LABELS}} 1`,
    `culvert_connect_duration_seconds_bucket{${LABELS},le="0.001"} 0`,
    `culvert_connect_duration_seconds_bucket{${LABELS},le="0.0025"} 1`,
    `culvert_first_byte_seconds_bucket{${LABELS},le="0.05"} 1`,
    `culvert_round_trip_seconds_bucket{${LABELS},le="0.00025"} 1`,
    `culvert_retransmits_total{${LABELS}} 3`,
  ])
    t.true(said.includes(`${line}\n`), line);
});

test('what was not measured is not observed, and an early end not at all', async (t) => {
  const { flows, text } = metricsOf();
  const nothing = { connectMs: undefined, firstByteMs: undefined, roundTripUs: undefined, retransmits: undefined };
  flows.add([flowRecord({ stage: 'early', ended: 'no-endpoint' }), flowRecord({ ...nothing, stage: 'addressed' })]);
  t.notRegex(await text(), /culvert_(connection_duration|connect_duration|first_byte|round_trip|retransmits)/);
});

test('the namespace is that of the pod of this node', async (t) => {
  const { flows, text } = metricsOf();
  flows.add([flowRecord({ direction: 'inbound' }), flowRecord({ source: undefined })]);
  const said = await text();
  t.true(
    said.includes(
      'culvert_connection_duration_seconds_count{reporter="destination",path="tunnel",namespace="store"} 1',
    ),
  );
  t.true(
    said.includes('culvert_connection_duration_seconds_count{reporter="source",path="tunnel",namespace="unknown"} 1'),
  );
});

for (const [ended, stage, by] of [
  ['clean', 'connected', undefined],
  ['reset-by-client', 'connected', 'client'],
  ['client-gone', 'addressed', 'client'],
  ['reset-by-server', 'connected', 'server'],
  ['peer-silent', 'connected', 'network'],
  ['server-lost', 'connected', 'network'],
  ['policy-changed', 'connected', 'agent'],
  ['drain-deadline', 'connected', 'agent'],
  ['dial-refused', 'addressed', undefined],
  ['policy-denied', 'addressed', undefined],
] satisfies Array<[string, FlowRecord['stage'], string | undefined]>)
  test(`an end that is ${ended} counts as reset by ${by ?? 'nobody'}`, async (t) => {
    const { flows, text } = metricsOf();
    flows.add([flowRecord({ ended, stage })]);
    const found = /culvert_connection_resets_total\{path="tunnel",namespace="shop",by="(\w+)"\} 1/.exec(
      await text(),
    )?.[1];
    t.is(found, by);
  });

test('of more than 200 namespaces the rest is other', async (t) => {
  const { flows, text } = metricsOf(new SeriesBudget(1_000_000));
  flows.add(Array.from({ length: 250 }, (_, index) => flowRecord({ source: party('web', `ns-${index}`) })));
  const counts = [
    ...(await text()).matchAll(/^culvert_connection_duration_seconds_count\{.*namespace="([^"]+)"\} (\d+)$/gm),
  ];
  t.is(counts.length, 201);
  t.is(counts.find(([, namespace]) => namespace === 'other')?.[2], '50');
});

test('what finds no room in the budget is other, and the budget holds', async (t) => {
  const budget = new SeriesBudget(1000);
  const { flows, text } = metricsOf(budget);
  flows.add(Array.from({ length: 100 }, (_, index) => flowRecord({ source: party('web', `ns-${index}`) })));
  const said = await text();
  const series = said.split('\n').filter((line) => /^culvert_(connect|first|round|retrans)/.test(line));
  t.is(series.length, budget.used);
  t.true(budget.used <= 1000);
  const counts = [...said.matchAll(/^culvert_connection_duration_seconds_count\{.*\} (\d+)$/gm)];
  t.is(
    counts.reduce((sum, [, count]) => sum + Number(count), 0),
    100,
  );
  t.true(budget.overflowed > 0);
});

test('what finds no room is said of once, however often it is counted, until it was idle', async (t) => {
  const budget = new SeriesBudget(1000);
  const { flows } = metricsOf(budget);
  const records = Array.from({ length: 100 }, (_, index) => flowRecord({ source: party('web', `ns-${index}`) }));
  flows.add(records);
  const { overflowed } = budget;
  t.true(overflowed > 0);
  flows.add(records);
  flows.add(records);
  t.is(budget.overflowed, overflowed);
  flows.sweep(performance.now() / 1000 + 601);
  flows.add(records);
  t.is(budget.overflowed, 2 * overflowed);
});

test('what is idle leaves, other does not', async (t) => {
  const budget = new SeriesBudget(1000);
  const { flows, text } = metricsOf(budget);
  flows.add(Array.from({ length: 100 }, (_, index) => flowRecord({ source: party('web', `ns-${index}`) })));
  flows.sweep(performance.now() / 1000 + 601);
  const left = [...(await text()).matchAll(/^culvert_connection_duration_seconds_count\{.*namespace="([^"]+)"/gm)];
  t.deepEqual(
    left.map(([, namespace]) => namespace),
    ['other'],
  );
  t.true(budget.evicted > 0);
});
