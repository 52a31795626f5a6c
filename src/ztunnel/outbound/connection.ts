import type { Socket } from 'node:net';
import type { Endpoint, Workload } from '../../mesh/index.ts';
import { type Failure, failure } from '../errors.ts';
import { outboundSubject, type Subject } from '../flow-subjects.ts';
import type { Path } from '../ledger.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import type { PodSockets, TimeoutFollower } from '../ports.ts';
import { endpointOf } from '../socket-address.ts';
import { attempt, type Captured, type Followed, pathOf } from './attempt.ts';
import { type Route, route } from './route.ts';

/** What an outbound connection needs of its pod. */
export interface OutboundDeps {
  readonly sockets: Pick<PodSockets, 'originalDestination' | 'openOutbound'>;
  readonly timeouts: Pick<TimeoutFollower, 'followTimeouts'>;
  readonly netnsFd: number;
  /** Undefined: there is no mesh, everything is passed through. */
  readonly tunnel: PodTunnel | undefined;
  /** It is relayed from now on. */
  relayed(path: Path): void;
  /** It has been connected to where no encryption is due. */
  directly(destination: Endpoint): void;
}

/** One outbound connection of an app in the pod. */
export async function serveOutbound(connection: OpenConnection, client: Socket, deps: OutboundDeps): Promise<void> {
  const asked = deps.sockets.originalDestination(client);
  if (asked === undefined) return connection.refuse(failure('no-original-destination'));
  const { endpoint: destination, picked, boundSource, timeouts } = asked;
  const from = endpointOf(client.remoteAddress, client.remotePort);
  const captured = { client, from, destination, picked, boundSource, timeouts };

  const { tunnel } = deps;
  const source = tunnel?.ownWorkload ?? (await wait(connection, captured, tunnel));
  if (tunnel !== undefined && source === undefined) return connection.refuse(failure('mesh-unknown', tunnel.unknown));

  const { failed, last } = await connect(connection, captured, source, deps);
  if (failed !== undefined) return connection.refuse(failed);

  if (last !== undefined) {
    deps.relayed(pathOf(last));
    if (isDirect(last, source)) deps.directly(last.destination);
  }
  await connection.relay();
}

async function wait(
  connection: OpenConnection,
  captured: Captured,
  tunnel: PodTunnel | undefined,
): Promise<Workload | undefined> {
  if (tunnel === undefined) return undefined;
  connection.asks(subjectOf(captured, undefined, undefined));
  return await tunnel.workload(connection);
}

/** Whether it goes to a pod of this node, or to what takes no tunnel: connections like it might need no agent. */
function isDirect(route: Followed, source: Workload | undefined): boolean {
  switch (route.kind) {
    case 'passthrough':
    case 'plain':
      return true;
    case 'hbone':
      return route.via === 'workload' && route.workload.node === source?.node;
    case 'self':
      return false;
  }
}

/** @param route undefined: it is not known where it goes, or it goes nowhere */
function subjectOf(
  { from, destination }: Captured,
  source: Workload | undefined,
  route: Followed | undefined,
): Subject {
  return outboundSubject({ client: from, asked: destination, source, route });
}

interface Outcome {
  readonly failed: Failure | undefined;
  /** The route that was tried last; undefined: there was none. */
  readonly last: Followed | undefined;
}

/** Connects to where the route leads, and if that fails, where another route leads: not a byte has been passed on yet. */
async function connect(
  connection: OpenConnection,
  captured: Captured,
  source: Workload | undefined,
  deps: OutboundDeps,
): Promise<Outcome> {
  deps.tunnel?.mesh.retries.connection();
  const tried = new Set<string>();
  let outcome: Outcome = { failed: undefined, last: undefined };
  for (;;) {
    const next = routeOf(captured, source, tried, deps);
    if (next.kind === 'refuse') {
      connection.asks(subjectOf(captured, source, undefined));
      return { failed: failure(next.reason, next.text), last: undefined };
    }
    const endpoint = next.kind === 'passthrough' ? undefined : next.endpoint;
    const isAgain = tried.size > 0;
    if (isAgain && (endpoint === undefined || tried.has(endpoint) || !mayRetry(deps))) return outcome;
    connection.goesTo(subjectOf(captured, source, next), outcome.failed);
    outcome = { failed: await attempt(connection, captured, source, next, deps), last: next };
    if (outcome.failed?.isWorthAnother !== true || endpoint === undefined) return outcome;
    tried.add(endpoint);
  }
}

function mayRetry({ tunnel }: OutboundDeps): boolean {
  return tunnel?.mesh.retries.spend() ?? false;
}

function routeOf(
  { destination, picked }: Captured,
  source: Workload | undefined,
  tried: ReadonlySet<string>,
  { tunnel }: OutboundDeps,
): Route {
  if (tunnel === undefined || source === undefined) return { kind: 'passthrough', destination };
  return route(tunnel.mesh.view.model, source, destination, tunnel.mesh.costs.choose, { tried, picked });
}
