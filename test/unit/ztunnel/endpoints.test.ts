import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import type { Candidates } from '../../../src/ztunnel/outbound/candidates.ts';
import { EndpointCosts } from '../../../src/ztunnel/outbound/endpoints.ts';
import type { ProberData } from './endpoint-prober.ts';
import { seeded } from './mesh.ts';

const START = 1_000_000;

function candidatesOf(weights: readonly number[]): Candidates {
  return { keys: weights.map((_, index) => `10.0.0.${index}:80`), weights };
}

/** Workers that share their memory and their clock. */
function setUp(workers = 1, most?: number) {
  const clock = { now: START };
  const memory = EndpointCosts.allocate(workers, most, START);
  const make = (worker: number): EndpointCosts =>
    new EndpointCosts({ memory, worker, now: () => clock.now, random: seeded(worker + 1) });
  return { clock, memory, make, costs: make(0) };
}

/** How often each is chosen. `after`: what becomes of the connection. */
function chosen(
  costs: EndpointCosts,
  candidates: Candidates,
  times: number,
  after: (key: string, index: number) => void = () => {},
): number[] {
  const counts = candidates.keys.map(() => 0);
  for (let count = 0; count < times; count += 1) {
    const index = costs.choose(candidates);
    counts[index] = (counts[index] ?? 0) + 1;
    after(candidates.keys[index] ?? '', index);
  }
  return counts;
}

function fail(costs: EndpointCosts, key: string, times = 5): void {
  for (let count = 0; count < times; count += 1) {
    costs.started(key);
    costs.failed(key);
    costs.ended(key);
  }
}

function succeed(costs: EndpointCosts, key: string, ms = 1): void {
  costs.started(key);
  costs.connected(key, ms);
  costs.ended(key);
}

const [A, B, C, D] = ['10.0.0.0:80', '10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'] as const;

/** Whether each share is within a twentieth of the whole. */
function isAbout(counts: readonly number[], shares: readonly number[]): boolean {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts.every((count, index) => Math.abs(count / total - (shares[index] ?? 0)) < 0.05);
}

test('spreads evenly over endpoints that nothing is known of', (t) => {
  const counts = chosen(setUp().costs, candidatesOf([1, 1, 1, 1]), 4000);
  t.true(isAbout(counts, [0.25, 0.25, 0.25, 0.25]), `${counts}`);
});

test('chooses the only one there is, whatever is known of it', (t) => {
  const { costs } = setUp();
  fail(costs, A);
  t.is(costs.choose(candidatesOf([1])), 0);
});

test('spreads by weight over endpoints that are equally fast', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([6, 3, 1]), 10_000, (key) => succeed(costs, key));
  t.true(isAbout(counts, [0.6, 0.3, 0.1]), `${counts}`);
});

test('spreads connections that stay open by weight', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([6, 3, 1]), 2000, (key) => {
    costs.started(key);
    costs.connected(key, 1);
  });
  t.true(isAbout(counts, [0.6, 0.3, 0.1]), `${counts}`);
});

test('gives a fast endpoint of small weight at most twice its share', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([9, 1]), 10_000, (key, index) => succeed(costs, key, index === 1 ? 1 : 50));
  t.true((counts[1] ?? 0) > 1000 && (counts[1] ?? 0) <= 2000 * 1.05, `${counts}`);
});

test('prefers the faster of two', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([1, 1]), 1000, (key, index) => succeed(costs, key, index === 0 ? 50 : 5));
  t.true((counts[1] ?? 0) > 990, `${counts}`);
});

test('gives nothing to the slowest of many but a first try', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([1, 1, 1, 1]), 1000, (key, index) =>
    succeed(costs, key, index === 2 ? 100 : 5),
  );
  t.true((counts[2] ?? 0) <= 1, `${counts}`);
});

test('takes differences below a millisecond for none', (t) => {
  const { costs } = setUp();
  const counts = chosen(costs, candidatesOf([1, 1]), 2000, (key, index) =>
    succeed(costs, key, index === 0 ? 0.9 : 0.1),
  );
  t.true(isAbout(counts, [0.5, 0.5]), `${counts}`);
});

