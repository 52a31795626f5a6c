import type { Socket } from 'node:net';
import { failure } from '../errors.ts';
import { plainFacts } from '../facts.ts';
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
  /** It is relayed from now on. */
  relayed(path: Path): void;
}

/**
 * One plaintext connection that arrived at the pod from outside; let in whoever sends it (wire contract, section 1.3). The
 * accepted socket's local address is what was asked for.
 */
export async function serveInbound(connection: OpenConnection, client: Socket, deps: InboundDeps): Promise<void> {
  const source = endpointOf(client.remoteAddress, client.remotePort);
  const destination = endpointOf(client.localAddress, client.localPort);
  if (source === undefined || destination === undefined) return connection.refuse(failure('client-gone'));
  if (AGENT_PORTS.has(destination.port)) return connection.refuse(failure('recursive-call'));

  const failed = await dialApp(connection, destination, source, deps);
  if (failed !== undefined) return connection.refuse(failed);

  const { server } = connection;
  if (server !== undefined) deps.timeouts.followTimeouts(server, client, undefined);
  deps.relayed('inboundPlain');
  const model = deps.tunnel?.mesh.view.model;
  const workload = deps.tunnel?.ownWorkload;
  await connection.relay(deps.logsConnections ? plainFacts({ model, source, destination, workload }) : undefined);
}
