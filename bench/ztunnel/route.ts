/**
 * What routing costs: one route to a service of 10 and of 1,000 endpoints and to a workload, in a mesh of 10,000 workloads and
 * 1,000 services, with the endpoint's costs kept as for a connection; and the first route after an endpoint has changed.
 * `./dev bench ztunnel/route [--json] [--rounds=5] [--routes=20000]`
 */
import { parseArgs } from 'node:util';
import {
  type Address,
  type Endpoint,
  parseAddress,
  ReadModel,
  type Service,
  type Workload,
} from '../../src/mesh/index.ts';
import { EndpointCosts } from '../../src/ztunnel/outbound/endpoints.ts';
import { type ChooseEndpoint, route } from '../../src/ztunnel/outbound/route.ts';
import { service as meshService, meshUpdate, workload as meshWorkload } from '../../test/contract/fakes/mesh.ts';
import { fixed, formatSpread, interleave, machine, type Spread, spread } from '../sample.ts';

const WORKLOADS = 10_000;
const SERVICES = 1000;
const BIG = 0;
const BIG_ENDPOINTS = 1000;
/** How the others share the rest: 9,000 workloads over 900 services, and 99 services have none. */
const SMALL_ENDPOINTS = 10;
/** Endpoints are in this many zones, and two services prefer the source's. */
const ZONES = 3;

const CASES = [
  'workload',
  'service of 10',
  'service of 1,000',
  'service of 1,000, nearest zone',
  'service of 1,000, half of them ejected',
  'service of 1,000, after a change',
] as const;
type Case = (typeof CASES)[number];

const { values } = parseArgs({
  options: { json: { type: 'boolean' }, rounds: { type: 'string' }, routes: { type: 'string' } },
});
const routes = Number(values.routes ?? 20_000);

const model = new ReadModel();
const workloads = Array.from({ length: WORKLOADS }, (_, index) => workload(index));
const services = [...Array.from({ length: SERVICES }, (_, index) => service(index)), nearService()];
model.apply(meshUpdate({ complete: true, workloads, services }));
/** None of those that are asked for: what leads to itself takes no tunnel. */
const source = workload(WORKLOADS);
const costs = new EndpointCosts({ memory: EndpointCosts.allocate(2), worker: 0 });
const troubled = new EndpointCosts({ memory: EndpointCosts.allocate(2), worker: 0 });
for (const { addresses } of workloads.slice(0, BIG_ENDPOINTS / 2))
  for (let failure = 0; failure < 5; failure += 1) troubled.failed(`${addresses[0]}:8080`);

const results = await interleave(CASES, Number(values.rounds ?? 5), async (each) => run(each));
report(Object.fromEntries(CASES.map((each) => [each, spread(results[each])])) as Record<Case, Spread>);

/** Microseconds for each route. */
function run(each: Case): number {
  switch (each) {
    case 'workload':
      return time(routes, (turn) => ask(workloads[turn % WORKLOADS]?.addresses[0], 8080));
    case 'service of 10':
      return time(routes, (turn) => ask(serviceAddress(1 + (turn % 900)), 80));
    case 'service of 1,000':
      return time(routes, () => ask(serviceAddress(BIG), 80));
    case 'service of 1,000, nearest zone':
      return time(routes, () => ask(serviceAddress(SERVICES), 80));
    case 'service of 1,000, half of them ejected':
      return time(routes, () => ask(serviceAddress(BIG), 80, troubled.choose));
    case 'service of 1,000, after a change':
      return time(100, (turn) => {
        const changed = { ...(workloads[turn] as Workload) };
        model.apply(meshUpdate({ workloads: [changed] }));
        ask(serviceAddress(BIG), 80);
      });
  }
}

function time(times: number, run: (turn: number) => void): number {
  const since = performance.now();
  for (let turn = 0; turn < times; turn += 1) run(turn);
  return ((performance.now() - since) * 1000) / times;
}

/** Routes a connection, and keeps its costs. */
function ask(address: Address | undefined, port: number, choose: ChooseEndpoint = costs.choose): void {
  const to = route(model, source, { address, port } as Endpoint, choose);
  if (to.kind !== 'hbone') throw new Error(`unexpected: ${to.kind}`);
  if (to.endpoint === undefined || choose !== costs.choose) return;
  costs.started(to.endpoint);
  costs.connected(to.endpoint, 1);
  costs.ended(to.endpoint);
}

function address(text: string): Address {
  return parseAddress(text) as Address;
}

function serviceAddress(index: number): Address {
  return `10.200.${index >> 8}.${index & 255}` as Address;
}

function serviceKey(index: number): `${string}/${string}` {
  return `shop/service-${index}.shop.svc.cluster.local`;
}

function workload(index: number): Workload {
  const ports = [{ servicePort: 80, targetPort: 8080 }];
  const own = index < BIG_ENDPOINTS ? BIG : 1 + Math.floor((index - BIG_ENDPOINTS) / SMALL_ENDPOINTS);
  const zone = `zone-${index % ZONES}`;
  return meshWorkload({
    name: `pod-${index}`,
    addresses: [address(`10.${index >> 8}.${index & 255}.1`)],
    node: `node-${index % 100}`,
    serviceAccount: 'shop',
    services: { [serviceKey(own)]: ports, ...(own === BIG ? { [serviceKey(SERVICES)]: ports } : {}) },
    locality: { region: 'region', zone, subzone: '' },
  });
}

function service(index: number): Service {
  return meshService({ name: `service-${index}`, addresses: [{ network: '', address: serviceAddress(index) }] });
}

function nearService(): Service {
  return {
    ...service(SERVICES),
    loadBalancing: { mode: 'failover', routingPreference: ['network', 'region', 'zone'], healthPolicy: 'only-healthy' },
  };
}

function report(result: Record<Case, Spread>): void {
  if (values.json) {
    console.log(JSON.stringify({ machine: machine(), microseconds: result }));
    return;
  }
  const width = Math.max(...CASES.map((each) => each.length));
  for (const each of CASES) console.log(`${each.padEnd(width)}  ${formatSpread(result[each], fixed(2))} microseconds`);
}
