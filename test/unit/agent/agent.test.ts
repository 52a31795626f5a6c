import { fork } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Agent, type AgentDeps } from '../../../src/agent/agent.ts';
import {
  callAgent,
  claimRunDirectory,
  NodePolicy,
  type StatusReply,
  systemClock,
  systemDirectories,
} from '../../../src/agent/index.ts';
import { ReadModel } from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { LogLevels, openMetrics, silentLog } from '../../../src/telemetry/index.ts';
import { FakePodKernel } from '../../contract/fakes/pod-kernel.ts';
import { pod } from '../../contract/fakes/pods.ts';
import { FakeTunnel } from '../../contract/fakes/tunnel.ts';

const uid = process.geteuid?.() ?? 0;

function runPath(t: ExecutionContext): string {
  const parent = mkdtempSync(join(tmpdir(), 'culvert-run-'));
  t.teardown(() => rmSync(parent, { recursive: true }));
  return join(parent, 'run');
}

type Mesh = NonNullable<AgentDeps['mesh']>;
type Path = NonNullable<AgentDeps['kernelPath']>;

function setUp(
  run: string,
  kernel = new FakePodKernel(),
  bootId = 'boot-1',
  mesh?: Mesh,
  policy?: NonNullable<AgentDeps['policy']>,
  kernelPath?: Path,
  more: Partial<AgentDeps> = {},
) {
  const tunnel = new FakeTunnel();
  const log = silentLog();
  const claimed = claimRunDirectory(run, uid);
  const agent = new Agent(
    {
      kernel: {
        prepare: (each) => kernel.prepare(each),
        capture: (each, cookie) => kernel.capture(each, cookie),
        release: (cookie) => kernel.release(cookie),
        close: (cookie) => kernel.close(cookie),
        check: (each, cookie) => kernel.check(each, cookie),
        captured: () => kernel.captured(),
        refuseAll: () => kernel.refuseAll(),
        peerUid: () => uid,
        faults: () => [],
        mend: () => undefined,
        sweep: () => undefined,
        events: () => [],
        counts: () => [{ cookie: kernel.captured()[0] ?? (1n as never), reason: 'captured_outbound', count: 3 }],
      },
      tunnel,
      ...(mesh === undefined ? {} : { mesh }),
      ...(policy === undefined ? {} : { policy }),
      ...(kernelPath === undefined ? {} : { kernelPath }),
      ...more,
      clock: systemClock,
      directories: systemDirectories(log),
      log,
      metrics: openMetrics({ process: false }),
    },
    { run: claimed, bootId, version: '0.0.1', uid, drainMs: 50 },
  );
  return { agent, kernel, tunnel, path: claimed.socket };
}

test('serves requests from enrolment to metrics, and stops clean', async (t) => {
  const run = runPath(t);
  const { agent, kernel, tunnel, path } = setUp(run);
  const cookie = kernel.addNamespace('/run/netns/a', 5n);
  t.is(agent.state().kind, 'new');
  await agent.start();
  t.is(agent.state().kind, 'serving');
  t.deepEqual(readdirSync(run).sort(), ['agent.lock', 'agent.sock', 'state.json']);
  t.deepEqual(await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path }), {
    ok: true,
    result: 'enrolled',
    netnsCookie: '5',
  });
  tunnel.connect(cookie);
  const { status } = await callAgent<'status'>({ method: 'status' }, { path });
  t.like(status.agent, { version: '0.0.1', state: 'serving', pid: process.pid });
  t.like(status.pods[0], { uid: 'uid-a', path: 'enrolled', netnsCookie: '5', openConnections: 1 });
  t.like(status.workers[0], { eventLoopDelayMs: { p50: 1, p99: 2, max: 3 } });
  t.like(status.totals, { bytesFromClients: 4, bytesFromServers: 5 });
  t.deepEqual(status.paths, tunnel.status().paths);
  t.deepEqual(status.sessions, { open: 6, opened: 7, handshakesFailed: 8 });
  const { metrics } = await callAgent<'metrics'>({ method: 'metrics' }, { path });
  for (const line of [
    'culvert_enrolled_pods 1',
    'culvert_connections_open 1',
    'culvert_kernel_events_total{reason="captured_outbound"} 3',
    'culvert_relayed_bytes_total{from="client"} 4',
    'culvert_relayed_bytes_total{from="server"} 5',
    'culvert_connections_path_total{direction="outbound",path="passthrough"} 1',
    'culvert_connections_path_total{direction="inbound",path="tunnel"} 0',
    'culvert_tunnel_sessions_open 6',
    'culvert_tunnel_sessions_opened_total 7',
    'culvert_tunnel_handshakes_failed_total 8',
  ])
    t.true(metrics.includes(line), line);
  await agent.stop();
  t.is(agent.state().kind, 'stopped');
  t.deepEqual(tunnel.calls.at(-1), 'shutdown 50');
  t.true(kernel.pins.has(cookie), 'what is captured stays captured');
  t.false(existsSync(path));
});

