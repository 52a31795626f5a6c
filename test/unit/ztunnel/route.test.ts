import test from 'ava';
import { identityOf, type Service, type Workload } from '../../../src/mesh/index.ts';
import { rankOf } from '../../../src/ztunnel/outbound/candidates.ts';
import { type ChooseEndpoint, type Route, type RouteOptions, route } from '../../../src/ztunnel/outbound/route.ts';
import { byAddress, byName, endpoint, memberOf, meshOf, seeded, service, workload } from './mesh.ts';

const client = workload('client', { addresses: ['10.1.0.1', 'fd01::1'] });
const cart = workload('cart', { addresses: ['10.1.0.2', 'fd01::2'] });
const outsider = workload('outsider', { addresses: ['10.1.0.3'], protocol: 'tcp' });
const first: ChooseEndpoint = () => 0;

interface Asked extends RouteOptions {
  readonly source?: Workload;
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly network?: string;
  readonly choose?: ChooseEndpoint;
}

function routeTo(text: string, asked: Asked): Route {
  const model = meshOf(asked.workloads ?? [], asked.services, { network: asked.network ?? '' });
  return route(model, asked.source ?? client, endpoint(text), asked.choose ?? first, asked);
}

/** One line that says where a route leads. */
function lineOf(route: Route): string {
  switch (route.kind) {
    case 'passthrough':
      return `passthrough ${route.destination.address} ${route.destination.port}`;
    case 'plain':
    case 'self':
      return `${route.kind} ${route.destination.address} ${route.destination.port}`;
    case 'hbone':
      return `hbone ${route.nextHop.address} ${route.nextHop.port} via ${route.via} for ${route.authority}`;
    case 'refuse':
      return `refuse ${route.reason}: ${route.text}`;
  }
}

const shop = service('shop', { addresses: ['10.9.0.1', 'fd09::1'], ports: { 80: 8080, 81: 0, 82: 8082 } });
const inShop = (name: string, wish: Parameters<typeof workload>[1] = {}): Workload =>
  workload(name, { addresses: ['10.1.1.1'], services: memberOf('shop'), ...wish });
const gate = service('gate', { addresses: ['10.9.0.9'], ports: { 15008: 15009 } });
const gatePod = workload('gate-1', { addresses: ['10.1.9.1'], services: memberOf('gate') });

