/** Connections to count and to write down. */
import type { Address, FlowParty, FlowSubject, SpiffeId } from '../../../src/mesh/index.ts';
import type { FlowEnd } from '../../../src/telemetry/index.ts';

export function party(name: string, wish: Partial<FlowParty> = {}): FlowParty {
  return {
    workload: `${name}-1`,
    namespace: 'shop',
    cluster: 'Kubernetes',
    workloadName: name,
    canonicalName: name,
    canonicalRevision: 'v1',
    region: undefined,
    zone: undefined,
    identity: `spiffe://cluster.local/ns/shop/sa/${name}` as SpiffeId,
    ...wish,
  };
}

export function subject(wish: Partial<FlowSubject> = {}): FlowSubject {
  const server = { address: '10.2.0.2' as Address, port: 8080 };
  return {
    direction: 'outbound',
    path: 'tunnel',
    client: { address: '10.1.0.2' as Address, port: 40_000 },
    asked: { address: '10.9.0.1' as Address, port: 80 },
    server,
    dialled: { ...server, port: 15_008 },
    authority: '10.2.0.2:8080',
    source: party('buyer'),
    destination: party('cart'),
    sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/buyer' as SpiffeId,
    destinationIdentity: 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId,
    service: { name: 'shop', namespace: 'shop', hostname: 'shop.shop.svc.cluster.local' },
    waypoint: undefined,
    security: 'mutual_tls',
    ...wish,
  };
}

export function end(wish: Partial<FlowEnd> = {}): FlowEnd {
  return {
    id: '0123456789abcdef0123456789abcdef',
    stage: 'connected',
    ended: 'clean',
    error: undefined,
    decision: undefined,
    dryRun: [],
    attempts: 1,
    bytesSent: 1,
    bytesReceived: 2,
    durationMs: 3.5,
    connectMs: 0.5,
    firstByteMs: 1.5,
    roundTripUs: 42,
    retransmits: 0,
    kind: undefined,
    ...wish,
  };
}
