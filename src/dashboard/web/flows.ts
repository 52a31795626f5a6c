import type { FlowView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { badge, el, emptyState, setAttribute, setBadge, setText } from './dom.ts';
import { explain } from './explanation.ts';
import { bytes, clockTime, count, duration, words } from './format.ts';
import { type Page, remember } from './page.ts';
import { destinationOf, SECURITY, setPath, sourceOf, toneOf } from './paths.ts';
import { type Column, Table } from './table.ts';

/** Rows that the page keeps. */
const MOST_ROWS = 500;

export const FLOW_COLUMNS: ReadonlyArray<Column<FlowView>> = [
  {
    title: 'Ended at',
    cell: ({ endedAt }) => clockTime(endedAt),
  },
  { title: 'From', cell: (flow) => sourceOf(flow) },
  { title: 'To', cell: (flow) => destinationOf(flow) },
  {
    title: 'Path',
    cell: ({ path }, cell) => {
      setPath(cell, path);
      return undefined;
    },
  },
  { title: 'Secured', isMinor: true, cell: ({ security }) => SECURITY[security].text },
  {
    title: 'End',
    cell: (flow, cell) => {
      const mark = cell.firstElementChild ?? cell.appendChild(badge('', 'idle'));
      if (mark instanceof HTMLElement) setBadge(mark, words(flow.ended), toneOf(flow));
      setAttribute(cell, 'title', flow.error);
      return undefined;
    },
  },
  { title: 'Lasted', isNumber: true, isMinor: true, cell: ({ durationMs }) => duration(durationMs) },
  { title: 'Sent', isNumber: true, isMinor: true, cell: ({ bytesSent }) => bytes(bytesSent) },
  { title: 'Received', isNumber: true, isMinor: true, cell: ({ bytesReceived }) => bytes(bytesReceived) },
];

const FIELDS = ['pod', 'from', 'to'] as const;
const HINTS: Readonly<Record<(typeof FIELDS)[number], string>> = {
  pod: 'Pod: namespace/name',
  from: 'From: name, namespace/, address',
  to: 'To: name, service, address',
};

const VERDICTS: Readonly<Record<string, string>> = {
  '': 'Every end',
  clean: 'Ended well',
  failed: 'Failed',
  denied: 'Denied',
  allowed: 'Allowed',
};

export class FlowsPage implements Page {
  readonly title = 'Flows';
  readonly element = el('div', { class: 'page' });
  readonly #inputs = new Map(
    FIELDS.map((name) => [name, el('input', { type: 'search', placeholder: HINTS[name], 'aria-label': HINTS[name] })]),
  );
  readonly #verdict = el('select', { 'aria-label': 'How it ended' });
  readonly #pause = el('button', { type: 'button', class: 'toggle', 'aria-pressed': 'false', text: 'Pause' });
  readonly #note = el('span', { class: 'muted total', role: 'status' });
  readonly #table = new Table<FlowView>({
    label: 'Connections that ended last, the newest first',
    columns: FLOW_COLUMNS,
    keyOf: ({ sequence }) => `${sequence}`,
    open: (flow) => void explain({ flow }),
    empty: emptyState(
      'No connection has ended yet',
      'Flows appear here when a connection of a pod in the mesh ends. If pods do talk, widen the filter, or look on the Pods page whether they are served.',
    ),
    most: MOST_ROWS,
  });
  #flows: FlowView[] = [];
  #after: number | undefined;
  #missed = 0;
  #isPaused = false;

  constructor() {
    for (const [value, text] of Object.entries(VERDICTS)) this.#verdict.append(el('option', { value, text }));
    const tools = el('div', { class: 'tools' }, ...this.#inputs.values(), this.#verdict, this.#pause, this.#note);
    this.element.append(
      el('div', { class: 'page-head' }, el('h1', { text: this.title }), tools),
      el('p', { class: 'muted lead', text: 'Press a line to see why it went as it did.' }),
      this.#table.element,
    );
    for (const input of this.#inputs.values()) input.addEventListener('change', () => this.#filterChanged());
    this.#verdict.addEventListener('change', () => this.#filterChanged());
    this.#pause.addEventListener('click', () => {
      this.#isPaused = !this.#isPaused;
      setAttribute(this.#pause, 'aria-pressed', `${this.#isPaused}`);
      setText(this.#pause, this.#isPaused ? 'Go on' : 'Pause');
    });
  }

  enter(parameters: URLSearchParams): void {
    const names = [...FIELDS, 'verdict'] as const;
    if (names.some((name) => parameters.has(name))) {
      for (const [name, input] of this.#inputs) input.value = parameters.get(name) ?? '';
      this.#verdict.value = parameters.get('verdict') ?? '';
    }
    this.#forget();
  }

  async refresh(): Promise<void> {
    if (this.#isPaused) return;
    const filter = this.#filter();
    const page = await ask('flows', { ...filter, after: this.#after ?? 0, limit: MOST_ROWS });
    // The filter was changed meanwhile: this is the answer to another question.
    if (JSON.stringify(filter) !== JSON.stringify(this.#filter())) return;
    // Another agent counts from the beginning.
    if (this.#after !== undefined && page.next < this.#after) this.#flows = [];
    this.#missed += this.#after === undefined ? 0 : page.missed;
    this.#after = page.next;
    const known = new Set(this.#flows.map(({ sequence }) => sequence));
    const added = page.flows.filter(({ sequence }) => !known.has(sequence));
    this.#flows.push(...added);
    this.#flows.sort((a, b) => b.sequence - a.sequence);
    this.#flows.length = Math.min(this.#flows.length, MOST_ROWS);
    this.#table.set(this.#flows);
    const missed = this.#missed > 0 ? `, ${count(this.#missed)} went by too fast` : '';
    setText(this.#note, `${count(this.#flows.length)} shown${missed}`);
  }

  #filter(): Readonly<Record<string, string>> {
    const given = [...this.#inputs].map(([name, input]) => [name, input.value.trim()]);
    return Object.fromEntries([...given, ['verdict', this.#verdict.value]].filter(([, value]) => value !== ''));
  }

  #filterChanged(): void {
    remember('flows', this.#filter());
    this.#forget();
    void this.refresh();
  }

  #forget(): void {
    this.#flows = [];
    this.#after = undefined;
    this.#missed = 0;
    this.#isPaused = false;
    setAttribute(this.#pause, 'aria-pressed', 'false');
    setText(this.#pause, 'Pause');
  }
}