const rows: ReadonlyArray<readonly [law: string, to: string, asked: Asked, want: string]> = [
  // 6.1, step by step.
  [
    'refuses an agent port at a loopback address',
    '127.0.0.5:15001',
    {},
    'refuse recursive-call: attempted recursive call to ourselves',
  ],
  [
    'refuses an agent port at the IPv6 loopback address',
    '[::1]:15006',
    {},
    'refuse recursive-call: attempted recursive call to ourselves',
  ],
  ['leaves another loopback port as it is', '127.0.0.5:80', {}, 'passthrough 127.0.0.5 80'],
  ['passes what nobody knows', '192.0.2.1:443', {}, 'passthrough 192.0.2.1 443'],
  [
    'tunnels to a workload of the mesh',
    '10.1.0.2:80',
    { workloads: [cart] },
    'hbone 10.1.0.2 15008 via workload for 10.1.0.2:80',
  ],
  [
    'tunnels to the address that was asked for',
    '[fd01::2]:80',
    { workloads: [cart] },
    'hbone fd01::2 15008 via workload for [fd01::2]:80',
  ],
  [
    'tunnels to the HBONE port of a pod like to any other',
    '10.1.0.2:15008',
    { workloads: [cart] },
    'hbone 10.1.0.2 15008 via workload for 10.1.0.2:15008',
  ],
  ['dials itself, where no tunnel is', '10.1.0.1:80', { workloads: [client] }, 'self 10.1.0.1 80'],
  [
    'dials itself as an endpoint of a service',
    '10.9.0.1:80',
    { services: [shop], workloads: [{ ...client, services: memberOf('shop') }] },
    'self 10.1.0.1 8080',
  ],
  ['dials a workload that is not in the mesh', '10.1.0.3:80', { workloads: [outsider] }, 'plain 10.1.0.3 80'],
  [
    "passes to a pod in its node's network",
    '10.1.0.4:80',
    { workloads: [workload('host', { addresses: ['10.1.0.4'], networkMode: 'host' })] },
    'passthrough 10.1.0.4 80',
  ],
  [
    'passes to an address of another network',
    '10.1.0.2:80',
    { workloads: [workload('far', { addresses: ['10.1.0.2'], network: 'two' })] },
    'passthrough 10.1.0.2 80',
  ],
  [
    'leads a service address to an endpoint and its target port',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a')] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'dials an endpoint that is not in the mesh',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { protocol: 'tcp' })] },
    'plain 10.1.1.1 8080',
  ],
  [
    "leads to an endpoint in its node's network",
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { networkMode: 'host', protocol: 'tcp' })] },
    'plain 10.1.1.1 8080',
  ],
  [
    'refuses a service without endpoints',
    '10.9.0.1:80',
    { services: [shop] },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:80',
  ],
  [
    'refuses a port that the service has not',
    '10.9.0.1:99',
    { services: [shop], workloads: [inShop('a', { services: memberOf('shop', { 99: 99 }) })] },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:99',
  ],
  [
    'takes a service for one before a workload of the same address',
    '10.1.1.1:80',
    {
      services: [service('shop', { addresses: ['10.1.1.1'] })],
      workloads: [inShop('a'), workload('b', { addresses: ['10.1.1.1'] })],
    },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'refuses rather than passing what a service has that has no endpoint, though a workload has it too',
    '10.1.1.1:81',
    {
      services: [service('shop', { addresses: ['10.1.1.1'], ports: {} })],
      workloads: [workload('b', { addresses: ['10.1.1.1'] })],
    },
    'refuse no-endpoint: no healthy upstream: 10.1.1.1:81',
  ],
  [
    'passes what a service leaves as it is',
    '10.9.0.1:80',
    {
      services: [service('shop', { addresses: ['10.9.0.1'], loadBalancing: { mode: 'passthrough' } })],
      workloads: [inShop('a')],
    },
    'passthrough 10.9.0.1 80',
  ],
  [
    'tunnels to a workload although a service leaves its address as it is',
    '10.1.1.1:80',
    {
      services: [service('shop', { addresses: ['10.1.1.1'], loadBalancing: { mode: 'passthrough' } })],
      workloads: [inShop('a')],
    },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:80',
  ],

  // Two networks: where the source is, and our own.
  [
    'looks an address up where the source is',
    '10.1.0.2:80',
    {
      network: 'one',
      source: workload('client', { network: 'two' }),
      workloads: [workload('far', { addresses: ['10.1.0.2'], network: 'two' })],
    },
    'hbone 10.1.0.2 15008 via workload for 10.1.0.2:80',
  ],
  [
    "refuses a service of our own network that the source's network does not have",
    '10.9.0.1:80',
    {
      network: 'one',
      source: workload('client', { network: 'two' }),
      services: [service('shop', { addresses: ['10.9.0.1'], network: 'one' })],
    },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:80',
  ],
  [
    'refuses when all endpoints are on another network',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { network: 'two', networkGateway: byAddress('10.7.0.1') })] },
    'refuse other-network: no valid routing destination for workload: Kubernetes//Pod/shop/a: it is on network "two"',
  ],
  [
    'uses what is left on the own network',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { network: 'two' }), inShop('b', { addresses: ['10.1.1.2'] })] },
    'hbone 10.1.1.2 15008 via workload for 10.1.1.2:8080',
  ],

  // 6.2.
  [
    'does not see a service that is for another namespace only',
    '10.9.0.1:80',
    { services: [service('shop', { namespace: 'secret', addresses: ['10.9.0.1'], visibility: 'namespace' })] },
    'passthrough 10.9.0.1 80',
  ],

  // 6.3.
  [
    'leaves out endpoints that are not healthy',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { status: 'unhealthy' }), inShop('b', { addresses: ['10.1.1.2'] })] },
    'hbone 10.1.1.2 15008 via workload for 10.1.1.2:8080',
  ],
  [
    'takes all endpoints where the service allows all',
    '10.9.0.1:80',
    {
      services: [service('shop', { addresses: ['10.9.0.1'], loadBalancing: { healthPolicy: 'allow-all' } })],
      workloads: [inShop('a', { status: 'unhealthy' })],
    },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    "prefers the endpoint's own port to the service's",
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { services: memberOf('shop', { 80: 9090 }) })] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:9090',
  ],
  [
    "finds a named port in the endpoint's own ports",
    '10.9.0.1:81',
    { services: [shop], workloads: [inShop('a', { services: memberOf('shop', { 81: 9091 }) })] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:9091',
  ],
  [
    'leaves out an endpoint without the named port',
    '10.9.0.1:81',
    {
      services: [shop],
      workloads: [inShop('a'), inShop('b', { addresses: ['10.1.1.2'], services: memberOf('shop', { 81: 9091 }) })],
    },
    'hbone 10.1.1.2 15008 via workload for 10.1.1.2:9091',
  ],
  [
    'refuses a named port that no endpoint has',
    '10.9.0.1:81',
    { services: [shop], workloads: [inShop('a')] },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:81',
  ],
  [
    'never chooses what weighs nothing',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { capacity: 0 })] },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:80',
  ],
  [
    'an application tunnel stands in for no port of an ordinary service',
    '10.9.0.1:81',
    { services: [shop], workloads: [inShop('a', { applicationTunnel: { protocol: 'proxy', port: 15088 } })] },
    'refuse no-endpoint: no healthy upstream: 10.9.0.1:81',
  ],

  // 6.5.
  [
    'takes an address of the family that was asked for',
    '[fd09::1]:80',
    { services: [shop], workloads: [inShop('a', { addresses: ['10.1.1.1', 'fd01::3'] })] },
    'hbone fd01::3 15008 via workload for [fd01::3]:8080',
  ],
  [
    'takes the other family where there is none',
    '[fd09::1]:80',
    { services: [shop], workloads: [inShop('a')] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'takes only families that the service has: IPv6',
    '10.9.0.1:80',
    {
      services: [service('shop', { addresses: ['10.9.0.1'], ipFamilies: 'ipv6-only' })],
      workloads: [inShop('a', { addresses: ['10.1.1.1', 'fd01::3'] })],
    },
    'hbone fd01::3 15008 via workload for [fd01::3]:8080',
  ],
  [
    'takes only families that the service has: IPv4',
    '10.9.0.1:80',
    {
      services: [service('shop', { addresses: ['10.9.0.1'], ipFamilies: 'ipv4-only' })],
      workloads: [inShop('a', { addresses: ['fd01::3', '10.1.1.1'] })],
    },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'takes any family of a service of both',
    '[fd09::1]:80',
    { services: [service('shop', { addresses: ['fd09::1'], ipFamilies: 'dual' })], workloads: [inShop('a')] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'refuses where no address is of an allowed family',
    '10.9.0.1:80',
    { services: [service('shop', { addresses: ['10.9.0.1'], ipFamilies: 'ipv6-only' })], workloads: [inShop('a')] },
    'refuse no-endpoint: no valid routing destination for workload: Kubernetes//Pod/shop/a: it has no fitting address',
  ],
  [
    'refuses where only a hostname is left',
    '10.9.0.1:80',
    { services: [shop], workloads: [inShop('a', { addresses: [], hostname: 'a.example.com' })] },
    'refuse no-endpoint: no valid routing destination for workload: Kubernetes//Pod/shop/a: hostname a.example.com is not resolved',
  ],

  // Waypoints: 2.3, 6.1 steps 3 and 8.
  [
    "leads a service to its waypoint, by name, at the waypoint's own port",
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [gatePod] },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:80',
  ],
  [
    "leads a service to its waypoint, by the waypoint service's address",
    '[fd09::1]:80',
    { services: [{ ...shop, waypoint: byAddress('10.9.0.9') }, gate], workloads: [gatePod] },
    'hbone 10.1.9.1 15009 via waypoint for [fd09::1]:80',
  ],
  [
    "leads a service to its waypoint, by a workload's address and the reference's port",
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byAddress('10.1.9.1', 15010) }], workloads: [gatePod] },
    'hbone 10.1.9.1 15010 via waypoint for 10.9.0.1:80',
  ],
  [
    "leads a service to its waypoint, by a workload's hostname",
    '10.9.0.1:80',
    {
      services: [{ ...shop, waypoint: byName('lone') }],
      workloads: [workload('lone', { addresses: ['10.1.9.2', 'fd01::92'], hostname: 'lone.shop.svc.cluster.local' })],
    },
    'hbone 10.1.9.2 15008 via waypoint for 10.9.0.1:80',
  ],
  [
    'asks the waypoint for a port that the service has not',
    '10.9.0.1:99',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [gatePod] },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:99',
  ],
  [
    'leads a service that selects nothing to its waypoint',
    '10.9.0.1:80',
    {
      services: [
        service('shop', { addresses: ['10.9.0.1'], waypoint: byName('gate'), loadBalancing: { mode: 'passthrough' } }),
        gate,
      ],
      workloads: [gatePod],
    },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:80',
  ],
  [
    'leads the waypoint itself to the waypoint of a service',
    '10.9.0.1:80',
    { source: gatePod, services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [gatePod] },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:80',
  ],
  [
    "an application tunnel stands in for a port that the waypoint's service has not",
    '10.9.0.1:80',
    {
      services: [
        { ...shop, waypoint: byName('gate') },
        { ...gate, ports: [] },
      ],
      workloads: [{ ...gatePod, applicationTunnel: { protocol: 'proxy', port: 15088 } }],
    },
    'hbone 10.1.9.1 15008 via waypoint for 10.9.0.1:80',
  ],
  [
    'leads a weighted service to a weighted waypoint',
    '10.9.0.1:80',
    {
      services: [
        {
          ...shop,
          waypoint: byName('gone'),
          weightedWaypoints: [
            { destination: byName('gone'), weight: 0 },
            { destination: byName('gate'), weight: 1 },
          ],
        },
        gate,
      ],
      workloads: [gatePod],
    },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:80',
  ],
  [
    'leads to the primary waypoint where no weighted one weighs anything',
    '10.9.0.1:80',
    {
      services: [
        { ...shop, waypoint: byName('gate'), weightedWaypoints: [{ destination: byName('gone'), weight: 0 }] },
        gate,
      ],
      workloads: [gatePod],
    },
    'hbone 10.1.9.1 15009 via waypoint for 10.9.0.1:80',
  ],
  [
    'leads a workload that was addressed itself to its waypoint',
    '10.1.0.2:80',
    { services: [gate], workloads: [{ ...cart, waypoint: byName('gate') }, gatePod] },
    'hbone 10.1.9.1 15009 via waypoint for 10.1.0.2:80',
  ],
  [
    'leads past the waypoint of a workload that was chosen for a service',
    '10.9.0.1:80',
    { services: [shop, gate], workloads: [inShop('a', { waypoint: byName('gate') }), gatePod] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    'leads past the waypoint of a service whose pod was addressed itself',
    '10.1.1.1:8080',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [inShop('a'), gatePod] },
    'hbone 10.1.1.1 15008 via workload for 10.1.1.1:8080',
  ],
  [
    "leads a workload's waypoint, by name, to the workload",
    '10.1.0.2:80',
    { source: gatePod, services: [gate], workloads: [{ ...cart, waypoint: byName('gate') }, gatePod] },
    'hbone 10.1.0.2 15008 via workload for 10.1.0.2:80',
  ],
  [
    "leads a workload's waypoint, by address, to the workload",
    '10.1.0.2:80',
    { source: gatePod, workloads: [{ ...cart, waypoint: byAddress('10.1.9.1') }, gatePod] },
    'hbone 10.1.0.2 15008 via workload for 10.1.0.2:80',
  ],
  [
    "refuses where the service's waypoint is not known",
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gone') }], workloads: [inShop('a')] },
    'refuse unknown-waypoint: unknown waypoint: shop/gone.shop.svc.cluster.local',
  ],
  [
    "refuses where the workload's waypoint is not known",
    '10.1.0.2:80',
    { workloads: [{ ...cart, waypoint: byAddress('10.9.0.8') }] },
    'refuse unknown-waypoint: unknown waypoint: /10.9.0.8',
  ],
  [
    'refuses where the waypoint has no endpoint',
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [{ ...gatePod, status: 'unhealthy' }] },
    'refuse unknown-waypoint: unknown waypoint: shop/gate.shop.svc.cluster.local',
  ],
  [
    "refuses where the waypoint's service has neither the port nor an application tunnel",
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gate', 15011) }, gate], workloads: [gatePod] },
    'refuse unknown-waypoint: unknown waypoint: shop/gate.shop.svc.cluster.local',
  ],
  [
    'refuses where the waypoint weighs nothing',
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [{ ...gatePod, capacity: 0 }] },
    'refuse unknown-waypoint: unknown waypoint: shop/gate.shop.svc.cluster.local',
  ],
  [
    "refuses where the waypoint's endpoints are on another network",
    '10.9.0.1:80',
    { services: [{ ...shop, waypoint: byName('gate') }, gate], workloads: [{ ...gatePod, network: 'two' }] },
    'refuse other-network: no valid routing destination for workload: Kubernetes//Pod/shop/gate-1: it is on network "two"',
  ],
  [
    'refuses where the waypoint, by address, is on another network',
    '10.1.0.2:80',
    {
      workloads: [
        { ...cart, waypoint: byAddress('10.1.9.1', 15008, 'two') },
        { ...gatePod, network: 'two' },
      ],
    },
    'refuse other-network: no valid routing destination for workload: Kubernetes//Pod/shop/gate-1: it is on network "two"',
  ],
];

