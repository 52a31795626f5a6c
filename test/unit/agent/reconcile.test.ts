import test from 'ava';
import type { Clock, DirectoryWatch, PodFollower } from '../../../src/agent/ports.ts';
import { Reconciler } from '../../../src/agent/reconcile.ts';
import type { SavedPod } from '../../../src/agent/state.ts';
import type { NetnsCookie } from '../../../src/mesh/index.ts';
import { openMetrics, silentLog } from '../../../src/telemetry/index.ts';
import { FakePodKernel } from '../../contract/fakes/pod-kernel.ts';
import { pod } from '../../contract/fakes/pods.ts';
import { FakeTunnel } from '../../contract/fakes/tunnel.ts';

class MemoryState {
  saved: readonly SavedPod[] = [];
  failures: Error[] = [];

  async save(snapshot: () => readonly SavedPod[]): Promise<void> {
    await Promise.resolve();
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    this.saved = snapshot();
  }
}

/** Time that only the test moves, and directories that only the test changes. */
class Hands implements Clock, DirectoryWatch {
  readonly watched = new Map<string, (name: string | undefined) => void>();
  tick: () => void = () => undefined;

  now(): number {
    return 0;
  }

  every(_ms: number, run: () => void): { stop(): void } {
    this.tick = run;
    return {
      stop: () => {
        this.tick = () => undefined;
      },
    };
  }

  watch(directory: string, changed: (name: string | undefined) => void): { close(): void } {
    this.watched.set(directory, changed);
    return { close: () => this.watched.delete(directory) };
  }
}

function setUp(kernel = new FakePodKernel(), state = new MemoryState(), follower?: PodFollower) {
  const tunnel = new FakeTunnel();
  const hands = new Hands();
  const metrics = openMetrics({ process: false });
  const reconciler = new Reconciler(
    { kernel, tunnel, state, follower, clock: hands, directories: hands, log: silentLog(), metrics },
    { stepDeadlineMs: 200 },
  );
  return { kernel, tunnel, state, hands, metrics, reconciler };
}

/** One namespace, /run/netns/a with cookie 1. */
function setUpWithNamespace() {
  const all = setUp();
  const cookie = all.kernel.addNamespace('/run/netns/a', 1n);
  return { ...all, cookie };
}

/** What a second agent finds after the first died. */
function restart(before: { kernel: FakePodKernel; state: MemoryState }) {
  return setUp(new FakePodKernel(before.kernel), before.state);
}

const boom = () => new Error('boom');

test('enrols by preparing, serving, capturing, and writing it down, in this order', async (t) => {
  const { kernel, tunnel, state, reconciler, cookie } = setUpWithNamespace();
  const order: string[] = [];
  const save = state.save.bind(state);
  state.save = async (snapshot) => {
    order.push(...kernel.calls, ...tunnel.calls, 'save');
    t.true(kernel.pins.has(cookie));
    await save(snapshot);
  };
  t.deepEqual(await reconciler.enrol(pod()), { result: 'enrolled', cookie });
  t.deepEqual(order, ['prepare /run/netns/a', 'capture 1', 'serve 1', 'save']);
  t.deepEqual(state.saved, [{ pod: pod(), cookie, withdrawing: false }]);
});

test('captures nothing before the tunnel serves', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  const release = tunnel.hold('serve');
  const enrolled = reconciler.enrol(pod());
  await new Promise(setImmediate);
  t.deepEqual(tunnel.calls, ['serve 1']);
  t.false(kernel.pins.has(cookie));
  release();
  await enrolled;
  t.true(kernel.pins.has(cookie));
});

test('enrolling the same pod again changes nothing', async (t) => {
  const { kernel, tunnel, reconciler } = setUpWithNamespace();
  await reconciler.enrol(pod());
  tunnel.calls.length = 0;
  t.is((await reconciler.enrol(pod())).result, 'unchanged');
  // Idempotent; see the next test.
  t.deepEqual(tunnel.calls, ['serve 1']);
  t.is(kernel.calls.filter((call) => call === 'capture 1').length, 1);
});

/** The listeners that the kernel room has opened at last are the ones that are served. */
function servesWhatIsOpen({ kernel, tunnel }: ReturnType<typeof setUp>, netns: string): boolean {
  const prepared = kernel.prepare(pod({ netns }));
  return tunnel.served.get(prepared.cookie)?.prepared === prepared;
}

