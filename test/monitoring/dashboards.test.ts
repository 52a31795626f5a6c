import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { asked, dashboards, familyOf, promtool, queriesOf, read, rules, selectorsOf, substituted } from './files.ts';

// biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana's
const CHOSEN = '${datasource}';
/** Made by Prometheus itself. */
const OF_PROMETHEUS = ['up', 'ALERTS', 'scrape_duration_seconds', 'scrape_samples_scraped'];

test('there is a dashboard for the mesh, for a node and for a workload', (t) => {
  t.deepEqual(
    dashboards.map(({ board }) => board.uid),
    ['culvert-mesh', 'culvert-node', 'culvert-pod'],
  );
});

test('every query of the dashboards and of their variables can be parsed', (t) => {
  const values = { __rate_interval: '1m', __range: '1h' };
  const queries = dashboards.flatMap(({ board }) => [
    ...queriesOf(board).map(({ expr }) => expr),
    ...board.templating.list.flatMap(({ definition }) => (definition === undefined ? [] : [asked(definition).expr])),
  ]);
  t.true(queries.length > 100);
  // promtool parses expressions in rules.
  const parsed = queries.map((expr, at) => ({ record: `query_${at}`, expr: substituted(expr, values) }));
  const folder = mkdtempSync(join(tmpdir(), 'culvert-queries-'));
  try {
    const file = join(folder, 'queries.json');
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'queries', rules: parsed }] }));
    const { code, output } = promtool('check', 'rules', '--lint=none', file);
    t.is(code, 0, output);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

for (const { file, board } of dashboards) {
  const panels = board.panels.filter(({ type }) => type !== 'row');

  test(`${file} is of Grafana 10 or later, and asks the data source that is chosen`, (t) => {
    t.is(board.schemaVersion, 39);
    t.is(board.templating.list[0]?.type, 'datasource');
    for (const { datasource, targets = [] } of panels)
      for (const each of [datasource, ...targets.map((target) => target.datasource)]) t.is(each?.uid, CHOSEN);
  });

  test(`every panel of ${file} has a title, an explanation, a unit, and names for what it shows`, (t) => {
    for (const { title, description = '', fieldConfig, options, type, targets = [] } of panels) {
      t.not(title, '');
      t.regex(description, /\.$/, title);
      t.truthy(fieldConfig?.defaults.unit, title);
      if (type === 'timeseries') t.true(options?.legend?.showLegend, title);
      t.true(targets.length > 0, title);
      for (const { legendFormat, instant } of targets) {
        if (type === 'timeseries') t.notRegex(legendFormat, /^(__auto)?$/, title);
        t.is(instant, type !== 'timeseries', title);
      }
      t.deepEqual(
        targets.map(({ refId }) => refId),
        ['A', 'B', 'C', 'D'].slice(0, targets.length),
      );
    }
    const ids = board.panels.map(({ id }) => id);
    t.is(new Set(ids).size, ids.length);
  });

  test(`no panel of ${file} lies over another, or beyond the edge`, (t) => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of board.panels) {
      t.true(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          t.is(taken.get(`${x} ${y}`), undefined, title);
          taken.set(`${x} ${y}`, title);
        }
    }
  });

  test(`${file} uses variables that it has, and has none that it does not use`, (t) => {
    const text = JSON.stringify([board.panels, board.templating.list]);
    const used = new Set([...text.matchAll(/\$\{?([a-z]\w*)/g)].map(([, name]) => name));
    t.deepEqual([...used].sort(), board.templating.list.map(({ name }) => name).sort());
    for (const { allValue, name } of board.templating.list)
      if (allValue !== undefined) t.notRegex(text, new RegExp(`[^~]=\\\\*"\\$${name}\\b`), name);
  });

  test(`${file} leads to dashboards that there are`, (t) => {
    const urls = dashboards.map((each) => `/d/${each.board.uid}`);
    for (const { url } of board.links) t.true(urls.includes(url), url);
  });

  test(`every metric that ${file} shows is in docs/metrics.md, is recorded by a rule, or is of Prometheus`, (t) => {
    const known = new Set([...read('docs/metrics.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name));
    for (const { record } of rules) known.add(record);
    for (const name of OF_PROMETHEUS) known.add(name);
    for (const { expr, panel } of queriesOf(board))
      for (const name of selectorsOf(expr).map(familyOf)) t.true(known.has(name), `${panel.title}: ${name}`);
  });
}
