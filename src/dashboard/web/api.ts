import type {
  EdgeDetails,
  Explanation,
  FlowFilter,
  FlowPage,
  MapView,
  NodeView,
  Overview,
  PodView,
  PolicyView,
} from '../../telemetry/index.ts';

/** What each question is answered with. */
interface Answers {
  overview: Overview;
  map: MapView;
  edge: EdgeDetails;
  pods: readonly PodView[];
  flows: FlowPage;
  policies: readonly PolicyView[];
  node: NodeView;
  explain: Explanation;
}

type Parameters = FlowFilter & {
  readonly id?: string;
  readonly after?: number;
  readonly limit?: number;
  readonly flow?: string;
};

const PATIENCE_MS = 10_000;

/** @throws Error with a sentence for the user */
export async function ask<K extends keyof Answers>(question: K, parameters: Parameters = {}): Promise<Answers[K]> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, `${value}`);
  const response = await fetch(`/api/${question}?${query}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (response.ok) return (await response.json()) as Answers[K];
  if (response.status === 401)
    throw new Error('The token is no longer good. Ask `culvert dashboard` on the node for the address to open.');
  throw new Error(await reasonOf(response));
}

async function reasonOf(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    return typeof error === 'string' ? error : text;
  } catch {
    return text.trim() || `the agent answered ${response.status}`;
  }
}
