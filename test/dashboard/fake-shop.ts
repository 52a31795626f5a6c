import type { MapEdge, MapNode } from '../../src/telemetry/index.ts';

/** Services of a shop, and who calls whom. */
export const SERVICES: ReadonlyArray<readonly [namespace: string, name: string, isHere: boolean]> = [
  ['shop', 'web', true],
  ['shop', 'cart', true],
  ['shop', 'catalog', true],
  ['shop', 'checkout', true],
  ['shop', 'recommend', false],
  ['payments', 'gateway', true],
  ['payments', 'ledger', false],
  ['payments', 'fraud', false],
  ['data', 'postgres', false],
  ['data', 'redis', true],
  ['edge', 'ingress', true],
  ['monitoring', 'prometheus', false],
];
export const CALLS: ReadonlyArray<readonly [from: string, to: string, bytes: number, kind: string]> = [
  ['outside', 'edge/ingress', 2_400_000, 'plain'],
  ['edge/ingress', 'shop/web', 2_100_000, 'kernel'],
  ['shop/web', 'shop/cart', 320_000, 'kernel'],
  ['shop/web', 'shop/catalog', 940_000, 'kernel'],
  ['shop/web', 'shop/recommend', 84_000, 'tunnel'],
  ['shop/cart', 'data/redis', 410_000, 'kernel'],
  ['shop/catalog', 'data/postgres', 1_800_000, 'tunnel'],
  ['shop/checkout', 'payments/gateway', 22_000, 'kernel'],
  ['shop/cart', 'shop/checkout', 31_000, 'kernel'],
  ['payments/gateway', 'payments/ledger', 18_000, 'tunnel'],
  ['payments/gateway', 'payments/fraud', 2_400, 'degraded'],
  ['shop/recommend', 'payments/ledger', 0, 'bad'],
  ['payments/ledger', 'data/postgres', 64_000, 'tunnel'],
  ['payments/gateway', 'outside', 9_500, 'passthrough'],
  ['monitoring/prometheus', 'shop/web', 4_100, 'tunnel'],
  ['monitoring/prometheus', 'data/redis', 3_900, 'idle'],
];

/** Numbers that look like chance and are the same every time. */
export function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}

/** The services, and what is outside. */
export function shopNodes(): MapNode[] {
  const nodes = SERVICES.map(([namespace, name, isHere]): MapNode => {
    return { id: `${namespace}/${name}`, name, namespace, kind: 'service', isHere };
  });
  return [...nodes, { id: 'outside', name: 'outside the mesh', namespace: '', kind: 'outside', isHere: false }];
}

/** An edge of a kind: how it is secured, or how it is. */
export function edgeOf(from: string, to: string, bytes: number, kind: string): MapEdge {
  const isIdle = kind === 'idle';
  return {
    id: `${from}>${to}`,
    from,
    to,
    connectionsPerSecond: isIdle ? 0 : 0.4 + bytes / 40_000,
    bytesPerSecond: isIdle ? 0 : bytes,
    open: isIdle ? 0 : 3 + Math.round(bytes / 100_000),
    failedPerSecond: kind === 'degraded' ? 0.3 : kind === 'bad' ? 0.1 : 0,
    deniedPerSecond: kind === 'bad' ? 2.1 : 0,
    p50Ms: kind === 'bad' || isIdle ? undefined : kind === 'kernel' ? 0.12 : 0.84,
    p99Ms: kind === 'bad' || isIdle ? undefined : kind === 'degraded' ? 412 : kind === 'kernel' ? 0.61 : 3.4,
    security: kind === 'kernel' ? 'kernel' : kind === 'plain' || kind === 'passthrough' ? 'none' : 'mutual_tls',
    health: kind === 'bad' || kind === 'degraded' || kind === 'idle' ? kind : 'good',
  };
}
