import { type EndReason, reasonOfDial } from '../errors.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodSockets } from '../ports.ts';
import { addressOf } from '../socket-address.ts';

/** What an outbound connection needs of its pod. */
interface OutboundDeps {
  readonly sockets: Pick<PodSockets, 'originalDestination' | 'openOutbound'>;
  readonly netnsFd: number;
}

/** One outbound connection of an app in the pod, to a destination that is not in the mesh. */
export async function serveOutbound(connection: OpenConnection, deps: OutboundDeps): Promise<void> {
  const asked = deps.sockets.originalDestination(connection.client);
  if (asked === undefined) return connection.refuse('no-original-destination');

  const server = openServer(connection, deps, asked);
  if (typeof server === 'string') return connection.refuse(server);

  if (await connection.dial(server, asked.endpoint)) await connection.relay();
}

type Asked = NonNullable<ReturnType<PodSockets['originalDestination']>>;

function openServer(
  connection: OpenConnection,
  deps: OutboundDeps,
  asked: Asked,
): ReturnType<PodSockets['openOutbound']> | EndReason {
  const source = asked.boundSource ? addressOf(connection.client.remoteAddress) : undefined;
  if (asked.boundSource && source === undefined) return 'client-gone';
  try {
    return deps.sockets.openOutbound(deps.netnsFd, asked.endpoint, source);
  } catch (error) {
    return reasonOfDial(error);
  }
}
