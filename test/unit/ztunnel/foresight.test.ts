import test from 'ava';
import { EndpointCosts } from '../../../src/ztunnel/outbound/endpoints.ts';
import { endpointsOf, likelyRoute } from '../../../src/ztunnel/outbound/foresight.ts';
import { endpoint, memberOf, meshOf, service, workload } from './mesh.ts';

const client = workload('client', { addresses: ['10.1.0.1', 'fd01::1'] });
const members = ['10.1.0.2', '10.1.0.3'].map((each) =>
  workload(each, { addresses: [each], services: memberOf('shop') }),
);
const shop = service('shop', { addresses: ['10.9.0.1'] });
const model = meshOf([client, ...members], [shop]);

function setUp(): EndpointCosts {
  const memory = EndpointCosts.allocate(1);
  const costs = new EndpointCosts({ memory, worker: 0 });
  costs.started('10.1.0.2:8080');
  costs.connected('10.1.0.2:8080', 2);
  for (let failure = 0; failure < 5; failure += 1) {
    costs.started('10.1.0.3:8080');
    costs.failed('10.1.0.3:8080');
    costs.ended('10.1.0.3:8080');
  }
  return new EndpointCosts({ memory, worker: undefined });
}

test("a service's endpoints are told with their weight and health", (t) => {
  const states = endpointsOf(model, setUp(), shop, 80, client);
  t.like(
    states.map(({ endpoint, key, weight, health }) => ({ endpoint, key, weight, ...health })),
    [
      {
        endpoint: endpoint('10.1.0.2:8080'),
        key: '10.1.0.2:8080',
        weight: 1000,
        isEjected: false,
        failures: 0,
        open: 1,
      },
      { endpoint: endpoint('10.1.0.3:8080'), key: '10.1.0.3:8080', weight: 0, isEjected: true, failures: 5, open: 0 },
    ],
  );
  t.deepEqual(endpointsOf(model, setUp(), shop, 81, client), []);
});

test('what nobody has tried has no health', (t) => {
  const costs = new EndpointCosts({ memory: EndpointCosts.allocate(1), worker: undefined });
  t.deepEqual(
    endpointsOf(model, costs, shop, 80, client).map(({ weight, health }) => [weight, health]),
    [
      [1000, undefined],
      [1000, undefined],
    ],
  );
});

test('the likely route is that to the endpoint of the greatest weight, and to ask for it changes nothing', (t) => {
  const costs = setUp();
  const before = endpointsOf(model, costs, shop, 80, client);
  for (let turn = 0; turn < 10; turn += 1)
    t.like(likelyRoute(model, costs, client, endpoint('10.9.0.1:80')), {
      kind: 'hbone',
      destination: endpoint('10.1.0.2:8080'),
    });
  t.deepEqual(
    endpointsOf(model, costs, shop, 80, client).map(({ health }) => health?.open),
    before.map(({ health }) => health?.open),
  );
});
