/** Puts together what is to be explained: who connects to whom, and which way it takes. */
import { type Address, type Cidr, encodeAddress, encodeCidr, familyOf, type Pod } from '../../mesh/index.ts';
import { recordOf } from './names.ts';
import type { Arrival, Case, Departure, ExplainedRoute, ExplainWorld, Source, Target } from './world.ts';

export function caseOf(world: ExplainWorld, source: Source, target: Target): Case {
  const departure = departureOf(world, source, target);
  const isRouted = departure.kind === 'captured' || departure.kind === 'elsewhere';
  const route =
    isRouted && source.workload !== undefined ? world.routing.route(source.workload, target.destination) : undefined;
  const arrival = route === undefined ? directArrival(world, source, target, departure) : routedArrival(world, route);
  return { source, target, departure, route, arrival };
}

function departureOf(world: ExplainWorld, { workload, here }: Source, { destination }: Target): Departure {
  if (workload === undefined && here === undefined) return { kind: 'direct' };
  if (workload !== undefined && workload.node !== world.node)
    return workload.protocol === 'hbone' ? { kind: 'elsewhere', node: workload.node } : { kind: 'direct' };
  switch (here?.kind) {
    case undefined:
    case 'enrolling':
    case 'withdrawing':
      return { kind: 'direct' };
    case 'failed':
      return { kind: 'refused' };
    case 'enrolled':
      if (workload === undefined || !isItself(world, here.pod)) return { kind: 'refused' };
      if (isLoopback(destination.address) || outboundExclusion(here.pod, destination) !== undefined)
        return { kind: 'direct' };
      return { kind: 'captured' };
  }
}

/** Whether the mesh knows this very pod, on this node and with this service account. */
export function isItself({ mesh, node }: ExplainWorld, { namespace, name, serviceAccount }: Pod): boolean {
  return mesh.localWorkload(node, namespace, name, serviceAccount) !== undefined;
}

export function isLoopback(address: Address): boolean {
  return address.startsWith('127.') || address === '::1';
}

/** Which of the pod's exclusions says that it is not captured: `port 5432`, `10.0.0.0/8`; undefined: none. */
export function outboundExclusion(
  { exclusions }: Pod,
  { address, port }: { readonly address: Address; readonly port: number },
): string | undefined {
  return exclusionOf(exclusions.outboundPorts, exclusions.outboundCidrs, address, port);
}

/** The same of a connection from there to a port of the pod. */
export function inboundExclusion({ exclusions }: Pod, from: readonly Address[], port: number): string | undefined {
  const found = from.map((address) => exclusionOf(exclusions.inboundPorts, exclusions.inboundCidrs, address, port));
  return found.find((each) => each !== undefined) ?? exclusionOf(exclusions.inboundPorts, [], undefined, port);
}

function exclusionOf(
  ports: readonly number[],
  blocks: readonly Cidr[],
  address: Address | undefined,
  port: number,
): string | undefined {
  if (ports.includes(port)) return `port ${port}`;
  return address === undefined ? undefined : blocks.find((block) => isWithin(address, block));
}

function isWithin(address: Address, block: Cidr): boolean {
  const { address: network, bits, family } = encodeCidr(block);
  if (family !== familyOf(address)) return false;
  const bytes = encodeAddress(address);
  for (let at = 0; at < bits; at += 8) {
    const mask = bits - at >= 8 ? 0xff : (0xff << (8 - (bits - at))) & 0xff;
    if (((bytes[at / 8] ?? 0) & mask) !== ((network[at / 8] ?? 0) & mask)) return false;
  }
  return true;
}

function routedArrival(world: ExplainWorld, route: ExplainedRoute): Arrival | undefined {
  if (route.kind === 'refuse' || route.kind === 'passthrough') return undefined;
  if (route.kind === 'hbone' && route.via === 'waypoint') return undefined;
  const { workload, destination } = route;
  return { workload, destination, here: recordOf(world, workload) };
}

/** Nobody of ours chooses: of a service it is the node's own service proxy, so one endpoint stands for all. */
function directArrival(
  world: ExplainWorld,
  source: Source,
  { destination, service, workload }: Target,
  departure: Departure,
): Arrival | undefined {
  if (departure.kind === 'refused' || isLoopback(destination.address)) return undefined;
  if (workload !== undefined) return { workload, destination, here: recordOf(world, workload) };
  if (service === undefined) return undefined;
  const from = source.workload ?? world.mesh.endpoints(service)[0]?.workload;
  const [first] = from === undefined ? [] : world.routing.endpointsOf(service, destination.port, from);
  return first && { workload: first.workload, destination: first.endpoint, here: recordOf(world, first.workload) };
}
