import test from 'ava';
import { FlowMetrics, openMetrics, SeriesBook } from '../../../src/telemetry/index.ts';

test('asks the sources whenever the metrics are read', async (t) => {
  const metrics = openMetrics({ process: false });
  let pods = 1;
  metrics.observe({ enrolledPods: () => pods, kernelEvents: () => ({ captured_outbound: pods * 10 }) });
  metrics.observe({ descriptors: () => ({ open: 3, limit: 9 }) });
  t.true((await metrics.text()).includes('culvert_enrolled_pods 1\n'));
  pods = 2;
  const text = await metrics.text();
  for (const line of [
    'culvert_enrolled_pods 2',
    'culvert_kernel_events_total{reason="captured_outbound"} 20',
    'culvert_descriptors_open 3',
    'culvert_descriptors_limit 9',
  ])
    t.true(text.includes(`${line}\n`), line);
});

test('of what nobody keeps there is no number', async (t) => {
  const text = await openMetrics({ process: false }).text();
  t.notRegex(text, /^culvert_kernel_path_verdicts [1-9]/m);
  t.notRegex(text, /^culvert_policies\{/m);
});

test("every family is culvert's own or has a name of the contract, and a help text that says whether it is stable", async (t) => {
  const metrics = openMetrics({ process: false, version: '1.2.3' });
  metrics.add(new SeriesBook().families);
  metrics.add(new FlowMetrics().families);
  const families = metrics.families();
  t.true(families.length > 50);
  for (const { name, type, help } of families) {
    t.regex(name, /^(culvert|istio|workload_manager)_/);
    t.is(name.endsWith('_total'), type === 'counter', name);
    t.regex(help, /\S/, name);
    const isTheirs = !name.startsWith('culvert_');
    t.is(help.endsWith('(unstable)'), isTheirs && !STABLE.has(name), name);
  }
  t.regex(await metrics.text(), /^istio_build\{component="ztunnel",tag="1.2.3"\} 1$/m);
});

/** Of wire contract, section 9.1. */
const STABLE = new Set([
  'istio_build',
  'istio_tcp_connections_opened_total',
  'istio_tcp_connections_closed_total',
  'istio_tcp_received_bytes_total',
  'istio_tcp_sent_bytes_total',
]);

test('a namespace too many is counted as other, and keeps the place that it has', async (t) => {
  const metrics = openMetrics({ process: false });
  let count = 300;
  metrics.observe({
    uncaptured: () => Object.fromEntries(Array.from({ length: count }, (_, index) => [`ns-${index}`, { udp: index }])),
  });
  const read = async (): Promise<Map<string, number>> =>
    new Map(
      [...(await metrics.text()).matchAll(/^culvert_uncaptured_total\{namespace="(.+)",reason="udp"\} (\d+)$/gm)].map(
        ([, namespace = '', value]) => [namespace, Number(value)],
      ),
    );
  const all = await read();
  t.is(all.size, 201);
  t.is(
    [...all.values()].reduce((sum, value) => sum + value, 0),
    (299 * 300) / 2,
  );
  count = 250;
  t.deepEqual([...(await read()).keys()], [...all.keys()]);
});

test('what a source tells of is exposed by its labels', async (t) => {
  const metrics = openMetrics({ process: false });
  metrics.observe({
    socketsOpen: () => ({ source: 2, destination: 3 }),
    controlMessages: () => ({ 'type.googleapis.com/istio.workload.Address': { messages: 4, bytes: 500 } }),
    control: () => ({ connected: true, lastUpdateAt: 1_700_000_000_500 }),
    certificates: () => [
      { identity: 'spiffe://a', state: 'available', expiresAt: 1_700_000_000_000 },
      { identity: 'spiffe://b', state: 'unavailable', expiresAt: undefined },
    ],
    kernelRecordsLost: () => ({ flows: 1, events: 2 }),
    maps: () => [{ name: 'verdicts', entries: 5, capacity: 9 }],
    tunnelCosts: () => ({ shop: { cpuSeconds: 1.5, memoryBytes: 2048 } }),
    workerDelay: () => [{ worker: 0, quantiles: { '0.99': 0.002 } }],
    proxies: () => ({ active: 1, pending: 2, started: 3, stopped: 4 }),
  });
  const text = await metrics.text();
  for (const line of [
    'istio_tcp_sockets_open{reporter="source"} 2',
    'istio_xds_message_total{url="type.googleapis.com/istio.workload.Address"} 4',
    'istio_xds_message_bytes_total{url="type.googleapis.com/istio.workload.Address"} 500',
    'culvert_control_connected 1',
    'culvert_control_last_update_timestamp_seconds 1700000000.5',
    'culvert_certificate_expiry_timestamp_seconds{identity="spiffe://a"} 1700000000',
    'culvert_certificates{state="unavailable"} 1',
    'culvert_ring_records_lost_total{ring="kernel-flows"} 1',
    'culvert_ring_records_lost_total{ring="kernel-events"} 2',
    'culvert_map_entries{map="verdicts"} 5',
    'culvert_map_capacity{map="verdicts"} 9',
    'culvert_tunnel_cpu_seconds_total{namespace="shop"} 1.5',
    'culvert_tunnel_memory_bytes{namespace="shop"} 2048',
    'culvert_worker_delay_seconds{worker="0",quantile="0.99"} 0.002',
    'workload_manager_active_proxy_count 1',
    'workload_manager_proxies_stopped_total 4',
  ])
    t.true(text.includes(`${line}\n`), line);
  t.notRegex(text, /ring="worker-flows"/, 'nobody tells of it');
});

test('two registries do not meet', async (t) => {
  const [one, other] = [openMetrics({ process: false }), openMetrics({ process: false })];
  one.enrolments.inc({ result: 'enrolled' });
  t.false((await other.text()).includes('result="enrolled"'));
});

test('a source that throws keeps its own family out, is counted, and hides no other', async (t) => {
  const metrics = openMetrics({ process: false });
  metrics.observe({
    workers: () => 2,
    enrolledPods: () => {
      throw new Error('gone');
    },
  });
  t.false((await metrics.text()).includes('culvert_enrolled_pods '));
  const text = await metrics.text();
  t.true(text.includes('culvert_workers 2'));
  t.regex(text, /culvert_metric_families_left_out_total [12]/);
});