/** A mesh of which nothing is known, with its calls in the order of the tunnel's. */
function strangeMesh(calls: string[]): Mesh {
  return {
    start: () => void calls.push('mesh start'),
    stop: () => void calls.push('mesh stop'),
    status: () => ({
      node: 'n1',
      connected: false,
      since: '2026-01-01T00:00:00.000Z',
      reason: 'connect ENOENT',
      workloads: 0,
      services: 0,
      policies: 0,
      unknownPolicies: [],
      partialPolicies: [],
      certificates: [],
    }),
  };
}

test('serves requests although nothing of the mesh is known, and says so', async (t) => {
  const run = runPath(t);
  const { agent, kernel, path } = setUp(run, undefined, undefined, strangeMesh([]));
  kernel.addNamespace('/run/netns/a', 5n);
  await agent.start();
  t.like(await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path }), { result: 'enrolled' });
  const { status } = await callAgent<'status'>({ method: 'status' }, { path });
  t.deepEqual(status.mesh, strangeMesh([]).status());
  await agent.stop();
});

test('without a control process there is no mesh in its status', async (t) => {
  const { agent, path } = setUp(runPath(t));
  await agent.start();
  t.is((await callAgent<'status'>({ method: 'status' }, { path })).status.mesh, null);
  await agent.stop();
});

test('asked about policy without a control process, it says why it cannot answer', async (t) => {
  const { agent, path } = setUp(runPath(t));
  await agent.start();
  const question = { method: 'policy-test', from: 'none', to: 'shop/web-0:80', explain: false } as const;
  await t.throwsAsync(callAgent<'policy-test'>(question, { path }), { code: 'NO_MESH', message: /--control/ });
  await t.throwsAsync(callAgent<'recent-flows'>({ method: 'recent-flows', uid: 'uid-a' }, { path }), {
    code: 'NO_MESH',
  });
  await agent.stop();
});

test('tells of the flows of its own pods only', async (t) => {
  const mesh = new ReadModel();
  const asked: unknown[] = [];
  const flows = {
    of: (cookie: bigint) => {
      asked.push(cookie);
      return [];
    },
  };
  const policy = new NodePolicy({ mesh, book: new PolicyBook(mesh), flows });
  const { agent, kernel, path } = setUp(runPath(t), undefined, undefined, undefined, policy);
  kernel.addNamespace('/run/netns/a', 5n);
  await agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path });
  for (const uid of ['uid-a', 'uid-b'])
    t.deepEqual((await callAgent<'recent-flows'>({ method: 'recent-flows', uid }, { path })).recent.flows, []);
  t.deepEqual(asked, [5n]);
  const question = { method: 'policy-test', from: 'none', to: 'shop/web-0:80', explain: false } as const;
  t.is((await callAgent<'policy-test'>(question, { path })).answer.reason, 'mesh-unknown');
  await agent.stop();
});

