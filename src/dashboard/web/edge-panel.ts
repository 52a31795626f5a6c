import type { EdgeDetails, FlowView, MapEdge, MapNode } from '../../telemetry/index.ts';
import { el, emptyState, keepChildren, setAttribute, setBadge, setText, show } from './dom.ts';
import { explain } from './explanation.ts';
import { byteRate, clockTime, count, milliseconds, rate, words } from './format.ts';
import { destinationOf, HEALTH, PATH_NAMES, SECURITY, shortIdentity, sourceOf, toneOf } from './paths.ts';
import { symbol } from './symbols.ts';

export interface EdgePanelDeps {
  closed(): void;
  edgeChosen(id: string): void;
}

/** What is known of one edge, or the edges of one service. */
export class EdgePanel {
  readonly element = el('aside', { class: 'panel', 'aria-label': 'Details', hidden: '' });
  readonly #heading = el('h2', { tabindex: '-1' });
  readonly #health = el('span', { class: 'badge' });
  readonly #security = el('span', { class: 'badge' });
  readonly #facts = el('dl', { class: 'facts two' });
  readonly #explain = el('button', { type: 'button', class: 'primary', text: 'Explain this edge' });
  readonly #ended = el('ul', { class: 'bars' });
  readonly #paths = el('ul', { class: 'bars' });
  readonly #identities = el('ul', { class: 'identities' });
  readonly #flows = el('ul', { class: 'flow-list' });
  readonly #noFlows = emptyState('No flow is kept', 'Connections are listed here when they end.');
  readonly #ofEdge: HTMLElement;
  readonly #ofNode = el('ul', { class: 'edge-list' });
  #newest: FlowView | undefined;

