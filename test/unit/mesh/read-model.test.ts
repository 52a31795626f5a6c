import test from 'ava';
import {
  type Address,
  type Cidr,
  DEFAULT_SETTINGS,
  type GatewayAddress,
  type MeshUpdate,
  ReadModel,
  type Service,
  type ServiceName,
  type SpiffeId,
  serviceName,
  type Workload,
} from '../../../src/mesh/index.ts';
import { meshSettings, meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';

const at = (text: string) => text as Address;
const NAME = 'shop/web.shop.svc.cluster.local' as ServiceName;
const PORTS = [{ servicePort: 80, targetPort: 8080 }];
const ALL = { routingPreference: [], mode: 'unspecified', healthPolicy: 'allow-all' } as const;

/** A model that these updates have led to. */
function model(...updates: Array<Partial<MeshUpdate>>): ReadModel {
  const made = new ReadModel();
  for (const update of updates) made.apply(meshUpdate(update));
  return made;
}

function endpointsOf(mesh: ReadModel, name: ServiceName = NAME): string[] {
  const found = mesh.service(name);
  return found === undefined ? [] : mesh.endpoints(found).map(({ workload: { name: each } }) => each);
}

const endpoint = (name: string, changes: Partial<Workload> = {}) =>
  workload({ name, services: { [NAME]: PORTS }, ...changes });

test('a model is complete from the first complete update on, and knows its settings', (t) => {
  const mesh = model({ workloads: [workload()] });
  t.false(mesh.isComplete);
  t.deepEqual(mesh.settings, DEFAULT_SETTINGS);
  mesh.apply(meshUpdate({ complete: true, settings: { ...meshSettings, network: 'n' } }));
  mesh.apply(meshUpdate());
  t.true(mesh.isComplete);
  t.is(mesh.settings.network, 'n');
});

test('a complete update takes away all that it does not name', (t) => {
  const mesh = model(
    { complete: true, workloads: [endpoint('a'), endpoint('b')], services: [service(), service({ name: 'old' })] },
    { complete: true, workloads: [endpoint('b')], services: [service()] },
  );
  t.deepEqual(endpointsOf(mesh), ['b']);
  t.is(mesh.workload('Kubernetes//Pod/shop/a'), undefined);
  t.is(mesh.serviceByHostname('old.shop.svc.cluster.local', undefined), undefined);
});

test('a snapshot makes another model the same', (t) => {
  const mesh = model({ complete: true, workloads: [endpoint('a')], services: [service()] });
  const copy = model(mesh.snapshot());
  t.deepEqual(copy.snapshot(), mesh.snapshot());
  t.deepEqual(endpointsOf(copy), ['a']);
});

test('a workload replaces the one with its uid, in every look-up', (t) => {
  const old = endpoint('a', { addresses: [at('10.0.0.1')], node: 'n1', hostname: 'a.example.com' });
  const next = workload({ name: 'a', addresses: [at('10.0.0.2')], node: 'n2' });
  const mesh = model({ workloads: [old], services: [service()] }, { workloads: [next] });
  t.is(mesh.workloadAt('', at('10.0.0.1')), undefined);
  t.is(mesh.workloadAt('', at('10.0.0.2')), next);
  t.is(mesh.localWorkload('n1', 'shop', 'a', 'default'), undefined);
  t.is(mesh.localWorkload('n2', 'shop', 'a', 'default'), next);
  t.deepEqual(endpointsOf(mesh), []);
  t.is(mesh.gateway(hostnameGateway('shop', 'a.example.com')), undefined);
});

test('endpoints wait for a service that is not known yet', (t) => {
  const mesh = model({ workloads: [endpoint('a'), endpoint('b')] });
  mesh.apply(meshUpdate({ removed: ['Kubernetes//Pod/shop/b'] }));
  mesh.apply(meshUpdate({ services: [service()] }));
  t.deepEqual(endpointsOf(mesh), ['a']);
});

test('a changed service keeps its endpoints, and one that comes back has them again', (t) => {
  const mesh = model({ workloads: [endpoint('a')], services: [service()] });
  mesh.apply(meshUpdate({ services: [service({ ports: [] })] }));
  t.deepEqual(endpointsOf(mesh), ['a']);
  mesh.apply(meshUpdate({ removed: [NAME] }));
  t.is(mesh.service(NAME), undefined);
  mesh.apply(meshUpdate({ services: [service()] }));
  t.deepEqual(endpointsOf(mesh), ['a']);
});

test('only healthy endpoints are attached, unless the service allows all', (t) => {
  const mesh = model({ workloads: [endpoint('a'), endpoint('b', { status: 'unhealthy' })], services: [service()] });
  t.deepEqual(endpointsOf(mesh), ['a']);
  mesh.apply(meshUpdate({ services: [service({ loadBalancing: ALL })] }));
  t.deepEqual(endpointsOf(mesh), ['a', 'b']);
  mesh.apply(meshUpdate({ services: [service()] }));
  t.deepEqual(endpointsOf(mesh), ['a']);
});

test('each endpoint has its own ports, and one is found by its uid, healthy or not', (t) => {
  const other = endpoint('b', { services: { [NAME]: [{ servicePort: 80, targetPort: 9090 }] }, status: 'unhealthy' });
  const web = service();
  const mesh = model({ workloads: [endpoint('a'), other], services: [web] });
  t.is(mesh.endpoint(web, 'Kubernetes//Pod/shop/a')?.ports.get(80), 8080);
  t.is(mesh.endpoint(web, other.uid)?.ports.get(80), 9090);
  t.is(mesh.endpoint(web, 'nobody'), undefined);
});

test('the array of endpoints is the same one until they change', (t) => {
  const web = service();
  const mesh = model({ workloads: [endpoint('a')], services: [web] });
  const before = mesh.endpoints(web);
  mesh.apply(meshUpdate({ workloads: [workload({ name: 'stranger' })] }));
  t.is(mesh.endpoints(web), before);
  mesh.apply(meshUpdate({ workloads: [endpoint('b')] }));
  t.not(mesh.endpoints(web), before);
  t.is(before.length, 1);
});

for (const [title, removed, left] of [
  ['a uid', ['Kubernetes//Pod/shop/a'], { workload: false, service: true }],
  ['a name with one slash', [NAME], { workload: true, service: false }],
  ['a uid with one slash', ['odd/uid'], { workload: true, service: true }],
  ['what is not known', ['x', 'x/y', 'x/y/z'], { workload: true, service: true }],
] as const)
  test(`what is removed is ${title}`, (t) => {
    const mesh = model(
      { workloads: [endpoint('a'), workload({ uid: 'odd/uid', name: 'odd' })], services: [service()] },
      { removed: [...removed] },
    );
    t.is(mesh.workload('Kubernetes//Pod/shop/a') !== undefined, left.workload);
    t.is(mesh.service(NAME) !== undefined, left.service);
  });

test('an update is additions first, then removals', (t) => {
  const mesh = model({ workloads: [workload({ name: 'a' })], removed: ['Kubernetes//Pod/shop/a'] });
  t.is(mesh.workload('Kubernetes//Pod/shop/a'), undefined);
});

test('a workload in host network mode is an endpoint, but not found by address', (t) => {
  const mesh = model({ workloads: [endpoint('a', { networkMode: 'host' })], services: [service()] });
  t.is(mesh.workloadAt('', at('10.0.0.1')), undefined);
  t.deepEqual(endpointsOf(mesh), ['a']);
});

test('an address is looked up in one network', (t) => {
  const mesh = model({ workloads: [workload({ network: 'east' })], services: [service()] });
  t.is(mesh.workloadAt('', at('10.0.0.1')), undefined);
  t.is(mesh.workloadAt('east', at('10.0.0.1'))?.name, 'web-0');
  t.is(mesh.serviceAt('east', at('10.96.0.1'), undefined), undefined);
});

const hbonePod = workload({ name: 'hbone-pod' });
const tcpPod = workload({ name: 'tcp-pod', protocol: 'tcp' });
const hboneEntry = workload({ uid: 'Kubernetes/networking.istio.io/WorkloadEntry/shop/e', name: 'hbone-entry' });
const tcpEntry = workload({ uid: 'Kubernetes/networking.istio.io/WorkloadEntry/shop/t', name: 't', protocol: 'tcp' });

for (const [title, workloads, winner] of [
  ['a pod in the mesh before all', [tcpPod, hbonePod, hboneEntry], 'hbone-pod'],
  ['a pod before an entry in the mesh', [hboneEntry, tcpPod, tcpEntry], 'tcp-pod'],
  ['an entry in the mesh before another', [tcpEntry, hboneEntry], 'hbone-entry'],
  ['among equals the newest', [hbonePod, workload({ name: 'newer' })], 'newer'],
] as const)
  test(`of several with one address: ${title}`, (t) => {
    for (const order of [workloads, workloads.toReversed()]) {
      if (title.startsWith('among') && order !== workloads) continue;
      const mesh = model({ workloads: order });
      t.is(mesh.workloadAt('', at('10.0.0.1'))?.name, winner);
    }
  });

test('when one of several with one address goes, the others stay', (t) => {
  const mesh = model({ workloads: [hbonePod, tcpPod, tcpEntry] }, { removed: [hbonePod.uid] });
  t.is(mesh.workloadAt('', at('10.0.0.1'))?.name, 'tcp-pod');
  mesh.apply(meshUpdate({ removed: [tcpPod.uid, tcpEntry.uid] }));
  t.is(mesh.workloadAt('', at('10.0.0.1')), undefined);
});

test('a pod is known by node, namespace, name and service account', (t) => {
  const mine = workload({ name: 'a', serviceAccount: 'web' });
  const mesh = model({
    workloads: [mine, workload({ name: 'a', namespace: 'other' }), workload({ name: 'b', node: '' })],
  });
  t.is(mesh.localWorkload('n1', 'shop', 'a', 'web'), mine);
  t.is(mesh.localWorkload('n1', 'other', 'a', 'default')?.namespace, 'other');
  for (const wrong of [
    ['n2', 'shop', 'a', 'web'],
    ['n1', 'shop', 'b', 'web'],
    ['n1', 'shop', 'a', 'default'],
    ['n1', 'none', 'a', 'web'],
    ['', 'shop', 'b', 'default'],
  ] as const satisfies ReadonlyArray<readonly [string, string, string, string]>)
    t.is(mesh.localWorkload(wrong[0], wrong[1], wrong[2], wrong[3]), undefined, wrong.join(' '));
});

test('a node needs the identities of its workloads that take HBONE', (t) => {
  const mesh = model({
    workloads: [
      workload({ name: 'a', serviceAccount: 'web' }),
      workload({ name: 'b', serviceAccount: 'web', status: 'unhealthy' }),
      workload({ name: 'c', trustDomain: 'td' }),
      workload({ name: 'd', serviceAccount: 'plain', protocol: 'tcp' }),
      workload({ name: 'e', serviceAccount: 'far', node: 'n2' }),
    ],
  });
  t.deepEqual(
    mesh.identitiesOn('n1'),
    new Set(['spiffe://cluster.local/ns/shop/sa/web', 'spiffe://td/ns/shop/sa/default'] as SpiffeId[]),
  );
  t.is(mesh.identitiesOn('n3').size, 0);
});

/** Services named by what is special about them, all with one address and one hostname of their own making. */
function shared(changes: Partial<Service>): Service {
  return service({ hostname: 'api.example.com', canonical: false, ...changes });
}
const own = shared({ name: 'own', namespace: 'client' });
const canonical = shared({ name: 'canonical', namespace: 'x', canonical: true });
const first = shared({ name: 'first', namespace: 'a' });
const second = shared({ name: 'second', namespace: 'b' });
const secret = shared({ name: 'secret', namespace: 'c', visibility: 'namespace', canonical: true });

for (const [title, services, client, winner] of [
  ['of the client’s own namespace', [first, canonical, own], 'client', 'own'],
  ['else the canonical one', [first, canonical, own], 'elsewhere', 'canonical'],
  ['else the first', [first, second], 'elsewhere', 'first'],
  ['never one that the client cannot see', [secret, first], 'elsewhere', 'first'],
  ['one that only its namespace sees', [first, secret], 'c', 'secret'],
  ['any without a client', [first, secret], undefined, 'secret'],
  ['none if none can be seen', [secret], 'elsewhere', undefined],
] as const)
  test(`of several services with one address or hostname: ${title}`, (t) => {
    const mesh = model({ services });
    t.is(mesh.serviceAt('', at('10.96.0.1'), client)?.name, winner);
    t.is(mesh.serviceByHostname('api.example.com', client)?.name, winner);
  });

test('a changed service keeps its place among those seen first', (t) => {
  const mesh = model({ services: [first, second] }, { services: [{ ...first, ports: [] }] });
  t.is(mesh.serviceAt('', at('10.96.0.1'), 'elsewhere')?.name, 'first');
});

test('a service whose address changes is found at the new one only', (t) => {
  const moved = service({ addresses: [{ network: '', address: at('fd00::1') }] });
  const mesh = model({ services: [service()] }, { services: [moved] });
  t.is(mesh.serviceAt('', at('10.96.0.1'), undefined), undefined);
  t.is(mesh.serviceAt('', at('fd00::1'), undefined), moved);
});

function block(cidr: string, changes: Partial<Service> = {}): Service {
  const name = changes.name ?? cidr;
  const addressBlocks = [{ network: '', cidr: cidr as Cidr }];
  return service({
    name,
    hostname: `${name.replace('/', '-')}.test`,
    addresses: [],
    addressBlocks,
    canonical: false,
    ...changes,
  });
}

for (const [title, services, address, client, winner] of [
  ['an address within', [block('10.1.0.0/16')], '10.1.255.255', 'x', '10.1.0.0/16'],
  ['an address outside', [block('10.1.0.0/16')], '10.2.0.0', 'x', undefined],
  ['a prefix that ends within a byte', [block('10.16.0.0/12')], '10.31.1.1', 'x', '10.16.0.0/12'],
  ['just outside such a prefix', [block('10.16.0.0/12')], '10.32.0.0', 'x', undefined],
  ['everything of a family', [block('0.0.0.0/0')], '8.8.8.8', 'x', '0.0.0.0/0'],
  ['not of the other family', [block('0.0.0.0/0')], 'fd00::1', 'x', undefined],
  ['nor the other way round', [block('::/0')], '8.8.8.8', 'x', undefined],
  ['IPv6', [block('fd00:1::/32')], 'fd00:1:2::3', 'x', 'fd00:1::/32'],
  ['the longest prefix', [block('10.0.0.0/8'), block('10.1.0.0/16')], '10.1.0.1', 'x', '10.1.0.0/16'],
  [
    'an address of its own before any block',
    [block('10.96.0.1/32', { namespace: 'x' }), service()],
    '10.96.0.1',
    'x',
    'web',
  ],
  [
    'own namespace before the longest prefix',
    [block('10.0.0.0/8', { namespace: 'x' }), block('10.1.0.0/16')],
    '10.1.0.1',
    'x',
    '10.0.0.0/8',
  ],
  [
    'the longest prefix before a canonical one',
    [block('10.0.0.0/8', { canonical: true }), block('10.1.0.0/16')],
    '10.1.0.1',
    'x',
    '10.1.0.0/16',
  ],
  [
    'canonical among equal prefixes',
    [block('10.0.0.0/8', { name: 'a' }), block('10.0.0.0/8', { name: 'b', canonical: true })],
    '10.1.0.1',
    'x',
    'b',
  ],
  [
    'never one that the client cannot see',
    [block('10.1.0.0/16', { visibility: 'namespace' }), block('10.0.0.0/8')],
    '10.1.0.1',
    'x',
    '10.0.0.0/8',
  ],
] as const)
  test(`by block: ${title}`, (t) => {
    const mesh = model({ services });
    t.is(mesh.serviceAt('', at(address), client)?.name, winner);
    mesh.apply(meshUpdate({ removed: services.map(serviceName) }));
    t.is(mesh.serviceAt('', at(address), client), undefined);
  });

for (const [hostname, winner] of [
  ['api.example.com', 'exact'],
  ['API.Example.com', 'exact'],
  ['other.example.com', 'wild'],
  ['deep.below.example.com', 'wild'],
  ['x.api.example.com', 'wilder'],
  ['example.com', undefined],
  ['com', undefined],
  ['', undefined],
] as const)
  test(`the hostname "${hostname}" leads to ${winner ?? 'nothing'}`, (t) => {
    const mesh = model({
      services: [
        service({ name: 'wild', hostname: '*.example.com' }),
        service({ name: 'exact', hostname: 'api.example.com' }),
        service({ name: 'wilder', hostname: '*.api.example.com' }),
      ],
    });
    t.is(mesh.serviceByHostname(hostname, 'shop')?.name, winner);
  });

test('a wildcard stands in for an exact hostname that the client cannot see', (t) => {
  const mesh = model({ services: [secret, service({ name: 'wild', hostname: '*.example.com' })] });
  t.is(mesh.serviceByHostname('api.example.com', 'elsewhere')?.name, 'wild');
});

function hostnameGateway(namespace: string, hostname: string): GatewayAddress {
  return { destination: { kind: 'hostname', namespace, hostname }, hboneMtlsPort: 15008 };
}
function addressGateway(address: string, network = ''): GatewayAddress {
  return { destination: { kind: 'address', network, address: at(address) }, hboneMtlsPort: 15008 };
}

for (const [title, reference, kind] of [
  ['a service’s name', hostnameGateway('shop', 'web.shop.svc.cluster.local'), 'service'],
  ['a workload’s hostname', hostnameGateway('shop', 'vm.example.com'), 'workload'],
  ['a service’s address', addressGateway('10.96.0.1'), 'service'],
  ['a workload’s address', addressGateway('10.0.0.9'), 'workload'],
  ['a name of another namespace', hostnameGateway('other', 'web.shop.svc.cluster.local'), undefined],
  ['an address of another network', addressGateway('10.96.0.1', 'east'), undefined],
] as const)
  test(`a gateway reference is ${title}`, (t) => {
    const mesh = model({
      services: [service({ visibility: 'namespace' })],
      workloads: [workload({ addresses: [at('10.0.0.9')], hostname: 'vm.example.com' })],
    });
    t.is(mesh.gateway(reference)?.kind, kind);
  });

test('any order of updates leads to the same mesh', (t) => {
  const workloads = [endpoint('a'), endpoint('b', { status: 'unhealthy' }), endpoint('c', { addresses: [] })];
  const services = [service({ loadBalancing: ALL }), service({ name: 'old' })];
  const whole = model({ complete: true, workloads, services: services.slice(0, 1) });
  const [one, two, three] = workloads;
  if (one === undefined || two === undefined || three === undefined) throw new Error('three workloads');
  const bit = model(
    { complete: true },
    { workloads: [two] },
    { services: [services[1] ?? service(), service()] },
    { workloads: [{ ...one, services: {} }, three], removed: [NAME] },
    { services: services.slice(0, 1), removed: ['shop/old.shop.svc.cluster.local'] },
    { workloads: [one] },
  );
  const sorted = (mesh: ReadModel) => endpointsOf(mesh).toSorted();
  t.deepEqual(sorted(bit), sorted(whole));
  const byUid = (mesh: ReadModel) => mesh.snapshot().workloads.toSorted((x, y) => (x.uid < y.uid ? -1 : 1));
  t.deepEqual(byUid(bit), byUid(whole));
  t.deepEqual(bit.snapshot().services, whole.snapshot().services);
});
