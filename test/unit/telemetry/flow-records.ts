import type { Address, FlowParty, FlowRecord, NetnsCookie, SpiffeId } from '../../../src/mesh/index.ts';

export function party(name: string, namespace = 'shop'): FlowParty {
  return {
    workload: `${name}-1`,
    namespace,
    cluster: 'Kubernetes',
    workloadName: name,
    canonicalName: name,
    canonicalRevision: 'v1',
    region: undefined,
    zone: undefined,
    identity: identity(name, namespace),
  };
}

export function identity(name: string, namespace = 'shop'): SpiffeId {
  return `spiffe://cluster.local/ns/${namespace}/sa/${name}` as SpiffeId;
}

/** A connection from `web` to `cart` through the tunnel that ended cleanly, as the client's agent sees it. */
export function flowRecord(changes: Partial<FlowRecord> = {}): FlowRecord {
  return {
    direction: 'outbound',
    path: 'tunnel',
    client: { address: '10.0.0.1' as Address, port: 40_000 },
    asked: { address: '10.96.0.1' as Address, port: 80 },
    server: { address: '10.0.1.1' as Address, port: 8080 },
    dialled: { address: '10.0.1.1' as Address, port: 15_008 },
    authority: '10.0.1.1:8080',
    source: party('web'),
    destination: party('cart', 'store'),
    sourceIdentity: identity('web'),
    destinationIdentity: identity('cart', 'store'),
    service: { name: 'cart', namespace: 'store', hostname: 'cart.store.svc.cluster.local' },
    waypoint: undefined,
    security: 'mutual_tls',
    id: '0123456789abcdef0123456789abcdef',
    pod: 7n as NetnsCookie,
    stage: 'connected',
    endedAt: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    durationMs: 12.4,
    ended: 'clean',
    error: undefined,
    decision: undefined,
    dryRun: [],
    attempts: 1,
    bytesSent: 100,
    bytesReceived: 2000,
    connectMs: 1.5,
    firstByteMs: 3,
    roundTripUs: 250,
    retransmits: 0,
    kind: undefined,
    ...changes,
  };
}