  constructor(deps: EdgePanelDeps) {
    const close = el('button', { type: 'button', class: 'icon-button', 'aria-label': 'Close the details', text: '✕' });
    close.addEventListener('click', () => deps.closed());
    this.element.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') deps.closed();
    });
    this.#explain.addEventListener('click', () => this.#explainEdge());
    this.#ofNode.addEventListener('click', (event) => {
      const button = event.target instanceof Element ? event.target.closest('button') : null;
      if (button?.dataset.edge !== undefined) deps.edgeChosen(button.dataset.edge);
    });
    this.#ofEdge = el(
      'div',
      { class: 'panel-body' },
      el('p', { class: 'badges' }, this.#health, this.#security),
      this.#facts,
      this.#explain,
      section('How connections ended', 'the last 10 minutes', this.#ended),
      section('Paths', '', this.#paths),
      section('Identities', 'client → server', this.#identities),
      section('Last flows', 'press one to see why', this.#flows, this.#noFlows),
    );
    this.element.append(el('header', {}, this.#heading, close), this.#ofEdge, this.#ofNode);
  }

  /** Gives the focus to what was opened, for those who came by keyboard. */
  focus(): void {
    this.#heading.focus({ preventScroll: true });
  }

  close(): void {
    show(this.element, false);
  }

  showEdge({ edge, from, to, ended, paths, identities, flows }: EdgeDetails): void {
    this.#open(`${nameOf(from)} → ${nameOf(to)}`, true);
    setBadge(this.#health, HEALTH[edge.health].text, HEALTH[edge.health].tone);
    this.#showSecurity(edge.security);
    this.#showFacts(edge);
    this.#newest = flows[0];
    this.#explain.disabled = this.#newest === undefined;
    this.#explain.title = this.#newest === undefined ? 'As soon as a connection has ended' : '';
    showBars(this.#ended, ended, words, (reason) => (reason === 'clean' ? 'health-good' : 'health-bad'));
    showBars(
      this.#paths,
      paths,
      (path) => PATH_NAMES[path] ?? path,
      (path) => `path-${path}`,
    );
    keepChildren(
      this.#identities,
      identities,
      ({ source, destination }) => `${source} ${destination}`,
      () => el('li', {}, el('span', { class: 'mono' }), el('b')),
      (element, { source, destination, count: number }) => {
        const [who, many] = element.children;
        if (who !== undefined) setText(who, `${shortIdentity(source)} → ${shortIdentity(destination)}`);
        if (many !== undefined) setText(many, count(number));
      },
    );
    this.#showFlows(flows);
  }

  showNode(
    node: MapNode,
    edges: ReadonlyArray<{ readonly edge: MapEdge; readonly from: MapNode; readonly to: MapNode }>,
  ): void {
    this.#open(nameOf(node), false);
    keepChildren(
      this.#ofNode,
      edges,
      ({ edge }) => edge.id,
      ({ edge }) =>
        el(
          'li',
          {},
          el('button', { type: 'button', 'data-edge': edge.id }, el('span'), el('span', { class: 'badge' }), el('b')),
        ),
      (element, { edge, from, to }) => {
        const [name, health, traffic] = element.firstElementChild?.children ?? [];
        if (name !== undefined) setText(name, edge.from === node.id ? `→ ${nameOf(to)}` : `← ${nameOf(from)}`);
        if (health instanceof HTMLElement) setBadge(health, HEALTH[edge.health].text, HEALTH[edge.health].tone);
        if (traffic !== undefined) setText(traffic, byteRate(edge.bytesPerSecond));
      },
    );
  }

  #open(title: string, isEdge: boolean): void {
    setText(this.#heading, title);
    show(this.#ofEdge, isEdge);
    show(this.#ofNode, !isEdge);
    show(this.element, true);
  }

  #showSecurity(security: MapEdge['security']): void {
    if (this.#security.dataset.of === security) return;
    this.#security.dataset.of = security;
    setAttribute(this.#security, 'data-tone', SECURITY[security].tone);
    this.#security.replaceChildren(symbol(security), SECURITY[security].text);
  }

  #showFacts(edge: MapEdge): void {
    const facts: ReadonlyArray<readonly [string, string]> = [
      ['Connections', `${rate(edge.connectionsPerSecond)} /s`],
      ['Traffic', byteRate(edge.bytesPerSecond)],
      ['Open', count(edge.open)],
      ['Failed', `${rate(edge.failedPerSecond)} /s`],
      ['Connect time', milliseconds(edge.p50Ms)],
      ['Denied', `${rate(edge.deniedPerSecond)} /s`],
      ['99 % within', milliseconds(edge.p99Ms)],
    ];
    keepChildren(
      this.#facts,
      facts,
      ([name]) => name,
      ([name]) => el('div', {}, el('dt', { text: name }), el('dd')),
      (element, [, value]) => {
        if (element.lastElementChild !== null) setText(element.lastElementChild, value);
      },
    );
  }

  #showFlows(flows: readonly FlowView[]): void {
    show(this.#noFlows, flows.length === 0);
    keepChildren(
      this.#flows,
      flows,
      ({ sequence }) => `${sequence}`,
      (flow) => {
        const button = el('button', { type: 'button' }, el('span', { class: 'time', text: clockTime(flow.endedAt) }));
        button.append(el('span', { text: `${sourceOf(flow)} → ${destinationOf(flow)}` }));
        button.append(el('span', { class: 'badge', 'data-tone': toneOf(flow), text: words(flow.ended) }));
        button.addEventListener('click', () => void explain({ flow }));
        return el('li', {}, button);
      },
      () => undefined,
    );
  }

  /** Asks about the two who met last, as they would meet now. */
  #explainEdge(): void {
    const flow = this.#newest;
    if (flow === undefined) return;
    void explain({ from: sourceOf(flow), to: destinationOf(flow) });
  }
}

export function nameOf(node: MapNode): string {
  return node.kind === 'outside' || node.namespace === '' ? node.name : `${node.namespace}/${node.name}`;
}

function section(title: string, note: string, ...content: readonly HTMLElement[]): HTMLElement {
  return el('section', {}, el('h3', {}, title, el('span', { class: 'chart-unit', text: note })), ...content);
}

function showBars(
  list: HTMLElement,
  counts: Readonly<Record<string, number>>,
  wordsOf: (key: string) => string,
  colourOf: (key: string) => string,
): void {
  const total = Object.values(counts).reduce((sum, number) => sum + number, 0);
  const sorted = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  keepChildren(
    list,
    sorted,
    ([key]) => key,
    ([key]) =>
      el(
        'li',
        {},
        el('span', { text: wordsOf(key) }),
        el('progress', { 'data-colour': colourOf(key), 'aria-hidden': 'true' }),
        el('b'),
      ),
    (element, [, number]) => {
      const [, bar, value] = element.children;
      if (bar instanceof HTMLProgressElement) {
        bar.max = Math.max(1, total);
        bar.value = number;
      }
      if (value !== undefined) setText(value, count(number));
    },
  );
}
