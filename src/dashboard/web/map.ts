import type { MapEdge, MapNode, MapView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { badge, el, emptyState, setAttribute, setBadge, setText, show } from './dom.ts';
import { EdgePanel, nameOf } from './edge-panel.ts';
import { byteRate, count, milliseconds, rate } from './format.ts';
import { Graph } from './graph.ts';
import { type Page, remember } from './page.ts';
import { HEALTH, SECURITY } from './paths.ts';
import { symbol } from './symbols.ts';
import { type Column, Table } from './table.ts';

/** A drawing of more edges than this says nothing; the table has all. */
const MOST_DRAWN = 150;

interface Row {
  readonly edge: MapEdge;
  readonly from: MapNode;
  readonly to: MapNode;
}

const URGENCY: Readonly<Record<MapEdge['health'], number>> = { bad: 3, degraded: 2, good: 1, idle: 0 };

const COLUMNS: ReadonlyArray<Column<Row>> = [
  { title: 'From', sortBy: ({ from }) => nameOf(from), cell: ({ from }) => nameOf(from) },
  { title: 'To', sortBy: ({ to }) => nameOf(to), cell: ({ to }) => nameOf(to) },
  {
    title: 'Health',
    sortBy: ({ edge }) => URGENCY[edge.health],
    cell: ({ edge }, cell) => {
      const { text, tone } = HEALTH[edge.health];
      const mark = cell.firstElementChild ?? cell.appendChild(badge(text, tone));
      if (mark instanceof HTMLElement) setBadge(mark, text, tone);
      return undefined;
    },
  },
  {
    title: 'Secured',
    sortBy: ({ edge }) => SECURITY[edge.security].text,
    cell: ({ edge }, cell) => {
      if (cell.dataset.of === edge.security) return undefined;
      cell.dataset.of = edge.security;
      cell.replaceChildren(symbol(edge.security), SECURITY[edge.security].text);
      setAttribute(cell, 'data-tone', SECURITY[edge.security].tone === 'warn' ? 'warn' : undefined);
      return undefined;
    },
  },
  {
    title: 'Traffic',
    isNumber: true,
    sortBy: ({ edge }) => edge.bytesPerSecond,
    cell: ({ edge }) => byteRate(edge.bytesPerSecond),
  },
  {
    title: 'New/s',
    isNumber: true,
    sortBy: ({ edge }) => edge.connectionsPerSecond,
    cell: ({ edge }) => rate(edge.connectionsPerSecond),
  },
  {
    title: 'Open',
    isNumber: true,
    isMinor: true,
    sortBy: ({ edge }) => edge.open,
    cell: ({ edge }) => count(edge.open),
  },
  {
    title: 'Failed/s',
    isNumber: true,
    sortBy: ({ edge }) => edge.failedPerSecond + edge.deniedPerSecond,
    cell: ({ edge }, cell) => {
      const failed = edge.failedPerSecond + edge.deniedPerSecond;
      setAttribute(cell, 'data-tone', failed > 0 ? 'bad' : undefined);
      return rate(failed);
    },
  },
  {
    title: 'Connect 99 %',
    isNumber: true,
    isMinor: true,
    sortBy: ({ edge }) => edge.p99Ms ?? 0,
    cell: ({ edge }) => milliseconds(edge.p99Ms),
  },
];

type View = 'graph' | 'table';

export class MapPage implements Page {
  readonly title = 'Map';
  readonly element = el('div', { class: 'page map-page' });
  readonly #filter = el('input', {
    type: 'search',
    placeholder: 'Filter by service or namespace',
    'aria-label': 'Filter the map',
  });
  readonly #health = el(
    'select',
    { 'aria-label': 'Which edges' },
    el('option', { value: '', text: 'Every edge' }),
    el('option', { value: 'active', text: 'With traffic' }),
    el('option', { value: 'problems', text: 'With problems' }),
    el('option', { value: 'open', text: 'Not secured' }),
  );
  readonly #total = el('span', { class: 'muted total', role: 'status' });
  readonly #graph = new Graph({
    edgeChosen: (id) => this.#choose({ edge: id }),
    nodeChosen: (id) => this.#choose({ node: id }),
    nothingChosen: () => this.#choose({}),
  });
  readonly #panel = new EdgePanel({ closed: () => this.#choose({}), edgeChosen: (id) => this.#choose({ edge: id }) });
  readonly #table = new Table<Row>({
    label: 'Edges of the map',
    columns: COLUMNS,
    keyOf: ({ edge }) => edge.id,
    sortedBy: 'Traffic',
    isDescending: true,
    open: ({ edge }) => this.#choose({ edge: edge.id }, true),
    empty: emptyState('No edge matches', 'Choose every edge, or clear the filter.'),
  });
  readonly #empty = emptyState(
    'Nobody has talked yet',
    'The map shows who connects to whom as soon as a pod in the mesh opens a connection, or is connected to.',
  );
  readonly #graphBox: HTMLElement;
  readonly #switch = el('div', { class: 'switch', role: 'group', 'aria-label': 'How the map is shown' });
  #data: MapView = { nodes: [], edges: [], isCut: false };
  #chosen: { readonly edge?: string; readonly node?: string } = {};
  #view: View = 'graph';
  #drawn = new Set<string>();

  constructor() {
    this.#graphBox = el('div', { class: 'graph-box' }, this.#graph.element, this.#graphTools(), legend());
    for (const [view, text] of [
      ['graph', 'Graph'],
      ['table', 'Table'],
    ] as const) {
      const button = el('button', { type: 'button', text, 'data-view': view });
      button.addEventListener('click', () => this.#setView(view));
      this.#switch.append(button);
    }
    const tools = el('div', { class: 'tools' }, this.#filter, this.#health, this.#switch, this.#total);
    const body = el(
      'div',
      { class: 'map-body' },
      el('div', { class: 'map-main' }, this.#graphBox, this.#table.element, this.#empty),
      this.#panel.element,
    );
    this.element.append(el('div', { class: 'page-head' }, el('h1', { text: this.title }), tools), body);
    for (const input of [this.#filter, this.#health]) {
      input.addEventListener('input', () => {
        this.#drawn.clear();
        this.#remember();
        this.#draw();
      });
    }
  }

  enter(parameters: URLSearchParams): void {
    this.#filter.value = parameters.get('q') ?? this.#filter.value;
    this.#view = parameters.get('view') === 'table' ? 'table' : parameters.has('view') ? 'graph' : this.#view;
    const edge = parameters.get('edge');
    if (edge !== null) this.#chosen = { edge };
    this.#draw();
  }

  async refresh(): Promise<void> {
    this.#data = await ask('map');
    this.#draw();
    await this.#showChosen();
  }

  #draw(): void {
    const rows = this.#rows();
    const isNothing = this.#data.edges.length === 0;
    for (const button of this.#switch.children)
      setAttribute(button, 'aria-pressed', `${button.getAttribute('data-view') === this.#view}`);
    show(this.#empty, isNothing);
    show(this.#graphBox, !isNothing && this.#view === 'graph');
    show(this.#table.element, !isNothing && this.#view === 'table');
    if (this.#view === 'table') this.#table.set(rows);
    else if (!isNothing && this.element.isConnected) this.#drawGraph(rows);
    this.#table.select(this.#chosen.edge);
    this.#say(rows);
  }

  /** Those that are drawn stay, so that the picture does not change with every number. */
  #drawGraph(rows: readonly Row[]): void {
    const urgent = [...rows].sort(
      (a, b) =>
        Number(this.#drawn.has(b.edge.id)) - Number(this.#drawn.has(a.edge.id)) ||
        URGENCY[b.edge.health] - URGENCY[a.edge.health] ||
        b.edge.bytesPerSecond - a.edge.bytesPerSecond,
    );
    const shown = urgent.slice(0, MOST_DRAWN);
    const chosen = rows.find(({ edge }) => edge.id === this.#chosen.edge);
    if (chosen !== undefined && !shown.includes(chosen)) shown.push(chosen);
    this.#drawn = new Set(shown.map(({ edge }) => edge.id));
    const nodes = new Map(shown.flatMap(({ from, to }) => [[from.id, from] as const, [to.id, to] as const]));
    void this.#graph.set(
      [...nodes.values()],
      shown.map(({ edge }) => edge),
    );
  }

  #say(rows: readonly Row[]): void {
    const drawn = this.#view === 'graph' ? Math.min(rows.length, Math.max(this.#drawn.size, 0)) : rows.length;
    const hidden = drawn < rows.length ? `the ${count(drawn)} that matter most of ` : '';
    const cut = this.#data.isCut ? ', more than are counted' : '';
    setText(this.#total, `${hidden}${count(rows.length)} edges${cut}`);
  }

  #rows(): readonly Row[] {
    const nodes = new Map(this.#data.nodes.map((node) => [node.id, node]));
    const wanted = this.#filter.value.trim().toLowerCase();
    return this.#data.edges.flatMap((edge) => {
      const from = nodes.get(edge.from);
      const to = nodes.get(edge.to);
      if (from === undefined || to === undefined || !this.#isWanted(edge)) return [];
      if (wanted !== '' && !`${nameOf(from)} ${nameOf(to)}`.toLowerCase().includes(wanted)) return [];
      return [{ edge, from, to }];
    });
  }

  #isWanted({ health, security }: MapEdge): boolean {
    switch (this.#health.value) {
      case 'active':
        return health !== 'idle';
      case 'problems':
        return health === 'bad' || health === 'degraded';
      case 'open':
        return security === 'none' || security === 'mixed';
      default:
        return true;
    }
  }

  #choose(chosen: { readonly edge?: string; readonly node?: string }, withFocus = false): void {
    this.#chosen = chosen;
    this.#remember();
    this.#graph.select(chosen.edge ?? chosen.node);
    this.#table.select(chosen.edge);
    void this.#showChosen().then(() => {
      if (withFocus) this.#panel.focus();
    });
  }

  async #showChosen(): Promise<void> {
    const chosen = this.#chosen;
    this.#graph.select(chosen.edge ?? chosen.node);
    if (chosen.edge !== undefined) {
      const details = await ask('edge', { id: chosen.edge }).catch(() => undefined);
      if (this.#chosen !== chosen) return;
      if (details !== undefined) this.#panel.showEdge(details);
      else this.#choose({});
      return;
    }
    const node = this.#data.nodes.find(({ id }) => id === chosen.node);
    if (node === undefined) {
      this.#panel.close();
      return;
    }
    const rows = this.#rows().filter(({ edge }) => edge.from === node.id || edge.to === node.id);
    this.#panel.showNode(
      node,
      [...rows].sort((a, b) => b.edge.bytesPerSecond - a.edge.bytesPerSecond),
    );
  }

  #setView(view: View): void {
    this.#view = view;
    this.#remember();
    this.#draw();
  }

  #remember(): void {
    remember('map', {
      q: this.#filter.value,
      view: this.#view === 'table' ? 'table' : undefined,
      edge: this.#chosen.edge,
    });
  }

  #graphTools(): HTMLElement {
    const button = (text: string, label: string, press: () => void): HTMLElement => {
      const made = el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, text });
      made.addEventListener('click', press);
      return made;
    };
    return el(
      'div',
      { class: 'graph-tools', role: 'group', 'aria-label': 'Drawing' },
      button('+', 'Closer', () => this.#graph.zoom(1.3)),
      button('−', 'Farther', () => this.#graph.zoom(1 / 1.3)),
      button('⟲', 'Arrange again', () => this.#graph.arrange()),
    );
  }
}

function legend(): HTMLElement {
  const list = el('ul', { class: 'legend map-legend', 'aria-label': 'Legend' });
  for (const health of ['good', 'degraded', 'bad', 'idle'] as const)
    list.append(el('li', {}, el('span', { class: 'line-mark', 'data-health': health }), HEALTH[health].text));
  for (const security of ['mutual_tls', 'kernel', 'none'] as const)
    list.append(el('li', {}, symbol(security), SECURITY[security].text));
  list.append(el('li', {}, el('span', { class: 'box-mark here' }), 'on this node'));
  return list;
}
