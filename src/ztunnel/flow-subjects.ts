import { type Baggage, type HeaderFields, headerValues, parseBaggage, type TunnelPeer } from '../hbone/index.ts';
import {
  type Endpoint,
  type FlowParty,
  type FlowPath,
  type FlowSubject,
  flowPartyOf,
  flowServiceOf,
  parseSpiffeId,
  type ReadModel,
  type Service,
  type SpiffeId,
  type Workload,
} from '../mesh/index.ts';
import { serviceGuess } from './inbound/target.ts';
import type { Followed } from './outbound/attempt.ts';

/** What a connection is, while it is being made: who the far end proves to be is known last. */
export type Subject = Omit<FlowSubject, 'destinationIdentity'> & { destinationIdentity: SpiffeId | undefined };

type Model = Pick<ReadModel, 'workloadAt' | 'settings' | 'service'>;

/** A connection that an app of the pod makes. */
interface Outgoing {
  readonly client: Endpoint | undefined;
  /** As it was asked for. */
  readonly asked: Endpoint;
  /** The pod's own; undefined: it is not known. */
  readonly source: Workload | undefined;
  /** Undefined: it is not known where it goes, or it goes nowhere. */
  readonly route: Followed | undefined;
}

export function outboundSubject({ client, asked, source, route }: Outgoing): Subject {
  const led = route?.kind === 'passthrough' ? undefined : route;
  const tunnelled = led?.kind === 'hbone' ? led : undefined;
  const server = led?.destination ?? asked;
  const party = flowPartyOf(source);
  return {
    direction: 'outbound',
    path: route === undefined ? 'tunnel' : flowPathOf(route),
    client,
    asked,
    server,
    dialled: tunnelled?.nextHop ?? server,
    authority: tunnelled?.authority,
    source: party,
    destination: flowPartyOf(led?.workload),
    sourceIdentity: led === undefined || led.kind === 'plain' ? undefined : party?.identity,
    destinationIdentity: undefined,
    service: flowServiceOf(led?.service),
    waypoint: tunnelled?.via === 'waypoint' ? waypointName(tunnelled.workload) : undefined,
    security: tunnelled === undefined ? 'none' : 'mutual_tls',
  };
}

export function flowPathOf({ kind }: Followed): FlowPath {
  switch (kind) {
    case 'hbone':
      return 'tunnel';
    case 'self':
      return 'plain';
    default:
      return kind;
  }
}

function waypointName({ namespace, name, workloadName }: Workload): string {
  return `${namespace}/${workloadName || name}`;
}

/** A connection that comes through the tunnel. */
interface Incoming {
  readonly model: Model;
  readonly authority: string | undefined;
  readonly headers: HeaderFields;
  readonly peer: TunnelPeer;
  /** Who the app is shown as its client; its port is 0 where nobody told it. */
  readonly client: Endpoint;
  readonly app: Endpoint;
  /** The pod's own; undefined: it did not become known. */
  readonly workload: Workload | undefined;
  readonly service: Service | undefined;
}

/** The address is proven, so what the mesh knows of it comes before what the peer says of itself. */
export function tunnelledSubject(incoming: Incoming): Subject {
  const { model, authority, headers, peer, client, app, workload, service } = incoming;
  const destination = flowPartyOf(workload);
  return {
    direction: 'inbound',
    path: 'tunnel',
    client: client.port === 0 ? peer.endpoint : client,
    asked: app,
    server: app,
    dialled: peer.local,
    authority,
    source: flowPartyOf(workloadAt(model, peer.endpoint)) ?? told(peer.identity, headers),
    destination,
    sourceIdentity: peer.identity,
    destinationIdentity: destination?.identity,
    service: flowServiceOf(service),
    waypoint: undefined,
    security: 'mutual_tls',
  };
}

/** A connection that comes in plain. */
interface IncomingPlain {
  /** Undefined: there is no mesh. */
  readonly model: Model | undefined;
  readonly client: Endpoint;
  readonly app: Endpoint;
  readonly workload: Workload | undefined;
}

export function plainSubject({ model, client, app, workload }: IncomingPlain): Subject {
  return {
    direction: 'inbound',
    path: 'plain',
    client,
    asked: app,
    server: app,
    dialled: app,
    authority: undefined,
    source: model && flowPartyOf(workloadAt(model, client)),
    destination: flowPartyOf(workload),
    sourceIdentity: undefined,
    destinationIdentity: undefined,
    service: model && workload && flowServiceOf(serviceGuess(model, workload, app.port, undefined)),
    waypoint: undefined,
    security: 'none',
  };
}

function workloadAt(model: Model, { address }: Endpoint): Workload | undefined {
  return model.workloadAt(model.settings.network, address);
}

/** Of a peer that the mesh does not know: the namespace is proven, the rest is what it says. */
function told(identity: SpiffeId, headers: HeaderFields): FlowParty {
  const baggage: Baggage = parseBaggage(headerValues(headers, 'baggage'));
  return {
    workload: baggage.workloadName ?? baggage.canonicalName,
    namespace: parseSpiffeId(identity)?.namespace ?? baggage.namespace,
    cluster: baggage.clusterId,
    workloadName: baggage.workloadName,
    canonicalName: baggage.canonicalName,
    canonicalRevision: baggage.canonicalRevision,
    region: baggage.region,
    zone: baggage.zone,
    identity,
  };
}
