import { readFileSync } from 'node:fs';
import test from 'ava';
import type { StatusReply } from '../../../src/agent/index.ts';
import { main } from '../../../src/cli/main.ts';
import { formatStatus } from '../../../src/cli/status.ts';
import { problemsOf } from '../../../src/cli/status-problems.ts';
import { lasting, shortened, wrapped } from '../../../src/cli/words.ts';
import { capture } from './capture.ts';
import { serveAgent } from './fake-agent.ts';

const NOW = Date.parse('2026-01-02T00:00:00.000Z');
const HOUR = 3_600_000;

function at(ms: number): string {
  return new Date(NOW + ms).toISOString();
}

/** What people are shown: kept as they see it. */
function expected(name: string): string {
  return readFileSync(new URL(`expected/status-${name}.txt`, import.meta.url), 'utf8');
}

type PodStatus = StatusReply['pods'][number];
type Node = NonNullable<StatusReply['node']>;
type Mesh = NonNullable<StatusReply['mesh']>;

function podStatus(name: string, changes: Partial<PodStatus> = {}): PodStatus {
  return {
    uid: name,
    name,
    namespace: 'shop',
    netns: `/run/netns/${name}`,
    addresses: ['10.0.0.1'],
    path: 'enrolled',
    openConnections: 1,
    kernelEvents: {},
    uncaptured: {},
    ...changes,
  };
}

const node: Node = {
  uptime: 86_400,
  logLevel: 'info',
  preflight: { result: 'ok', checks: [{ check: 'kernel', result: 'ok', detail: '6.18.0' }] },
  kernel: {
    programs: [
      { name: 'on_connect4', state: 'running' },
      { name: 'on_connect6', state: 'running' },
    ],
    maps: [
      { name: 'pods', entries: 2, capacity: 1024 },
      { name: 'flows', entries: 0, capacity: 65536 },
    ],
  },
  series: { series: 120, budget: 20_000, evicted: 3, overflowed: 0 },
  ports: [{ name: 'admin', address: '127.0.0.1:15000', listening: true }],
  policyConditions: [{ policy: 'shop/try', condition: 'dry-run', text: 'evaluated and counted, never enforced' }],
};

const mesh: Mesh = {
  node: 'n1',
  connected: true,
  since: at(-24 * HOUR),
  lastUpdate: at(-HOUR),
  workloads: 12,
  services: 3,
  policies: 1,
  unknownPolicies: [],
  partialPolicies: [],
  certificates: [
    {
      identity: 'spiffe://cluster.local/ns/shop/sa/web',
      state: 'available',
      validFrom: at(-HOUR),
      expires: at(23 * HOUR),
    },
    {
      identity: 'spiffe://cluster.local/ns/shop/sa/db',
      state: 'available',
      validFrom: at(-2 * HOUR),
      expires: at(22 * HOUR),
    },
  ],
};

const well: StatusReply = {
  agent: { version: '1.2.3', pid: 7, state: 'serving', startedAt: at(-24 * HOUR) },
  pods: [podStatus('web-0', { openConnections: 3 }), podStatus('db-0')],
  unclaimed: [],
  workers: [
    {
      slot: 0,
      state: 'serving',
      openConnections: 4,
      restarts: 0,
      descriptorStops: 0,
      eventLoopDelayMs: { p50: 1, p99: 20.46, max: 30 },
    },
  ],
  totals: { accepted: 5, closed: 2, failed: 1, unattributed: 0, bytesFromClients: 77, bytesFromServers: 88 },
  ended: {},
  paths: { outbound: { tunnel: 3, plain: 1, passthrough: 0 }, inbound: { tunnel: 2, plain: 4 } },
  sessions: { open: 2, opened: 5, handshakesFailed: 0 },
  descriptors: { open: 12, limit: 1024 },
  mesh,
  kernelPath: { state: 'on', verdicts: 1, services: 2, flows: 3, heartbeats: 4, kubelet: '/k' },
  node,
};