test('follows the mesh from before its first pod is served until the last connection has ended', async (t) => {
  const run = runPath(t);
  const first = setUp(run);
  first.kernel.addNamespace('/run/netns/a', 5n);
  await first.agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path: first.path });
  await first.agent.stop();
  const calls: string[] = [];
  const { agent, tunnel } = setUp(run, new FakePodKernel(first.kernel), undefined, strangeMesh(calls));
  tunnel.calls = calls;
  await agent.start();
  await agent.stop();
  t.deepEqual(calls, ['mesh start', 'serve 5', 'shutdown 50', 'mesh stop']);
});

/** A kernel path with a few numbers, with its calls in the order of the mesh's. */
function numberedPath(calls: string[]): Path {
  return {
    start: () => void calls.push('path start'),
    stop: () => void calls.push('path stop'),
    podsKnown: () => void calls.push('pods known'),
    podChanged: (each, cookie, state) => void calls.push(`${each.uid} ${cookie} ${state}`),
    status: () => ({
      ...{ state: 'on', error: undefined, verdicts: 1, services: 2, flows: 3, beats: 4 },
      ...{ kubelet: '/kubelet', unknownPolicies: [] },
    }),
    totals: () => ({
      requests: { given: 5, denied: 6 },
      decisions: { allowed: 1, 'not-allowed': 2 },
      dryRun: { denies: 1, allows: 2 },
      closed: 7,
      ended: { outbound: 8, inbound: 9 },
    }),
  };
}

test('voids what was vouched for before it hears of the mesh, and judges what lives when all pods are known', async (t) => {
  const run = runPath(t);
  const calls: string[] = [];
  const kernelPath = numberedPath(calls);
  const { agent, kernel, path } = setUp(run, undefined, undefined, strangeMesh(calls), undefined, kernelPath);
  kernel.addNamespace('/run/netns/a', 5n);
  await agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path });
  t.deepEqual(calls, ['path start', 'mesh start', 'pods known', 'uid-a 5 enrolled']);
  const { status } = await callAgent<'status'>({ method: 'status' }, { path });
  t.deepEqual(status.kernelPath, {
    state: 'on',
    verdicts: 1,
    services: 2,
    flows: 3,
    heartbeats: 4,
    kubelet: '/kubelet',
  });
  const { metrics } = await callAgent<'metrics'>({ method: 'metrics' }, { path });
  for (const line of [
    'culvert_kernel_path_on 1',
    'culvert_kernel_path_verdicts 1',
    'culvert_kernel_path_services 2',
    'culvert_kernel_path_flows 3',
    'culvert_kernel_path_requests_total{result="given"} 5',
    'culvert_connections_path_total{direction="outbound",path="kernel"} 8',
    'culvert_connections_path_total{direction="inbound",path="kernel"} 9',
    'culvert_policy_decisions_total{reason="allowed"} 10',
    'culvert_policy_decisions_total{reason="denied"} 10',
    'culvert_policy_decisions_total{reason="not-allowed"} 2',
    'culvert_policy_dry_run_total{result="deny"} 12',
    'culvert_policy_dry_run_total{result="allow"} 14',
    'culvert_policy_closed_connections_total{path="tunnel"} 13',
    'culvert_policy_closed_connections_total{path="kernel"} 7',
    'culvert_policies{state="known"} 0',
    'culvert_policies{state="unknown"} 0',
  ])
    t.true(metrics.includes(`${line}\n`), line);
  await agent.stop();
  t.deepEqual(calls.slice(-2), ['mesh stop', 'path stop']);
});

test('an agent that cannot start follows no mesh', async (t) => {
  const run = runPath(t);
  const calls: string[] = [];
  const { agent } = setUp(run, undefined, undefined, strangeMesh(calls));
  rmSync(run, { recursive: true });
  await t.throwsAsync(agent.start());
  t.deepEqual(calls, ['mesh start', 'mesh stop']);
});

test('stopping twice is stopping once', async (t) => {
  const { agent, tunnel } = setUp(runPath(t));
  await agent.start();
  await Promise.all([agent.stop(), agent.stop()]);
  t.is(tunnel.calls.filter((call) => call.startsWith('shutdown')).length, 1);
});

