import type { FlowView, MapEdge } from '../../telemetry/index.ts';
import { el, setAttribute, setText, type Tone } from './dom.ts';

/** Words, colours and symbols that are the same on every page. */

export const PATHS = ['kernel', 'tunnel', 'plain', 'passthrough'] as const;

export const PATH_NAMES: Readonly<Record<string, string>> = {
  kernel: 'kernel path',
  tunnel: 'tunnel',
  plain: 'plain',
  passthrough: 'pass-through',
};

export const SECURITY: Readonly<Record<MapEdge['security'], { readonly text: string; readonly tone: Tone }>> = {
  mutual_tls: { text: 'mutual TLS', tone: 'good' },
  kernel: { text: 'kernel', tone: 'good' },
  none: { text: 'not secured', tone: 'warn' },
  mixed: { text: 'partly secured', tone: 'warn' },
};

export const HEALTH: Readonly<Record<MapEdge['health'], { readonly text: string; readonly tone: Tone }>> = {
  good: { text: 'good', tone: 'good' },
  degraded: { text: 'degraded', tone: 'warn' },
  bad: { text: 'failing', tone: 'bad' },
  idle: { text: 'idle', tone: 'idle' },
};

/** A coloured mark and the path's name. */
export function setPath(cell: HTMLElement, path: string): void {
  let mark = cell.querySelector('.path-mark');
  if (mark === null) {
    mark = el('span', { class: 'path-mark', 'aria-hidden': 'true' });
    cell.replaceChildren(mark, el('span'));
  }
  setAttribute(mark, 'data-path', path);
  if (cell.lastElementChild !== null) setText(cell.lastElementChild, PATH_NAMES[path] ?? path);
}

/** How a connection came to its end, at a glance. */
export function toneOf(flow: Pick<FlowView, 'ended' | 'decision'>): Tone {
  if (flow.ended === 'clean') return 'good';
  if (flow.decision?.allowed === false) return 'bad';
  return flow.ended === 'drain-deadline' || flow.ended === 'pod-dropped' ? 'warn' : 'bad';
}

/** Who it is: a workload, else an identity, else an address. */
export function sourceOf(flow: FlowView): string {
  return partyOf(flow.source) ?? flow.client?.address ?? 'unknown';
}

export function destinationOf(flow: FlowView): string {
  const port = flow.asked.port || flow.server.port;
  return `${flow.service?.hostname ?? partyOf(flow.destination) ?? flow.server.address}:${port}`;
}

function partyOf(party: FlowView['source']): string | undefined {
  return party?.workload === undefined ? undefined : `${party.namespace ?? ''}/${party.workload}`;
}

/** The trust domain is the same almost everywhere, and long. */
export function shortIdentity(identity: string): string {
  const parts = /\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(identity);
  return parts === null ? identity : `${parts[1]}/${parts[2]}`;
}
