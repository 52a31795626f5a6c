import {
  type Baggage,
  type HeaderFields,
  headerValues,
  type IncomingRequest,
  parseBaggage,
  type TunnelPeer,
} from '../hbone/index.ts';
import {
  type Endpoint,
  formatEndpoint,
  identityOf,
  parseSpiffeId,
  type ReadModel,
  type Service,
  type SpiffeId,
  type Workload,
} from '../mesh/index.ts';
import type { ConnectionRecord } from './open-connection.ts';
import type { Followed } from './outbound/attempt.ts';

/**
 * What there is to say of a connection: names and order of wire contract, section 9.2, and `path`, how it travels. What is
 * not known is undefined.
 */
export type Facts = Readonly<Record<string, string | undefined>>;

type Path = 'tunnel' | 'plain' | 'passthrough';

/** One of the two who are connected, as far as it is known. */
interface Party {
  readonly workload: string | undefined;
  readonly namespace: string | undefined;
  readonly cluster: string | undefined;
}

interface Known {
  readonly direction: 'inbound' | 'outbound';
  readonly from: Endpoint | undefined;
  readonly source: Party | undefined;
  /** Where the connection was led to. */
  readonly to: Endpoint;
  readonly authority: string | undefined;
  readonly service: Service | undefined;
  readonly destination: Party | undefined;
  /** Proven: by our certificate and the peer's. Undefined: the connection is not in a tunnel. */
  readonly identities: { readonly source: SpiffeId; readonly destination: SpiffeId | undefined } | undefined;
  readonly path: Path | undefined;
}

/** Of a connection that an app of the pod makes. */
export interface Outgoing {
  readonly client: Endpoint | undefined;
  /** As it was asked for. */
  readonly destination: Endpoint;
  readonly source: Workload | undefined;
  /** Undefined: it went nowhere. */
  readonly route: Followed | undefined;
  /** Both ends of the session; undefined: there is none. */
  readonly identities: Known['identities'];
}

export function outboundFacts({ client, destination, source, route, identities }: Outgoing): Facts {
  const led = route?.kind === 'passthrough' ? undefined : route;
  return factsOf({
    direction: 'outbound',
    from: client,
    source: partyOf(source),
    to: (led?.kind === 'hbone' ? led.nextHop : led?.destination) ?? destination,
    authority: led?.kind === 'hbone' ? led.authority : undefined,
    service: led?.service,
    destination: partyOf(led?.workload),
    identities,
    path: route && (route.kind === 'hbone' ? 'tunnel' : route.kind),
  });
}

/** Of a connection that comes through the tunnel. */
export interface Incoming {
  readonly model: Pick<ReadModel, 'workloadAt' | 'settings'>;
  readonly request: Pick<IncomingRequest, 'authority' | 'headers'>;
  readonly peer: TunnelPeer;
  /** Who the app is shown as its client; its port is 0 where nobody told it. */
  readonly client: Endpoint;
  /** The pod's own; undefined: it did not become known. */
  readonly workload: Workload | undefined;
  readonly service: Service | undefined;
}

/** The address is proven, so what the mesh knows of it comes before what the peer says of itself. */
export function tunnelledFacts(incoming: Incoming): Facts {
  const { model, request, peer, client, workload, service } = incoming;
  const known = model.workloadAt(model.settings.network, peer.endpoint.address);
  return factsOf({
    direction: 'inbound',
    from: client.port === 0 ? peer.endpoint : client,
    source: partyOf(known) ?? told(peer.identity, request.headers),
    to: peer.local,
    authority: request.authority,
    service,
    destination: partyOf(workload),
    identities: { source: peer.identity, destination: workload && identityOf(workload) },
    path: 'tunnel',
  });
}

/** Of a connection that comes in plain. */
export interface IncomingPlain {
  /** Undefined: there is no mesh. */
  readonly model: Pick<ReadModel, 'workloadAt' | 'settings'> | undefined;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly workload: Workload | undefined;
}

export function plainFacts({ model, source, destination, workload }: IncomingPlain): Facts {
  return factsOf({
    direction: 'inbound',
    from: source,
    source: partyOf(model?.workloadAt(model.settings.network, source.address)),
    to: destination,
    authority: undefined,
    service: undefined,
    destination: partyOf(workload),
    identities: undefined,
    path: 'plain',
  });
}

/** The fields of the line `connection complete`. Bytes are counted as the pod sees them that this agent serves. */
export function completed(facts: Facts, record: Omit<ConnectionRecord, 'facts' | 'refusal'>): LineFields {
  const { path, ...rest } = facts;
  const { bytesFromClient, bytesFromServer, durationMs, ended } = record;
  const isOurs = facts.direction === 'outbound';
  return {
    ...rest,
    bytes_sent: isOurs ? bytesFromClient : bytesFromServer,
    bytes_recv: isOurs ? bytesFromServer : bytesFromClient,
    duration: `${Math.round(durationMs)}ms`,
    error: ended === 'clean' ? undefined : ended,
    path,
  };
}

/** Fields of a line of the log; undefined ones are left out. */
export type LineFields = Readonly<Record<string, string | number | undefined>>;

function factsOf({ direction, from, source, to, authority, service, destination, identities, path }: Known): Facts {
  return {
    'src.addr': from && formatEndpoint(from),
    'src.workload': source?.workload,
    'src.namespace': source?.namespace,
    'src.identity': identities?.source,
    'src.cluster': source?.cluster,
    'dst.addr': formatEndpoint(to),
    'dst.hbone_addr': authority,
    'dst.service': service?.hostname,
    'dst.workload': destination?.workload,
    'dst.namespace': destination?.namespace,
    'dst.identity': identities?.destination,
    'dst.cluster': destination?.cluster,
    direction,
    path,
  };
}

function partyOf(workload: Workload | undefined): Party | undefined {
  return (
    workload && { workload: workload.name, namespace: workload.namespace, cluster: workload.clusterId || undefined }
  );
}

/** Of a peer that the mesh does not know: the namespace is proven, the rest is what it says. */
function told(identity: SpiffeId, headers: HeaderFields): Party {
  const baggage: Baggage = parseBaggage(headerValues(headers, 'baggage'));
  return {
    workload: baggage.workloadName ?? baggage.canonicalName,
    namespace: parseSpiffeId(identity)?.namespace ?? baggage.namespace,
    cluster: baggage.clusterId,
  };
}
