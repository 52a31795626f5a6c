import test from 'ava';
import { backOffMs, refreshAt, runAt } from '../../../src/identity/schedule.ts';
import { systemClock } from '../../../src/identity/system.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';

for (const [failures, least, most] of [
  [1, 800, 1200],
  [2, 1600, 2400],
  [3, 3200, 4800],
  [8, 102_400, 153_600],
  [9, 120_000, 180_000],
  [5000, 120_000, 180_000],
] as const) {
  test(`waits ${least} to ${most} ms after failure ${failures}`, (t) => {
    t.is(Math.round(backOffMs(failures, 0)), least);
    t.is(Math.round(backOffMs(failures, 1)), most);
  });
}

for (const [title, notBefore, notAfter, now, least, middle, most] of [
  ['at half of the life', 0, 1_000_000, 0, 450_000, 500_000, 550_000],
  ['at half of the life of one that is dated back', 0, 1_000_000, 100_000, 460_000, 500_000, 540_000],
  ['at half of the rest, if half of the life is over', 0, 1_000_000, 600_000, 780_000, 800_000, 820_000],
  ['after a second, if hardly anything is left', 0, 1_000_000, 999_999, 1_000_899, 1_000_999, 1_001_099],
] as const) {
  test(`renews ${title}`, (t) => {
    const at = (random: number) => Math.round(refreshAt({ notBefore, notAfter }, now, random));
    t.deepEqual([at(0), at(0.5), at(1)], [least, middle, most]);
  });
}

test('runs at its time, not before', (t) => {
  const clock = new FakeClock(0);
  let runs = 0;
  runAt(clock, 200_000, () => {
    runs += 1;
  });
  clock.advance(199_999);
  t.is(runs, 0);
  clock.advance(1);
  t.is(runs, 1);
  t.is(clock.timers, 0);
});

test('runs soon after its time if the clock is set forward meanwhile', (t) => {
  let now = 0;
  let armed: { ms: number; run: () => void } | undefined;
  const clock = {
    now: () => now,
    after(ms: number, run: () => void) {
      armed = { ms, run };
      return { cancel: () => undefined };
    },
  };
  let runs = 0;
  runAt(clock, 86_400_000, () => {
    runs += 1;
  });
  t.true((armed?.ms ?? 0) <= 60_000);
  now = 90_000_000;
  armed?.run();
  t.is(runs, 1);
});

test('does not run when it is cancelled', (t) => {
  const clock = new FakeClock(0);
  const timer = runAt(clock, 200_000, () => t.fail());
  clock.advance(100_000);
  timer.cancel();
  clock.advance(200_000);
  t.is(clock.timers, 0);
});

test('the machine’s clock takes waits that setTimeout does not', async (t) => {
  // The clock's own timers do not keep the process alive.
  const alive = setInterval(() => undefined, 1000);
  t.teardown(() => clearInterval(alive));
  const order: string[] = [];
  const long = systemClock.after(90 * 86_400_000, () => order.push('long'));
  await new Promise<void>((resolve) => {
    systemClock.after(1, () => {
      order.push('short');
      resolve();
    });
  });
  long.cancel();
  t.deepEqual(order, ['short']);
});