for (const [law, to, asked, want] of rows) test(law, (t) => t.is(lineOf(routeTo(to, asked)), want));

test('accepts the workload that was addressed, under its own identity', (t) => {
  const to = routeTo('10.1.0.2:80', { workloads: [workload('cart', { addresses: ['10.1.0.2'], trustDomain: 'td' })] });
  t.like(to, { acceptable: ['spiffe://td/ns/shop/sa/cart'], service: undefined, endpoint: undefined });
});

test('accepts an endpoint under its own identity and those that the service names', (t) => {
  const subjectAltNames = ['spiffe://td/ns/a/sa/b', 'shop.example.com', 'spiffe://td/ns/c/sa/d'];
  const endpoint = inShop('a');
  const to = routeTo('10.9.0.1:80', { services: [{ ...shop, subjectAltNames }], workloads: [endpoint] });
  t.like(to, {
    acceptable: ['spiffe://td/ns/a/sa/b', 'spiffe://td/ns/c/sa/d', identityOf(endpoint)],
    workload: endpoint,
    service: { name: 'shop' },
    endpoint: '10.1.1.1:8080',
  });
});

test('accepts a waypoint under its own identity and those that its service names, and tells the service that was asked for', (t) => {
  const subjectAltNames = ['spiffe://td/ns/a/sa/b'];
  const services = [
    { ...shop, waypoint: byName('gate') },
    { ...gate, subjectAltNames },
  ];
  const to = routeTo('10.9.0.1:80', { services, workloads: [gatePod] });
  t.like(to, {
    acceptable: ['spiffe://td/ns/a/sa/b', identityOf(gatePod)],
    workload: gatePod,
    service: { name: 'shop' },
    endpoint: '10.1.9.1:15009',
  });
});

