import test from 'ava';
import type { Service, Workload } from '../../../src/mesh/index.ts';
import { backendsOf, directTo } from '../../../src/ztunnel/outbound/direct.ts';
import { EndpointCosts } from '../../../src/ztunnel/outbound/endpoints.ts';
import { byName, endpoint, memberOf, meshOf, service, workload } from './mesh.ts';

const client = workload('client', { addresses: ['10.1.0.1', 'fd01::1'] });
const cart = workload('cart', { addresses: ['10.1.0.2', 'fd01::2'] });
const outsider = workload('outsider', { addresses: ['10.1.0.3'], protocol: 'tcp' });
const shop = service('shop', { addresses: ['10.9.0.1'], ports: { 80: 8080, 81: 0 } });
const gate = service('gate', { addresses: ['10.9.0.9'], ports: { 15008: 15009 } });

interface Asked {
  readonly source?: Workload;
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly network?: string;
}

const tunnel = 'tunnel';
const rows: ReadonlyArray<readonly [law: string, to: string, asked: Asked, want: string]> = [
  ['a workload that takes the tunnel', '10.1.0.2:80', { workloads: [cart] }, 'workload cart'],
  ['at any address of its', '[fd01::2]:80', { workloads: [cart] }, 'workload cart'],
  ['a workload that takes no tunnel', '10.1.0.3:80', { workloads: [outsider] }, 'outside outsider'],
  ['what nobody knows', '192.0.2.1:443', { workloads: [cart] }, 'outside'],
  [
    'a workload of another network is not at the address',
    '10.1.0.2:80',
    { workloads: [{ ...cart, network: 'far' }] },
    'outside',
  ],
  ['a service', '10.9.0.1:80', { services: [shop] }, tunnel],
  ['a service of the namespace', '10.9.0.1:80', { services: [{ ...shop, visibility: 'namespace' }] }, tunnel],
  [
    'a service of a namespace that is not ours is not there',
    '10.9.0.1:80',
    { services: [{ ...shop, namespace: 'elsewhere', visibility: 'namespace' }] },
    'outside',
  ],
  [
    'a service that selects nothing',
    '10.9.0.1:80',
    { services: [service('shop', { addresses: ['10.9.0.1'], loadBalancing: { mode: 'passthrough' } })] },
    tunnel,
  ],
  [
    'an address that is of a service and of a workload',
    '10.1.0.2:80',
    { workloads: [cart], services: [service('x', { addresses: ['10.1.0.2'] })] },
    tunnel,
  ],
  [
    'a service of our own network, for a source of another',
    '10.9.0.1:80',
    { services: [shop], source: { ...client, network: 'far' } },
    tunnel,
  ],
  [
    'a workload with a waypoint',
    '10.1.0.2:80',
    { workloads: [{ ...cart, waypoint: byName('gate') }], services: [gate] },
    tunnel,
  ],
  [
    'a workload with a waypoint that nobody knows',
    '10.1.0.2:80',
    { workloads: [{ ...cart, waypoint: byName('gate') }] },
    tunnel,
  ],
  [
    'a workload outside with a waypoint',
    '10.1.0.3:80',
    { workloads: [{ ...outsider, waypoint: byName('gate') }] },
    tunnel,
  ],
  ['a workload that ends the tunnel itself', '10.1.0.2:80', { workloads: [{ ...cart, nativeTunnel: true }] }, tunnel],
  [
    'a workload with an application tunnel',
    '10.1.0.2:80',
    { workloads: [{ ...cart, applicationTunnel: { protocol: 'none', port: 9 } }] },
    tunnel,
  ],
  ['the source itself', '10.1.0.1:80', { workloads: [client] }, tunnel],
  ['loopback', '127.0.0.5:80', {}, tunnel],
  ['loopback of IPv6', '[::1]:80', {}, tunnel],
  ['the unspecified address', '0.0.0.0:80', {}, tunnel],
];

for (const [law, to, asked, want] of rows)
  test(`without the agent: ${law}: ${want}`, (t) => {
    const model = meshOf(asked.workloads ?? [], asked.services, { network: asked.network ?? '' });
    const direct = directTo(model, asked.source ?? client, endpoint(to));
    t.is(
      direct.kind === 'tunnel' || direct.workload === undefined
        ? direct.kind
        : `${direct.kind} ${direct.workload.name}`,
      want,
    );
  });

const costs = (): EndpointCosts =>
  new EndpointCosts({ memory: EndpointCosts.allocate(1), worker: undefined, now: () => 1, random: () => 0 });
const inShop = (name: string, wish: Parameters<typeof workload>[1] = {}): Workload =>
  workload(name, { addresses: ['10.1.1.1'], services: memberOf('shop'), ...wish });
const both = [
  inShop('a', { addresses: ['10.1.1.1', 'fd01::11'] }),
  inShop('b', { addresses: ['10.1.1.2'], capacity: 2 }),
];

const backends: ReadonlyArray<
  readonly [
    law: string,
    asked: { service?: Partial<Service>; workloads?: readonly Workload[]; port?: number; family?: 4 | 6 },
    want: readonly string[] | undefined,
  ]
> = [
  ['all of a family, by capacity', {}, ['a 10.1.1.1 8080 500', 'b 10.1.1.2 8080 1000']],
  ['those of the other family', { family: 6 }, ['a fd01::11 8080 500']],
  ['none of the family', { workloads: both.slice(1), family: 6 }, undefined],
  ['none at all', { workloads: [] }, undefined],
  ['none that is healthy', { workloads: [inShop('a', { status: 'unhealthy' })] }, undefined],
  ['a port that the service has not', { port: 8080 }, undefined],
  [
    'a port that only endpoints know',
    { port: 81, workloads: [inShop('a', { services: memberOf('shop', { 81: 9 }) })] },
    ['a 10.1.1.1 9 1000'],
  ],
  ['a waypoint', { service: { waypoint: byName('gate') } }, undefined],
  ['a weighted waypoint', { service: { weightedWaypoints: [{ destination: byName('gate'), weight: 0 }] } }, undefined],
  [
    'no selection',
    { service: { loadBalancing: { mode: 'passthrough', healthPolicy: 'only-healthy', routingPreference: [] } } },
    undefined,
  ],
  ['not for everybody', { service: { visibility: 'namespace' } }, undefined],
  [
    'the nearest',
    {
      service: { loadBalancing: { mode: 'failover', healthPolicy: 'only-healthy', routingPreference: ['node'] } },
      workloads: [inShop('a', { node: 'far' }), inShop('b', { addresses: ['10.1.1.2'] })],
    },
    ['b 10.1.1.2 8080 1000'],
  ],
];

for (const [law, { service: changes, workloads = both, port = 80, family = 4 }, want] of backends)
  test(`the kernel may choose of a service: ${law}`, (t) => {
    const model = meshOf(workloads, [{ ...shop, ...changes }, gate]);
    const found = backendsOf(model, costs(), { ...shop, ...changes }, port, family, client);
    t.deepEqual(
      found?.map(
        ({ workload: { name }, endpoint: { address, port: target }, weight }) =>
          `${name} ${address} ${target} ${weight}`,
      ),
      want && [...want],
    );
  });

test('the kernel gets a weight of 0 for an endpoint that is ejected', (t) => {
  const known = costs();
  for (let count = 0; count < 5; count += 1) known.failed('10.1.1.1:8080');
  const found = backendsOf(meshOf(both, [shop]), known, shop, 80, 4, client);
  t.deepEqual(
    found?.map(({ weight }) => weight),
    [0, 1000],
  );
});