test('an agent that is started again serves its pods before its socket opens', async (t) => {
  const run = runPath(t);
  const first = setUp(run);
  const cookie = first.kernel.addNamespace('/run/netns/a', 5n);
  await first.agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path: first.path });
  await first.agent.stop();

  const second = setUp(run, new FakePodKernel(first.kernel));
  const serve = second.tunnel.serve.bind(second.tunnel);
  second.tunnel.serve = async (each, prepared) => {
    t.false(existsSync(second.path));
    await serve(each, prepared);
  };
  await second.agent.start();
  t.true(second.tunnel.served.has(cookie));
  const { status } = await callAgent<'status'>({ method: 'status' }, { path: second.path });
  t.deepEqual(
    status.pods.map(({ uid: each, path }) => [each, path]),
    [['uid-a', 'enrolled']],
  );
  await second.agent.stop();
});

test('pods that nobody remembers stay captured and are told of, until they are enrolled again', async (t) => {
  const run = runPath(t);
  const first = setUp(run);
  const cookie = first.kernel.addNamespace('/run/netns/a', 5n);
  await first.agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path: first.path });
  await first.agent.stop();
  writeFileSync(join(run, 'state.json'), 'rotten');

  const second = setUp(run, new FakePodKernel(first.kernel));
  await second.agent.start();
  const before = await callAgent<'status'>({ method: 'status' }, { path: second.path });
  t.deepEqual([before.status.pods, before.status.unclaimed], [[], ['5']]);
  t.true(second.kernel.pins.has(cookie));
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path: second.path });
  const after = await callAgent<'status'>({ method: 'status' }, { path: second.path });
  t.deepEqual([after.status.pods.length, after.status.unclaimed], [1, []]);
  await second.agent.stop();
});

test('an agent that cannot open its socket gives its run directory up', async (t) => {
  const run = runPath(t);
  const first = setUp(run);
  rmSync(run, { recursive: true });
  await t.throwsAsync(first.agent.start(), { code: 'SOCKET_UNUSABLE' });
  t.is(first.agent.state().kind, 'failed');
  const second = setUp(run);
  await second.agent.start();
  await second.agent.stop();
});

test('a run directory belongs to one agent at a time, in this process', (t) => {
  const run = runPath(t);
  const claimed = claimRunDirectory(run, uid);
  t.is(statSync(run).mode & 0o777, 0o700);
  t.throws(() => claimRunDirectory(run, uid), { code: 'ALREADY_RUNNING', message: /--run/ });
  claimed.release();
  claimed.release();
  claimRunDirectory(run, uid).release();
});

test('a control process has a run directory as an agent has', (t) => {
  const run = runPath(t);
  const claimed = claimRunDirectory(run, uid, 'control');
  t.throws(() => claimRunDirectory(run, uid, 'control'), { code: 'ALREADY_RUNNING', message: /control process/ });
  t.deepEqual(readdirSync(run), ['control.lock']);
  claimed.release();
});

test('a run directory belongs to one agent at a time, among processes, and a killed one gives it up', async (t) => {
  const run = runPath(t);
  const script = join(run, '..', 'holder.mjs');
  const room = new URL('../../../src/agent/index.ts', import.meta.url);
  writeFileSync(
    script,
    `import { claimRunDirectory } from ${JSON.stringify(room.href)};
    globalThis.held = claimRunDirectory(process.argv[2], ${uid});
    process.on('message', () => {});
    process.send('held');`,
  );
  const holder = fork(script, [run], { execArgv: [] });
  await once(holder, 'message');
  t.throws(() => claimRunDirectory(run, uid), { code: 'ALREADY_RUNNING' });
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  t.notThrows(() => claimRunDirectory(run, uid).release());
});

test('a run directory that others can write to is refused', (t) => {
  const run = runPath(t);
  claimRunDirectory(run, uid).release();
  chmodSync(run, 0o777);
  t.throws(() => claimRunDirectory(run, uid), { code: 'RUN_UNUSABLE', message: /mode 0700/ });
});

