import type { Core, EdgeSingular, ElementDefinition, LayoutOptions, NodeSingular } from 'cytoscape';
import type { FcoseLayoutOptions } from 'cytoscape-fcose';
import type { MapEdge, MapNode } from '../../telemetry/index.ts';
import { el } from './dom.ts';
import { byteRate } from './format.ts';
import { stylesOf } from './graph-style.ts';
import { drawSymbol } from './graph-symbol.ts';
import { colour, onTheme } from './theme.ts';
import { loadCytoscape } from './vendor.ts';

export interface GraphDeps {
  edgeChosen(id: string): void;
  nodeChosen(id: string): void;
  nothingChosen(): void;
}

/** More nodes than this are not drawn in a box for each namespace. */
const MOST_GROUPED = 60;
/** Symbols of more edges than this would hide the map. */
const MOST_SYMBOLS = 150;
const LEAST_LENGTH_FOR_SYMBOL = 44;
/** Farther away than this symbols would be larger than what they are about. */
const LEAST_ZOOM_FOR_SYMBOL = 0.5;
const LEAST_READABLE_ZOOM = 0.55;
const WIDTH_OF_A_LETTER = 6.6;

/** The map as a drawing. It is arranged once; what comes later is put beside its neighbours, so nothing jumps. */
export class Graph {
  readonly element = el('div', { class: 'graph', role: 'img' });
  readonly #canvas = el('div', { class: 'graph-canvas' });
  readonly #symbols = el('canvas', { class: 'graph-symbols' });
  readonly #deps: GraphDeps;
  #cy: Core | undefined;
  #isGrouped = true;
  #making: Promise<void> | undefined;
  #selected: string | undefined;

