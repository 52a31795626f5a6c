import type { PolicyView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { badge, el, emptyState, setAttribute, setBadge, setText } from './dom.ts';
import { ago, count } from './format.ts';
import { type Page, remember } from './page.ts';
import { type Column, Table } from './table.ts';

const COLUMNS: ReadonlyArray<Column<PolicyView>> = [
  { title: 'Policy', sortBy: ({ name }) => name, cell: ({ name }) => name },
  { title: 'Namespace', sortBy: ({ namespace }) => namespace, cell: ({ namespace }) => namespace },
  {
    title: 'Action',
    sortBy: ({ action }) => action,
    cell: ({ action }) => action,
  },
  { title: 'Scope', isMinor: true, sortBy: ({ scope }) => scope, cell: ({ scope }) => scope },
  {
    title: 'Mode',
    sortBy: (policy) => modeOf(policy).text,
    cell: (policy, cell) => {
      const { text, tone } = modeOf(policy);
      const mark = cell.firstElementChild ?? cell.appendChild(badge(text, tone));
      if (mark instanceof HTMLElement) setBadge(mark, text, tone);
      setAttribute(cell, 'title', policy.condition);
      return undefined;
    },
  },
  { title: 'Allowed', isNumber: true, sortBy: ({ allowed }) => allowed, cell: ({ allowed }) => count(allowed) },
  {
    title: 'Denied',
    isNumber: true,
    sortBy: ({ denied }) => denied,
    cell: ({ denied }, cell) => {
      setAttribute(cell, 'data-tone', denied > 0 ? 'bad' : undefined);
      return count(denied);
    },
  },
  {
    title: 'Would deny',
    hint: 'Connections that this dry run would have denied',
    isNumber: true,
    sortBy: ({ wouldDeny }) => wouldDeny,
    cell: ({ wouldDeny }, cell) => {
      setAttribute(cell, 'data-tone', wouldDeny > 0 ? 'warn' : undefined);
      return count(wouldDeny);
    },
  },
  {
    title: 'Last denial',
    isNumber: true,
    isMinor: true,
    sortBy: ({ lastDenied }) => lastDenied ?? 0,
    cell: ({ lastDenied }) => (lastDenied === undefined ? '–' : ago(lastDenied, Date.now())),
  },
  { title: 'Condition', isText: true, cell: ({ condition }) => condition ?? '' },
];

export class PoliciesPage implements Page {
  readonly title = 'Policies';
  readonly element = el('div', { class: 'page' });
  readonly #filter = el('input', {
    type: 'search',
    placeholder: 'Filter by name or namespace',
    'aria-label': 'Filter policies',
  });
  readonly #total = el('span', { class: 'muted total' });
  readonly #table = new Table<PolicyView>({
    label: 'Policies that this node knows',
    columns: COLUMNS,
    keyOf: ({ namespace, name }) => `${namespace}/${name}`,
    sortedBy: 'Denied',
    isDescending: true,
    open: () => {
      location.hash = '#/flows?verdict=denied';
    },
    empty: emptyState(
      'No policy applies here',
      'Without one every identity may connect. Write an AuthorizationPolicy, try it with culvert policy check and culvert policy test, or let it run dry first.',
    ),
  });
  #policies: readonly PolicyView[] = [];

  constructor() {
    const tools = el('div', { class: 'tools' }, this.#filter, this.#total);
    this.element.append(
      el('div', { class: 'page-head' }, el('h1', { text: this.title }), tools),
      el('p', {
        class: 'muted lead',
        text: 'Counted on this node since the agent started. Press a line for the flows that were denied.',
      }),
      this.#table.element,
    );
    this.#filter.addEventListener('input', () => {
      remember('policies', { q: this.#filter.value });
      this.#draw();
    });
  }

  enter(parameters: URLSearchParams): void {
    this.#filter.value = parameters.get('q') ?? this.#filter.value;
  }

  async refresh(): Promise<void> {
    this.#policies = await ask('policies');
    this.#draw();
  }

  #draw(): void {
    const wanted = this.#filter.value.trim().toLowerCase();
    const shown = this.#policies.filter(({ namespace, name }) => `${namespace}/${name}`.toLowerCase().includes(wanted));
    this.#table.set(shown);
    setText(this.#total, `${count(shown.length)} of ${count(this.#policies.length)}`);
  }
}

function modeOf({ dryRun, condition }: PolicyView): { text: string; tone: 'good' | 'info' | 'warn' } {
  if (dryRun) return { text: 'dry run', tone: 'info' };
  return condition === undefined ? { text: 'enforced', tone: 'good' } : { text: 'stricter than written', tone: 'warn' };
}
