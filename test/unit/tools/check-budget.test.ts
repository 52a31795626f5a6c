import test from 'ava';
import { compare, LoadLog, record } from '../../../tools/check-budget.ts';

const BUDGET = { kernel: '6.1', objects: { 'a.bpf.o': { on_connect4: { measured: 80, budget: 100 } } } };

test('reads the verifier count of each program out of the log', (t) => {
  const log = new LoadLog();
  for (const line of [
    "libbpf: prog 'on_bind4': -- BEGIN PROG LOAD LOG --",
    '0: (b7) r0 = 1',
    'processed 128 insns (limit 1000000) max_states_per_insn 1 total_states 5 peak_states 5 mark_read 0',
    '-- END PROG LOAD LOG --',
    "libbpf: prog 'on_bind6': -- BEGIN PROG LOAD LOG --",
    'processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0',
  ]) {
    log.add(line);
  }
  t.deepEqual(log.programs, { on_bind4: 128, on_bind6: 7 });
});

test('passes a program at its budget and names one above it', (t) => {
  t.deepEqual(compare(BUDGET, { 'a.bpf.o': { on_connect4: 100 } }), []);
  t.deepEqual(compare(BUDGET, { 'a.bpf.o': { on_connect4: 101 } }), [
    'a.bpf.o: on_connect4 takes 101 instructions, its budget is 100',
  ]);
});

test('names a program without a budget and a budget without a program', (t) => {
  const problems = compare(BUDGET, { 'a.bpf.o': { on_bind4: 1 } });
  t.is(problems.length, 2);
  t.regex(problems[0] ?? '', /on_bind4 has no budget/);
  t.regex(problems[1] ?? '', /on_connect4 has a budget and does not exist/);
});

test('records a quarter above what was measured', (t) => {
  t.deepEqual(record('6.1', { 'a.bpf.o': { on_connect4: 81 } }).objects, {
    'a.bpf.o': { on_connect4: { measured: 81, budget: 102 } },
  });
});
