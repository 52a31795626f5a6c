import type { Case, Finding } from './world.ts';

/** One sentence. */
export function conclude(situation: Case, findings: readonly Finding[]): { connects: boolean; conclusion: string } {
  const { source, target } = situation;
  const against = findings.find(({ state }) => state === 'bad');
  if (against !== undefined)
    return {
      connects: false,
      conclusion: `${source.name} would not connect to ${target.name}: ${against.because ?? against.text}.`,
    };
  const doubt = situation.departure.kind === 'elsewhere' ? ', as far as this node knows' : '';
  return { connects: true, conclusion: `${source.name} would connect to ${target.name}${wayText(situation)}${doubt}.` };
}

function wayText({ route, departure }: Case): string {
  if (departure.kind === 'direct') return ' in the clear, past the mesh';
  switch (route?.kind) {
    case 'hbone':
      return route.via === 'waypoint' ? ' if its waypoint lets it' : ', and both prove who they are';
    case 'self':
      return ', which is the pod itself';
    case 'plain':
    case 'passthrough':
      return ' in the clear';
    default:
      return '';
  }
}
