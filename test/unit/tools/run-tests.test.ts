import test from 'ava';
import { Reckoning, settle, type Tally } from '../../../tools/run-tests.ts';

function tallyOf(lines: string[]): Tally {
  const reckoning = new Reckoning();
  for (const line of lines) reckoning.add(line);
  return reckoning.tally;
}

test('counts what AVA counted, and skips as neither passed nor failed', (t) => {
  const lines = [
    '  ✔ a',
    '  ✘ [fail]: b',
    '  ─',
    '',
    '  2 tests failed',
    '  1 test passed',
    '  3 tests skipped',
    '  1 test todo',
  ];
  t.deepEqual(tallyOf(lines), { passed: 1, failed: 2, skipped: 4 });
});

test('counts as failed what happened outside a test', (t) => {
  const lines = ['  ─', '  1 hook failed', '  1 unhandled rejection', '  2 uncaught exceptions'];
  t.is(tallyOf([...lines, '  1 test remained pending after a timeout']).failed, 5);
});

test('takes nothing that a test printed for a result', (t) => {
  t.deepEqual(tallyOf(['1 test passed', '    ℹ 7 tests failed']), { passed: 0, failed: 0, skipped: 0 });
  t.deepEqual(tallyOf(['  ─', 'ah, 1 test passed']), { passed: 0, failed: 0, skipped: 0 });
});

test('has a failure where AVA ended badly and named none', (t) => {
  const tally = { passed: 3, failed: 0, skipped: 0 };
  t.is(settle(tally, 1).failed, 1);
  t.is(settle(tally, null).failed, 1);
  t.is(settle(tally, 0).failed, 0);
  t.is(settle({ ...tally, failed: 2 }, 1).failed, 2);
});

test('counts the passed ones itself, since AVA does not say when one has failed', (t) => {
  t.deepEqual(tallyOf(['  ✔ a', '  ✔ b (12ms)', '  ✘ [fail]: c', '  ─', '', '  1 test failed']), {
    passed: 2,
    failed: 1,
    skipped: 0,
  });
});
