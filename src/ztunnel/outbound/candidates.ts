import {
  type Address,
  formatEndpoint,
  type LoadBalancing,
  type LoadBalancingScope,
  parseSpiffeId,
  type Service,
  type ServiceEndpoint,
  type SpiffeId,
  type Workload,
} from '../../mesh/index.ts';

/** What one is chosen of. The same object for as long as nothing about it changes: what is worked out of it may be kept. */
export interface Candidates {
  /** `address:port` of each: what its cost is kept under. */
  readonly keys: readonly string[];
  /** Its share of the connections, above 0. */
  readonly weights: readonly number[];
}

/** An endpoint that a connection can be led to. */
interface Candidate {
  readonly workload: Workload;
  /** The service's port as this endpoint has it. */
  readonly port: number;
  /** Those that the service allows, at least one. */
  readonly addresses: readonly Address[];
}

/** Endpoints of a service that a connection to one of its ports may be led to, seen from one place. */
export interface Group extends Candidates {
  /** In the order of `keys`. */
  readonly members: readonly Candidate[];
  /** Identities that the service allows its endpoints besides their own. */
  readonly subjectAltNames: readonly SpiffeId[];
  /** An endpoint that would be in the group if it could be reached. */
  readonly unreachable: { readonly workload: Workload; readonly reason: 'other-network' | 'no-endpoint' } | undefined;
}

/** `waypoint`: the service is one, so an endpoint's application tunnel stands in for a port that the service has not. */
export type Use = 'destination' | 'waypoint';

const EMPTY: Group = { keys: [], weights: [], members: [], subjectAltNames: [], unreachable: undefined };

interface Kept {
  readonly endpoints: readonly ServiceEndpoint[];
  readonly groups: Map<string, Group>;
}

const kept = new WeakMap<Service, Kept>();
const places = new WeakMap<Workload, string>();

/**
 * The group for a port (wire contract, sections 6.3 and 6.4). Found once for each service, port and place, and kept until
 * the service or its endpoints change: both are other objects then.
 */
export function groupOf(
  service: Service,
  endpoints: readonly ServiceEndpoint[],
  port: number,
  source: Workload,
  use: Use,
): Group {
  if (use === 'destination' && !service.ports.some(({ servicePort }) => servicePort === port)) return EMPTY;
  let memory = kept.get(service);
  if (memory?.endpoints !== endpoints) {
    memory = { endpoints, groups: new Map() };
    kept.set(service, memory);
  }
  const key = `${use} ${port} ${placeOf(source)}`;
  let group = memory.groups.get(key);
  if (group === undefined) {
    group = makeGroup(service, endpoints, port, source, use);
    memory.groups.set(key, group);
  }
  return group;
}

/** All of a source that a group depends on. */
function placeOf(source: Workload): string {
  let place = places.get(source);
  if (place === undefined) {
    const { locality, node, clusterId, network } = source;
    place = JSON.stringify([locality.region, locality.zone, locality.subzone, node, clusterId, network]);
    places.set(source, place);
  }
  return place;
}

function makeGroup(
  service: Service,
  endpoints: readonly ServiceEndpoint[],
  servicePort: number,
  source: Workload,
  use: Use,
): Group {
  const members: Candidate[] = [];
  let unreachable: Group['unreachable'];
  for (const endpoint of endpoints) {
    const { workload } = endpoint;
    const port = targetPortOf(service, endpoint, servicePort, use);
    if (port === undefined || workload.capacity === 0) continue;
    const addresses = allowedAddresses(workload, service);
    // Double HBONE and resolving by DNS have their place here: until then such endpoints get nothing while others are left.
    if (workload.network !== source.network) unreachable = { workload, reason: 'other-network' };
    else if (addresses.length === 0) unreachable ??= { workload, reason: 'no-endpoint' };
    else members.push({ workload, port, addresses });
  }
  const preferred = preferredOf(members, service.loadBalancing, source);
  return {
    members: preferred,
    keys: preferred.map(keyOf),
    weights: preferred.map(({ workload }) => workload.capacity),
    subjectAltNames: service.subjectAltNames.filter(isSpiffeId),
    unreachable,
  };
}

function targetPortOf(service: Service, endpoint: ServiceEndpoint, port: number, use: Use): number | undefined {
  const declared = service.ports.find(({ servicePort }) => servicePort === port);
  const target = endpoint.ports.get(port) || declared?.targetPort || 0;
  if (target > 0) return target;
  return use === 'waypoint' && (endpoint.workload.applicationTunnel?.port ?? 0) > 0 ? port : undefined;
}

function allowedAddresses(workload: Workload, { ipFamilies }: Service): readonly Address[] {
  switch (ipFamilies) {
    case 'ipv4-only':
      return workload.addresses.filter((address) => !address.includes(':'));
    case 'ipv6-only':
      return workload.addresses.filter((address) => address.includes(':'));
    default:
      return workload.addresses;
  }
}

function keyOf({ addresses: [address], port }: Candidate): string {
  return address === undefined ? '' : formatEndpoint({ address, port });
}

function isSpiffeId(name: string): name is SpiffeId {
  return parseSpiffeId(name) !== undefined;
}

function preferredOf(
  members: readonly Candidate[],
  loadBalancing: LoadBalancing | undefined,
  source: Workload,
): readonly Candidate[] {
  const { mode, routingPreference } = loadBalancing ?? { mode: 'unspecified', routingPreference: [] };
  if (mode === 'strict')
    return members.filter(({ workload }) => routingPreference.every((scope) => isSame(scope, source, workload)));
  if (mode !== 'failover') return members;

  const ranks = members.map(({ workload }) => rankOf(routingPreference, source, workload));
  const best = ranks.reduce((most, rank) => Math.max(most, rank), 0);
  return members.filter((_, index) => ranks[index] === best);
}

/**
 * How near a candidate is: the number of leading scopes that it shares with the source. Where the first scope is the
 * network, sharing it counts as much as all the others together, and not sharing it does not end the counting.
 */
export function rankOf(preference: readonly LoadBalancingScope[], source: Workload, candidate: Workload): number {
  let rank = 0;
  for (const [index, scope] of preference.entries()) {
    const isLeadingNetwork = index === 0 && scope === 'network';
    if (isSame(scope, source, candidate)) rank += isLeadingNetwork ? preference.length : 1;
    else if (!isLeadingNetwork) break;
  }
  return rank;
}

function isSame(scope: LoadBalancingScope, a: Workload, b: Workload): boolean {
  switch (scope) {
    case 'region':
    case 'zone':
    case 'subzone':
      return a.locality[scope] === b.locality[scope];
    case 'node':
      return a.node === b.node;
    case 'cluster':
      return a.clusterId === b.clusterId;
    case 'network':
      return a.network === b.network;
  }
}
