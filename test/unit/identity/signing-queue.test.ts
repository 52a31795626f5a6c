import test from 'ava';
import { SigningQueue } from '../../../src/identity/signing-queue.ts';

/** A queue whose attempts end when the test says so. */
function setUp(maxInFlight: number) {
  const started: string[] = [];
  const finish = new Map<string, () => Promise<void>>();
  const queue: SigningQueue<string> = new SigningQueue(async (item) => {
    started.push(item);
    const attempt = Promise.withResolvers<void>();
    const concluded = Promise.withResolvers<void>();
    finish.set(item, async () => {
      attempt.resolve();
      await concluded.promise;
    });
    await attempt.promise;
    return () => concluded.resolve();
  }, maxInFlight);
  return { queue, started, end: async (item: string) => await finish.get(item)?.() };
}

test('carries out no more than it may at a time', async (t) => {
  const { queue, started, end } = setUp(2);
  for (const item of ['a', 'b', 'c', 'd']) queue.add(item, 'warm-up');
  t.deepEqual(started, ['a', 'b']);
  await end('a');
  t.deepEqual(started, ['a', 'b', 'c']);
});

test('takes the most urgent first, and among equals the oldest', async (t) => {
  const { queue, started, end } = setUp(1);
  queue.add('first', 'background');
  queue.add('background 1', 'background');
  queue.add('background 2', 'background');
  queue.add('warm-up', 'warm-up');
  queue.add('real-time', 'real-time');
  for (const item of ['first', 'real-time', 'warm-up', 'background 1']) await end(item);
  t.deepEqual(started, ['first', 'real-time', 'warm-up', 'background 1', 'background 2']);
});

test('raises what waits with less urgency, and never lowers it', async (t) => {
  const { queue, started, end } = setUp(1);
  queue.add('first', 'background');
  queue.add('a', 'warm-up');
  queue.add('b', 'background');
  queue.add('b', 'real-time');
  queue.add('b', 'background');
  await end('first');
  await end('b');
  t.deepEqual(started, ['first', 'b', 'a']);
});

test('carries out once what is added while it is carried out', async (t) => {
  const { queue, started, end } = setUp(1);
  queue.add('a', 'background');
  queue.add('a', 'real-time');
  await end('a');
  t.deepEqual(started, ['a']);
  t.false(queue.has('a'));
});

test('may be given an item again when its attempt is concluded', async (t) => {
  const starts: number[] = [];
  const second = Promise.withResolvers<void>();
  const queue: SigningQueue<string> = new SigningQueue(async () => {
    starts.push(starts.length);
    return () => (starts.length === 1 ? queue.add('a', 'background') : second.resolve());
  }, 1);
  queue.add('a', 'background');
  await second.promise;
  t.is(starts.length, 2);
});

test('does not carry out what was removed', async (t) => {
  const { queue, started, end } = setUp(1);
  queue.add('a', 'background');
  queue.add('b', 'background');
  queue.remove('b');
  await end('a');
  t.deepEqual(started, ['a']);
});