const near = { region: 'r1', zone: 'z1', subzone: 's1' };
const here = workload('here', { addresses: ['10.1.0.1'], node: 'n1', clusterId: 'c1', locality: near });

/** Who may get a connection to a service with this load balancing. */
function eligible(loadBalancing: Service['loadBalancing'], workloads: readonly Workload[]): string[] {
  let keys: readonly string[] = [];
  const services = [{ ...shop, loadBalancing }];
  const choose: ChooseEndpoint = (candidates) => {
    keys = candidates.keys;
    return 0;
  };
  routeTo('10.9.0.1:80', { source: here, services, workloads, choose });
  return keys.map((key) => workloads.find(({ addresses: [address] }) => key === `${address}:8080`)?.name ?? key);
}

const places = [
  inShop('same-node', { addresses: ['10.1.1.1'], node: 'n1', clusterId: 'c1', locality: near }),
  inShop('same-subzone', { addresses: ['10.1.1.2'], node: 'n2', clusterId: 'c1', locality: near }),
  inShop('same-zone', { addresses: ['10.1.1.3'], node: 'n3', clusterId: 'c2', locality: { ...near, subzone: 's2' } }),
  inShop('same-region', {
    addresses: ['10.1.1.4'],
    node: 'n4',
    clusterId: 'c2',
    locality: { region: 'r1', zone: 'z2' },
  }),
  inShop('elsewhere', { addresses: ['10.1.1.5'], node: 'n5', clusterId: 'c3', locality: { region: 'r2' } }),
];

