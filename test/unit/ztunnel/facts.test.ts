import { once } from 'node:events';
import test from 'ava';
import { identityOf, type SpiffeId } from '../../../src/mesh/index.ts';
import { completed, type Facts, outboundFacts, plainFacts, tunnelledFacts } from '../../../src/ztunnel/facts.ts';
import type { Followed } from '../../../src/ztunnel/outbound/attempt.ts';
import { ending } from './loopback.ts';
import { endpoint, meshOf, service, workload } from './mesh.ts';
import { World } from './mesh-world.ts';

const buyer = workload('buyer-1', { serviceAccount: 'buyer', addresses: ['10.1.0.2'] });
const cart = workload('cart-1', { serviceAccount: 'cart', addresses: ['10.2.0.2'] });
const shop = service('shop');
const identities = { source: identityOf(buyer), destination: identityOf(cart) };
const client = endpoint('10.1.0.2:40000');
const asked = endpoint('10.9.0.1:80');

const led = { workload: cart, endpoint: undefined };
const tunnel: Followed = {
  ...led,
  kind: 'hbone',
  service: shop,
  nextHop: endpoint('10.2.0.2:15008'),
  authority: '10.2.0.2:8080',
  acceptable: [],
  destination: endpoint('10.2.0.2:8080'),
  via: 'workload',
};
const plain: Followed = { ...led, kind: 'plain', service: undefined, destination: endpoint('10.2.0.2:8080') };
const request = (baggage: string) => ({ authority: '10.2.0.2:8080', headers: [['baggage', baggage]] as const });
const peer = { identity: identities.source, endpoint: endpoint('10.1.0.2:50000'), local: endpoint('10.2.0.2:15008') };
const model = meshOf([buyer, cart]);
const arrived = { model, request: request(''), peer, client, workload: cart, service: shop };

const rows: ReadonlyArray<readonly [law: string, facts: Facts, want: string]> = [
  [
    'outbound, through the tunnel',
    outboundFacts({ client, destination: asked, source: buyer, route: tunnel, identities }),
    'src.addr=10.1.0.2:40000 src.workload=buyer-1 src.namespace=shop src.identity=spiffe://cluster.local/ns/shop/sa/buyer src.cluster=Kubernetes ' +
      'dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 dst.service=shop.shop.svc.cluster.local dst.workload=cart-1 dst.namespace=shop ' +
      'dst.identity=spiffe://cluster.local/ns/shop/sa/cart dst.cluster=Kubernetes direction=outbound path=tunnel',
  ],
  [
    'outbound, a tunnel that could not be had: nothing is proven',
    outboundFacts({ client, destination: asked, source: buyer, route: tunnel, identities: undefined }),
    'src.addr=10.1.0.2:40000 src.workload=buyer-1 src.namespace=shop src.cluster=Kubernetes dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 ' +
      'dst.service=shop.shop.svc.cluster.local dst.workload=cart-1 dst.namespace=shop dst.cluster=Kubernetes direction=outbound path=tunnel',
  ],
  [
    'outbound, plain',
    outboundFacts({ client, destination: asked, source: buyer, route: plain, identities: undefined }),
    'src.addr=10.1.0.2:40000 src.workload=buyer-1 src.namespace=shop src.cluster=Kubernetes dst.addr=10.2.0.2:8080 dst.workload=cart-1 dst.namespace=shop ' +
      'dst.cluster=Kubernetes direction=outbound path=plain',
  ],
  [
    'outbound, passed through',
    outboundFacts({
      client,
      destination: asked,
      source: undefined,
      route: { kind: 'passthrough', destination: asked },
      identities: undefined,
    }),
    'src.addr=10.1.0.2:40000 dst.addr=10.9.0.1:80 direction=outbound path=passthrough',
  ],
  [
    'outbound, to nowhere',
    outboundFacts({ client: undefined, destination: asked, source: buyer, route: undefined, identities: undefined }),
    'src.workload=buyer-1 src.namespace=shop src.cluster=Kubernetes dst.addr=10.9.0.1:80 direction=outbound',
  ],
  [
    'inbound through the tunnel, from a workload that the mesh knows by its address',
    tunnelledFacts({ ...arrived, request: request('k8s.pod.name=liar,k8s.namespace.name=lies') }),
    'src.addr=10.1.0.2:40000 src.workload=buyer-1 src.namespace=shop src.identity=spiffe://cluster.local/ns/shop/sa/buyer src.cluster=Kubernetes ' +
      'dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 dst.service=shop.shop.svc.cluster.local dst.workload=cart-1 dst.namespace=shop ' +
      'dst.identity=spiffe://cluster.local/ns/shop/sa/cart dst.cluster=Kubernetes direction=inbound path=tunnel',
  ],
  [
    'inbound through the tunnel, from a peer that the mesh does not know: its own word, but for the proven namespace',
    tunnelledFacts({
      ...arrived,
      model: meshOf([cart]),
      request: request('k8s.cluster.name=far,k8s.namespace.name=lies,k8s.deployment.name=buyer'),
    }),
    'src.addr=10.1.0.2:40000 src.workload=buyer src.namespace=shop src.identity=spiffe://cluster.local/ns/shop/sa/buyer src.cluster=far ' +
      'dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 dst.service=shop.shop.svc.cluster.local dst.workload=cart-1 dst.namespace=shop ' +
      'dst.identity=spiffe://cluster.local/ns/shop/sa/cart dst.cluster=Kubernetes direction=inbound path=tunnel',
  ],
  [
    'inbound through the tunnel, from a client whose port nobody told: the port of the session',
    tunnelledFacts({
      ...arrived,
      model: meshOf([]),
      client: endpoint('10.1.0.2:0'),
      workload: undefined,
      service: undefined,
    }),
    'src.addr=10.1.0.2:50000 src.namespace=shop src.identity=spiffe://cluster.local/ns/shop/sa/buyer dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 ' +
      'direction=inbound path=tunnel',
  ],
  [
    'inbound, plain',
    plainFacts({ model, source: client, destination: endpoint('10.2.0.2:8080'), workload: cart }),
    'src.addr=10.1.0.2:40000 src.workload=buyer-1 src.namespace=shop src.cluster=Kubernetes dst.addr=10.2.0.2:8080 dst.workload=cart-1 dst.namespace=shop ' +
      'dst.cluster=Kubernetes direction=inbound path=plain',
  ],
  [
    'inbound, plain, where there is no mesh',
    plainFacts({ model: undefined, source: client, destination: endpoint('[fd00::2]:8080'), workload: undefined }),
    'src.addr=10.1.0.2:40000 dst.addr=[fd00::2]:8080 direction=inbound path=plain',
  ],
];

