import test from 'ava';
import type { FlowSubject } from '../../../src/mesh/index.ts';
import { identityOf, type SpiffeId } from '../../../src/mesh/index.ts';
import { outboundSubject, plainSubject, tunnelledSubject } from '../../../src/ztunnel/flow-subjects.ts';
import type { Followed } from '../../../src/ztunnel/outbound/attempt.ts';
import { endpoint, memberOf, meshOf, service, workload } from './mesh.ts';

const buyer = workload('buyer-1', { serviceAccount: 'buyer', addresses: ['10.1.0.2'] });
const cart = workload('cart-1', { serviceAccount: 'cart', addresses: ['10.2.0.2'], services: memberOf('shop') });
const shop = service('shop');
const buyerId = identityOf(buyer);
const cartId = identityOf(cart);
const client = endpoint('10.1.0.2:40000');
const asked = endpoint('10.9.0.1:80');
const app = endpoint('10.2.0.2:8080');

const led = { workload: cart, endpoint: undefined };
const tunnel: Followed = {
  ...led,
  kind: 'hbone',
  service: shop,
  nextHop: endpoint('10.2.0.2:15008'),
  authority: '10.2.0.2:8080',
  acceptable: [],
  destination: app,
  via: 'workload',
};
const plain: Followed = { ...led, kind: 'plain', service: undefined, destination: app };
const peer = { identity: buyerId, endpoint: endpoint('10.1.0.2:50000'), local: endpoint('10.2.0.2:15008') };
const model = meshOf([buyer, cart], [shop]);
const arrived = {
  model,
  authority: '10.2.0.2:8080',
  headers: [] as ReadonlyArray<readonly [string, string]>,
  peer,
  client,
  app,
  workload: cart,
  service: shop,
};

/** What is not said: its values are of no interest to the law. */
type Said = { readonly [Field in keyof FlowSubject]?: unknown };

const named = { name: 'shop', namespace: 'shop', hostname: 'shop.shop.svc.cluster.local' };

const rows: ReadonlyArray<readonly [law: string, subject: FlowSubject, want: Said]> = [
  [
    'outbound, through the tunnel: what is dialled is the HBONE port, and who is there has still to be proven',
    outboundSubject({ client, asked, source: buyer, route: tunnel }),
    {
      direction: 'outbound',
      path: 'tunnel',
      client,
      asked,
      server: app,
      dialled: endpoint('10.2.0.2:15008'),
      authority: '10.2.0.2:8080',
      source: { workload: 'buyer-1' },
      destination: { workload: 'cart-1', identity: cartId },
      sourceIdentity: buyerId,
      destinationIdentity: undefined,
      service: named,
      waypoint: undefined,
      security: 'mutual_tls',
    },
  ],
  [
    'outbound, through a waypoint: it is named',
    outboundSubject({ client, asked, source: buyer, route: { ...tunnel, via: 'waypoint', destination: asked } }),
    { server: asked, dialled: endpoint('10.2.0.2:15008'), waypoint: 'shop/cart-1', service: named },
  ],
  [
    'outbound, plain: nobody is proven',
    outboundSubject({ client, asked, source: buyer, route: plain }),
    {
      path: 'plain',
      server: app,
      dialled: app,
      authority: undefined,
      destination: { workload: 'cart-1', identity: cartId },
      sourceIdentity: undefined,
      service: undefined,
      security: 'none',
    },
  ],
  [
    'outbound, passed through: where to is unknown, but not who',
    outboundSubject({ client, asked, source: buyer, route: { kind: 'passthrough', destination: asked } }),
    {
      path: 'passthrough',
      server: asked,
      dialled: asked,
      source: { workload: 'buyer-1' },
      destination: undefined,
      sourceIdentity: undefined,
      security: 'none',
    },
  ],
  [
    'outbound, to nowhere',
    outboundSubject({ client: undefined, asked, source: buyer, route: undefined }),
    { client: undefined, server: asked, source: { workload: 'buyer-1' }, destination: undefined, security: 'none' },
  ],
  [
    'inbound through the tunnel, from a workload that the mesh knows by its address',
    tunnelledSubject({ ...arrived, headers: [['baggage', 'k8s.pod.name=liar,k8s.namespace.name=lies']] }),
    {
      direction: 'inbound',
      path: 'tunnel',
      client,
      asked: app,
      server: app,
      dialled: endpoint('10.2.0.2:15008'),
      authority: '10.2.0.2:8080',
      source: { workload: 'buyer-1', namespace: 'shop' },
      destination: { workload: 'cart-1' },
      sourceIdentity: buyerId,
      destinationIdentity: cartId,
      service: named,
      security: 'mutual_tls',
    },
  ],
  [
    'inbound through the tunnel, from a peer that the mesh does not know: its own word, but for the proven namespace',
    tunnelledSubject({
      ...arrived,
      model: meshOf([cart]),
      headers: [['baggage', 'k8s.cluster.name=far,k8s.namespace.name=lies,k8s.deployment.name=buyer']],
    }),
    { source: { workload: 'buyer', workloadName: 'buyer', namespace: 'shop', cluster: 'far', identity: buyerId } },
  ],
  [
    'inbound through the tunnel, from a client whose port nobody told: the port of the session',
    tunnelledSubject({ ...arrived, client: endpoint('10.1.0.2:0'), workload: undefined, service: undefined }),
    { client: endpoint('10.1.0.2:50000'), destination: undefined, destinationIdentity: undefined },
  ],
  [
    'inbound, plain: its service is guessed by its port, and nobody is proven',
    plainSubject({ model, client, app, workload: cart }),
    {
      direction: 'inbound',
      path: 'plain',
      dialled: app,
      source: { workload: 'buyer-1' },
      destination: { workload: 'cart-1' },
      sourceIdentity: undefined,
      destinationIdentity: undefined,
      service: named,
      security: 'none',
    },
  ],
  [
    'inbound, plain, where there is no mesh',
    plainSubject({ model: undefined, client, app: endpoint('[fd00::2]:8080'), workload: undefined }),
    { server: endpoint('[fd00::2]:8080'), source: undefined, destination: undefined, service: undefined },
  ],
];

for (const [law, subject, want] of rows) test(law, (t) => t.like(subject, want as object));

test('a peer whose identity names no namespace is of the one that it says', (t) => {
  const stranger = { ...peer, identity: 'spiffe://far' as SpiffeId };
  const headers = [['baggage', 'k8s.namespace.name=there']] as const;
  t.is(tunnelledSubject({ ...arrived, model: meshOf([cart]), peer: stranger, headers }).source?.namespace, 'there');
});