/** Which of `places` are there, and which of them may get a connection. */
const preferences: ReadonlyArray<
  readonly [
    mode: NonNullable<Service['loadBalancing']>['mode'],
    preference: NonNullable<Service['loadBalancing']>['routingPreference'],
    there: readonly number[],
    want: readonly string[],
  ]
> = [
  ['unspecified', [], [0, 1, 2, 3, 4], ['same-node', 'same-subzone', 'same-zone', 'same-region', 'elsewhere']],
  ['unspecified', ['node'], [0, 4], ['same-node', 'elsewhere']],
  ['strict', [], [0, 4], ['same-node', 'elsewhere']],
  ['strict', ['node'], [0, 1, 2], ['same-node']],
  ['strict', ['region', 'zone'], [0, 1, 2, 3], ['same-node', 'same-subzone', 'same-zone']],
  ['strict', ['cluster'], [0, 1, 2], ['same-node', 'same-subzone']],
  ['strict', ['node'], [1, 2], []],
  ['failover', ['region', 'zone', 'subzone', 'node'], [0, 1, 2, 3, 4], ['same-node']],
  ['failover', ['region', 'zone', 'subzone', 'node'], [1, 2, 3, 4], ['same-subzone']],
  ['failover', ['region', 'zone', 'subzone'], [0, 1, 2], ['same-node', 'same-subzone']],
  ['failover', ['region', 'zone', 'subzone', 'node'], [3, 4], ['same-region']],
  ['failover', ['region', 'zone'], [4], ['elsewhere']],
  ['failover', ['node', 'region'], [2, 3, 4], ['same-zone', 'same-region', 'elsewhere']],
  ['failover', ['network', 'region', 'zone'], [2, 3, 4], ['same-zone']],
];

