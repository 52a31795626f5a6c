import type { Socket } from 'node:net';
import type { Endpoint } from '../../mesh/index.ts';
import type { Permit } from '../../policy/index.ts';
import { type Failure, failure, failureOfDial } from '../errors.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import type { PodSockets } from '../ports.ts';

interface AppDeps {
  readonly sockets: Pick<PodSockets, 'openInbound' | 'isSpokenFor'>;
  readonly netnsFd: number;
  /** Undefined: there is no mesh, so nobody has any policy. */
  readonly tunnel: PodTunnel | undefined;
}

/** Wire contract, section 1.2. */
const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Connects to the app, which will see the client as its peer.
 *
 * @param permit the proof that policy lets the connection in; undefined: there is no mesh
 */
export async function dialApp(
  permit: Permit | undefined,
  connection: OpenConnection,
  app: Endpoint,
  client: Endpoint,
  deps: AppDeps,
): Promise<Failure | undefined> {
  if (permit === undefined && deps.tunnel !== undefined) return failure('policy-denied', 'policy has not been asked');
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
