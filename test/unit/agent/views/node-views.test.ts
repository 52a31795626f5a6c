import test from 'ava';
import type { StatusReply } from '../../../../src/agent/index.ts';
import type { WorkerStatus } from '../../../../src/agent/ports.ts';
import { NodeViews, type NodeViewsDeps } from '../../../../src/agent/views/node-views.ts';

const START = 1_000_000_000;

const STATUS: StatusReply = {
  agent: { version: '0.1.0', pid: 1, state: 'serving', startedAt: new Date(START).toISOString() },
  pods: [
    {
      ...{ uid: 'uid-1', name: 'web-1', namespace: 'shop', netns: '/run/netns/a', addresses: ['10.0.0.1'] },
      ...{ path: 'failed', error: 'no such namespace', netnsCookie: '7', openConnections: 3 },
      ...{ kernelEvents: { udp: 2 }, uncaptured: { udp: 2 } },
    },
  ],
  unclaimed: ['9'],
  workers: [],
  totals: { accepted: 0, closed: 0, failed: 0, unattributed: 0, bytesFromClients: 0, bytesFromServers: 0 },
  ended: {},
  paths: { outbound: { tunnel: 0, plain: 0, passthrough: 0 }, inbound: { tunnel: 0, plain: 0 } },
  sessions: { open: 0, opened: 0, handshakesFailed: 0 },
  descriptors: { open: 5, limit: 100 },
  mesh: null,
  kernelPath: null,
  node: null,
};

function views(changes: Partial<NodeViewsDeps> = {}): { readonly views: NodeViews; tick(ms: number): void } {
  let now = START;
  let run = (): void => undefined;
  const opened = { kernel: 0, tunnel: 0, plain: 0, passthrough: 0 };
  const made = new NodeViews(
    {
      status: () => STATUS,
      alerts: () => [{ severity: 'critical', text: 'look' }],
      explain: () => ({ connects: true, steps: [], conclusion: 'It would connect.' }),
      flows: undefined,
      policies: undefined,
      identityOf: ({ addresses }) => `identity of ${addresses.join()}`,
      series: { totals: () => ({ opened, open: 1, failed: 0, bytesSent: 0, bytesReceived: 0 }), edges: () => [] },
      costs: { costs: () => ({ shop: { cpuSeconds: 2, memoryBytes: 10 } }) },
      use: () => new Map([['shop', { connections: 4, bytes: 5, open: 1 }]]),
      workers: () => [],
      memoryBytes: () => 77,
      clock: {
        now: () => now,
        every: (_ms, tick) => {
          run = tick;
          return { stop: () => undefined };
        },
      },
      ...changes,
    },
    { node: 'node-a' },
  );
  return {
    views: made,
    tick: (ms) => {
      now += ms;
      run();
    },
  };
}

test('the overview tells of the agent, its pods, and what needs a look', async (t) => {
  const { views: made, tick } = views();
  await made.start();
  tick(5_000);
  t.like(made.overview(), {
    node: 'node-a',
    state: 'serving',
    startedAt: START,
    pods: { enrolled: 1, notServed: 2 },
    control: null,
    alerts: [{ severity: 'critical', text: 'look' }],
    samples: [{ at: START + 5_000, open: 1 }],
  });
});

test('a pod is shown with its identity, why it is not served, and what went past the mesh', (t) => {
  t.deepEqual(views().views.pods(), [
    {
      ...{ uid: 'uid-1', name: 'web-1', namespace: 'shop', addresses: ['10.0.0.1'], state: 'failed' },
      ...{ error: 'no such namespace', identity: 'identity of 10.0.0.1', openConnections: 3 },
      ...{ openedPerSecond: 0, bytesPerSecond: 0, failedPerSecond: 0, uncaptured: { udp: 2 } },
    },
  ]);
});

test('a worker is shown with its share of a processor since the last look', async (t) => {
  let cpuSeconds = 10;
  const worker = (): WorkerStatus => ({
    ...{ slot: 1, state: 'serving', openConnections: 3, restarts: 0, descriptorStops: 0, heapBytes: 0, cpuSeconds },
    eventLoopDelayMs: { p50: 1, p99: 2, max: 3 },
  });
  const { views: made, tick } = views({ workers: () => [worker()] });
  await made.start();
  cpuSeconds += 2;
  tick(5_000);
  t.like(made.node(), {
    workers: [{ slot: 1, delayP99Ms: 2, cpuShare: 0.4 }],
    namespaces: [{ namespace: 'shop', cpuSeconds: 2, memoryBytes: 10, bytes: 5, connections: 4 }],
    memoryBytes: 77,
    descriptors: { open: 5, limit: 100 },
  });
});

test('the map is made once a second, however many ask for it', (t) => {
  const world = views();
  const first = world.views.map();
  t.is(world.views.map(), first);
  world.tick(999);
  t.is(world.views.map(), first);
  world.tick(1);
  t.not(world.views.map(), first);
});

test('without a control process there are no flows and no policies, and nothing fails', (t) => {
  const { views: made } = views();
  t.deepEqual(made.flows({ after: 4, limit: 10 }), { flows: [], next: 4, missed: 0 });
  t.deepEqual(made.policies(), []);
  t.deepEqual(made.map(), { nodes: [], edges: [], isCut: false });
  t.is(made.edge('a>b'), undefined);
});