for (const [mode, routingPreference, there, want] of preferences)
  test(`${mode} by [${routingPreference}] of ${there} leads to [${want}]`, (t) => {
    const loadBalancing = { mode, routingPreference, healthPolicy: 'only-healthy' } as const;
    t.deepEqual(
      eligible(
        loadBalancing,
        places.filter((_, index) => there.includes(index)),
      ),
      [...want],
    );
  });

test('an unknown place is the same as another unknown place', (t) => {
  const preference = ['region', 'zone'] as const;
  t.is(rankOf(preference, workload('a'), workload('b')), 2);
});

for (const [wish, want] of [
  [{ locality: near, network: 'one' }, 5],
  [{ locality: { ...near, zone: 'z2' }, network: 'one' }, 4],
  [{ network: 'one' }, 3],
  [{ locality: near, network: 'two' }, 2],
  [{ locality: { ...near, zone: 'z2' }, network: 'two' }, 1],
  [{ network: 'two' }, 0],
] as const)
  test(`where the network comes first, ${JSON.stringify(wish)} ranks ${want}`, (t) => {
    const source = workload('a', { locality: near, network: 'one' });
    t.is(rankOf(['network', 'region', 'zone'], source, workload('b', wish)), want);
  });

test('says of each candidate its key and its weight, and which were tried', (t) => {
  const workloads = [inShop('a', { capacity: 3 }), inShop('b', { addresses: ['fd01::7', '10.1.1.2'] })];
  const tried = new Set(['10.1.1.1:8080']);
  const choose: ChooseEndpoint = (candidates, given) => {
    t.deepEqual(candidates.keys, ['10.1.1.1:8080', '[fd01::7]:8080']);
    t.deepEqual(candidates.weights, [3, 1]);
    t.is(given, tried);
    return 1;
  };
  t.like(routeTo('10.9.0.1:80', { services: [shop], workloads, choose, tried }), {
    endpoint: '[fd01::7]:8080',
    nextHop: { address: '10.1.1.2' },
  });
});

/** What the kernel has drawn, and where the connection goes. */
const picks: ReadonlyArray<readonly [law: string, picked: string, want: string | undefined]> = [
  ['the endpoint that the kernel has drawn is preferred', '10.1.1.2:8080', '10.1.1.2:8080'],
  ['and at the very address of its that was drawn', '10.1.1.3:8080', '10.1.1.3:8080'],
  ['one at another port is no endpoint of the service', '10.1.1.2:8081', undefined],
  ['nor is one that has left it', '10.1.1.9:8080', undefined],
];

