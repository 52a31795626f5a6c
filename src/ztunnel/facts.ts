import {
  type Baggage,
  type HeaderFields,
  headerValues,
  type IncomingRequest,
  parseBaggage,
  type TunnelPeer,
} from '../hbone/index.ts';
import {
  type ConnectionFacts,
  completedFields,
  connectionFacts,
  type Endpoint,
  type FlowPath,
  identityOf,
  type KnownConnection,
  type LineFields,
  type Party,
  parseSpiffeId,
  partyOf,
  type ReadModel,
  type Service,
  type SpiffeId,
  type Workload,
} from '../mesh/index.ts';
import { decisivePolicy } from '../policy/index.ts';
import type { ConnectionRecord, Refusal } from './open-connection.ts';
import type { Followed } from './outbound/attempt.ts';

export type Facts = ConnectionFacts;

/** Of a connection that an app of the pod makes. */
export interface Outgoing {
  readonly client: Endpoint | undefined;
  /** As it was asked for. */
  readonly destination: Endpoint;
  readonly source: Workload | undefined;
  /** Undefined: it went nowhere. */
  readonly route: Followed | undefined;
  /** Both ends of the session; undefined: there is none. */
  readonly identities: KnownConnection['identities'];
}

export function outboundFacts({ client, destination, source, route, identities }: Outgoing): Facts {
  const led = route?.kind === 'passthrough' ? undefined : route;
  return connectionFacts({
    direction: 'outbound',
    from: client,
    source: partyOf(source),
    to: (led?.kind === 'hbone' ? led.nextHop : led?.destination) ?? destination,
    authority: led?.kind === 'hbone' ? led.authority : undefined,
    service: led?.service,
    destination: partyOf(led?.workload),
    identities,
    path: route && flowPathOf(route),
  });
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
  return connectionFacts({
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
  return connectionFacts({
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

type Ended = Pick<ConnectionRecord, 'ended' | 'decision' | 'bytesFromClient' | 'bytesFromServer' | 'durationMs'>;

/** The fields of the line `connection complete`. */
export function completed(facts: Facts, record: Ended): LineFields {
  return { ...completedFields(facts, record), ...policyOf(record) };
}

/** The fields of the line `connection failed`. */
export function failed({ facts, text }: Refusal, record: Pick<Ended, 'ended' | 'decision'>): LineFields {
  return { ...facts, reason: record.ended, error: text, ...policyOf(record) };
}

/** Where policy has ended it. */
function policyOf({ ended, decision }: Pick<Ended, 'ended' | 'decision'>): LineFields {
  if (ended !== 'policy-denied' && ended !== 'policy-changed') return {};
  return { policy: decision && decisivePolicy(decision) };
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
