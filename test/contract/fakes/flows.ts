/** Records of connections for tests. */
import type { Address, FlowId, FlowParty, FlowRecord, NetnsCookie, Pod, SpiffeId } from '../../../src/mesh/index.ts';

export function flowParty(name: string, changes: Partial<FlowParty> = {}): FlowParty {
  return {
    workload: `${name}-0`,
    namespace: 'shop',
    cluster: 'Kubernetes',
    workloadName: name,
    canonicalName: name,
    canonicalRevision: 'latest',
    region: undefined,
    zone: undefined,
    identity: `spiffe://cluster.local/ns/shop/sa/${name}` as SpiffeId,
    ...changes,
  };
}

/** The nth flow's id. */
export function flowId(n: number): FlowId {
  return n.toString(16).padStart(8, '0').repeat(4);
}

/** `shop/buyer-0` has connected to the service `web`, whose endpoint `shop/web-0` is a pod of this node: by HBONE, and all went well. */
export function flowRecord(changes: Partial<FlowRecord> = {}): FlowRecord {
  return {
    id: flowId(1),
    pod: 7n as NetnsCookie,
    stage: 'connected',
    direction: 'inbound',
    path: 'tunnel',
    client: { address: '10.0.0.9' as Address, port: 40_000 },
    asked: { address: '10.0.0.1' as Address, port: 8080 },
    server: { address: '10.0.0.1' as Address, port: 8080 },
    dialled: { address: '10.0.0.1' as Address, port: 15_008 },
    authority: '10.0.0.1:8080',
    source: flowParty('buyer'),
    destination: flowParty('web'),
    sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/buyer' as SpiffeId,
    destinationIdentity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId,
    service: { name: 'web', namespace: 'shop', hostname: 'web.shop.svc.cluster.local' },
    waypoint: undefined,
    security: 'mutual_tls',
    endedAt: 1_700_000_000_123,
    durationMs: 12.5,
    ended: 'clean',
    error: undefined,
    decision: { allowed: true, reason: 'no-policy', policy: undefined, text: 'no policy applies' },
    dryRun: [],
    attempts: 1,
    bytesSent: 5_000_000_000,
    bytesReceived: 77,
    connectMs: 1.25,
    firstByteMs: 2.5,
    roundTripUs: 180,
    retransmits: 0,
    kind: undefined,
    ...changes,
  };
}

/** The pod whose records `flowRecord` makes: `shop/web-0`. */
export function flowPod(changes: Partial<Pod> = {}): Pod {
  return {
    uid: 'web-0-uid',
    name: 'web-0',
    namespace: 'shop',
    serviceAccount: 'web',
    netns: '/run/netns/web-0',
    addresses: ['10.0.0.1' as Address],
    exclusions: { outboundPorts: [], outboundCidrs: [], inboundPorts: [], inboundCidrs: [] },
    ...changes,
  };
}
