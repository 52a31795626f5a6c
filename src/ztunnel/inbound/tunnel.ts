import {
  baggageOf,
  type HeaderFields,
  headerValues,
  type IncomingRequest,
  parseAuthority,
  parseForwarded,
  type TunnelPeer,
} from '../../hbone/index.ts';
import type { Endpoint, Service, Workload } from '../../mesh/index.ts';
import type { RequestClient } from '../client.ts';
import { failure } from '../errors.ts';
import { type Facts, tunnelledFacts } from '../facts.ts';
import type { Path } from '../ledger.ts';
import type { PodName } from '../node-view.ts';
import type { OpenConnection } from '../open-connection.ts';
import type { PodTunnel } from '../pod-tunnel.ts';
import type { PodSockets } from '../ports.ts';
import { dialApp } from './app.ts';
import { type Target, targetOf } from './target.ts';

/** What a connection that came through the tunnel needs of its pod. */
export interface TunnelledDeps {
  readonly sockets: Pick<PodSockets, 'openInbound' | 'isSpokenFor'>;
  readonly netnsFd: number;
  readonly pod: PodName;
  readonly tunnel: PodTunnel;
  /** It is told to the log at its end. */
  readonly logsConnections: boolean;
  /** It is relayed from now on. */
  relayed(path: Path): void;
}

/** A request and who sent it. */
export interface Arrived {
  readonly request: IncomingRequest;
  readonly peer: TunnelPeer;
  readonly client: RequestClient;
}

/** One connection that a peer asks for through the tunnel, in the order of wire contract, section 2.4. */
export async function serveTunnelled(connection: OpenConnection, arrived: Arrived, deps: TunnelledDeps): Promise<void> {
  const { request, peer, client } = arrived;
  const { tunnel, logsConnections } = deps;
  const workload = await tunnel.workload(connection);
  const forwarded = forwardedOf(request);
  const target = targetFor(arrived, workload, forwarded.host, deps);
  const source = sourceOf(peer, forwarded.for);
  const facts = (service?: Service): Facts => factsOf(arrived, source, workload, service, tunnel);
  if (target.kind === 'refuse') return connection.refuse(failure(target.reason, target.text), facts());

  // A Permit will be asked for here: the peer and the target are known, and nothing has been done yet.

  const app = { address: peer.local.address, port: target.port };
  const failed = await dialApp(connection, app, source, deps);
  if (failed !== undefined) return connection.refuse(failed, facts(target.service));

  client.answerWith(answerOf(workload));
  deps.relayed('inboundTunnel');
  await connection.relay(logsConnections ? facts(target.service) : undefined);
}

function targetFor(
  { request, peer }: Arrived,
  workload: Workload | undefined,
  forwardedHost: string | undefined,
  { pod, tunnel }: TunnelledDeps,
): Target {
  const { method, authority } = request;
  const parsed = authority === undefined ? undefined : parseAuthority(authority);
  const { model } = tunnel.mesh.view;
  return targetOf(model, { method, authority, parsed, local: peer.local, pod, workload, forwardedHost });
}

function forwardedOf({ headers }: IncomingRequest): ReturnType<typeof parseForwarded> {
  const [value] = headerValues(headers, 'forwarded');
  return value === undefined ? {} : parseForwarded(value);
}

/** The address is the peer's, proven by the connection; the port is the one it names, if it speaks of the same address. */
function sourceOf({ endpoint }: TunnelPeer, forwardedFor: Endpoint | undefined): Endpoint {
  return { address: endpoint.address, port: forwardedFor?.address === endpoint.address ? forwardedFor.port : 0 };
}

function answerOf(workload: Workload | undefined): HeaderFields {
  const baggage = workload === undefined ? '' : baggageOf(workload);
  return baggage === '' ? [] : [['baggage', baggage]];
}

/** What the log says of a request. */
function factsOf(
  { request, peer }: Arrived,
  client: Endpoint,
  workload: Workload | undefined,
  service: Service | undefined,
  { mesh }: PodTunnel,
): Facts {
  return tunnelledFacts({ model: mesh.view.model, request, peer, client, workload, service });
}