test('a slow connect counts at once', (t) => {
  const { costs } = setUp();
  for (let count = 0; count < 100; count += 1) {
    succeed(costs, A, 5);
    succeed(costs, B, 6);
  }
  succeed(costs, A, 200);
  const counts = chosen(costs, candidatesOf([1, 1]), 100);
  t.deepEqual(counts, [0, 100]);
});

test('a slow connect is forgotten slowly', (t) => {
  const { costs, clock } = setUp();
  succeed(costs, A, 200);
  const later = (seconds: number): number[] => {
    clock.now = START + seconds * 1000;
    succeed(costs, B, 5);
    return chosen(costs, candidatesOf([1, 1]), 100);
  };
  t.deepEqual(later(30), [0, 100]);
  t.deepEqual(later(60), [100, 0], 'tried again');
});

test('gives the next connection to whoever has fewer', (t) => {
  const { costs } = setUp();
  succeed(costs, A, 5);
  succeed(costs, B, 5);
  costs.started(A);
  costs.connected(A, 5);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 50), [0, 50]);
  costs.ended(A);
  costs.started(B);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 50), [50, 0]);
});

test('weighs a connection alike whatever all the weights are', (t) => {
  const { costs } = setUp();
  succeed(costs, A, 5);
  succeed(costs, B, 6);
  costs.started(A);
  for (const weight of [1, 1000]) t.deepEqual(chosen(costs, candidatesOf([weight, weight]), 50), [0, 50]);
});

test('gives a new endpoint one connection until it has been answered', (t) => {
  const { costs } = setUp();
  succeed(costs, A, 5);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 10), [0, 10]);
  costs.started(B);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 10), [10, 0]);
  costs.connected(B, 2);
  costs.ended(B);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 10), [0, 10]);
});

test('avoids what was tried while others are left', (t) => {
  const { costs } = setUp();
  for (const weights of [
    [1, 1, 1],
    [1000, 1000, 1],
  ]) {
    const candidates = candidatesOf(weights);
    for (let count = 0; count < 100; count += 1) t.is(costs.choose(candidates, new Set([A, B])), 2);
  }
  t.true([0, 1, 2].includes(costs.choose(candidatesOf([1, 1, 1]), new Set([A, B, C]))));
});

test('finds the only one of a thousand that was not tried', (t) => {
  const candidates = candidatesOf(new Array(1000).fill(1));
  const tried = new Set(candidates.keys.filter((_, index) => index !== 777));
  t.is(setUp().costs.choose(candidates, tried), 777);
});

test('endures four failures in a row, and ejects at the fifth', (t) => {
  const { costs } = setUp();
  const candidates = candidatesOf([1, 1, 1]);
  for (const key of [B, C]) succeed(costs, key, 1000);
  fail(costs, A, 4);
  t.true((chosen(costs, candidates, 300)[0] ?? 0) > 0);
  fail(costs, A, 1);
  t.is(chosen(costs, candidates, 300)[0], 0);
});

test('failures that are not in a row eject nobody', (t) => {
  const { costs } = setUp();
  for (const key of [B, C]) succeed(costs, key, 1000);
  for (let count = 0; count < 10; count += 1) {
    fail(costs, A, 4);
    succeed(costs, A);
  }
  t.true((chosen(costs, candidatesOf([1, 1, 1]), 300)[0] ?? 0) > 0);
});

test('a quick failure is not taken for a quick answer', (t) => {
  const { costs } = setUp();
  succeed(costs, B, 50);
  fail(costs, A, 1);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 100), [0, 100]);
});

/** The seconds after `from` at which an ejected A is given a connection, of the next `seconds`; each one fails. */
function probesWithin(costs: EndpointCosts, clock: { now: number }, seconds: number): number[] {
  const from = clock.now;
  const probes: number[] = [];
  for (let second = 1; second <= seconds; second += 1) {
    clock.now = from + second * 1000;
    chosen(costs, candidatesOf([1, 1, 1]), 20, (key) => {
      if (key !== A) return;
      probes.push(second);
      fail(costs, A, 1);
    });
  }
  return probes;
}

