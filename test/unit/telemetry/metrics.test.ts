import test from 'ava';
import { openMetrics } from '../../../src/telemetry/index.ts';

test('asks the sources whenever the metrics are read', async (t) => {
  const metrics = openMetrics({ process: false });
  let pods = 1;
  metrics.observe({ enrolledPods: () => pods, kernelEvents: () => ({ captured_outbound: pods * 10 }) });
  metrics.observe({ descriptors: () => ({ open: 3, limit: 9 }) });
  t.true((await metrics.text()).includes('culvert_enrolled_pods 1\n'));
  pods = 2;
  const text = await metrics.text();
  for (const line of [
    'culvert_enrolled_pods 2',
    'culvert_kernel_events_total{reason="captured_outbound"} 20',
    'culvert_descriptors_open 3',
    'culvert_descriptors_limit 9',
  ])
    t.true(text.includes(`${line}\n`), line);
});

test('of what nobody keeps there is no number', async (t) => {
  const text = await openMetrics({ process: false }).text();
  t.notRegex(text, /^culvert_kernel_path_verdicts [1-9]/m);
  t.notRegex(text, /^culvert_policies\{/m);
});

test('every metric has the prefix culvert_ and a help text', async (t) => {
  const text = await openMetrics({ process: false }).text();
  const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name ?? '');
  t.true(names.length > 8);
  for (const name of names) {
    t.regex(name, /^culvert_/);
    t.regex(text, new RegExp(`^# HELP ${name} \\S`, 'm'));
  }
});

test('two registries do not meet', async (t) => {
  const [one, other] = [openMetrics({ process: false }), openMetrics({ process: false })];
  one.enrolments.inc({ result: 'enrolled' });
  t.false((await other.text()).includes('result="enrolled"'));
});
