import type { StylesheetJson } from 'cytoscape';
import { colour } from './theme.ts';

/** How the map is drawn, in the colours of the moment's theme. */
export function stylesOf(): StylesheetJson {
  const line = (name: string) => ({ 'line-color': colour(name), 'target-arrow-color': colour(name) });
  return [
    {
      selector: 'node',
      style: {
        shape: 'round-rectangle',
        label: 'data(label)',
        'background-color': colour('surface-2'),
        'border-width': 1,
        'border-color': colour('line-2'),
        color: colour('text-2'),
        'font-family': 'system-ui, sans-serif',
        'font-size': 12,
        'text-wrap': 'wrap',
        'text-valign': 'center',
        'text-halign': 'center',
        'min-zoomed-font-size': 5,
      },
    },
    // A namespace has none: it is as large as what is in it.
    { selector: 'node[width]', style: { width: 'data(width)', height: 'data(height)' } },
    {
      selector: 'node.here',
      style: {
        'background-color': colour('accent-soft'),
        'border-color': colour('accent'),
        'border-width': 1.5,
        color: colour('text'),
        'font-weight': 600,
      },
    },
    { selector: 'node.outside', style: { 'border-style': 'dashed', 'background-color': colour('surface') } },
    {
      selector: 'node.namespace',
      style: {
        'background-color': colour('sunken'),
        'background-opacity': 0.55,
        'border-color': colour('line'),
        'border-width': 1,
        label: 'data(label)',
        'text-valign': 'top',
        'text-halign': 'center',
        'text-margin-y': -3,
        'font-size': 11,
        color: colour('muted'),
        padding: '16px',
        events: 'no',
      },
    },
    {
      selector: 'edge',
      style: {
        width: 'data(width)',
        'curve-style': 'unbundled-bezier',
        'control-point-distances': [18],
        'control-point-weights': [0.5],
        'target-arrow-shape': 'triangle',
        'arrow-scale': 0.8,
        opacity: 0.9,
        ...line('health-good'),
      },
    },
    {
      selector: 'edge.degraded',
      style: { 'line-style': 'dashed', 'line-dash-pattern': [7, 3], ...line('health-degraded') },
    },
    { selector: 'edge.bad', style: { ...line('health-bad') } },
    { selector: 'edge.idle', style: { 'line-style': 'dotted', width: 1.2, ...line('health-idle') } },
    {
      selector: 'edge.pointed, edge.chosen',
      style: {
        opacity: 1,
        label: 'data(label)',
        'font-size': 11,
        color: colour('text'),
        'text-background-color': colour('surface'),
        'text-background-opacity': 0.95,
        'text-background-padding': '3px',
        'text-margin-y': -17,
        'underlay-color': colour('accent'),
        'underlay-opacity': 0.22,
        'underlay-padding': 5,
      },
    },
    { selector: 'node.pointed, node.chosen', style: { 'border-width': 2.5, 'border-color': colour('accent') } },
    { selector: '.faded', style: { opacity: 0.28 } },
    { selector: 'node.namespace.faded', style: { opacity: 0.5 } },
  ] as StylesheetJson;
}
