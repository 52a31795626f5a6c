/** Asks a Prometheus all that dashboards and rules ask. */
import { asked, type Dashboard, queriesOf, selectorsOf, substituted } from './files.ts';
import type { Prometheus, Sample } from './prometheus.ts';

/** A query, as a person finds it. */
export interface Question {
  /** Whose it is. */
  readonly of: string;
  /** What it comes to for each choice of the variables. */
  readonly queries: readonly string[];
}

/** Intervals as short as the scene is. */
const INTERVALS = { __rate_interval: '1m', __range: '5m' };

/**
 * The questions of a dashboard's panels, for some choices of its variables; and those after each selector in them, since a
 * query may show something (zero, say) where there is nothing.
 */
export function questionsOf(board: Dashboard, choices: ReadonlyArray<Readonly<Record<string, string>>>): Question[] {
  return queriesOf(board).flatMap(({ panel, refId, expr }) => {
    const of = `${board.title}: ${panel.title} (${refId})`;
    const ask = (text: string): string[] => choices.map((choice) => substituted(text, { ...INTERVALS, ...choice }));
    return [
      { of, queries: ask(expr) },
      ...selectorsOf(expr).map((selector) => ({ of: `${of}: ${selector}`, queries: ask(selector) })),
    ];
  });
}

/**
 * For each metric that a rule reads, whether there is such a thing, with the labels that it goes by. Not of these values: what
 * an alert is about should not be there.
 */
export function selectorQuestions(name: string, expr: string): Question[] {
  return selectorsOf(expr).map((selector) => ({
    of: `${name}: ${selector}`,
    queries: [selector.replaceAll(/(?:[!=]~|!?=)"[^"]*"/g, '!=""')],
  }));
}

/** Those that nothing comes of, whatever is chosen: no series, or no number. */
export async function unanswered(prometheus: Prometheus, questions: readonly Question[]): Promise<Question[]> {
  const answers = await prometheus.ask(questions.flatMap(({ queries }) => queries));
  let next = 0;
  return questions.filter(({ queries }) => {
    const own = answers.slice(next, next + queries.length);
    next += queries.length;
    return !own.some((samples) => samples.some(({ value }) => Number.isFinite(value)));
  });
}

/** What a variable of a dashboard can be, as Grafana finds it out. */
export async function choicesOf(
  prometheus: Prometheus,
  board: Dashboard,
  name: string,
  values: Readonly<Record<string, string>>,
): Promise<string[]> {
  const variable = board.templating.list.find((each) => each.name === name);
  const { expr, label } = asked(substituted(variable?.definition ?? '', { ...INTERVALS, ...values }));
  const [samples = []] = await prometheus.ask([expr]);
  const pattern = new RegExp((variable?.regex ?? '').replace(/^\/|\/$/g, ''));
  const found = samples.map(({ labels }) => (label === undefined ? pattern.exec(written(labels))?.[1] : labels[label]));
  return [...new Set(found.filter((each) => each !== undefined))].sort();
}

/** As Grafana writes what `query_result` gives. */
function written(labels: Sample['labels']): string {
  const pairs = Object.entries(labels).filter(([name]) => name !== '__name__');
  return `${labels.__name__ ?? ''}{${pairs.map(([name, value]) => `${name}="${value}"`).join(',')}}`;
}