  constructor(deps: GraphDeps) {
    this.#deps = deps;
    this.element.append(this.#canvas, this.#symbols);
    onTheme(() => this.#cy?.style(stylesOf()));
    new ResizeObserver(() => this.#resized()).observe(this.element);
  }

  /** Draws what is new, takes away what is gone, and changes the rest in place. */
  async set(nodes: readonly MapNode[], edges: readonly MapEdge[]): Promise<void> {
    this.#making ??= this.#make(nodes.length);
    await this.#making;
    const cy = this.#cy;
    if (cy === undefined) return;
    const wanted = [...this.#groups(nodes), ...nodes.map((node) => this.#nodeOf(node)), ...edges.map(edgeOf)];
    const ids = new Set(wanted.map(({ data }) => data.id));
    const before = cy.nodes().length;
    const added: ElementDefinition[] = [];
    cy.batch(() => {
      cy.elements()
        .filter((element) => !ids.has(element.id()))
        .remove();
      for (const each of wanted) {
        const known = cy.getElementById(each.data.id ?? '');
        if (known.empty()) added.push(each);
        else {
          known.data(each.data);
          known.classes(each.classes ?? '');
        }
      }
      cy.add(added);
    });
    const fresh = added.filter(({ group }) => group === 'nodes').length;
    if (before === 0 || fresh > before / 3) this.arrange();
    else this.#placeBesideNeighbours(added);
    this.select(this.#selected);
    this.element.setAttribute(
      'aria-label',
      `${nodes.length} services and ${edges.length} edges between them; the table has them too`,
    );
  }

  arrange(): void {
    const cy = this.#cy;
    if (cy === undefined || cy.nodes().empty()) return;
    const isLarge = cy.nodes().length > MOST_GROUPED;
    const layout: FcoseLayoutOptions = {
      name: 'fcose',
      quality: 'default',
      numIter: isLarge ? 700 : 2_500,
      animate: false,
      randomize: true,
      fit: true,
      padding: 28,
      nodeSeparation: isLarge ? 80 : 110,
      idealEdgeLength: () => (isLarge ? 72 : cy.width() < 500 ? 90 : 130),
      nodeRepulsion: () => (isLarge ? 3_500 : 9_000),
      gravity: isLarge ? 0.7 : 0.25,
      packComponents: false,
      nodeDimensionsIncludeLabels: false,
    };
    cy.layout(layout as unknown as LayoutOptions).run();
    this.#turnToFit(cy);
    cy.fit(undefined, 24);
    const readable = isLarge ? 0 : LEAST_READABLE_ZOOM;
    const level = Math.min(1.15, Math.max(readable, cy.zoom()));
    if (level !== cy.zoom()) {
      cy.zoom(level);
      cy.center();
    }
  }

  /** @param id of an edge or a node; undefined: nothing */
  select(id: string | undefined): void {
    this.#selected = id;
    const cy = this.#cy;
    if (cy === undefined) return;
    cy.batch(() => {
      cy.elements().removeClass('chosen faded');
      const chosen = id === undefined ? cy.collection() : cy.getElementById(id);
      if (chosen.empty()) return;
      const isNode: boolean = cy.getElementById(id ?? '').isNode();
      const near = isNode ? chosen.closedNeighborhood() : chosen.union(chosen.connectedNodes());
      cy.elements().difference(near).difference(near.parents()).addClass('faded');
      chosen.addClass('chosen');
    });
  }

  zoom(by: number): void {
    const cy = this.#cy;
    cy?.zoom({ level: cy.zoom() * by, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
  }

  async #make(nodes: number): Promise<void> {
    const cytoscape = await loadCytoscape();
    this.#isGrouped = nodes <= MOST_GROUPED;
    const cy = cytoscape({
      container: this.#canvas,
      style: stylesOf(),
      minZoom: 0.08,
      maxZoom: 2.5,
      boxSelectionEnabled: false,
      autounselectify: true,
      textureOnViewport: nodes > MOST_GROUPED,
      pixelRatio: Math.min(devicePixelRatio, 2),
    });
    this.#cy = cy;
    cy.on('tap', 'edge', (event) => this.#deps.edgeChosen((event.target as EdgeSingular).id()));
    cy.on('tap', 'node', (event) => {
      const node = event.target as NodeSingular;
      if (!node.isParent()) this.#deps.nodeChosen(node.id());
    });
    cy.on('tap', (event) => {
      if (event.target === cy) this.#deps.nothingChosen();
    });
    cy.on('mouseover', 'edge, node', (event) => void (event.target as EdgeSingular).addClass('pointed'));
    cy.on('mouseout', 'edge, node', (event) => void (event.target as EdgeSingular).removeClass('pointed'));
    cy.on('render', () => this.#drawSymbols(cy));
  }

  /** A drawing that is wide in a window that is high is turned on its side. */
  #turnToFit(cy: Core): void {
    const { w, h } = cy.elements().boundingBox({});
    if (w > h === cy.width() > cy.height()) return;
    cy.batch(() => {
      cy.nodes().forEach((node) => {
        if (!node.isParent()) node.position({ x: node.position('y') * 1.25, y: node.position('x') * 0.85 });
      });
    });
  }

  /** What was chosen stays in sight when its details take a part of the window. */
  #resized(): void {
    const cy = this.#cy;
    if (cy === undefined) return;
    cy.resize();
    const chosen = cy.$('.chosen');
    if (chosen.empty() || cy.width() === 0) return;
    const { x1, x2, y1, y2 } = chosen.renderedBoundingBox({});
    if (x1 < 0 || y1 < 0 || x2 > cy.width() || y2 > cy.height()) cy.center(chosen);
  }

  #groups(nodes: readonly MapNode[]): ElementDefinition[] {
    if (!this.#isGrouped) return [];
    const namespaces = new Set(nodes.filter(({ kind }) => kind !== 'outside').map(({ namespace }) => namespace));
    return [...namespaces].map((namespace) => ({
      group: 'nodes',
      data: { id: `namespace ${namespace}`, label: namespace },
      classes: 'namespace',
    }));
  }

  #nodeOf(node: MapNode): ElementDefinition {
    const isOutside = node.kind === 'outside';
    const label = this.#isGrouped || isOutside ? node.name : `${node.name}\n${node.namespace}`;
    const letters = Math.max(...label.split('\n').map(({ length }) => length));
    return {
      group: 'nodes',
      data: {
        id: node.id,
        label,
        width: Math.min(220, Math.max(56, letters * WIDTH_OF_A_LETTER + 22)),
        height: label.includes('\n') ? 38 : 28,
        ...(this.#isGrouped && !isOutside ? { parent: `namespace ${node.namespace}` } : {}),
      },
      classes: `${node.kind} ${node.isHere ? 'here' : 'elsewhere'}`,
    };
  }

  #placeBesideNeighbours(added: readonly ElementDefinition[]): void {
    const cy = this.#cy;
    if (cy === undefined) return;
    const middle = cy.extent();
    let turn = 0;
    for (const { group, data } of added) {
      if (group !== 'nodes') continue;
      const node = cy.getElementById(data.id ?? '') as unknown as NodeSingular;
      const neighbours = node.neighborhood('node');
      const near = neighbours.empty()
        ? { x: middle.x2, y: (middle.y1 + middle.y2) / 2 }
        : centreOf(neighbours.toArray() as NodeSingular[]);
      turn += 2.4;
      node.position({ x: near.x + Math.cos(turn) * 90, y: near.y + Math.sin(turn) * 70 });
    }
  }

  #drawSymbols(cy: Core): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    const canvas = this.#symbols;
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
    }
    const context = canvas.getContext('2d');
    if (context === null) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const all = cy.edges('.chosen, .pointed').nonempty() && cy.edges().length > MOST_SYMBOLS;
    const edges = all ? cy.edges('.chosen, .pointed') : cy.edges();
    if (edges.length > MOST_SYMBOLS || cy.zoom() < LEAST_ZOOM_FOR_SYMBOL) return;
    const colours = {
      surface: colour('surface'),
      secure: colour('text-2'),
      open: colour('warn'),
      line: colour('line-2'),
    };
    edges.forEach((edge) => {
      if (edge.hasClass('faded')) return;
      const { x1, y1, x2, y2 } = edge.renderedBoundingBox({});
      if (Math.hypot(x2 - x1, y2 - y1) < LEAST_LENGTH_FOR_SYMBOL) return;
      const { x, y } = (edge as unknown as { renderedMidpoint(): { x: number; y: number } }).renderedMidpoint();
      drawSymbol(context, x, y, edge.data('security') as MapEdge['security'], colours);
    });
  }
}

function edgeOf(edge: MapEdge): ElementDefinition {
  return {
    group: 'edges',
    data: {
      id: edge.id,
      source: edge.from,
      target: edge.to,
      security: edge.security,
      width: widthOf(edge),
      label: edge.bytesPerSecond > 0 ? byteRate(edge.bytesPerSecond) : '',
    },
    classes: edge.health,
  };
}

/** One step for each tenfold of traffic: a byte and a gigabyte must both be visible. */
function widthOf({ bytesPerSecond, connectionsPerSecond }: MapEdge): number {
  const traffic = Math.max(bytesPerSecond, connectionsPerSecond * 100);
  return 1.2 + Math.min(6.5, Math.max(0, Math.log10(traffic + 1) - 1) * 0.95);
}

function centreOf(nodes: readonly NodeSingular[]): { x: number; y: number } {
  const sum = nodes.reduce((all, node) => ({ x: all.x + node.position('x'), y: all.y + node.position('y') }), {
    x: 0,
    y: 0,
  });
  return { x: sum.x / nodes.length, y: sum.y / nodes.length };
}