test('tries an ejected endpoint with one connection, after ever longer times, five minutes at most', (t) => {
  const { costs, clock } = setUp();
  fail(costs, A);
  const probes = probesWithin(costs, clock, 1300);
  const gaps = probes.map((second, index) => second - (probes[index - 1] ?? 0));
  t.is(gaps.length, 8, `${gaps}`);
  for (const [index, want] of [10, 20, 40, 80, 160, 300, 300, 300].entries())
    t.true(Math.abs((gaps[index] ?? 0) - want) <= want * 0.1 + 1, `${gaps}`);
});

test('a probe that succeeds brings the endpoint back, as if nothing had been', (t) => {
  const { costs, clock } = setUp();
  const candidates = candidatesOf([1, 1, 1]);
  fail(costs, A);
  probesWithin(costs, clock, 100);
  clock.now += 100_000;
  t.is(costs.choose(candidates), 0);
  t.is(chosen(costs, candidates, 100)[0], 0, 'until it has succeeded');
  for (const key of [A, B, C]) succeed(costs, key, 5);
  t.true((chosen(costs, candidates, 300)[0] ?? 0) > 50);
  fail(costs, A);
  t.deepEqual(probesWithin(costs, clock, 12).length, 1, 'ten seconds again');
});

test('another probe is sent when the first has not been answered in 30 s', (t) => {
  const { costs, clock } = setUp();
  const candidates = candidatesOf([1, 1, 1]);
  fail(costs, A);
  clock.now += 12_000;
  t.is(chosen(costs, candidates, 100)[0], 1);
  clock.now += 29_000;
  t.is(chosen(costs, candidates, 100)[0], 0);
  clock.now += 2_000;
  t.is(chosen(costs, candidates, 100)[0], 1);
});

test('connections that were under way at the ejection do not lengthen it', (t) => {
  const { costs, clock } = setUp();
  fail(costs, A, 50);
  t.is(probesWithin(costs, clock, 12).length, 1);
});

test('never ejects more than half', (t) => {
  const keys = [A, B, C, D, '10.0.0.4:80'];
  for (let failing = 0; failing < keys.length; failing += 1) {
    const { costs } = setUp();
    for (const key of keys) succeed(costs, key);
    for (const key of keys.slice(0, failing)) fail(costs, key);
    // All have the same cost, so that only ejection makes a difference.
    for (const key of keys) costs.failed(key, 1000);
    const counts = chosen(costs, candidatesOf([1, 1, 1, 1, 1]), 1000);
    t.is(counts.filter((count) => count === 0).length, Math.min(failing, 2), `${failing}: ${counts}`);
  }
});

test('of more than half that fail, gives connections to those that were ejected less often', (t) => {
  const { costs, clock } = setUp();
  const candidates = candidatesOf([1, 1, 1]);
  fail(costs, A);
  probesWithin(costs, clock, 40);
  fail(costs, B);
  for (const key of [B, C]) costs.failed(key, 1000);
  const counts = chosen(costs, candidates, 300);
  t.is(counts[0], 0);
  t.true((counts[1] ?? 0) > 0);
});

test('uses all where all have failed', (t) => {
  const { costs } = setUp();
  for (const key of [A, B, C, D]) fail(costs, key);
  const counts = chosen(costs, candidatesOf([1, 1, 1, 1]), 400);
  t.true(isAbout(counts, [0.25, 0.25, 0.25, 0.25]), `${counts}`);
});

test('counts half of each service by itself', (t) => {
  const { costs } = setUp();
  for (const key of [A, B]) fail(costs, key);
  t.deepEqual(chosen(costs, { keys: [A, B, C, D], weights: [1, 1, 1, 1] }, 100).slice(0, 2), [0, 0]);
  const two = chosen(costs, { keys: [A, B], weights: [1, 1] }, 100);
  t.true(
    two.every((count) => count > 0),
    `${two}`,
  );
});