test('listeners that died between the check and an enrolment are served again by it', async (t) => {
  const all = setUpWithNamespace();
  await all.reconciler.enrol(pod());
  all.kernel.check = () => {
    all.kernel.killListeners(all.cookie);
    return 'live';
  };
  t.is((await all.reconciler.enrol(pod())).result, 'unchanged');
  t.true(servesWhatIsOpen(all, '/run/netns/a'));
});

test("another pod's vain enrolment into a namespace with dead listeners leaves its owner served", async (t) => {
  const all = setUpWithNamespace();
  await all.reconciler.enrol(pod());
  all.kernel.killListeners(all.cookie);
  await t.throwsAsync(all.reconciler.enrol(pod({ uid: 'uid-b' })), { code: 'NETNS_TAKEN' });
  await all.reconciler.close();
  t.true(servesWhatIsOpen(all, '/run/netns/a'));
});

test('an enrolled pod whose listeners could be neither served nor given back is tried again', async (t) => {
  const { tunnel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  tunnel.fail('serve', boom(), boom());
  await t.throwsAsync(reconciler.enrol(pod()), { code: 'ENROL_FAILED' });
  t.like(reconciler.pods()[0], { kind: 'failed' });
  await reconciler.check();
  t.deepEqual(reconciler.pods(), [{ kind: 'enrolled', pod: pod(), cookie }]);
});

test('a pod with other exclusions is updated without being closed', async (t) => {
  const { kernel, state, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  const changed = pod({ excludeOutboundPorts: [25] });
  t.deepEqual(await reconciler.enrol(changed), { result: 'updated', cookie });
  t.deepEqual(kernel.pins.get(cookie), changed);
  t.deepEqual(state.saved[0]?.pod, changed);
  t.false(kernel.calls.includes('close 1'));
});

for (const [title, arrange, cause] of [
  ['preparing', ({ kernel }) => kernel.fail('prepare', boom()), 'prepare: boom'],
  ['serving', ({ tunnel }) => tunnel.fail('serve', boom()), 'serve: boom'],
  ['capturing', ({ kernel }) => kernel.fail('capture', boom()), 'capture: boom'],
  ['writing the state', ({ state }) => state.failures.push(boom()), 'write the state file: boom'],
] as Array<[string, (all: ReturnType<typeof setUpWithNamespace>) => void, string]>) {
  test(`a new pod whose ${title} fails leaves nothing behind, and can be enrolled again`, async (t) => {
    const all = setUpWithNamespace();
    arrange(all);
    await t.throwsAsync(all.reconciler.enrol(pod()), { code: 'ENROL_FAILED', message: `enrol uid-a: ${cause}` });
    t.deepEqual(all.kernel.open, []);
    t.is(all.kernel.pins.size, 0);
    t.is(all.tunnel.served.size, 0);
    t.deepEqual(all.reconciler.pods(), []);
    t.deepEqual(all.state.saved, []);
    t.is((await all.reconciler.enrol(pod())).result, 'enrolled');
  });

  test(`an enrolled pod whose ${title} fails in an update stays as it was`, async (t) => {
    const all = setUpWithNamespace();
    await all.reconciler.enrol(pod());
    arrange(all);
    await t.throwsAsync(all.reconciler.enrol(pod({ excludeInboundPorts: [9] })), { code: 'ENROL_FAILED' });
    t.deepEqual(all.kernel.pins.get(all.cookie), pod());
    t.deepEqual(all.tunnel.served.get(all.cookie)?.pod, pod());
    t.deepEqual(all.reconciler.pods(), [{ kind: 'enrolled', pod: pod(), cookie: all.cookie }]);
    t.is((await all.reconciler.enrol(pod())).result, 'unchanged');
  });
}

test('a failure while undoing does not hide the first one, and what is left is undone at the next check', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  kernel.fail('capture', boom());
  tunnel.fail('stopAccepting', new Error('second'));
  await t.throwsAsync(reconciler.enrol(pod()), { message: 'enrol uid-a: capture: boom' });
  // The tunnel may still use the namespace's descriptor, so it is not closed yet.
  t.deepEqual(kernel.open, [cookie]);
  t.like(reconciler.pods()[0], { kind: 'withdrawing', error: 'second' });
  await reconciler.check();
  t.deepEqual(kernel.open, []);
  t.deepEqual(reconciler.pods(), []);
});

test('a tunnel that does not answer fails the enrolment instead of holding it', async (t) => {
  const { kernel, tunnel, reconciler } = setUpWithNamespace();
  // The deadline keeps no process alive, so somebody must.
  const alive = setInterval(() => undefined, 1_000);
  t.teardown(() => clearInterval(alive));
  const release = tunnel.hold('serve');
  await t.throwsAsync(reconciler.enrol(pod()), { message: /serve: no answer within 200 ms/ });
  release();
  t.deepEqual(kernel.open, []);
});

test('a path that is no network namespace is refused with the cause', async (t) => {
  const { reconciler } = setUp();
  const error = await t.throwsAsync(reconciler.enrol(pod()), { code: 'ENROL_FAILED' });
  t.like(error?.cause, { code: 'NOT_A_NETNS' });
  t.deepEqual(reconciler.pods(), []);
});

test('a namespace belongs to one pod, whatever the path that leads to it', async (t) => {
  const { kernel, reconciler, cookie } = setUpWithNamespace();
  kernel.addNamespace('/proc/7/ns/net', 1n);
  await reconciler.enrol(pod());
  await t.throwsAsync(reconciler.enrol(pod({ uid: 'uid-b', netns: '/proc/7/ns/net' })), {
    code: 'NETNS_TAKEN',
    message: /pod uid-a; withdraw/,
  });
  t.deepEqual(kernel.pins.get(cookie), pod());
  t.deepEqual(kernel.open, [cookie]);
  t.is(reconciler.pods().length, 1);
});

test('of two pods that ask for one namespace at the same time, one gets it', async (t) => {
  const { kernel, reconciler, cookie } = setUpWithNamespace();
  const results = await Promise.allSettled([reconciler.enrol(pod()), reconciler.enrol(pod({ uid: 'uid-b' }))]);
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
  t.deepEqual(kernel.pins.get(cookie), pod());
});

test('requests for one pod are carried out one after the other', async (t) => {
  const { kernel, reconciler, cookie } = setUpWithNamespace();
  const results = await Promise.all([
    reconciler.enrol(pod()),
    reconciler.withdraw('uid-a'),
    reconciler.enrol(pod({ excludeOutboundPorts: [25] })),
    reconciler.withdraw('uid-a'),
    reconciler.enrol(pod()),
  ]);
  t.deepEqual(
    results.map((result) => (typeof result === 'string' ? result : result.result)),
    ['enrolled', 'withdrawn', 'enrolled', 'withdrawn', 'enrolled'],
  );
  t.deepEqual(kernel.pins.get(cookie), pod());
});

test('a pod that hangs does not hold the others', async (t) => {
  const { kernel, tunnel, reconciler } = setUpWithNamespace();
  kernel.addNamespace('/run/netns/b', 2n);
  const release = tunnel.hold('stopAccepting');
  await reconciler.enrol(pod());
  const hanging = reconciler.withdraw('uid-a');
  t.is((await reconciler.enrol(pod({ uid: 'uid-b', netns: '/run/netns/b' }))).result, 'enrolled');
  release();
  t.is(await hanging, 'withdrawn');
});

test('many pods at once are all enrolled and all written down', async (t) => {
  const { kernel, state, reconciler } = setUp();
  const pods = Array.from({ length: 250 }, (_, n) => pod({ uid: `uid-${n}`, netns: `/run/netns/${n}` }));
  for (const [n, { netns }] of pods.entries()) kernel.addNamespace(netns, BigInt(n + 1));
  await Promise.all(pods.map((each) => reconciler.enrol(each)));
  t.is(kernel.pins.size, 250);
  t.is(state.saved.length, 250);
});

test('withdraws by releasing, stopping, closing, and writing it down; open connections live on', async (t) => {
  const { kernel, tunnel, state, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  tunnel.connect(cookie);
  kernel.calls.length = 0;
  t.is(await reconciler.withdraw('uid-a'), 'withdrawn');
  t.deepEqual(kernel.calls, ['release 1', 'close 1']);
  t.is(tunnel.connections.get(cookie), 1);
  t.deepEqual(state.saved, []);
  t.deepEqual(reconciler.pods(), []);
});

test('withdrawing a pod that is not enrolled is no error', async (t) => {
  t.is(await setUp().reconciler.withdraw('uid-x'), 'unchanged');
});

test('a pod that the kernel does not release stays enrolled', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  kernel.fail('release', boom());
  await t.throwsAsync(reconciler.withdraw('uid-a'), { code: 'WITHDRAW_FAILED', message: /boom/ });
  t.true(kernel.pins.has(cookie));
  t.true(tunnel.served.has(cookie));
  t.is(await reconciler.withdraw('uid-a'), 'withdrawn');
});

for (const [title, arrange] of [
  ['the tunnel does not stop', ({ tunnel }) => tunnel.fail('stopAccepting', boom())],
  ['the kernel does not close', ({ kernel }) => kernel.fail('close', boom())],
] as Array<[string, (all: ReturnType<typeof setUpWithNamespace>) => void]>) {
  test(`a withdrawal in which ${title} is finished at the next check`, async (t) => {
    const all = setUpWithNamespace();
    await all.reconciler.start([]);
    await all.reconciler.enrol(pod());
    arrange(all);
    await t.throwsAsync(all.reconciler.withdraw('uid-a'), { code: 'WITHDRAW_FAILED' });
    t.like(all.reconciler.pods()[0], { kind: 'withdrawing', error: 'boom' });
    t.deepEqual(all.kernel.open, [all.cookie]);
    await all.reconciler.check();
    t.deepEqual(all.reconciler.pods(), []);
    t.deepEqual(all.kernel.open, []);
    t.deepEqual(all.state.saved, []);
  });
}

test('a sandbox that was made again under another path is withdrawn before the new one is captured', async (t) => {
  const { kernel, tunnel, state, reconciler, cookie } = setUpWithNamespace();
  const next = kernel.addNamespace('/run/netns/b', 2n);
  await reconciler.enrol(pod());
  tunnel.connect(cookie);
  const moved = pod({ netns: '/run/netns/b' });
  t.deepEqual(await reconciler.enrol(moved), { result: 'enrolled', cookie: next });
  t.true(kernel.calls.indexOf('close 1') < kernel.calls.indexOf('capture 2'));
  t.deepEqual([...kernel.pins.keys()], [next]);
  t.deepEqual(kernel.open, [next]);
  t.is(tunnel.connections.get(cookie), 1);
  t.deepEqual(state.saved, [{ pod: moved, cookie: next, withdrawing: false }]);
});

test('a sandbox that was made again under the same path is cleaned up first', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  tunnel.connect(cookie);
  const next = kernel.addNamespace('/run/netns/a', 2n);
  t.deepEqual(await reconciler.enrol(pod()), { result: 'enrolled', cookie: next });
  t.deepEqual(kernel.open, [next]);
  t.false(tunnel.connections.has(cookie));
});