for (const [law, picked, want] of picks)
  test(law, (t) => {
    const workloads = [inShop('a'), inShop('b', { addresses: ['10.1.1.2', '10.1.1.3'] })];
    const preferred: Array<number | undefined> = [];
    const choose: ChooseEndpoint = (_candidates, _tried, index) => preferred.push(index) && (index ?? 0);
    const to = routeTo('10.9.0.1:80', { services: [shop], workloads, choose, picked: endpoint(picked) });
    t.deepEqual(preferred, [want === undefined ? undefined : 1]);
    t.like(to, { kind: 'hbone', authority: want ?? '10.1.1.1:8080' });
  });

test('what the kernel has drawn is not a waypoint', (t) => {
  const choose: ChooseEndpoint = (_candidates, _tried, index) => index ?? 0;
  const workloads = [gatePod, inShop('a'), inShop('b', { addresses: ['10.1.1.2'] })];
  const to = routeTo('10.9.0.1:80', {
    services: [{ ...shop, waypoint: byName('gate') }, gate],
    workloads,
    choose,
    picked: endpoint('10.1.1.2:8080'),
  });
  t.like(to, { via: 'waypoint', nextHop: { address: '10.1.9.1' } });
});

test('says where the app is, of every way that leads somewhere', (t) => {
  const cases = [
    ['10.1.0.2:80', '10.1.0.2:80'],
    ['10.9.0.1:80', '10.1.1.1:8080'],
    ['192.0.2.1:443', '192.0.2.1:443'],
    ['10.1.0.1:80', '10.1.0.1:80'],
  ] as const;
  for (const [to, want] of cases)
    t.like(routeTo(to, { services: [shop], workloads: [client, cart, inShop('a')] }), { destination: endpoint(want) });
});

test('chooses from the same object until the service, an endpoint or the place of the source is another', (t) => {
  const model = meshOf([inShop('a')], [shop, gate]);
  const seen: unknown[] = [];
  const choose: ChooseEndpoint = (candidates) => seen.push(candidates) && 0;
  const ask = (source = client, to = '10.9.0.1:80'): unknown => {
    route(model, source, endpoint(to), choose);
    return seen.at(-1);
  };
  const apply = (services: readonly Service[], workloads: readonly Workload[]): void =>
    model.apply({
      complete: false,
      services,
      workloads,
      removed: [],
      policies: [],
      removedPolicies: [],
      settings: undefined,
    });

  const before = ask();
  t.is(ask(), before);
  t.is(ask(cart), before, 'of the same place');
  t.not(ask(here), before, 'elsewhere');
  t.not(ask(client, '10.9.0.1:82'), before, 'another port');
  apply([], [gatePod]);
  t.is(ask(), before, 'of nothing to do with it');
  apply([], [inShop('b', { addresses: ['10.1.1.2'] })]);
  const after = ask();
  t.not(after, before);
  apply([{ ...shop }], []);
  t.not(ask(), after);
});

test('weighted waypoints get the connections that their weights say', (t) => {
  const canary = workload('canary', { addresses: ['10.1.9.2'] });
  const weightedWaypoints = [
    { destination: byAddress('10.1.9.1'), weight: 90 },
    { destination: byAddress('10.1.9.2'), weight: 10 },
  ];
  const model = meshOf([gatePod, canary], [{ ...shop, weightedWaypoints }]);
  const random = seeded(7);
  let canaries = 0;
  for (let count = 0; count < 10_000; count += 1) {
    const to = route(model, client, endpoint('10.9.0.1:80'), first, { random });
    if (to.kind === 'hbone' && to.workload === canary) canaries += 1;
  }
  t.true(canaries > 900 && canaries < 1100, `${canaries}`);
});

test('a choice of a random generator that says 1 is a waypoint nevertheless', (t) => {
  const weightedWaypoints = [{ destination: byAddress('10.1.9.1'), weight: 3 }];
  const to = routeTo('10.9.0.1:80', {
    services: [{ ...shop, weightedWaypoints }],
    workloads: [gatePod],
    random: () => 1,
  });
  t.like(to, { via: 'waypoint' });
});
