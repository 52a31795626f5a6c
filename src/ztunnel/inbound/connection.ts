import type { Socket } from 'node:net';
import type { Endpoint } from '../../mesh/index.ts';
import type { Permit } from '../../policy/index.ts';
import { type Failure, failure } from '../errors.ts';
import { type Facts, plainFacts } from '../facts.ts';
import type { FlowSubject } from '../flow-log.ts';
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
  /** It is told to the log at its end. */
  readonly logsConnections: boolean;
  /** Its record is wanted. */
  readonly recordsFlows: boolean;
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
  if (deps.recordsFlows) connection.subject = subjectOf(arrived);
  if (AGENT_PORTS.has(destination.port)) return connection.refuse(failure('recursive-call'));

  const admitted = await admit(connection, arrived, deps.tunnel);
  if ('denied' in admitted) return connection.refuse(admitted.denied, factsOf(arrived, deps));

  const failed = await dialApp(admitted.permit, connection, destination, source, deps);
  if (failed !== undefined) return connection.refuse(failed);

  const { server } = connection;
  if (server !== undefined) deps.timeouts.followTimeouts(server, client, undefined);
  deps.relayed('inboundPlain');
  await connection.relay(deps.logsConnections ? factsOf(arrived, deps) : undefined);
}

async function admit(
  connection: OpenConnection,
  { source, destination }: Arrived,
  tunnel: PodTunnel | undefined,
): Promise<{ readonly permit: Permit | undefined } | { readonly denied: Failure }> {
  if (tunnel === undefined) return { permit: undefined };
  const workload = tunnel.ownWorkload ?? (await tunnel.workload(connection));
  if (workload === undefined) return { denied: failure('mesh-unknown', tunnel.unknown) };
  return tunnel.policy.admit(connection, { identity: undefined, client: source, destination });
}

function factsOf(arrived: Arrived, { tunnel }: InboundDeps): Facts {
  return plainFacts({ ...arrived, model: tunnel?.mesh.view.model, workload: tunnel?.ownWorkload });
}

function subjectOf({ source, destination }: Arrived): FlowSubject {
  return {
    direction: 'inbound',
    path: 'plain',
    client: source,
    server: destination,
    sourceIdentity: undefined,
    destinationIdentity: undefined,
    service: undefined,
  };
}
