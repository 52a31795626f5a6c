import {
  type Address,
  type Endpoint,
  familyOf,
  formatEndpoint,
  type GatewayAddress,
  identityOf,
  type ReadModel,
  type Service,
  type SpiffeId,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';
import type { EndReason } from '../errors.ts';
import { AGENT_PORTS, HBONE_PORT } from '../ports.ts';
import { type Candidates, type Group, groupOf, type Use } from './candidates.ts';

/** What routing asks of the mesh. */
export type RouteModel = Pick<ReadModel, 'settings' | 'workloadAt' | 'serviceAt' | 'endpoints' | 'gateway'>;

/**
 * Says which of several (at least one). Those in `tried` (keys) are avoided while others are left. `picked`: one that is
 * preferred, if it may be used.
 */
export type ChooseEndpoint = (candidates: Candidates, tried: ReadonlySet<string>, picked?: number) => number;

export interface RouteOptions {
  /** `endpoint` of the routes that this connection has tried already. Default: none. */
  readonly tried?: ReadonlySet<string>;
  /** The endpoint that the kernel has drawn for the service that was asked for. Default: none. */
  readonly picked?: Endpoint | undefined;
  /** 0 to below 1, for the choice between weighted waypoints. Default: Math.random. */
  readonly random?: () => number;
}

/** Why a connection goes nowhere. `no-endpoint`: the service has none for the port, or what is left has no address. */
export type RefuseReason = Extract<EndReason, 'recursive-call' | 'no-endpoint' | 'unknown-waypoint' | 'other-network'>;

interface Led {
  readonly workload: Workload;
  /** The service that was asked for, if it was one. */
  readonly service: Service | undefined;
  /** Key of the endpoint; undefined where there was nothing to choose from. If it was tried before, nothing else is left. */
  readonly endpoint: string | undefined;
  /** Where the app of the destination is, as far as it is known; for the way through a waypoint, what was asked for. */
  readonly destination: Endpoint;
}

/** All that there is to know about where a connection goes. */
export type Route =
  /** Nothing of the mesh: as it was asked for. */
  | { readonly kind: 'passthrough'; readonly destination: Endpoint }
  /** A workload that takes no tunnel. */
  | (Led & { readonly kind: 'plain' })
  /** The source itself: its HBONE port is shut for whoever is in the pod, and what stays there needs no tunnel. */
  | (Led & { readonly kind: 'self' })
  | (Led & {
      readonly kind: 'hbone';
      readonly nextHop: Endpoint;
      /** Wire contract, section 2.3. */
      readonly authority: string;
      /** Who may be there: any one of them. */
      readonly acceptable: readonly SpiffeId[];
      /** `waypoint`: `workload` is the waypoint, and not the destination. */
      readonly via: 'workload' | 'waypoint';
    })
  | {
      readonly kind: 'refuse';
      readonly reason: RefuseReason;
      /** Wire contract, section 9.4. */
      readonly text: string;
    };

type Refusal = Extract<Route, { kind: 'refuse' }>;

interface Question {
  readonly model: RouteModel;
  readonly source: Workload;
  readonly destination: Endpoint;
  readonly choose: ChooseEndpoint;
  readonly tried: ReadonlySet<string>;
  readonly picked: Endpoint | undefined;
}

interface Upstream extends Omit<Led, 'destination'> {
  readonly kind: 'upstream';
  readonly address: Address;
  readonly port: number;
  readonly subjectAltNames: readonly SpiffeId[];
}

const NOTHING_TRIED: ReadonlySet<string> = new Set();

/**
 * Where a connection of `source` to `destination` goes (wire contract, section 6). Nothing is done, nothing is waited for.
 *
 * Whatever leads to a waypoint goes to the waypoint or nowhere.
 */
export function route(
  model: RouteModel,
  source: Workload,
  destination: Endpoint,
  choose: ChooseEndpoint,
  options: RouteOptions = {},
): Route {
  if (AGENT_PORTS.has(destination.port) && isLoopback(destination.address))
    return refuse('recursive-call', 'attempted recursive call to ourselves');

  const { tried = NOTHING_TRIED, picked } = options;
  const question = { model, source, destination, choose, tried, picked };
  const found = lookUp(question);
  const waypoint = found.addressed && waypointOf(found.addressed, options.random ?? Math.random);
  if (waypoint !== undefined) return toWaypoint(question, waypoint, found.addressed);

  const upstream = upstreamOf(question, found);
  if (upstream === undefined) return { kind: 'passthrough', destination };
  if (upstream.kind === 'refuse') return upstream;

  const own = found.addressed === undefined ? upstream.workload.waypoint : undefined;
  if (own !== undefined && !isWaypoint(model, source, own)) return toWaypoint(question, own, upstream.service);
  return toWorkload(upstream, source);
}

interface Found {
  /** The service that was addressed: at its address, on our own network, is no workload. */
  readonly addressed: Service | undefined;
  /** What the source's network has at the address. */
  readonly service: Service | undefined;
  readonly workload: Workload | undefined;
}

/** Two look-ups, which differ where the source is not on our own network: there the addressed thing is a workload first. */
function lookUp({ model, source, destination: { address } }: Question): Found {
  const own = model.settings.network;
  const service = model.serviceAt(source.network, address, source.namespace);
  const workload = model.workloadAt(source.network, address);
  if (own === source.network) return { addressed: workload === undefined ? service : undefined, service, workload };
  const isWorkload = model.workloadAt(own, address) !== undefined;
  return { addressed: isWorkload ? undefined : model.serviceAt(own, address, source.namespace), service, workload };
}

/** A service comes before a workload, but one that selects nothing leaves the address as it is. */
function upstreamOf(question: Question, { addressed, service, workload }: Found): Upstream | Refusal | undefined {
  const { address, port } = question.destination;
  if (service !== undefined && selects(service))
    return pickOf(question, service, port, 'destination') ?? noHealthyUpstream(question);
  if (workload !== undefined)
    return { kind: 'upstream', workload, address, port, service: undefined, endpoint: undefined, subjectAltNames: [] };
  return addressed !== undefined && selects(addressed) ? noHealthyUpstream(question) : undefined;
}

function selects(service: Service): boolean {
  return service.loadBalancing?.mode !== 'passthrough';
}

/** @returns undefined if the service has no endpoint for the port */
function pickOf(question: Question, service: Service, port: number, use: Use): Upstream | Refusal | undefined {
  const { model, source, destination, choose, tried } = question;
  const group = groupOf(service, model.endpoints(service), port, source, use);
  if (group.members.length === 0) return group.unreachable && unreachable(group.unreachable);
  const picked = use === 'destination' && question.picked !== undefined ? indexOf(group, question.picked) : undefined;
  const index = choose(group, tried, picked);
  const member = group.members[index];
  const wanted = picked === index ? question.picked?.address : undefined;
  const address = member && addressFor(member.addresses, wanted ?? destination.address);
  if (member === undefined || address === undefined) throw new RangeError(`no endpoint ${index} in the group`);
  return {
    kind: 'upstream',
    workload: member.workload,
    address,
    port: member.port,
    service,
    endpoint: group.keys[index],
    subjectAltNames: group.subjectAltNames,
  };
}

function indexOf({ members }: Group, { address, port }: Endpoint): number | undefined {
  const index = members.findIndex((member) => member.port === port && member.addresses.includes(address));
  return index === -1 ? undefined : index;
}

/** Wire contract, section 6.5: the very address that was asked for, else one of its family, else any. */
function addressFor(addresses: readonly Address[], original: Address): Address | undefined {
  if (addresses.includes(original)) return original;
  const family = familyOf(original);
  return addresses.find((address) => familyOf(address) === family) ?? addresses[0];
}

function toWorkload(upstream: Upstream, source: Workload): Route {
  const { workload, address, port, subjectAltNames, service, endpoint } = upstream;
  const destination = { address, port };
  const isSelf = workload.network === source.network && source.addresses.includes(address);
  if (isSelf) return { kind: 'self', destination, workload, service, endpoint };
  if (workload.protocol === 'tcp') return { kind: 'plain', destination, workload, service, endpoint };
  return {
    kind: 'hbone',
    nextHop: { address, port: HBONE_PORT },
    authority: formatEndpoint(destination),
    acceptable: [...subjectAltNames, identityOf(workload)],
    workload,
    service,
    endpoint,
    destination,
    via: 'workload',
  };
}

/** Weighted ones come before the primary one, unless none of them has any weight. */
function waypointOf(service: Service, random: () => number): GatewayAddress | undefined {
  const total = service.weightedWaypoints.reduce((sum, { weight }) => sum + weight, 0);
  if (total === 0) return service.waypoint;
  let rest = random() * total;
  const drawn = service.weightedWaypoints.find(({ weight }) => {
    rest -= weight;
    return rest < 0;
  });
  return (drawn ?? service.weightedWaypoints.at(-1))?.destination;
}

/** The waypoint gets what was asked for, in the words it was asked in. */
function toWaypoint(question: Question, reference: GatewayAddress, service: Service | undefined): Route {
  const upstream = gatewayUpstream(question, reference);
  if (upstream === undefined) return refuse('unknown-waypoint', `unknown waypoint: ${formatGateway(reference)}`);
  if (upstream.kind === 'refuse') return upstream;
  const { workload, address, port, subjectAltNames, endpoint } = upstream;
  return {
    kind: 'hbone',
    nextHop: { address, port },
    authority: formatEndpoint(question.destination),
    acceptable: [...subjectAltNames, identityOf(workload)],
    workload,
    service,
    endpoint,
    destination: question.destination,
    via: 'waypoint',
  };
}

function gatewayUpstream(question: Question, reference: GatewayAddress): Upstream | Refusal | undefined {
  const gateway = question.model.gateway(reference);
  const port = reference.hboneMtlsPort;
  if (gateway === undefined) return undefined;
  if (gateway.kind === 'service') return pickOf(question, gateway.service, port, 'waypoint');

  const { workload } = gateway;
  if (workload.network !== question.source.network) return unreachable({ workload, reason: 'other-network' });
  const { destination } = reference;
  const wanted = destination.kind === 'address' ? destination.address : question.destination.address;
  const address = addressFor(workload.addresses, wanted);
  if (address === undefined) return unreachable({ workload, reason: 'no-endpoint' });
  return { kind: 'upstream', workload, address, port, service: undefined, endpoint: undefined, subjectAltNames: [] };
}

/** Whether the source is (an instance of) the waypoint itself: what it sends on must not come back to it. */
function isWaypoint(model: RouteModel, source: Workload, reference: GatewayAddress): boolean {
  const gateway = model.gateway(reference);
  if (gateway === undefined) return false;
  return gateway.kind === 'workload'
    ? gateway.workload.uid === source.uid
    : Object.hasOwn(source.services, serviceName(gateway.service));
}

function isLoopback(address: Address): boolean {
  return address.startsWith('127.') || address === '::1';
}

function refuse(reason: RefuseReason, text: string): Refusal {
  return { kind: 'refuse', reason, text };
}

function noHealthyUpstream({ destination }: Question): Refusal {
  return refuse('no-endpoint', `no healthy upstream: ${formatEndpoint(destination)}`);
}

function unreachable({ workload, reason }: NonNullable<Group['unreachable']>): Refusal {
  return refuse(
    reason,
    `no valid routing destination for workload: ${workload.uid}: ${whyUnreachable(workload, reason)}`,
  );
}

function whyUnreachable({ network, addresses, hostname }: Workload, reason: RefuseReason): string {
  if (reason === 'other-network') return `it is on network "${network}"`;
  return addresses.length === 0 && hostname !== ''
    ? `hostname ${hostname} is not resolved`
    : 'it has no fitting address';
}

function formatGateway({ destination }: GatewayAddress): string {
  return destination.kind === 'address'
    ? `${destination.network}/${destination.address}`
    : `${destination.namespace}/${destination.hostname}`;
}