for (const [owner, other] of [
  ['agent', 'control'],
  ['control', 'agent'],
] as const)
  test(`a run directory of the ${other} is refused to the ${owner}, and left as it is`, (t) => {
    const run = runPath(t);
    claimRunDirectory(run, uid, other).release();
    const { message } = t.throws(() => claimRunDirectory(run, uid, owner), { code: 'RUN_UNUSABLE' });
    t.true(message.includes(`${other}.lock`) && message.includes('--run'), message);
    t.deepEqual(readdirSync(run), [`${other}.lock`]);
    t.notThrows(() => claimRunDirectory(run, uid, other).release());
  });

for (const mode of [0o755, 0o711, 0o750])
  test(`a control process refuses a run directory of mode ${mode.toString(8)}`, (t) => {
    const run = runPath(t);
    mkdirSync(run);
    chmodSync(run, mode);
    t.throws(() => claimRunDirectory(run, uid, 'control'), { code: 'RUN_UNUSABLE', message: /mode 0700/ });
  });

test('a run directory that is a file, or too long for a socket, is refused', (t) => {
  const run = runPath(t);
  writeFileSync(run, '');
  t.throws(() => claimRunDirectory(run, uid), { code: 'RUN_UNUSABLE' });
  t.throws(() => claimRunDirectory(`/tmp/${'x'.repeat(100)}`, uid), { code: 'RUN_UNUSABLE', message: /shorter/ });
});

test("removing a run directory leaves what is not the agent's", async (t) => {
  const run = runPath(t);
  const { agent } = setUp(run);
  await agent.start();
  await agent.stop();
  writeFileSync(join(run, 'other'), '');
  claimRunDirectory(run, uid).remove();
  t.deepEqual(readdirSync(run), ['other']);
  rmSync(join(run, 'other'));
  claimRunDirectory(run, uid).remove();
  t.false(existsSync(run));
});

test('what runs beside the agent is there before it is ready, and until it has stopped', async (t) => {
  const told: string[] = [];
  const service = {
    start: async () => void told.push('started'),
    close: async () => void told.push('closed'),
  };
  const { agent, tunnel } = setUp(runPath(t), undefined, undefined, undefined, undefined, undefined, {
    services: [service],
  });
  tunnel.shutdown = async () => void told.push('drained');
  await agent.start();
  t.deepEqual(told, ['started']);
  await agent.stop();
  t.deepEqual(told, ['started', 'drained', 'closed']);
});

test('dumps what it knows of each of its pods, and tells of its node', async (t) => {
  const asked: unknown[] = [];
  const node = { uptime: 5 } as NonNullable<StatusReply['node']>;
  const { agent, kernel, path } = setUp(runPath(t), undefined, undefined, undefined, undefined, undefined, {
    report: {
      async *configDump(pods, pretty) {
        asked.push(pods, pretty);
        yield '{"workloads":';
        yield '[]}';
      },
      status: () => node,
    },
  });
  const cookie = kernel.addNamespace('/run/netns/a', 5n);
  await agent.start();
  await callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path });
  const { dump } = await callAgent<'config-dump'>({ method: 'config-dump' }, { path });
  t.deepEqual(dump, { workloads: [] });
  t.deepEqual(asked, [[{ pod: pod(), cookie, isServed: true }], false]);
  t.deepEqual(agent.status().node, node);
  t.deepEqual(agent.served(), { started: 1, stopped: 0 });
  await agent.stop();
});

test('the level of its log is told, set and put back', async (t) => {
  const levels = new LogLevels({ agent: { level: '' }, tunnel: { level: '' } }, 'info');
  const { agent, path } = setUp(runPath(t), undefined, undefined, undefined, undefined, undefined, { levels });
  await agent.start();
  const ask = async (level?: string, reset = false): Promise<string> =>
    (await callAgent<'log-level'>({ method: 'log-level', level, reset }, { path })).level;
  t.is(await ask(), 'info');
  t.is(await ask('tunnel=debug'), 'info,tunnel=debug');
  t.is(await ask(undefined, true), 'info');
  await t.throwsAsync(ask('loud'), { code: 'BAD_REQUEST', message: /^level: / });
  await agent.stop();
});