test('what one worker sees, all workers know', (t) => {
  const { make, costs } = setUp(3);
  const other = make(2);
  fail(costs, A);
  succeed(costs, B, 5);
  succeed(costs, C, 50);
  t.deepEqual(chosen(other, candidatesOf([1, 1, 1]), 100), [0, 100, 0]);
  costs.started(B);
  for (let count = 0; count < 20; count += 1) make(1).started(B);
  t.deepEqual(
    chosen(other, candidatesOf([1, 1, 1]), 100),
    [0, 0 + 100, 0],
    'those of a worker that was replaced are taken off',
  );
  for (let count = 0; count < 20; count += 1) costs.started(B);
  t.deepEqual(chosen(other, candidatesOf([1, 1, 1]), 100), [0, 0, 100]);
});

test('forgets the least recently used endpoint without an open connection when there is no room', (t) => {
  const { costs, clock } = setUp(1, 16);
  const keys = Array.from({ length: 16 }, (_, index) => `10.0.1.${index}:80`);
  for (const key of keys) {
    clock.now += 1;
    costs.started(key);
    costs.connected(key, 500);
    if (key !== keys[0]) costs.ended(key);
  }
  succeed(costs, A, 5);
  const against = (key: string): number[] => chosen(costs, { keys: [A, key], weights: [1, 1] }, 20);
  t.deepEqual(against(keys[0] ?? ''), [20, 0], 'it has an open connection');
  t.deepEqual(against(keys[1] ?? ''), [0, 20], 'forgotten, so it is tried');
  t.deepEqual(against(keys[2] ?? ''), [20, 0]);
});

test('goes on without what there is no room for', (t) => {
  const { costs } = setUp(1, 16);
  for (let index = 0; index < 16; index += 1) costs.started(`10.0.1.${index}:80`);
  for (const call of ['started', 'ended', 'failed'] as const) t.notThrows(() => costs[call](A));
  t.notThrows(() => costs.connected(A, 1));
  t.is(costs.choose(candidatesOf([1, 1])) >= 0, true);
});

test('an end without a beginning counts nothing', (t) => {
  const { costs } = setUp();
  succeed(costs, A, 5);
  succeed(costs, B, 5);
  costs.ended(A);
  costs.started(A);
  t.deepEqual(chosen(costs, candidatesOf([1, 1]), 20), [0, 20]);
});

test('refuses a worker that the memory has no place for, and a size that is no power of two', (t) => {
  const { make } = setUp(2);
  t.throws(() => make(2), { instanceOf: RangeError });
  t.throws(() => EndpointCosts.allocate(1, 100), { instanceOf: RangeError });
  t.throws(() => EndpointCosts.allocate(1, 8), { instanceOf: RangeError });
});

test('two threads agree on one probe for each ejected endpoint', async (t) => {
  const threads = 2;
  const ejected = 200;
  const memory = EndpointCosts.allocate(threads + 1, undefined, 0);
  let now = 0;
  const costs = new EndpointCosts({ memory, worker: threads, now: () => now });
  const keys = Array.from({ length: 2 * ejected }, (_, index) => `10.0.${index >> 8}.${index & 255}:80`);
  const meeting = new SharedArrayBuffer(4);
  const workers = Array.from({ length: threads }, (_, worker) => {
    const workerData: ProberData = { memory, worker, keys, ejected, choices: ejected + 20, meeting, threads };
    return new Worker(new URL('./endpoint-prober.ts', import.meta.url), { workerData });
  });
  t.teardown(() => Promise.all(workers.map((worker) => worker.terminate())));
  const ask = async (): Promise<number> => {
    const answers = workers.map((worker) => once(worker, 'message'));
    for (const worker of workers) worker.postMessage(now);
    return (await Promise.all(answers)).reduce((sum, [probes]) => sum + probes, 0);
  };

  for (const key of keys.slice(0, ejected)) fail(costs, key);
  t.is(await ask(), 0, 'they are ejected');
  for (let round = 1; round <= 4; round += 1) {
    now += 31_000;
    t.is(await ask(), ejected, `round ${round}`);
  }
  t.is(await ask(), 0, 'the probes are under way');
});

