import type { Socket } from 'node:net';
import { connectHeaders } from '../../hbone/index.ts';
import { type Endpoint, familyOf, identityOf, type Workload } from '../../mesh/index.ts';
import type { Permit } from '../../policy/index.ts';
import { type Failure, failure, failureOfDial } from '../errors.ts';
import type { Path } from '../ledger.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import type { PodSockets, TimeoutFollower, Timeouts } from '../ports.ts';
import type { Route } from './route.ts';

/** What a captured client asked for, and how. */
export interface Captured {
  readonly client: Socket;
  /** The client's own address and port; undefined: it is gone. */
  readonly from: Endpoint | undefined;
  readonly destination: Endpoint;
  /** See `OriginalDestination`. */
  readonly picked: Endpoint | undefined;
  /** It had bound its source address itself. */
  readonly boundSource: boolean;
  readonly timeouts: Timeouts | undefined;
}

/** A route that leads somewhere. */
export type Followed = Exclude<Route, { kind: 'refuse' }>;
type Tunnelled = Extract<Route, { kind: 'hbone' }>;

interface AttemptDeps {
  readonly sockets: Pick<PodSockets, 'openOutbound'>;
  readonly timeouts: Pick<TimeoutFollower, 'followTimeouts'>;
  readonly netnsFd: number;
  readonly tunnel: PodTunnel | undefined;
}

/** A workload that takes no tunnel must answer within this, so that another can be tried (wire contract, section 1.2). */
const CONNECT_TIMEOUT_MS = 10_000;

/** Connects to where a route leads, and tells what became of it to those who choose endpoints. */
export async function attempt(
  connection: OpenConnection,
  captured: Captured,
  source: Workload | undefined,
  route: Followed,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  const key = route.kind === 'passthrough' ? undefined : route.endpoint;
  const costs = deps.tunnel?.mesh.costs;
  if (key === undefined || costs === undefined) return await follow(connection, captured, source, route, deps);

  costs.started(key);
  const since = performance.now();
  const failed = await follow(connection, captured, source, route, deps);
  const ms = performance.now() - since;
  if (failed === undefined) {
    costs.connected(key, ms);
    void connection.over.then(() => costs.ended(key));
  } else {
    if (failed.isWorthAnother) costs.failed(key, ms);
    costs.ended(key);
  }
  return failed;
}

export function pathOf(route: Followed): Path {
  switch (route.kind) {
    case 'passthrough':
      return 'outboundPassthrough';
    case 'plain':
    case 'self':
      return 'outboundPlain';
    case 'hbone':
      return 'outboundTunnel';
  }
}

async function follow(
  connection: OpenConnection,
  captured: Captured,
  source: Workload | undefined,
  route: Followed,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  switch (route.kind) {
    case 'hbone':
      return await tunnel(connection, captured, source, route, deps.tunnel);
    case 'self':
      return await dialSelf(connection, captured, source, route.destination, deps);
    case 'plain':
      return await dialOutside(connection, captured, source, route.destination, CONNECT_TIMEOUT_MS, deps);
    case 'passthrough':
      // What is not of the mesh takes as long as it would without it.
      return await dialOutside(connection, captured, source, route.destination, undefined, deps);
  }
}

/** The pod is its own client: nobody else will ask policy about it. */
async function dialSelf(
  connection: OpenConnection,
  captured: Captured,
  source: Workload | undefined,
  destination: Endpoint,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  const { from: client } = captured;
  if (client === undefined || source === undefined || deps.tunnel === undefined) return failure('client-gone');
  const admitted = deps.tunnel.policy.admit(connection, { identity: identityOf(source), client, destination });
  if ('denied' in admitted) return admitted.denied;
  const failed = await dialPermitted(admitted.permit, connection, captured, destination, deps);
  // It may go elsewhere now, where this policy has no say.
  if (failed !== undefined) connection.guardedBy(undefined);
  return failed;
}

async function dialPermitted(
  _permit: Permit,
  connection: OpenConnection,
  captured: Captured,
  destination: Endpoint,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  return await dial(connection, captured, destination, CONNECT_TIMEOUT_MS, deps);
}

/** Watched from before the dial, in the very turn of the loop in which its route was found: no update slips in between. */
async function dialOutside(
  connection: OpenConnection,
  captured: Captured,
  source: Workload | undefined,
  destination: Endpoint,
  timeoutMs: number | undefined,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  if (deps.tunnel === undefined) return await dial(connection, captured, destination, timeoutMs, deps);
  const { from: client } = captured;
  if (client === undefined || source === undefined) return failure('client-gone');
  deps.tunnel.outside.watch(connection, { source, client, destination });
  const failed = await dial(connection, captured, destination, timeoutMs, deps);
  // Another endpoint may be somebody whom other policies are about.
  if (failed !== undefined) connection.guardedBy(undefined);
  return failed;
}

async function dial(
  connection: OpenConnection,
  { client, from, boundSource, timeouts }: Captured,
  destination: Endpoint,
  timeoutMs: number | undefined,
  deps: AttemptDeps,
): Promise<Failure | undefined> {
  const bound = boundSource ? from : undefined;
  if (boundSource && bound === undefined) return failure('client-gone');
  // An endpoint of another family than the service's address cannot be reached from there.
  const isSameFamily = bound !== undefined && familyOf(bound.address) === familyOf(destination.address);
  let server: Socket;
  try {
    server = deps.sockets.openOutbound(deps.netnsFd, destination, isSameFamily ? bound.address : undefined, {
      timeouts,
    });
  } catch (error) {
    return failureOfDial(error);
  }
  const failed = await connection.dial(server, destination, timeoutMs === undefined ? {} : { timeoutMs });
  if (failed === undefined && connection.server === server) deps.timeouts.followTimeouts(client, server, timeouts);
  return failed;
}

async function tunnel(
  connection: OpenConnection,
  { from }: Captured,
  source: Workload | undefined,
  { nextHop, acceptable, authority, service }: Tunnelled,
  pod: PodTunnel | undefined,
): Promise<Failure | undefined> {
  if (from === undefined || source === undefined || pod === undefined) return failure('client-gone');
  const target = { sourceIdentity: identityOf(source), acceptable, nextHop };
  const { traceparent } = connection;
  const headers = connectHeaders({ source, client: from, serviceHostname: service?.hostname, traceparent });
  return await connection.tunnel((signal) => pod.connect(target, authority, headers, signal));
}
