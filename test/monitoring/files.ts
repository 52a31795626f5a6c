/** What deploy/monitoring holds, as the tests look at it, and promtool. */
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, parseAllDocuments } from 'yaml';

export const root = fileURLToPath(new URL('../../', import.meta.url));
export const monitoring = join(root, 'deploy/monitoring');
export const ruleFiles = ['recording', 'alerts'].map((name) => join(monitoring, 'rules', `${name}.yaml`));

export interface Rule {
  /** Of a recording rule. */
  readonly record?: string;
  /** Of an alert. */
  readonly alert?: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface RuleFile {
  readonly groups: ReadonlyArray<{ readonly name: string; readonly rules: readonly Rule[] }>;
}

/** As much of a panel of Grafana's as is looked at. */
export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly type: string; readonly uid: string };
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly options?: { readonly legend?: { readonly showLegend: boolean } };
  readonly targets?: ReadonlyArray<{
    readonly refId: string;
    readonly expr: string;
    readonly legendFormat: string;
    readonly instant: boolean;
    readonly datasource: { readonly uid: string };
  }>;
}

export interface Variable {
  readonly name: string;
  readonly type: string;
  /** Of a variable that asks the data source: what it asks. */
  readonly definition?: string;
  readonly regex?: string;
  readonly allValue?: string;
  readonly options: ReadonlyArray<{ readonly value: string }>;
}

export interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly schemaVersion: number;
  readonly links: ReadonlyArray<{ readonly url: string }>;
  readonly templating: { readonly list: readonly Variable[] };
  readonly panels: readonly Panel[];
}

export function read(...path: readonly string[]): string {
  return readFileSync(join(root, ...path), 'utf8');
}

/** A YAML file of one document. */
export function yaml<Content>(...path: readonly string[]): Content {
  return parse(read(...path)) as Content;
}

/** One of a YAML file's documents, by its kind. */
export function kubernetesObject<Content>(kind: string, ...path: readonly string[]): Content {
  const found = parseAllDocuments(read(...path)).find((document) => document.get('kind') === kind);
  if (found === undefined) throw new Error(`${path.join('/')} has no ${kind}`);
  return found.toJS() as Content;
}

export const rules: readonly Rule[] = ruleFiles.flatMap((file) =>
  (parse(readFileSync(file, 'utf8')) as RuleFile).groups.flatMap(({ rules }) => rules),
);

export const dashboards: ReadonlyArray<{ readonly file: string; readonly board: Dashboard }> = globSync(
  'dashboards/*.json',
  { cwd: monitoring },
)
  .sort()
  .map((file) => ({ file, board: JSON.parse(readFileSync(join(monitoring, file), 'utf8')) as Dashboard }));

/** Every query of a dashboard's panels. */
export function queriesOf(board: Dashboard): ReadonlyArray<{ panel: Panel; refId: string; expr: string }> {
  return board.panels.flatMap((panel) => (panel.targets ?? []).map(({ refId, expr }) => ({ panel, refId, expr })));
}

/** A query with the values of its variables, as Grafana makes it before it asks. Longest names first: `$node` is a beginning of `$nodes`. */
export function substituted(expr: string, values: Readonly<Record<string, string>>): string {
  return Object.keys(values)
    .sort((one, other) => other.length - one.length)
    .reduce((text, name) => text.replaceAll(`$${name}`, values[name] ?? ''), expr);
}

/** What a variable asks the data source for: the label of a metric's series, or what a query gives, through a regular expression. */
export function asked(definition: string): { expr: string; label?: string } {
  const values = /^label_values\((.+), (\w+)\)$/s.exec(definition);
  if (values !== null) return { expr: values[1] ?? '', label: values[2] ?? '' };
  const result = /^query_result\((.+)\)$/s.exec(definition);
  if (result !== null) return { expr: result[1] ?? '' };
  throw new Error(`not a query of a variable: ${definition}`);
}

/** Selectors of a query: metrics with their matchers, without range and offset. */
export function selectorsOf(expr: string): string[] {
  const outside = expr.replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right) \([^)]*\)/g, '');
  const named = outside.matchAll(
    /\b((?:culvert|istio|process|nodejs|workload_manager|scrape|up|ALERTS)[\w:]*)(\{[^}]*\})?/g,
  );
  return [...named].map(([, name = '', matchers = '']) => name + matchers);
}

/** The family of a metric's name: of histograms without what their series add. */
export function familyOf(name: string): string {
  return name.replace(/\{.*$/s, '').replace(/_(?:bucket|sum|count)$/, '');
}

/** Runs promtool. */
export function promtool(...args: readonly string[]): { readonly code: number | null; readonly output: string } {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { encoding: 'utf8' });
  if (error !== undefined) throw error;
  return { code: status, output: stdout + stderr };
}
