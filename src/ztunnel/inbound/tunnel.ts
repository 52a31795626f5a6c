import {
  baggageOf,
  type HeaderFields,
  headerValues,
  type IncomingRequest,
  parseAuthority,
  parseForwarded,
  type TunnelPeer,
} from '../../hbone/index.ts';
import { type Endpoint, identityOf, type Service, type Workload } from '../../mesh/index.ts';
import type { RequestClient } from '../client.ts';
import { failure } from '../errors.ts';
import { type Facts, tunnelledFacts } from '../facts.ts';
import type { FlowSubject } from '../flow-log.ts';
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
  /** Its record is wanted. */
  readonly recordsFlows: boolean;
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
  const workload = tunnel.ownWorkload ?? (await tunnel.workload(connection));
  const forwarded = forwardedOf(request);
  const target = targetFor(arrived, workload, forwarded.host, deps);
  const source = sourceOf(peer, forwarded.for);
  const app = { address: peer.local.address, port: target.kind === 'target' ? target.port : peer.local.port };
  const service = target.kind === 'target' ? target.service : undefined;
  if (deps.recordsFlows) connection.subject = subjectOf(peer, source, app, workload, service);
  const facts = (): Facts => factsOf(arrived, source, workload, service, tunnel);
  if (target.kind === 'refuse') return connection.refuse(failure(target.reason, target.text), facts());

  const asker = { identity: peer.identity, client: source.port === 0 ? peer.endpoint : source, destination: app };
  const admitted = tunnel.policy.admit(connection, asker);
  if ('denied' in admitted) return connection.refuse(admitted.denied, facts());

  const failed = await dialApp(admitted.permit, connection, app, source, deps);
  if (failed !== undefined) return connection.refuse(failed, facts());

  client.answerWith(answerOf(workload));
  deps.relayed('inboundTunnel');
  await connection.relay(logsConnections ? facts() : undefined);
}

function subjectOf(
  { identity }: TunnelPeer,
  client: Endpoint,
  server: Endpoint,
  workload: Workload | undefined,
  service: Service | undefined,
): FlowSubject {
  return {
    direction: 'inbound',
    path: 'tunnel',
    client,
    server,
    sourceIdentity: identity,
    destinationIdentity: workload && identityOf(workload),
    service: service?.hostname,
  };
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
