import type { MapEdge } from '../../telemetry/index.ts';
import { SYMBOLS } from './symbols.ts';

/** How an edge is secured, on a disc in its middle. */
export function drawSymbol(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  security: MapEdge['security'],
  colours: Readonly<Record<'surface' | 'secure' | 'open' | 'line', string>>,
): void {
  context.save();
  context.translate(x, y);
  context.beginPath();
  context.arc(0, 0, 9, 0, 2 * Math.PI);
  context.fillStyle = colours.surface;
  context.fill();
  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  context.stroke();
  context.translate(-6, -6.3);
  context.lineWidth = 1.2;
  context.strokeStyle = security === 'mutual_tls' || security === 'kernel' ? colours.secure : colours.open;
  context.stroke(new Path2D(SYMBOLS[security]));
  context.restore();
}
