import type { Authority } from '../../hbone/index.ts';
import type { Address, Endpoint, Pod, ReadModel, Service, ServiceName, Workload } from '../../mesh/index.ts';
import { serviceName } from '../../mesh/index.ts';
import type { EndReason } from '../errors.ts';
import { AGENT_PORTS } from '../ports.ts';

/** What the server's end asks of the mesh. */
export type TargetModel = Pick<
  ReadModel,
  'settings' | 'workloadAt' | 'service' | 'serviceAt' | 'serviceByHostname' | 'gateway'
>;

/** A request at a pod's HBONE port. */
export interface TargetRequest {
  readonly method: string;
  /** As it was sent; undefined if it was not. */
  readonly authority: string | undefined;
  /** The same, read; undefined if it names no address or hostname with a port. */
  readonly parsed: Authority | undefined;
  /** What the connection was accepted on: the pod's own address. */
  readonly local: Endpoint;
  readonly pod: Pick<Pod, 'name' | 'namespace' | 'serviceAccount'>;
  /** What the pod is in the mesh; undefined: it did not become known in time. */
  readonly workload: Workload | undefined;
  /** `host=` of the header field `forwarded`. */
  readonly forwardedHost: string | undefined;
}

export type Target =
  | {
      readonly kind: 'target';
      /** The app's, at the address that the connection was accepted on. */
      readonly port: number;
      /** The one that was probably asked for; for metrics and logs only. */
      readonly service: Service | undefined;
    }
  | {
      readonly kind: 'refuse';
      readonly status: 400 | 503;
      readonly reason: Extract<EndReason, 'bad-request' | 'mesh-unknown' | 'unknown-target' | 'recursive-call'>;
      /** Wire contract, sections 2.4 and 9.4. */
      readonly text: string;
    };

type Refusal = Extract<Target, { kind: 'refuse' }>;

/**
 * What a request is to be connected to, or what it is answered (wire contract, sections 2.4 and 2.5, in their order).
 *
 * The address is always the pod's own: a request contributes the port only.
 */
export function targetOf(model: TargetModel, request: TargetRequest): Target {
  const { method, parsed, local, pod, workload } = request;
  if (method !== 'CONNECT') return badRequest(`expected method CONNECT, got ${method}`);
  if (request.authority === undefined) return badRequest('no valid authority pseudo header: there is none');
  if (parsed === undefined) return badRequest(`invalid CONNECT address ${request.authority}`);
  if (workload === undefined) {
    const name = `${pod.serviceAccount}.${pod.namespace} (${pod.name})`;
    return unavailable('mesh-unknown', `failed to fetch information about local workload: ${name}`);
  }
  if (parsed.kind === 'address' && !isMeant(model, workload, local.address, parsed.endpoint.address))
    return badRequest(`ip mismatch: ${local.address} != ${parsed.endpoint.address}`);

  const asked = parsed.kind === 'address' ? parsed.endpoint.port : portOfHostname(model, workload, parsed);
  if (typeof asked !== 'number') return asked;
  const port = tunnelledPort(workload, asked);
  if (AGENT_PORTS.has(asked) || AGENT_PORTS.has(port))
    return unavailable('recursive-call', 'attempted recursive call to ourselves');
  if (workload.applicationTunnel?.protocol === 'proxy')
    return unavailable('unknown-target', 'application tunnel PROXY is not supported');
  return { kind: 'target', port, service: serviceGuess(model, workload, port, request.forwardedHost) };
}

/** Whether an address that was asked for leads to this pod: it is its own, or that of something the pod is the waypoint of. */
function isMeant(model: TargetModel, workload: Workload, accepted: Address, asked: Address): boolean {
  if (asked === accepted || workload.applicationTunnel !== undefined) return true;
  const { network } = model.settings;
  const waypoint = (model.workloadAt(network, asked) ?? model.serviceAt(network, asked, undefined))?.waypoint;
  const gateway = waypoint && model.gateway(waypoint);
  if (gateway === undefined) return false;
  return gateway.kind === 'service'
    ? Object.hasOwn(workload.services, serviceName(gateway.service))
    : gateway.workload.addresses.includes(accepted);
}

function portOfHostname(
  model: TargetModel,
  workload: Workload,
  { hostname, port }: Extract<Authority, { kind: 'hostname' }>,
): number | Refusal {
  const service = model.serviceByHostname(hostname, workload.namespace);
  if (service === undefined) return unavailable('unknown-target', `no service or workload for hostname: ${hostname}`);
  const target = portIn(workload.services[serviceName(service)], port) || portIn(service.ports, port) || NO_PORT;
  if (target === NO_PORT)
    return unavailable('unknown-target', `requested service ${hostname}:${port} found, but cannot resolve port`);
  if (workload.applicationTunnel !== undefined && service.addresses.length === 0)
    return unavailable('unknown-target', `requested service ${hostname} found, but has no IP addresses`);
  return target;
}

/** A named port of a service has this for its number: only its endpoints know the real one. */
const NO_PORT = 0;

function portIn(ports: Service['ports'] | undefined, wanted: number): number | undefined {
  return ports?.find(({ servicePort }) => servicePort === wanted)?.targetPort;
}

function tunnelledPort({ applicationTunnel }: Workload, asked: number): number {
  return applicationTunnel === undefined || applicationTunnel.port === 0 ? asked : applicationTunnel.port;
}

/**
 * Which of a workload's services a connection to one of its ports was probably made to (wire contract, section 6.7).
 *
 * @param forwardedHost `host=` of the header field `forwarded`, if there was one
 */
export function serviceGuess(
  model: Pick<TargetModel, 'service'>,
  workload: Workload,
  port: number,
  forwardedHost: string | undefined,
): Service | undefined {
  let byPort: Service | undefined;
  for (const [name, own] of Object.entries(workload.services)) {
    const service = model.service(name as ServiceName);
    if (service === undefined) continue;
    if (service.hostname === forwardedHost) return service;
    if (byPort === undefined && (leadsTo(own, port) || leadsTo(service.ports, port))) byPort = service;
  }
  return byPort;
}

function leadsTo(ports: Service['ports'], port: number): boolean {
  return ports.some(({ targetPort }) => targetPort === port);
}

function badRequest(text: string): Refusal {
  return { kind: 'refuse', status: 400, reason: 'bad-request', text };
}

function unavailable(reason: Exclude<Refusal['reason'], 'bad-request'>, text: string): Refusal {
  return { kind: 'refuse', status: 503, reason, text };
}
