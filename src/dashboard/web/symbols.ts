import type { MapEdge } from '../../telemetry/index.ts';

/** How an edge is secured, as lines in a square of 12: a lock, a chip, an open lock, a lock that is half. */
export const SYMBOLS: Readonly<Record<MapEdge['security'], string>> = {
  mutual_tls: 'M2.5 5.5h7v5h-7zM4 5.5v-1.500a2 2 0 0 1 4 0v1.500M6 7.500v1.2',
  kernel: 'M3.5 3.500h5v5h-5zM5 1.500v2M7 1.500v2M5 8.500v2M7 8.500v2M1.5 5h2M1.5 7h2M8.5 5h2M8.5 7h2',
  none: 'M2.5 5.5h7v5h-7zM4 5.500v-2a2 2 0 0 1 3.8-.8',
  mixed: 'M2.5 5.5h7v5h-7zM4 5.5v-1.500a2 2 0 0 1 4 0M2.5 8h7',
};

const SVG = 'http://www.w3.org/2000/svg';

export function symbol(security: MapEdge['security']): SVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 12 12');
  svg.setAttribute('class', 'symbol');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', SYMBOLS[security]);
  svg.append(line);
  return svg;
}
