import type { NodeView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { badge, el, emptyState, keepChildren, setAttribute, setBadge, setText, type Tone } from './dom.ts';
import { bytes, count, duration, milliseconds, percent, until } from './format.ts';
import type { Page } from './page.ts';
import { shortIdentity } from './paths.ts';
import { type Column, Table } from './table.ts';

type Worker = NodeView['workers'][number];
type Cost = NodeView['namespaces'][number] & { readonly share: number };
type KernelMap = NodeView['maps'][number];
type Program = NodeView['programs'][number];
type Certificate = NodeView['certificates'][number];

const HOUR_MS = 3_600_000;
const TONES: Readonly<Record<string, Tone>> = {
  serving: 'good',
  attached: 'good',
  running: 'good',
  available: 'good',
  starting: 'info',
  renewing: 'info',
  initializing: 'info',
  paused: 'warn',
  stopped: 'bad',
  unavailable: 'bad',
};

export class NodePage implements Page {
  readonly title = 'Node';
  readonly element = el('div', { class: 'page' });
  readonly #tiles = el('dl', { class: 'tiles small' });
  readonly #costs = table(
    'Cost by namespace',
    COST_COLUMNS,
    ({ namespace }) => namespace,
    'No traffic yet',
    'What a namespace has used of the tunnel appears with its first connection.',
    'CPU',
  );
  readonly #workers = table(
    'Tunnel workers',
    WORKER_COLUMNS,
    ({ slot }) => `${slot}`,
    'No worker',
    'The agent is starting.',
  );
  readonly #certificates = table(
    'Certificates',
    CERTIFICATE_COLUMNS,
    ({ identity }) => identity,
    'No certificate',
    'Without a control process nothing is encrypted: start the agent with --node and --control.',
    'Expires',
  );
  readonly #maps = table(
    'Kernel maps',
    MAP_COLUMNS,
    ({ name }) => name,
    'No map is known',
    'The kernel programs are not loaded yet.',
    'Fill',
  );
  readonly #programs = table(
    'Kernel programs',
    PROGRAM_COLUMNS,
    ({ name }) => name,
    'No program is known',
    'The kernel programs are not loaded yet.',
  );

  constructor() {
    const columns = el(
      'div',
      { class: 'columns' },
      card('Cost by namespace', this.#costs.element, 'Share of the tunnel’s processor time and memory'),
      card('Tunnel workers', this.#workers.element),
      card('Certificates', this.#certificates.element),
      card('Kernel maps', this.#maps.element),
      card('Kernel programs', this.#programs.element),
    );
    this.element.append(el('div', { class: 'page-head' }, el('h1', { text: this.title })), this.#tiles, columns);
  }

  enter(): void {}

  async refresh(): Promise<void> {
    const view = await ask('node');
    const cpu = view.namespaces.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
    this.#drawTiles(view, cpu);
    this.#costs.set(view.namespaces.map((each) => ({ ...each, share: cpu === 0 ? 0 : each.cpuSeconds / cpu })));
    this.#workers.set(view.workers);
    this.#certificates.set(view.certificates);
    this.#maps.set(view.maps);
    this.#programs.set(view.programs);
  }

  #drawTiles({ memoryBytes, descriptors, workers, certificates }: NodeView, cpu: number): void {
    const expiring = certificates.filter(
      ({ expires }) => expires !== undefined && expires - Date.now() < HOUR_MS,
    ).length;
    const serving = workers.filter(({ state }) => state === 'serving').length;
    const tiles = [
      { title: 'Memory of the agent', value: bytes(memoryBytes), note: 'resident' },
      { title: 'Tunnel processor time', value: duration(cpu * 1_000), note: 'since the agent started' },
      { title: 'Workers', value: `${serving} of ${workers.length}`, note: 'serving' },
      {
        title: 'Descriptors',
        value: count(descriptors.open),
        note: `${percent(descriptors.limit === 0 ? 0 : descriptors.open / descriptors.limit)} of ${count(descriptors.limit)}`,
      },
      {
        title: 'Certificates',
        value: count(certificates.length),
        note: expiring === 0 ? 'none expires within an hour' : `${expiring} to expire within an hour`,
      },
    ];
    keepChildren(
      this.#tiles,
      tiles,
      ({ title }) => title,
      ({ title }) => el('div', { class: 'tile' }, el('dt', { text: title }), el('dd', { class: 'value' }), el('dd')),
      (element, { value, note }) => {
        const [, first, second] = element.children;
        if (first !== undefined) setText(first, value);
        if (second !== undefined) setText(second, note);
      },
    );
  }
}

const COST_COLUMNS: ReadonlyArray<Column<Cost>> = [
  { title: 'Namespace', sortBy: ({ namespace }) => namespace, cell: ({ namespace }) => namespace },
  {
    title: 'CPU',
    hint: 'Processor seconds of the tunnel',
    isNumber: true,
    sortBy: ({ cpuSeconds }) => cpuSeconds,
    cell: ({ cpuSeconds, share }, cell) => bar(cell, share, `${cpuSeconds.toFixed(1)} s`, percent(share)),
  },
  { title: 'Memory', isNumber: true, sortBy: (cost) => cost.memoryBytes, cell: (cost) => bytes(cost.memoryBytes) },
  { title: 'Traffic', isNumber: true, sortBy: (cost) => cost.bytes, cell: (cost) => bytes(cost.bytes) },
  { title: 'Connections', isNumber: true, sortBy: (cost) => cost.connections, cell: (cost) => count(cost.connections) },
];

const WORKER_COLUMNS: ReadonlyArray<Column<Worker>> = [
  { title: 'Worker', sortBy: ({ slot }) => slot, cell: ({ slot }) => `${slot}` },
  { title: 'State', sortBy: ({ state }) => state, cell: ({ state }, cell) => stateCell(cell, state) },
  {
    title: 'Open',
    isNumber: true,
    sortBy: (worker) => worker.openConnections,
    cell: (worker) => count(worker.openConnections),
  },
  {
    title: 'Delay 99 %',
    hint: 'How late its event loop was in the last second',
    isNumber: true,
    sortBy: (worker) => worker.delayP99Ms,
    cell: (worker, cell) => {
      setAttribute(cell, 'data-tone', worker.delayP99Ms > 50 ? 'bad' : worker.delayP99Ms > 10 ? 'warn' : undefined);
      return milliseconds(worker.delayP99Ms);
    },
  },
  {
    title: 'CPU',
    isNumber: true,
    sortBy: (worker) => worker.cpuShare,
    cell: ({ cpuShare }, cell) => bar(cell, cpuShare, percent(cpuShare)),
  },
];

const CERTIFICATE_COLUMNS: ReadonlyArray<Column<Certificate>> = [
  {
    title: 'Identity',
    sortBy: ({ identity }) => identity,
    cell: ({ identity }, cell) => {
      setAttribute(cell, 'title', identity);
      return shortIdentity(identity);
    },
  },
  {
    title: 'State',
    sortBy: ({ state }) => state,
    cell: ({ state, lastError }, cell) => {
      setAttribute(cell, 'title', lastError);
      return stateCell(cell, state);
    },
  },
  {
    title: 'Expires',
    isNumber: true,
    sortBy: ({ expires }) => expires ?? 0,
    cell: ({ expires }, cell) => {
      setAttribute(cell, 'data-tone', expires !== undefined && expires - Date.now() < HOUR_MS ? 'bad' : undefined);
      if (expires !== undefined) cell.title = new Date(expires).toLocaleString();
      return expires === undefined ? '–' : until(expires, Date.now());
    },
  },
  { title: 'Last error', isText: true, cell: ({ lastError }) => lastError ?? '' },
];

const MAP_COLUMNS: ReadonlyArray<Column<KernelMap>> = [
  { title: 'Map', sortBy: ({ name }) => name, cell: ({ name }) => name },
  { title: 'Entries', isNumber: true, sortBy: ({ entries }) => entries, cell: ({ entries }) => count(entries) },
  { title: 'Room for', isNumber: true, sortBy: ({ capacity }) => capacity, cell: ({ capacity }) => count(capacity) },
  {
    title: 'Fill',
    isNumber: true,
    sortBy: (map) => fillOf(map),
    cell: (map, cell) => {
      setAttribute(cell, 'data-tone', fillOf(map) > 0.9 ? 'bad' : fillOf(map) > 0.7 ? 'warn' : undefined);
      return bar(cell, fillOf(map), percent(fillOf(map)));
    },
  },
];

const PROGRAM_COLUMNS: ReadonlyArray<Column<Program>> = [
  { title: 'Program', sortBy: ({ name }) => name, cell: ({ name }) => name },
  { title: 'State', sortBy: ({ state }) => state, cell: ({ state }, cell) => stateCell(cell, state) },
];

function table<T>(
  label: string,
  columns: ReadonlyArray<Column<T>>,
  keyOf: (row: T) => string,
  emptyTitle: string,
  emptyHint: string,
  sortedBy?: string,
): Table<T> {
  return new Table<T>({
    label,
    columns,
    keyOf,
    empty: emptyState(emptyTitle, emptyHint),
    ...(sortedBy === undefined ? {} : { sortedBy, isDescending: sortedBy !== 'Expires' }),
  });
}

function card(title: string, content: HTMLElement, note?: string): HTMLElement {
  const header = el('header', {}, el('h2', { text: title }));
  if (note !== undefined) header.append(el('span', { class: 'chart-unit', text: note }));
  return el('section', { class: 'card' }, header, content);
}

function stateCell(cell: HTMLElement, state: string): undefined {
  const mark = cell.firstElementChild ?? cell.appendChild(badge(state, 'idle'));
  if (mark instanceof HTMLElement) setBadge(mark, state, TONES[state] ?? 'warn');
}

/** A share of a whole as a bar before its number. */
function bar(cell: HTMLElement, share: number, text: string, title?: string): undefined {
  if (cell.childElementCount === 0) cell.append(el('meter', { min: '0', max: '1', 'aria-hidden': 'true' }), el('span'));
  const [meter, label] = cell.children;
  if (meter instanceof HTMLMeterElement) meter.value = Math.min(1, Math.max(0, share));
  if (label !== undefined) setText(label, text);
  setAttribute(cell, 'title', title);
}

function fillOf({ entries, capacity }: KernelMap): number {
  return capacity === 0 ? 0 : entries / capacity;
}
