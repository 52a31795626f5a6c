import type { Socket } from 'node:net';
import type { Endpoint, Workload } from '../../mesh/index.ts';
import { type Failure, failure } from '../errors.ts';
import type { Path } from '../ledger.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import type { PodSockets, TimeoutFollower } from '../ports.ts';
import { attempt, type Captured, type Followed, factsOf, pathOf } from './attempt.ts';
import { type Route, route } from './route.ts';

/** What an outbound connection needs of its pod. */
export interface OutboundDeps {
  readonly sockets: Pick<PodSockets, 'originalDestination' | 'openOutbound'>;
  readonly timeouts: Pick<TimeoutFollower, 'followTimeouts'>;
  readonly netnsFd: number;
  /** Undefined: there is no mesh, everything is passed through. */
  readonly tunnel: PodTunnel | undefined;
  /** It is told to the log at its end. */
  readonly logsConnections: boolean;
  /** It is relayed from now on. */
  relayed(path: Path): void;
}

/** One outbound connection of an app in the pod. */
export async function serveOutbound(connection: OpenConnection, client: Socket, deps: OutboundDeps): Promise<void> {
  const asked = deps.sockets.originalDestination(client);
  if (asked === undefined) return connection.refuse(failure('no-original-destination'));
  const captured = { client, destination: asked.endpoint, boundSource: asked.boundSource, timeouts: asked.timeouts };

  const source = deps.tunnel === undefined ? undefined : await deps.tunnel.workload(connection);
  if (deps.tunnel !== undefined && source === undefined)
    return connection.refuse(failure('mesh-unknown', deps.tunnel.unknown), factsOf(captured, undefined, undefined));

  const { failed, last } = await connect(connection, captured, source, deps);
  // What has nothing to do with the mesh is only counted.
  const isOutside = last?.kind === 'passthrough';
  if (failed !== undefined) return connection.refuse(failed, isOutside ? undefined : factsOf(captured, source, last));

  if (last !== undefined) deps.relayed(pathOf(last));
  await connection.relay(deps.logsConnections ? factsOf(captured, source, last, connection.peer) : undefined);
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
    const next = routeOf(captured.destination, source, tried, deps);
    if (next.kind === 'refuse') return { failed: failure(next.reason, next.text), last: undefined };
    const endpoint = next.kind === 'passthrough' ? undefined : next.endpoint;
    const isAgain = tried.size > 0;
    if (isAgain && (endpoint === undefined || tried.has(endpoint) || !mayRetry(deps))) return outcome;
    outcome = { failed: await attempt(connection, captured, source, next, deps), last: next };
    if (outcome.failed?.isWorthAnother !== true || endpoint === undefined) return outcome;
    tried.add(endpoint);
  }
}

function mayRetry({ tunnel }: OutboundDeps): boolean {
  return tunnel?.mesh.retries.spend() ?? false;
}

function routeOf(
  destination: Endpoint,
  source: Workload | undefined,
  tried: ReadonlySet<string>,
  { tunnel }: OutboundDeps,
): Route {
  if (tunnel === undefined || source === undefined) return { kind: 'passthrough', destination };
  return route(tunnel.mesh.view.model, source, destination, tunnel.mesh.costs.choose, { tried });
}
