import { formatEndpoint } from '../../mesh/index.ts';
import { isLoopback } from './case.ts';
import { ENDS } from './ends.ts';
import { many, nameOf } from './names.ts';
import type { Case, ExplainedEndpoint, ExplainedRoute, ExplainWorld, Finding } from './world.ts';

type Hbone = Extract<ExplainedRoute, { kind: 'hbone' }>;

/** Where it is led, and by whom. */
export function routeSteps(world: ExplainWorld, situation: Case): readonly Finding[] {
  const { route, target, departure } = situation;
  if (departure.kind === 'refused') return [];
  if (route === undefined) return direct(situation);
  const { notes } = target;
  const step = (state: Finding['state'], text: string, details: readonly string[] = []): Finding => ({
    ...{ topic: 'route', state, text, details: [...notes, ...details] },
  });
  switch (route.kind) {
    case 'refuse':
      return [{ ...step('bad', refusal(situation, route), [todo(route.reason)]), because: because(situation, route) }];
    case 'passthrough':
      return [
        step(
          'good',
          `Nothing of the mesh has the address ${target.destination.address}, so the connection is passed on as it is, unencrypted.`,
        ),
      ];
    case 'plain':
      return [
        step(
          'good',
          `It leads to ${nameOf(route.workload)} at ${formatEndpoint(route.destination)}, which takes no tunnel: in the clear.`,
        ),
      ];
    case 'self':
      return [
        step(
          'good',
          `It leads back to ${nameOf(route.workload)} itself, at ${formatEndpoint(route.destination)}, and stays within the pod.`,
        ),
      ];
    case 'hbone':
      return route.via === 'waypoint'
        ? [waypoint(route, notes)]
        : [
            step(
              'good',
              `It leads to ${nameOf(route.workload)} at ${formatEndpoint(route.destination)}, which is in the mesh.`,
            ),
            ...endpoints(world, situation, route),
          ];
  }
}

/** Nobody of ours routes it. */
function direct({ source, target, arrival }: Case): readonly Finding[] {
  if (isLoopback(target.destination.address)) return [];
  const { service, destination } = target;
  const chooses =
    service === undefined
      ? ''
      : ` Its pod is chosen by the cluster's own service proxy; ${arrival === undefined ? 'it has none' : `${nameOf(arrival.workload)} stands for them here`}.`;
  return [
    {
      topic: 'route',
      state: 'note',
      text: `No agent leads it: it goes from ${source.name} to ${target.name}${service === undefined ? '' : ` (${formatEndpoint(destination)})`} in the clear.${chooses}`,
      details: target.notes,
    },
  ];
}

function waypoint({ nextHop, workload, service, acceptable }: Hbone, notes: readonly string[]): Finding {
  const of = service === undefined ? 'It' : `The service ${nameOf(service)}`;
  const weighted =
    (service?.weightedWaypoints.length ?? 0) > 0
      ? ['One of several weighted waypoints is drawn for each connection.']
      : [];
  return {
    topic: 'waypoint',
    state: 'unknown',
    text: `${of} is behind a waypoint, so it goes there first: ${nameOf(workload)} at ${formatEndpoint(nextHop)}. The waypoint decides what becomes of it; this node cannot see that.`,
    details: [...notes, ...weighted, `The waypoint must prove to be ${acceptable.join(' or ')}.`],
  };
}

function refusal({ target, source }: Case, { reason, text }: Extract<ExplainedRoute, { kind: 'refuse' }>): string {
  const name = target.service === undefined ? target.name : `The service ${nameOf(target.service)}`;
  switch (reason) {
    case 'no-endpoint': {
      const port = target.destination.port;
      const ports = target.service?.ports.map(({ servicePort }) => servicePort) ?? [];
      if (target.service !== undefined && !ports.includes(port))
        return `${name} has no port ${port}; its ports are ${ports.join(', ') || 'none'}. The connection is reset.`;
      return `${name} has no endpoint that ${source.name} may use for port ${port}. The connection is reset.`;
    }
    case 'unknown-waypoint':
      return `${name} asks for a waypoint that the mesh does not know (${text.replace('unknown waypoint: ', '')}). Nothing goes round it, so the connection is reset.`;
    case 'other-network':
      return `${name} is on another network, which cannot be reached from here. The connection is reset.`;
    default:
      return `The connection is reset: ${text}.`;
  }
}