for (const [law, weights, ms, want] of [
  ['weights are alike where nothing is known', [1, 1, 1], [], [1000, 1000, 1000]],
  ['weights are in proportion to capacity', [4, 2, 1], [], [1000, 500, 250]],
  ['weights fall with the connect time', [1, 1, 1], [1, 2, 10], [1000, 500, 100]],
  ['connect times below a millisecond are alike', [1, 1], [0.1, 0.9], [1000, 1000]],
  ['an endpoint that nothing is known of is drawn like a fast one', [1, 1], [20], [50, 1000]],
  ['nobody who may be used gets nothing', [1, 1], [1, 100_000], [1000, 1]],
] as const)
  test(law, (t) => {
    const { costs } = setUp();
    const candidates = candidatesOf(weights);
    for (const [index, each] of ms.entries()) succeed(costs, candidates.keys[index] ?? '', each);
    t.deepEqual(costs.weights(candidates), [...want]);
    t.deepEqual(costs.weights(candidates), [...want], 'the same as long as nothing changes');
  });

test('weights are 0 for who is ejected, at most half of all, and the least when it may be tried again', (t) => {
  const { costs, clock } = setUp();
  const three = candidatesOf([1, 1, 1]);
  fail(costs, A);
  t.deepEqual(costs.weights(three), [0, 1000, 1000]);
  fail(costs, B);
  t.is(costs.weights(three).filter((weight) => weight === 0).length, 1, 'half of three');
  succeed(costs, B);
  clock.now += 20_000;
  t.deepEqual(costs.weights(three), [1, 1000, 1000]);
  succeed(costs, A);
  clock.now += 100_000;
  t.deepEqual(costs.weights(three), [1000, 1000, 1000]);
});

test('the main thread reads the weights, and tells of connections that need no worker', (t) => {
  const { memory, clock, costs } = setUp();
  const onlooker = new EndpointCosts({ memory, worker: undefined, now: () => clock.now, random: seeded(9) });
  const two = candidatesOf([1, 1]);
  succeed(costs, A, 4);
  costs.started(A);
  t.deepEqual(onlooker.weights(two), [250, 1000]);
  for (let count = 0; count < 5; count += 1) onlooker.failed(B);
  t.deepEqual(costs.weights(two), [1000, 0]);
  t.is(costs.choose(two), 0);
  clock.now += 20_000;
  onlooker.connected(B, 1);
  clock.now += 100_000;
  t.deepEqual(costs.weights(two), [1000, 1000]);
});

test('the one that somebody has drawn is chosen, unless it is ejected or was tried', (t) => {
  const { costs } = setUp();
  const four = candidatesOf([1, 1, 1, 1]);
  succeed(costs, C, 1000);
  for (let count = 0; count < 20; count += 1) t.is(costs.choose(four, new Set(), 2), 2);
  for (let count = 0; count < 20; count += 1) t.not(costs.choose(four, new Set([C]), 2), 2);
  fail(costs, C);
  for (let count = 0; count < 20; count += 1) t.not(costs.choose(four, new Set(), 2), 2);
});

test('an endpoint whose ejection is over is tried before one that somebody has drawn', (t) => {
  const { costs, clock } = setUp();
  const two = candidatesOf([1, 1]);
  fail(costs, A);
  clock.now += 20_000;
  t.is(costs.choose(two, new Set(), 1), 0);
  t.is(costs.choose(two, new Set(), 1), 1);
});

test('tells how an endpoint does, as all workers have seen it', (t) => {
  const { costs, make } = setUp(2);
  const other = make(1);
  t.is(costs.healthOf(A), undefined, 'nothing is known');
  costs.started(A);
  costs.connected(A, 8);
  other.started(A);
  t.like(costs.healthOf(A), { isEjected: false, failures: 0, connectMs: 8, open: 2 });
  fail(other, B);
  t.like(costs.healthOf(B), { isEjected: true, failures: 5, open: 0 });
  t.is(costs.ejected, 1);
  succeed(costs, B);
  t.like(costs.healthOf(B), { isEjected: false, failures: 0 });
  t.is(costs.ejected, 0);
});
