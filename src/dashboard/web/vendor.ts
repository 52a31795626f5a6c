import type { Core, CytoscapeOptions } from 'cytoscape';
import type uPlot from 'uplot';

/** The libraries are plain scripts that leave a name behind; each is fetched when a page first needs it. */
interface Loaded {
  uPlot: typeof uPlot;
  cytoscape: ((options: CytoscapeOptions) => Core) & { warnings(isOn: boolean): void };
}

const loading = new Map<string, Promise<void>>();

export async function loadUplot(): Promise<Loaded['uPlot']> {
  await load('uPlot.iife.min.js');
  return (globalThis as unknown as Loaded).uPlot;
}

/** With the layout `fcose`, which puts itself in. */
export async function loadCytoscape(): Promise<Loaded['cytoscape']> {
  for (const script of ['cytoscape.min.js', 'layout-base.js', 'cose-base.js', 'cytoscape-fcose.js']) await load(script);
  const { cytoscape } = globalThis as unknown as Loaded;
  // Two boxes that overlap for a moment are nothing to warn of.
  cytoscape.warnings(false);
  return cytoscape;
}

function load(script: string): Promise<void> {
  const known = loading.get(script);
  if (known !== undefined) return known;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const element = document.createElement('script');
  element.src = `/assets/vendor/${script}`;
  element.addEventListener('load', () => resolve());
  element.addEventListener('error', () => reject(new Error(`${script} could not be fetched`)));
  document.head.append(element);
  loading.set(script, promise);
  return promise;
}