test('an old sandbox that cannot be withdrawn stays, and the new one is given up', async (t) => {
  const { kernel, reconciler, cookie } = setUpWithNamespace();
  kernel.addNamespace('/run/netns/b', 2n);
  await reconciler.enrol(pod());
  kernel.fail('release', boom());
  await t.throwsAsync(reconciler.enrol(pod({ netns: '/run/netns/b' })), { code: 'ENROL_FAILED' });
  t.deepEqual(kernel.open, [cookie]);
  t.like(reconciler.pods()[0], { kind: 'enrolled', cookie });
  t.is((await reconciler.enrol(pod({ uid: 'uid-b', netns: '/run/netns/b' }))).result, 'enrolled');
});

test('a pod whose namespace vanishes is cleaned up and its connections ended', async (t) => {
  const { kernel, tunnel, state, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  tunnel.connect(cookie);
  kernel.removeNamespace('/run/netns/a');
  await reconciler.check();
  t.deepEqual(reconciler.pods(), []);
  t.deepEqual(kernel.open, []);
  t.is(kernel.pins.size, 0);
  t.false(tunnel.connections.has(cookie));
  t.deepEqual(state.saved, []);
});

test('a vanished namespace is noticed by its directory, before the next check', async (t) => {
  const { kernel, hands, reconciler } = setUpWithNamespace();
  kernel.addNamespace('/run/netns/b', 2n);
  await reconciler.enrol(pod());
  await reconciler.enrol(pod({ uid: 'uid-b', netns: '/run/netns/b' }));
  kernel.calls.length = 0;
  kernel.removeNamespace('/run/netns/a');
  hands.watched.get('/run/netns')?.('a');
  await new Promise(setImmediate);
  await reconciler.close();
  t.deepEqual(
    reconciler.pods().map(({ pod: { uid } }) => uid),
    ['uid-b'],
  );
  t.false(kernel.calls.includes('check 2'));
});

test('a directory is watched only while a pod lies in it', async (t) => {
  const { kernel, hands, reconciler } = setUpWithNamespace();
  kernel.addNamespace('/var/run/b', 2n);
  await reconciler.enrol(pod());
  await reconciler.enrol(pod({ uid: 'uid-b', netns: '/var/run/b' }));
  t.deepEqual([...hands.watched.keys()].sort(), ['/run/netns', '/var/run']);
  await reconciler.withdraw('uid-a');
  t.deepEqual([...hands.watched.keys()], ['/var/run']);
  await reconciler.close();
  t.is(hands.watched.size, 0);
});

test('listeners that were opened again are served again', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  const before = tunnel.served.get(cookie)?.prepared.listeners;
  kernel.killListeners(cookie);
  await reconciler.check();
  const after = tunnel.served.get(cookie)?.prepared.listeners;
  t.truthy(after);
  t.notDeepEqual(after, before);
});

