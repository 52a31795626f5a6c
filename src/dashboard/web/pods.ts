import type { PodView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { el, emptyState, setAttribute, setText, type Tone } from './dom.ts';
import { byteRate, count, rate, words } from './format.ts';
import { type Page, remember } from './page.ts';
import { shortIdentity } from './paths.ts';
import { type Column, Table } from './table.ts';

const TONES: Readonly<Record<string, Tone>> = {
  enrolled: 'good',
  failed: 'bad',
  enrolling: 'info',
  withdrawing: 'idle',
};

const COLUMNS: ReadonlyArray<Column<PodView>> = [
  { title: 'Pod', sortBy: ({ name }) => name, cell: ({ name }) => name },
  { title: 'Namespace', sortBy: ({ namespace }) => namespace, cell: ({ namespace }) => namespace },
  {
    title: 'State',
    sortBy: ({ state }) => state,
    cell: ({ state, error }, cell) => {
      const mark = cell.querySelector('.badge') ?? el('span', { class: 'badge' });
      if (!mark.isConnected) cell.replaceChildren(mark, el('span', { class: 'cell-note' }));
      setText(mark, state);
      setAttribute(mark, 'data-tone', TONES[state] ?? 'idle');
      if (cell.lastElementChild !== null) setText(cell.lastElementChild, error ?? '');
      return undefined;
    },
  },
  {
    title: 'Open',
    hint: 'Connections open at this moment',
    isNumber: true,
    sortBy: (pod) => pod.openConnections,
    cell: (pod) => count(pod.openConnections),
  },
  {
    title: 'New/s',
    hint: 'New connections per second, over the last minute',
    isNumber: true,
    sortBy: (pod) => pod.openedPerSecond,
    cell: (pod) => rate(pod.openedPerSecond),
  },
  {
    title: 'Traffic',
    isNumber: true,
    sortBy: (pod) => pod.bytesPerSecond,
    cell: (pod) => byteRate(pod.bytesPerSecond),
  },
  {
    title: 'Failed/s',
    isNumber: true,
    sortBy: (pod) => pod.failedPerSecond,
    cell: (pod, cell) => {
      setAttribute(cell, 'data-tone', pod.failedPerSecond > 0 ? 'bad' : undefined);
      return rate(pod.failedPerSecond);
    },
  },
  {
    title: 'Uncaptured',
    hint: 'Traffic that went past the mesh, by reason',
    isNumber: true,
    isMinor: true,
    sortBy: (pod) => uncapturedOf(pod),
    cell: (pod, cell) => {
      const reasons = Object.entries(pod.uncaptured).filter(([, number]) => number > 0);
      cell.title = reasons.map(([reason, number]) => `${words(reason)}: ${count(number)}`).join('\n');
      setAttribute(cell, 'data-tone', reasons.length > 0 ? 'warn' : undefined);
      return count(uncapturedOf(pod));
    },
  },
  { title: 'Addresses', isMinor: true, cell: ({ addresses }) => addresses.join(', ') },
  {
    title: 'Identity',
    isMinor: true,
    sortBy: ({ identity }) => identity ?? '',
    cell: ({ identity }, cell) => {
      setAttribute(cell, 'title', identity);
      return identity === undefined ? '–' : shortIdentity(identity);
    },
  },
];

export class PodsPage implements Page {
  readonly title = 'Pods';
  readonly element = el('div', { class: 'page' });
  readonly #filter = el('input', {
    type: 'search',
    placeholder: 'Name, namespace, address',
    'aria-label': 'Filter pods',
  });
  readonly #total = el('span', { class: 'muted total' });
  readonly #table = new Table<PodView>({
    label: 'Pods of this node',
    columns: COLUMNS,
    keyOf: ({ uid }) => uid,
    sortedBy: 'Traffic',
    isDescending: true,
    open: ({ namespace, name }) => {
      location.hash = `#/flows?pod=${encodeURIComponent(`${namespace}/${name}`)}`;
    },
    empty: emptyState(
      'No pod is in the mesh here',
      'Label a namespace with istio.io/dataplane-mode=ambient, or enrol a pod by hand: culvert enrol --help',
    ),
  });
  #pods: readonly PodView[] = [];

  constructor() {
    const tools = el('div', { class: 'tools' }, this.#filter, this.#total);
    this.element.append(el('div', { class: 'page-head' }, el('h1', { text: this.title }), tools), this.#table.element);
    this.#filter.addEventListener('input', () => {
      remember('pods', { q: this.#filter.value });
      this.#draw();
    });
  }

  enter(parameters: URLSearchParams): void {
    this.#filter.value = parameters.get('q') ?? this.#filter.value;
  }

  async refresh(): Promise<void> {
    this.#pods = await ask('pods');
    this.#draw();
  }

  #draw(): void {
    const wanted = this.#filter.value.trim().toLowerCase();
    const shown = this.#pods.filter(({ name, namespace, addresses, state }) =>
      `${namespace}/${name} ${addresses.join(' ')} ${state}`.toLowerCase().includes(wanted),
    );
    this.#table.set(shown);
    const served = this.#pods.filter(({ state }) => state === 'enrolled').length;
    setText(this.#total, `${count(shown.length)} of ${count(this.#pods.length)}, ${count(served)} served`);
  }
}

function uncapturedOf({ uncaptured }: PodView): number {
  return Object.values(uncaptured).reduce((sum, number) => sum + number, 0);
}
