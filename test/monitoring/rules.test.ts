import { join } from 'node:path';
import test from 'ava';
import { familyOf, promtool, read, root, ruleFiles, rules, selectorsOf, yaml } from './files.ts';

const alerts = rules.filter(({ alert }) => alert !== undefined);
const casesOf = (name: string): string => join(root, `test/monitoring/${name}.yaml`);

/** As much of a test file of promtool's as is looked at. */
interface Cases {
  readonly tests: ReadonlyArray<{
    readonly alert_rule_test?: ReadonlyArray<{ readonly alertname: string; readonly exp_alerts: readonly unknown[] }>;
  }>;
}

/** Anchors of a page's headings, as GitHub makes them. */
function anchorsOf(page: string): string[] {
  return [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
}

test('promtool accepts the rules', (t) => {
  const { code, output } = promtool('check', 'rules', '--lint=all', '--lint-fatal', ...ruleFiles);
  t.is(code, 0, output);
});

test('every alert fires when it should, with the words that are expected, and not otherwise', (t) => {
  const { code, output } = promtool('test', 'rules', casesOf('alerts'));
  t.is(code, 0, output);
});

test('recording rules make of counts what their names say', (t) => {
  const { code, output } = promtool('test', 'rules', casesOf('recording'));
  t.is(code, 0, output);
});

test('every alert is tried both ways', (t) => {
  const tried = yaml<Cases>('test/monitoring/alerts.yaml').tests.flatMap((each) => each.alert_rule_test ?? []);
  const names = alerts.map(({ alert }) => alert ?? '').sort();
  const fires = tried.filter(({ exp_alerts }) => exp_alerts.length > 0).map(({ alertname }) => alertname);
  const keepsQuiet = tried.filter(({ exp_alerts }) => exp_alerts.length === 0).map(({ alertname }) => alertname);
  t.deepEqual([...new Set(fires)].sort(), names);
  t.deepEqual([...new Set(keepsQuiet)].sort(), names);
});

for (const { alert = '', for: wait, labels, annotations } of alerts)
  test(`${alert} says how bad it is, what is the matter, what to do, and where to read on`, (t) => {
    t.regex(wait ?? '', /^\d+[mh]$/);
    t.true(['critical', 'warning', 'info'].includes(labels?.severity ?? ''));
    t.deepEqual(Object.keys(annotations ?? {}), ['summary', 'description', 'runbook']);
    const { summary = '', description = '', runbook = '' } = annotations ?? {};
    t.regex(summary, /\.$/);
    t.regex(description, /\.$/);
    const [page = '', anchor = ''] = runbook.split('#');
    t.true(anchorsOf(read(page)).includes(anchor), runbook);
  });

test('every value that an alert looks for is one that docs/metrics.md names', (t) => {
  const rows = new Map(
    [...read('docs/metrics.md').matchAll(/^\| `(\w+)` \|(.*)$/gm)].map(([, name = '', row = '']) => [name, row]),
  );
  for (const { expr } of alerts)
    for (const [, name = '', matchers = ''] of expr.matchAll(/\b(culvert_\w+)\{([^}]*)\}/g))
      for (const [, values = ''] of matchers.matchAll(/"([^"]*)"/g))
        for (const value of values.split('|')) t.true(rows.get(name)?.includes(`\`${value}\``), `${name}: ${value}`);
});

test('every metric that a rule reads is in docs/metrics.md, or is recorded by another rule', (t) => {
  const known = new Set([...read('docs/metrics.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name));
  for (const { record } of rules) known.add(record);
  for (const { expr } of rules)
    for (const name of selectorsOf(expr).map(familyOf)) if (name !== 'up') t.true(known.has(name), name);
});
