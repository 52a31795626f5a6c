import test from 'ava';
import { identityOf, isWaypointOf, type Service, type Workload, waypointIdentities } from '../../../src/mesh/index.ts';
import { byAddress, byName, memberOf, meshOf, service, workload } from '../ztunnel/mesh.ts';

const cart = workload('cart', { addresses: ['10.1.0.2', 'fd01::2'] });
const shop = service('shop', { addresses: ['10.9.0.1'], ports: { 80: 8080, 81: 0 } });
const gate = service('gate', { addresses: ['10.9.0.9'], ports: { 15008: 15009 } });
const inShop = (name: string, wish: Parameters<typeof workload>[1] = {}): Workload =>
  workload(name, { services: memberOf('shop'), ...wish });

const gatePods = [
  workload('gate-1', { serviceAccount: 'gate', services: memberOf('gate'), addresses: ['10.1.9.1'] }),
  workload('gate-2', { serviceAccount: 'old-gate', services: memberOf('gate'), status: 'unhealthy' }),
  workload('canary', { serviceAccount: 'canary', addresses: ['10.1.9.2'] }),
  workload('stranger', { serviceAccount: 'stranger', addresses: ['10.1.9.3'] }),
];

const waypoints: ReadonlyArray<
  readonly [law: string, workload: Workload, services: readonly Service[], want: readonly string[]]
> = [
  ['none', inShop('a'), [shop], []],
  ['its own, every instance', inShop('a', { waypoint: byName('gate') }), [shop], ['gate', 'old-gate']],
  ['its own by address', inShop('a', { waypoint: byAddress('10.1.9.2') }), [shop], ['canary']],
  [
    'its own by the address of a service',
    inShop('a', { waypoint: byAddress('10.9.0.9') }),
    [shop],
    ['gate', 'old-gate'],
  ],
  ['that of its service', inShop('a'), [{ ...shop, waypoint: byName('gate') }], ['gate', 'old-gate']],
  [
    'weighted ones too',
    inShop('a'),
    [{ ...shop, waypoint: byName('gate'), weightedWaypoints: [{ destination: byAddress('10.1.9.2'), weight: 0 }] }],
    ['canary', 'gate', 'old-gate'],
  ],
  ['not that of a service it is not in', cart, [{ ...shop, waypoint: byName('gate') }], []],
  ['one that nobody knows', inShop('a', { waypoint: byName('nowhere') }), [shop], []],
];

for (const [law, destination, services, want] of waypoints)
  test(`the waypoints of a workload: ${law}`, (t) => {
    const model = meshOf([destination, ...gatePods], [...services, gate]);
    const identities = want.map((serviceAccount) => identityOf(workload('x', { serviceAccount })));
    t.deepEqual([...waypointIdentities(model, destination)].sort(), identities.sort());
    for (const { serviceAccount } of gatePods) {
      const identity = identityOf(workload('x', { serviceAccount }));
      t.is(isWaypointOf(model, destination, identity), want.includes(serviceAccount), serviceAccount);
    }
    t.false(isWaypointOf(model, destination, undefined), 'who proves nothing is no waypoint');
  });
