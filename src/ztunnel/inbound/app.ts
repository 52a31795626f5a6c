import type { Socket } from 'node:net';
import type { Endpoint } from '../../mesh/index.ts';
import type { Permit } from '../../policy/index.ts';
import { type Failure, failure, failureOfDial } from '../errors.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodSockets } from '../ports.ts';

interface AppDeps {
  readonly sockets: Pick<PodSockets, 'openInbound' | 'isSpokenFor'>;
  readonly netnsFd: number;
}

/** Wire contract, section 1.2. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Of an agent without a mesh: nobody has any policy. */
export const NO_MESH: unique symbol = Symbol('no mesh');

/**
 * Connects to the app, which will see the client as its peer.
 *
 * @param _permit the proof that policy lets the connection in
 */
export async function dialApp(
  _permit: Permit | typeof NO_MESH,
  connection: OpenConnection,
  app: Endpoint,
  client: Endpoint,
  deps: AppDeps,
): Promise<Failure | undefined> {
  const another = (): Socket | Failure => openApp(app, client, deps);
  const first = another();
  if ('reason' in first) return first;

  const failed = await connection.dial(first, app, { another, timeoutMs: CONNECT_TIMEOUT_MS });
  if (failed !== undefined) return failed;
  const server = connection.server;
  if (server === undefined) return failure('client-gone');
  return deps.sockets.isSpokenFor(server) ? undefined : failure('client-hidden', 'the app would not see its client');
}

function openApp(app: Endpoint, client: Endpoint, { sockets, netnsFd }: AppDeps): Socket | Failure {
  try {
    return sockets.openInbound(netnsFd, app, client);
  } catch (error) {
    return failureOfDial(error);
  }
}