test('listeners that cannot be served again are tried until they are', async (t) => {
  const { kernel, tunnel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  kernel.killListeners(cookie);
  tunnel.fail('serve', boom(), boom());
  await reconciler.check();
  t.like(reconciler.pods()[0], { kind: 'failed', error: 'boom' });
  t.true(kernel.pins.has(cookie));
  await reconciler.check();
  await reconciler.check();
  t.like(reconciler.pods()[0], { kind: 'enrolled' });
});

test('an agent that is started again serves its pods before anything else', async (t) => {
  const before = setUpWithNamespace();
  await before.reconciler.enrol(pod());
  const after = restart(before);
  await after.reconciler.start(before.state.saved);
  t.deepEqual(after.reconciler.pods(), [{ kind: 'enrolled', pod: pod(), cookie: before.cookie }]);
  t.true(after.tunnel.served.has(before.cookie));
  t.is((await after.reconciler.enrol(pod())).result, 'unchanged');
});

test('an agent that is started again cleans up pods that vanished meanwhile', async (t) => {
  const before = setUpWithNamespace();
  before.kernel.addNamespace('/run/netns/b', 2n);
  await before.reconciler.enrol(pod());
  await before.reconciler.enrol(pod({ uid: 'uid-b', netns: '/run/netns/b' }));
  before.kernel.removeNamespace('/run/netns/a');
  before.kernel.addNamespace('/run/netns/b', 3n);
  const after = restart(before);
  await after.reconciler.start(before.state.saved);
  t.deepEqual(after.reconciler.pods(), []);
  t.is(after.kernel.pins.size, 0);
  t.deepEqual(after.kernel.open, []);
  t.deepEqual(after.state.saved, []);
});

for (const [title, arrange] of [
  ['prepared', ({ kernel }) => kernel.fail('prepare', boom())],
  ['served', ({ tunnel }) => tunnel.fail('serve', boom())],
  ['captured anew', ({ kernel }) => kernel.fail('capture', boom())],
] as Array<[string, (all: ReturnType<typeof setUp>) => void]>) {
  test(`a pod of an earlier agent that cannot be ${title} stays captured and written down, and is tried again`, async (t) => {
    const before = setUpWithNamespace();
    await before.reconciler.enrol(pod());
    const after = restart(before);
    arrange(after);
    await after.reconciler.start(before.state.saved);
    t.like(after.reconciler.pods()[0], { kind: 'failed', error: 'boom' });
    t.true(after.kernel.pins.has(before.cookie));
    t.is(after.state.saved.length, 1);
    await after.reconciler.check();
    t.like(after.reconciler.pods()[0], { kind: 'enrolled' });
  });
}

test('a request that fails for a pod of an earlier agent never opens it', async (t) => {
  const before = setUpWithNamespace();
  await before.reconciler.enrol(pod());
  const after = restart(before);
  after.tunnel.fail('serve', boom(), boom());
  await after.reconciler.start(before.state.saved);
  await t.throwsAsync(after.reconciler.enrol(pod()), { code: 'ENROL_FAILED' });
  t.true(after.kernel.pins.has(before.cookie));
  t.is((await after.reconciler.enrol(pod())).result, 'enrolled');
});

test('a withdrawal that was cut off by a crash is finished at the next start', async (t) => {
  const before = setUpWithNamespace();
  await before.reconciler.enrol(pod());
  const after = restart(before);
  await after.reconciler.start([{ pod: pod(), cookie: before.cookie, withdrawing: true }]);
  t.deepEqual(after.reconciler.pods(), []);
  t.is(after.kernel.pins.size, 0);
});

test('a state file that could not be written is written at the next check', async (t) => {
  const { state, reconciler } = setUpWithNamespace();
  await reconciler.enrol(pod());
  state.failures.push(boom());
  await t.throwsAsync(reconciler.withdraw('uid-a'), { code: 'WITHDRAW_FAILED' });
  t.is(state.saved.length, 1);
  await reconciler.check();
  t.deepEqual(state.saved, []);
});

test('after closing, requests are refused and what is captured stays captured', async (t) => {
  const { kernel, reconciler, cookie } = setUpWithNamespace();
  await reconciler.enrol(pod());
  await reconciler.close();
  await t.throwsAsync(reconciler.enrol(pod()), { code: 'SHUTTING_DOWN' });
  await t.throwsAsync(reconciler.withdraw('uid-a'), { code: 'SHUTTING_DOWN' });
  t.true(kernel.pins.has(cookie as NetnsCookie));
});

test('closing waits for what is under way', async (t) => {
  const { tunnel, reconciler } = setUpWithNamespace();
  const release = tunnel.hold('serve');
  const enrolled = reconciler.enrol(pod());
  await new Promise(setImmediate);
  const closed = reconciler.close();
  release();
  await closed;
  t.is((await enrolled).result, 'enrolled');
});

test('results are counted', async (t) => {
  const { kernel, metrics, reconciler } = setUpWithNamespace();
  await reconciler.enrol(pod());
  await reconciler.enrol(pod());
  await t.throwsAsync(reconciler.enrol(pod({ uid: 'x', netns: '/nowhere' })));
  kernel.removeNamespace('/run/netns/a');
  await reconciler.check();
  const text = await metrics.text();
  for (const line of [
    'culvert_enrolments_total{result="enrolled"} 1',
    'culvert_enrolments_total{result="unchanged"} 1',
    'culvert_enrolments_total{result="failed"} 1',
    'culvert_withdrawals_total{result="gone"} 1',
  ])
    t.true(text.includes(line), line);
});

/** Keeps what it is told of pods. */
function followed() {
  const told: string[] = [];
  const follower: PodFollower = {
    podChanged: (each, cookie, state) => void told.push(`${each.uid} ${cookie} ${state}`),
  };
  return { told, follower };
}

test('whoever follows the pods hears of each when it is served, and when it has left', async (t) => {
  const { told, follower } = followed();
  const { kernel, reconciler } = setUp(undefined, undefined, follower);
  kernel.addNamespace('/run/netns/a', 1n);
  await reconciler.enrol(pod());
  await reconciler.enrol(pod({ serviceAccount: 'other' }));
  await reconciler.withdraw('uid-a');
  t.deepEqual(told, ['uid-a 1 enrolled', 'uid-a 1 enrolled', 'uid-a 1 left', 'uid-a 1 left']);
});

test('whoever follows the pods hears of pods of an earlier agent before they are served', async (t) => {
  const before = setUpWithNamespace();
  await before.reconciler.enrol(pod());
  const { told, follower } = followed();
  const { reconciler } = setUp(new FakePodKernel(before.kernel), before.state, follower);
  await reconciler.start(before.state.saved);
  t.deepEqual(told, ['uid-a 1 captured', 'uid-a 1 enrolled']);
});

test('whoever follows the pods hears that one has left whose enrolment is undone', async (t) => {
  const { told, follower } = followed();
  const { kernel, state, reconciler } = setUp(undefined, undefined, follower);
  kernel.addNamespace('/run/netns/a', 1n);
  state.failures.push(boom());
  await t.throwsAsync(reconciler.enrol(pod()));
  t.deepEqual(told, ['uid-a 1 enrolled', 'uid-a 1 left']);
});

test('whoever follows the pods hears that a vanished one has left, and of a new namespace of the same pod', async (t) => {
  const { told, follower } = followed();
  const { kernel, reconciler } = setUp(undefined, undefined, follower);
  kernel.addNamespace('/run/netns/a', 1n);
  await reconciler.enrol(pod());
  kernel.addNamespace('/run/netns/b', 2n);
  await reconciler.enrol(pod({ netns: '/run/netns/b' }));
  kernel.removeNamespace('/run/netns/b');
  await reconciler.check();
  t.deepEqual(
    told.filter((each, index) => each !== told[index - 1]),
    ['uid-a 1 enrolled', 'uid-a 1 left', 'uid-a 2 enrolled', 'uid-a 2 left'],
  );
});
