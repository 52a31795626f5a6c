import test from 'ava';
import { RetryBudget } from '../../../src/ztunnel/outbound/retry-budget.ts';

function setUp(workers = 1) {
  const clock = { now: 5_000_000 };
  return { clock, budget: new RetryBudget({ workers, now: () => clock.now }) };
}

function spendAll(budget: RetryBudget): number {
  let spent = 0;
  while (budget.spend()) spent += 1;
  return spent;
}

test('allows ten retries a second whatever the connections', (t) => {
  t.is(spendAll(setUp().budget), 100);
});

test('gives each worker its part of the ten', (t) => {
  t.is(spendAll(setUp(4).budget), 25);
});

test('allows retries of a fifth of the connections', (t) => {
  const { budget } = setUp();
  for (let count = 0; count < 1000; count += 1) budget.connection();
  t.is(spendAll(budget), 200);
  for (let count = 0; count < 10; count += 1) budget.connection();
  t.is(spendAll(budget), 2);
});

test('counts the last ten seconds', (t) => {
  const { budget, clock } = setUp();
  for (let count = 0; count < 1000; count += 1) budget.connection();
  clock.now += 5000;
  t.is(spendAll(budget), 200);
  clock.now += 4000;
  t.is(spendAll(budget), 0);
  clock.now += 1000;
  t.is(spendAll(budget), 0, 'the connections are forgotten, the retries not');
  clock.now += 5000;
  t.is(spendAll(budget), 100);
  clock.now += 100_000;
  t.is(spendAll(budget), 100);
});

test('a clock that goes back gives nothing again', (t) => {
  const { budget, clock } = setUp();
  t.is(spendAll(budget), 100);
  clock.now -= 60_000;
  t.is(spendAll(budget), 0);
});
