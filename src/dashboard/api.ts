import type { DashboardSource, FlowFilter } from '../telemetry/index.ts';

/** What a question of the pages is answered with, as JSON. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

const MOST_FLOWS = 1_000;
const USUAL_FLOWS = 200;
const LONGEST_TEXT = 512;

/**
 * Answers `GET /api/...` but for `/api/live`.
 *
 * @param path without the query
 * @returns undefined: there is no such question
 */
export function answerApi(source: DashboardSource, path: string, query: URLSearchParams): Answer | undefined {
  if ([...query.values()].some((value) => value.length > LONGEST_TEXT)) return bad('a parameter is too long');
  switch (path) {
    case '/api/overview':
      return good(source.overview());
    case '/api/map':
      return good(source.map());
    case '/api/edge':
      return answerEdge(source, query);
    case '/api/pods':
      return good(source.pods());
    case '/api/flows':
      return answerFlows(source, query);
    case '/api/policies':
      return good(source.policies());
    case '/api/node':
      return good(source.node());
    case '/api/explain':
      return answerExplain(source, query);
    default:
      return undefined;
  }
}

function answerEdge(source: DashboardSource, query: URLSearchParams): Answer {
  const found = source.edge(query.get('id') ?? '');
  return found === undefined ? { status: 404, body: { error: 'nothing has gone this way lately' } } : good(found);
}

function answerFlows(source: DashboardSource, query: URLSearchParams): Answer {
  const after = wholeNumber(query.get('after') ?? '0', Number.MAX_SAFE_INTEGER);
  const limit = wholeNumber(query.get('limit') ?? `${USUAL_FLOWS}`, MOST_FLOWS);
  if (after === undefined || limit === undefined)
    return bad(`after and limit are whole numbers, limit 1 to ${MOST_FLOWS}`);
  return good(source.flows({ ...filterOf(query), after, limit: Math.max(1, limit) }));
}

function filterOf(query: URLSearchParams): FlowFilter {
  const names = ['pod', 'from', 'to', 'verdict'] as const;
  const given = names.flatMap((name) => {
    const value = query.get(name);
    return value === null || value === '' ? [] : [[name, value]];
  });
  return Object.fromEntries(given);
}

function answerExplain(source: DashboardSource, query: URLSearchParams): Answer {
  const flow = query.get('flow');
  const from = query.get('from');
  const to = query.get('to');
  try {
    if (flow !== null) return good(source.explain({ flow }));
    if (from !== null && to !== null) return good(source.explain({ from, to }));
  } catch (error) {
    return bad(error instanceof Error ? error.message : 'the question is not understood');
  }
  return bad('give from and to, or flow');
}

function wholeNumber(text: string, most: number): number | undefined {
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return number <= most ? number : undefined;
}

function good(body: unknown): Answer {
  return { status: 200, body };
}

function bad(error: string): Answer {
  return { status: 400, body: { error } };
}