const table = (status: StatusReply, allPods = false): string => formatStatus(status, { allPods, now: NOW });

test('a node that is well', (t) => {
  t.is(table(well), expected('well'));
});

test('a node that is well, with all its pods', (t) => {
  t.is(table(well, true), expected('well-with-pods'));
});

test('a node in trouble: what needs a look stands first', (t) => {
  const text = table({
    ...well,
    agent: { ...well.agent, state: 'draining' },
    pods: [
      podStatus('web-0', { uncaptured: { 'raw-socket': 2, udp: 1 } }),
      podStatus('db-0', { path: 'failed', error: 'listen EADDRINUSE', uncaptured: { 'excluded-outbound': 40 } }),
      podStatus('old-0', { path: 'withdrawing', error: 'a worker does not answer' }),
    ],
    unclaimed: ['9', '10'],
    workers: [
      ...well.workers,
      { ...LATE, slot: 1 },
      { ...LATE, slot: 2, state: 'paused' },
      { ...LATE, slot: 3, state: 'starting' },
    ],
    descriptors: { open: 1000, limit: 1024 },
    mesh: {
      ...mesh,
      connected: false,
      since: at(-2 * HOUR),
      reason: 'connect ENOENT /run/culvert-control/n1.sock',
      unknownPolicies: ['shop/lost'],
      certificates: [
        ...mesh.certificates,
        {
          identity: 'spiffe://cluster.local/ns/shop/sa/late',
          state: 'renewing',
          validFrom: at(-22 * HOUR),
          expires: at(2 * HOUR),
          lastError: 'the CA is away',
        },
        { identity: 'spiffe://cluster.local/ns/shop/sa/none', state: 'unavailable', lastError: 'refused' },
      ],
    },
    kernelPath: { state: 'failed', error: 'boom', verdicts: 0, services: 0, flows: 0, heartbeats: 4, kubelet: null },
    node: {
      ...node,
      preflight: {
        result: 'warning',
        checks: [{ check: 'other programs at our hooks', result: 'warning', detail: 'connect4: cil_sock4 (id 7)' }],
      },
      kernel: {
        programs: [{ name: 'on_connect4', state: 'detached' }],
        maps: [{ name: 'flows', entries: 60_000, capacity: 65_536 }],
      },
      series: { series: 20_000, budget: 20_000, evicted: 0, overflowed: 7 },
      ports: [
        {
          name: 'admin',
          address: '127.0.0.1:15000',
          listening: false,
          error: 'listen EADDRINUSE: address already in use 127.0.0.1:15000',
        },
      ],
      policyConditions: [
        { policy: 'shop/lost', condition: 'unknown', text: 'not known, so nobody is let in' },
        { policy: 'shop/odd', condition: 'partial', text: 'It allows less: spec.rules[0].to[0] needs a waypoint.' },
      ],
    },
  });
  t.is(text, expected('in-trouble'));
});

const LATE: StatusReply['workers'][number] = {
  slot: 1,
  state: 'serving',
  openConnections: 0,
  restarts: 2,
  descriptorStops: 1,
  eventLoopDelayMs: { p50: 10, p99: 80, max: 200 },
};

test('an agent without a mesh, and before anything is known of one', (t) => {
  t.is(table({ ...well, pods: [], mesh: null, kernelPath: null, node: null }), expected('without-mesh'));
  const { lastUpdate: _lastUpdate, ...unknown } = mesh;
  t.is(table({ ...well, mesh: { ...unknown, certificates: [] } }), expected('mesh-unknown'));
});