for (const [law, facts, want] of rows) test(law, (t) => t.is(lineOf(facts), want));

const record = {
  ended: 'clean',
  decision: undefined,
  bytesFromClient: 10,
  bytesFromServer: 20,
  durationMs: 12.4,
} as const;

test("bytes are sent and received by the agent's own pod", (t) => {
  const ends = (direction: string): Facts => ({ direction, path: 'tunnel' });
  t.is(
    lineOf(completed(ends('outbound'), record)),
    'direction=outbound bytes_sent=10 bytes_recv=20 duration=12ms path=tunnel',
  );
  t.is(
    lineOf(completed(ends('inbound'), record)),
    'direction=inbound bytes_sent=20 bytes_recv=10 duration=12ms path=tunnel',
  );
});

test('an unclean end is an error', (t) => {
  t.is(completed({}, { ...record, ended: 'reset-by-server' }).error, 'reset-by-server');
  t.is(completed({}, record).error, undefined);
});

test('the agents of both ends tell of one connection, where they are asked to', async (t) => {
  const world = await World.create(t);
  const near = await world.pod('client', { logsConnections: true });
  const far = await world.pod('server', { logsConnections: true });
  const silent = await world.pod('silent');
  const app = await world.app(far);
  world.tell();
  for (const pod of [near, silent]) {
    const socket = pod.open(app.endpoint);
    socket.end('hello');
    const accepted = await app.accepted();
    accepted.resume();
    await once(accepted, 'end');
    accepted.end('good day');
    await ending(socket);
    await pod.until(() => pod.records.length === 1);
  }
  await far.until(() => far.accesses.length === 2);
  t.deepEqual(silent.accesses, []);
  const both = {
    message: 'connection complete',
    'src.workload': 'client',
    'src.identity': 'spiffe://cluster.local/ns/shop/sa/client' as SpiffeId,
    'dst.workload': 'server',
    'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server' as SpiffeId,
    'dst.hbone_addr': `${app.endpoint.address}:${app.endpoint.port}`,
    error: undefined,
    path: 'tunnel',
  };
  t.like(near.accesses[0], { ...both, direction: 'outbound', bytes_sent: 5, bytes_recv: 8 });
  t.like(far.accesses[0], { ...both, direction: 'inbound', bytes_sent: 8, bytes_recv: 5 });
});

function lineOf(fields: Readonly<Record<string, string | number | undefined>>): string {
  return Object.entries(fields)
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]))
    .join(' ');
}
