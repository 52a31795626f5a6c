import type { Overview } from '../../telemetry/index.ts';

/** One of the six. Made once, when it is first looked at, and kept. */
export interface Page {
  readonly title: string;
  readonly element: HTMLElement;
  /** It is looked at now; `parameters`: those of the address. */
  enter(parameters: URLSearchParams): void;
  /** Asks for what is new. At most one is under way. */
  refresh(): Promise<void>;
  /** What the stream has brought; the first one has an hour of samples. */
  overview?(overview: Overview): void;
}

/** Puts something into the address without another entry in the history. */
export function remember(page: string, parameters: Readonly<Record<string, string | undefined>>): void {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value) query.set(name, value);
  const text = query.size > 0 ? `?${query}` : '';
  history.replaceState(null, '', `#/${page}${text}`);
}
