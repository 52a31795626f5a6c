import test from 'ava';
import type { KernelInventory, NodeObserverDeps, StatusReply } from '../../../src/agent/index.ts';
import { NodeObserver } from '../../../src/agent/node-observer.ts';
import { policyConditions } from '../../../src/agent/policy-conditions.ts';
import type { AuthorizationPolicy, SpiffeId } from '../../../src/mesh/index.ts';
import { openMetrics } from '../../../src/telemetry/index.ts';

type PodStatus = StatusReply['pods'][number];

function podStatus(uid: string, netnsCookie: string, changes: Partial<PodStatus> = {}): PodStatus {
  return {
    uid,
    name: uid,
    namespace: 'shop',
    netns: `/run/netns/${uid}`,
    addresses: [],
    path: 'enrolled',
    netnsCookie,
    openConnections: 0,
    kernelEvents: {},
    uncaptured: {},
    ...changes,
  };
}

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId;

const kernel: KernelInventory = {
  programs: () => [
    { name: 'on_connect4', state: 'running' },
    { name: 'on_connect6', state: 'running' },
    { name: 'on_bind4', state: 'detached' },
  ],
  maps: () => [{ name: 'pods', entries: 3, capacity: 1024 }],
  lostRecords: () => ({ flows: 1, events: 2, alarms: 3 }),
  earlierConnections: () => new Map([[1n, 5]]),
};

async function setUp(changes: Partial<NodeObserverDeps> = {}) {
  const metrics = openMetrics({ process: false });
  let now = 0;
  const due: Array<() => void> = [];
  const status = {
    pods: [] as PodStatus[],
    unclaimed: [] as string[],
    workers: [
      {
        slot: 0,
        state: 'serving',
        openConnections: 0,
        restarts: 0,
        descriptorStops: 0,
        eventLoopDelayMs: { p50: 1, p99: 20, max: 30 },
      },
    ],
    mesh: null,
  };
  const observer = new NodeObserver({
    metrics,
    clock: {
      now: () => now,
      every: (_ms, run) => {
        due.push(run);
        return { stop: () => due.splice(due.indexOf(run), 1) };
      },
    },
    status: () => status,
    served: () => ({ started: 4, stopped: 1 }),
    kernel,
    tunnel: () => ({ socketsOpen: { source: 4, destination: 5 }, ejectedEndpoints: 6, recordsLost: 7 }),
    costs: { take: () => undefined, costs: () => ({ shop: { cpuSeconds: 1.5, memoryBytes: 2048 } }) },
    control: undefined,
    ...changes,
  });
  await observer.start();
  const read = async (line: string): Promise<string | undefined> => {
    now += 1000;
    const found = (await metrics.text()).split('\n').find((each) => each.startsWith(`${line} `));
    return found?.slice(line.length + 1);
  };
  const tick = (): void => {
    now += 1000;
    for (const run of due) run();
  };
  return { observer, status, read, tick, due };
}

test('pods that are not served are counted, those of nobody too', async (t) => {
  const { status, read } = await setUp();
  status.pods = [
    podStatus('a', '1'),
    podStatus('b', '2', { path: 'failed', error: 'boom' }),
    podStatus('c', '3', { path: 'enrolling' }),
  ];
  status.unclaimed = ['9'];
  t.is(await read('culvert_pods_not_served'), '2');
  t.is(await read('workload_manager_active_proxy_count'), '1');
  t.is(await read('workload_manager_pending_proxy_count'), '2');
  t.is(await read('workload_manager_proxies_started_total'), '4');
  t.is(await read('workload_manager_proxies_stopped_total'), '1');
});

test('kernel, workers and costs are told as they are', async (t) => {
  const { read } = await setUp();
  t.is(await read('culvert_programs{state="running"}'), '2');
  t.is(await read('culvert_programs{state="detached"}'), '1');
  t.is(await read('culvert_map_entries{map="pods"}'), '3');
  t.is(await read('culvert_ring_records_lost_total{ring="kernel-flows"}'), '1');
  t.is(await read('culvert_ring_records_lost_total{ring="kernel-events"}'), '5');
  t.is(await read('culvert_worker_delay_seconds{worker="0",quantile="0.99"}'), '0.02');
  t.is(await read('istio_tcp_sockets_open{reporter="source"}'), '4');
  t.is(await read('istio_tcp_sockets_open{reporter="destination"}'), '5');
  t.is(await read('culvert_endpoints_ejected'), '6');
  t.is(await read('culvert_ring_records_lost_total{ring="worker-flows"}'), '7');
  t.is(await read('culvert_tunnel_cpu_seconds_total{namespace="shop"}'), '1.5');
  t.is(await read('culvert_tunnel_memory_bytes{namespace="shop"}'), '2048');
});

test('what went past the mesh is kept when its pod has left between two readings', async (t) => {
  const { observer, status, read, tick, due } = await setUp();
  status.pods = [podStatus('a', '1', { uncaptured: { udp: 2 } })];
  t.is(await read('culvert_uncaptured_total{namespace="shop",reason="udp"}'), '2');
  t.is(await read('culvert_connections_before_enrolment{namespace="shop"}'), '5');
  status.pods = [podStatus('a', '1', { uncaptured: { udp: 7 } })];
  tick();
  status.pods = [];
  t.is(await read('culvert_uncaptured_total{namespace="shop",reason="udp"}'), '7');
  await observer.close();
  t.is(due.length, 0);
});

test('the link to the control process and the certificates are told as they are', async (t) => {
  const { status, read } = await setUp({
    control: {
      certificates: () => [
        {
          identity: IDENTITY,
          state: 'renewing',
          notBefore: 0,
          notAfter: 5_000,
          chain: undefined,
          roots: [],
          lastError: undefined,
        },
      ],
      traffic: () => ({ ends: { Error: 2 }, messages: { 'type.x': { messages: 3, bytes: 400 } } }),
    },
  });
  Object.assign(status, { mesh: { connected: true, lastUpdate: '1970-01-01T00:01:00.000Z' } });
  t.is(await read('culvert_control_connected'), '1');
  t.is(await read('culvert_control_last_update_timestamp_seconds'), '60');
  t.is(await read('istio_xds_connection_terminations_total{reason="Error"}'), '2');
  t.is(await read('istio_xds_message_total{url="type.x"}'), '3');
  t.is(await read('istio_xds_message_bytes_total{url="type.x"}'), '400');
  t.is(await read(`culvert_certificate_expiry_timestamp_seconds{identity="${IDENTITY}"}`), '5');
  t.is(await read('culvert_certificates{state="renewing"}'), '1');
});

const policy: AuthorizationPolicy = {
  namespace: 'shop',
  name: 'b',
  scope: 'namespace',
  action: 'allow',
  rules: [],
  dryRun: false,
};

test('of policies those are told that are not enforced as written: unknown, partial, dry runs, at most 100', (t) => {
  const policies = [
    policy,
    { ...policy, name: 'y', dryRun: true },
    { ...policy, name: 'x', partial: true as const, partialBecause: 'it allows less' },
    { ...policy, name: 'a', partial: true as const, dryRun: true },
  ];
  const told = policyConditions(policies, ['shop/lost']);
  t.deepEqual(
    told.map(({ policy: name, condition }) => `${name} ${condition}`),
    ['shop/lost unknown', 'shop/a partial', 'shop/x partial', 'shop/a dry-run', 'shop/y dry-run'],
  );
  t.is(told[2]?.text, 'it allows less');
  const many = Array.from({ length: 300 }, (_, index) => ({ ...policy, name: `p${index}`, dryRun: true }));
  t.is(policyConditions(many, []).length, 100);
});
