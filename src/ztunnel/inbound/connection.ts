import type { Socket } from 'node:net';
import type { Endpoint, Workload } from '../../mesh/index.ts';
import type { Permit } from '../../policy/index.ts';
import { type Failure, failure } from '../errors.ts';
import { plainSubject, type Subject } from '../flow-subjects.ts';
import type { Path } from '../ledger.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import { AGENT_PORTS, type PodSockets, type TimeoutFollower } from '../ports.ts';
import { endpointOf } from '../socket-address.ts';
import { dialApp } from './app.ts';

/** What an inbound connection needs of its pod. */
export interface InboundDeps {
  readonly sockets: Pick<PodSockets, 'openInbound' | 'isSpokenFor'>;
  readonly timeouts: Pick<TimeoutFollower, 'followTimeouts'>;
  readonly netnsFd: number;
  /** Undefined: there is no mesh. */
  readonly tunnel: PodTunnel | undefined;
  /** It is relayed from now on. */
  relayed(path: Path): void;
}

interface Arrived {
  readonly source: Endpoint;
  /** The accepted socket's local address is what was asked for. */
  readonly destination: Endpoint;
}

/** One plaintext connection that arrived at the pod from outside, let in where policy lets in those who prove nothing (wire contract, section 1.3). */
export async function serveInbound(connection: OpenConnection, client: Socket, deps: InboundDeps): Promise<void> {
  const source = endpointOf(client.remoteAddress, client.remotePort);
  const destination = endpointOf(client.localAddress, client.localPort);
  if (source === undefined || destination === undefined) return connection.refuse(failure('client-gone'));
  const arrived = { source, destination };
  if (AGENT_PORTS.has(destination.port)) return refuseEarly(connection, arrived, failure('recursive-call'), deps);

  const admitted = await admit(connection, arrived, deps);
  if ('denied' in admitted) return connection.refuse(admitted.denied);

  const failed = await dialApp(admitted.permit, connection, destination, source, deps);
  if (failed !== undefined) return connection.refuse(failed);

  const { server } = connection;
  if (server !== undefined) deps.timeouts.followTimeouts(server, client, undefined);
  deps.relayed('inboundPlain');
  await connection.relay();
}

async function admit(
  connection: OpenConnection,
  arrived: Arrived,
  { tunnel }: InboundDeps,
): Promise<{ readonly permit: Permit | undefined } | { readonly denied: Failure }> {
  const workload = tunnel?.ownWorkload ?? (await wait(connection, arrived, tunnel));
  if (tunnel !== undefined && workload === undefined) return { denied: failure('mesh-unknown', tunnel.unknown) };
  connection.goesTo(subjectOf(arrived, workload, tunnel));
  if (tunnel === undefined) return { permit: undefined };
  const { source, destination } = arrived;
  return tunnel.policy.admit(connection, { identity: undefined, client: source, destination });
}

async function wait(
  connection: OpenConnection,
  arrived: Arrived,
  tunnel: PodTunnel | undefined,
): Promise<Workload | undefined> {
  if (tunnel === undefined) return undefined;
  connection.asks(subjectOf(arrived, undefined, tunnel));
  return await tunnel.workload(connection);
}

function refuseEarly(connection: OpenConnection, arrived: Arrived, failed: Failure, { tunnel }: InboundDeps): void {
  connection.asks(subjectOf(arrived, tunnel?.ownWorkload, tunnel));
  connection.refuse(failed);
}

function subjectOf(
  { source, destination }: Arrived,
  workload: Workload | undefined,
  tunnel: PodTunnel | undefined,
): Subject {
  return plainSubject({ model: tunnel?.mesh.view.model, client: source, app: destination, workload });
}
