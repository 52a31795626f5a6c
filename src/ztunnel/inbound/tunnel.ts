import {
  baggageOf,
  type HeaderFields,
  headerValues,
  type IncomingRequest,
  parseAuthority,
  parseForwarded,
  type TunnelPeer,
} from '../../hbone/index.ts';
import type { Endpoint, Workload } from '../../mesh/index.ts';
import type { RequestClient } from '../client.ts';
import { failure } from '../errors.ts';
import { type Subject, tunnelledSubject } from '../flow-subjects.ts';
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
  const { tunnel } = deps;
  connection.knownBy(headerValue(request, 'traceparent'));
  const forwarded = forwardedOf(request);
  const source = sourceOf(peer, forwarded.for);
  const workload = tunnel.ownWorkload ?? (await wait(connection, arrived, source, tunnel));
  const target = targetFor(arrived, workload, forwarded.host, deps);
  const subject = subjectOf(arrived, source, workload, target, tunnel);
  if (target.kind === 'refuse') {
    connection.asks(subject);
    return connection.refuse(failure(target.reason, target.text));
  }

  connection.goesTo(subject);
  const app = subject.server;
  const asker = { identity: peer.identity, client: source.port === 0 ? peer.endpoint : source, destination: app };
  const admitted = tunnel.policy.admit(connection, asker);
  if ('denied' in admitted) return connection.refuse(admitted.denied);

  const failed = await dialApp(admitted.permit, connection, app, source, deps);
  if (failed !== undefined) return connection.refuse(failed);

  client.answerWith(answerOf(workload));
  deps.relayed('inboundTunnel');
  await connection.relay();
}

async function wait(
  connection: OpenConnection,
  arrived: Arrived,
  source: Endpoint,
  tunnel: PodTunnel,
): Promise<Workload | undefined> {
  connection.asks(subjectOf(arrived, source, undefined, undefined, tunnel));
  return await tunnel.workload(connection);
}

/** @param target undefined: it is not known yet */
function subjectOf(
  { request, peer }: Arrived,
  client: Endpoint,
  workload: Workload | undefined,
  target: Target | undefined,
  { mesh }: PodTunnel,
): Subject {
  const isKnown = target?.kind === 'target';
  return tunnelledSubject({
    model: mesh.view.model,
    authority: request.authority,
    headers: request.headers,
    peer,
    client,
    app: isKnown ? { address: peer.local.address, port: target.port } : peer.local,
    workload,
    service: isKnown ? target.service : undefined,
  });
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

function headerValue({ headers }: IncomingRequest, name: string): string | undefined {
  return headerValues(headers, name)[0];
}

function forwardedOf(request: IncomingRequest): ReturnType<typeof parseForwarded> {
  const value = headerValue(request, 'forwarded');
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
