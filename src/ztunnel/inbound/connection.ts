import type { Socket } from 'node:net';
import type { Endpoint } from '../../mesh/index.ts';
import { type EndReason, reasonOfDial } from '../errors.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodSockets } from '../ports.ts';
import { AGENT_PORTS } from '../ports.ts';
import { endpointOf } from '../socket-address.ts';

/** What an inbound connection needs of its pod. */
interface InboundDeps {
  readonly sockets: Pick<PodSockets, 'openInbound' | 'isSpokenFor'>;
  readonly netnsFd: number;
}

/** One plaintext connection that arrived at the pod from outside. The accepted socket's local address is what was asked for. */
export async function serveInbound(connection: OpenConnection, deps: InboundDeps): Promise<void> {
  const client = endpointOf(connection.client.remoteAddress, connection.client.remotePort);
  const destination = endpointOf(connection.client.localAddress, connection.client.localPort);
  if (client === undefined || destination === undefined) return connection.refuse('client-gone');
  if (AGENT_PORTS.has(destination.port)) return connection.refuse('recursive-call');

  const open = (): Socket | EndReason => openServer(deps, destination, client);
  const server = open();
  if (typeof server === 'string') return connection.refuse(server);

  if (!(await connection.dial(server, destination, open))) return;
  if (!connection.isServer(deps.sockets.isSpokenFor)) return connection.reset('client-hidden');
  await connection.relay();
}

function openServer(deps: InboundDeps, destination: Endpoint, client: Endpoint): Socket | EndReason {
  try {
    return deps.sockets.openInbound(deps.netnsFd, destination, client);
  } catch (error) {
    return reasonOfDial(error);
  }
}