test('with 250 pods, each with something uncaptured and a third of them refused, it fits a screen and 120 columns', (t) => {
  const pods = Array.from({ length: 250 }, (_, index) =>
    podStatus(`a-rather-long-deployment-name-6d5f8c7b9d-${index}`, {
      namespace: 'a-namespace-of-a-team',
      addresses: ['10.244.100.100', 'fd00:10:244:100::100:100'],
      uncaptured: { udp: index, 'excluded-outbound': 1 },
      ...(index % 3 === 0 ? { path: 'failed' as const, error: 'listen EADDRINUSE' } : {}),
    }),
  );
  const certificates = pods.map(({ name }, index) => ({
    identity: `spiffe://cluster.local/ns/a-namespace-of-a-team/sa/${name}`,
    state: 'available',
    validFrom: at(-HOUR),
    expires: at(23 * HOUR + index),
  }));
  const text = table({ ...well, pods, mesh: { ...mesh, certificates } });
  const lines = text.split('\n');
  t.true(lines.length < 60, `${lines.length} lines`);
  t.true(Math.max(...lines.map((line) => line.length)) <= 120);
  t.regex(text, /pods: 166 enrolled, 84 failed/);
  t.regex(text.replaceAll('\n  ', ' '), /and 81 others are refused: listen EADDRINUSE/);
  t.regex(table({ ...well, pods }, true), /a-namespace-of-a-team\/a-rat.*-249 +failed/);
});

test('a certificate is nobody’s worry before less than a third of its life is left', (t) => {
  const worries = (left: number): number => {
    const certificates = [
      { identity: 'spiffe://x', state: 'renewing', validFrom: at(left - 3 * HOUR), expires: at(left) },
    ];
    return problemsOf({ ...well, mesh: { ...mesh, certificates } }, NOW).length;
  };
  t.is(worries(HOUR), 0);
  t.is(worries(HOUR - 1), 1);
  t.is(worries(-1), 1);
});

test('what others have named cannot steer a terminal', (t) => {
  const pods = [podStatus('web-0', { path: 'failed', error: 'bad\u001b[31m' })];
  t.false(table({ ...well, pods }).includes('\u001b'));
});

test('lengths of time, long names and long lines', (t) => {
  t.is(lasting(0), '0 s');
  t.is(lasting(-5), '0 s');
  t.is(lasting(61), '1 min 1 s');
  t.is(lasting(3_600), '1 h');
  t.is(lasting(3_601), '1 h');
  t.is(lasting(90_000), '1 d 1 h');
  t.is(shortened('short', 10), 'short');
  t.is(shortened('abcdefghijklmnop', 9), 'abc...nop');
  t.is(wrapped('one two three four', '  ', 9), 'one two\n  three\n  four');
});

test('status --json is what the agent says', async (t) => {
  const run = await serveAgent(t, () => ({ ok: true, status: well }));
  const { written, output } = capture();
  t.is(await main(['status', '--run', run, '--json'], output), 0);
  t.deepEqual(JSON.parse(written.out), well);
});

test('config-dump prints the agent’s', async (t) => {
  const run = await serveAgent(t, () => ({ ok: true, dump: { workloads: [] } }));
  const { written, output } = capture();
  t.is(await main(['config-dump', '--run', run], output), 0);
  t.is(written.out, '{\n  "workloads": []\n}\n');
});

test('log-level asks, sets and resets', async (t) => {
  const asked: unknown[] = [];
  const run = await serveAgent(t, (request) => {
    asked.push(request);
    return { ok: true, level: 'debug' };
  });
  const { written, output } = capture();
  t.is(await main(['log-level', '--run', run], output), 0);
  t.is(await main(['log-level', 'tunnel=debug', '--run', run], output), 0);
  t.is(await main(['log-level', '--reset', '--run', run], output), 0);
  t.is(await main(['log-level', 'debug', '--reset', '--run', run], output), 2);
  t.is(written.out, 'debug\ndebug\ndebug\n');
  t.deepEqual(asked, [
    { method: 'log-level', reset: false },
    { method: 'log-level', reset: false, level: 'tunnel=debug' },
    { method: 'log-level', reset: true },
  ]);
});

for (const place of ['0.0.0.0:15000', '10.0.0.1:15000', 'nowhere', '[::]:15000'])
  test(`an agent does not start with its admin port at ${place}`, async (t) => {
    const { written, output } = capture();
    t.is(await main(['agent', '--admin', place], output), 2);
    t.regex(written.error, /^culvert: --admin: /);
  });