function because({ target }: Case, { reason, text }: Extract<ExplainedRoute, { kind: 'refuse' }>): string {
  const name = target.service === undefined ? target.name : `the service ${nameOf(target.service)}`;
  switch (reason) {
    case 'no-endpoint':
      return `${name} has no endpoint for port ${target.destination.port}`;
    case 'unknown-waypoint':
      return `the waypoint of ${name} is not known`;
    case 'other-network':
      return `${name} is on another network`;
    default:
      return text;
  }
}

function todo(reason: string): string {
  return ENDS.get(reason)?.todo ?? 'See docs/errors.md.';
}

/** Endpoints that are told one by one. */
const MOST_TOLD = 10;

/** Which of the service's endpoints, and how they are. */
function endpoints(world: ExplainWorld, { source, target }: Case, route: Hbone): readonly Finding[] {
  const { service } = route;
  if (service === undefined || source.workload === undefined) return [];
  const all = world.routing.endpointsOf(service, target.destination.port, source.workload);
  const members = [...world.mesh.members(service)].length;
  const ejected = all.filter(({ health }) => health?.isEjected === true);
  const left = members - all.length;
  const details = [
    ...all.slice(0, MOST_TOLD).map((each) => endpointText(each, all)),
    ...(all.length > MOST_TOLD ? [`and ${all.length - MOST_TOLD} more`] : []),
    ...(left > 0
      ? [
          `${many(left, 'endpoint')} more cannot be used: not ready, without the port, or left out by the service's preference`,
        ]
      : []),
  ];
  const name = `the service ${nameOf(service)}`;
  const chosen =
    all.length === 1
      ? `${nameOf(route.workload)} is the only endpoint of ${name}.`
      : `${nameOf(route.workload)} is the likeliest of ${all.length} endpoints of ${name}.`;
  const far =
    source.workload.node === world.node ? '' : ' What that node has seen of their health this one cannot know.';
  if (ejected.length > 0 && ejected.length === all.length)
    return [
      {
        ...{ topic: 'endpoint', state: 'bad', details },
        text: `Every endpoint of ${nameOf(service)} has failed several times in a row. They are tried nevertheless.`,
        because: `no endpoint of ${nameOf(service)} could be connected lately`,
      },
    ];
  const text =
    ejected.length === 0
      ? chosen
      : `${chosen} Of these, ${many(ejected.length, 'endpoint')} failed too often and ${ejected.length === 1 ? 'gets' : 'get'} no connections for a while.`;
  return [{ topic: 'endpoint', state: ejected.length === 0 ? 'good' : 'note', text: `${text}${far}`, details }];
}

function endpointText(
  { workload, endpoint, weight, health }: ExplainedEndpoint,
  all: readonly ExplainedEndpoint[],
): string {
  const sum = all.reduce((total, each) => total + each.weight, 0);
  const share = sum === 0 ? '' : `, ${Math.round((100 * weight) / sum)} % of the connections`;
  const name = `${nameOf(workload)} at ${formatEndpoint(endpoint)}${share}`;
  if (health === undefined) return `${name}: nothing is known of its health yet`;
  const { isEjected, failures, connectMs, open } = health;
  const state = isEjected ? `ejected after failures` : failures > 0 ? `failed ${failures} times in a row` : 'healthy';
  const ms = connectMs === undefined ? '' : `, connects in ${connectMs.toFixed(1)} ms`;
  return `${name}: ${state}${ms}, ${many(open, 'connection')} open`;
}
