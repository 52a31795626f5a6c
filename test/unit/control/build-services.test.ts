/** Rows of the wire contract, section 12.5: services. */
import test from 'ava';
import type { Address, Cidr, LoadBalancing, Service } from '../../../src/mesh/index.ts';
import {
  build,
  meshConfig,
  namespace,
  pod,
  type Said,
  service,
  serviceEntry,
  serviceOf,
  workloadsOf,
} from './objects.ts';

const at = (...addresses: string[]) => addresses.map((address) => ({ network: '', address: address as Address }));

/** What a Service says, and what it is in the mesh. */
const serviceRows: ReadonlyArray<readonly [string, Said, Partial<Service>]> = [
  ['its names', {}, { name: 'web', namespace: 'shop', hostname: 'web.shop.svc.cluster.local' }],
  ['its address', {}, { addresses: at('10.96.0.1'), addressBlocks: [] }],
  [
    'all of its addresses',
    { spec: ['clusterIP: 10.96.0.1', 'clusterIPs: [10.96.0.1, "fd00::1"]'] },
    { addresses: at('10.96.0.1', 'fd00::1') },
  ],
  ['no address if it is headless', { spec: ['clusterIP: None', 'clusterIPs: [None]'] }, { addresses: [] }],
  ['no address before it has one', { spec: ['clusterIP: ""'] }, { addresses: [] }],
  ['its ports', {}, { ports: [{ servicePort: 80, targetPort: 8080 }] }],
  [
    'a port without number if it is named',
    { spec: ['ports: [{port: 80, targetPort: http}]'] },
    { ports: [{ servicePort: 80, targetPort: 0 }] },
  ],
  [
    'its port twice if no target is said',
    { spec: ['ports: [{port: 80}]'] },
    { ports: [{ servicePort: 80, targetPort: 80 }] },
  ],
  [
    'TCP ports only',
    { spec: ['ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]'] },
    { ports: [{ servicePort: 53, targetPort: 53 }] },
  ],
  ['canonical and public', {}, { canonical: true, visibility: 'public' }],
  ['no further identities, no waypoint', {}, { subjectAltNames: [], waypoint: undefined, weightedWaypoints: [] }],
  ['any family', {}, { ipFamilies: 'automatic' }],
  ['IPv4', { spec: ['ipFamilies: [IPv4]'] }, { ipFamilies: 'ipv4-only' }],
  ['IPv6', { spec: ['ipFamilies: [IPv6]'] }, { ipFamilies: 'ipv6-only' }],
  ['both families', { spec: ['ipFamilies: [IPv6, IPv4]'] }, { ipFamilies: 'dual' }],
];
for (const [title, said, expected] of serviceRows)
  test(`a Service has ${title}`, (t) => t.like(serviceOf(build(service(said))), expected));

test('an alias is no service', (t) => {
  t.is(build(service({ spec: ['type: ExternalName', 'externalName: a.example.com'] })).services.size, 0);
});

const PREFERENCE = {
  zone: { mode: 'failover', routingPreference: ['network', 'region', 'zone'], healthPolicy: 'only-healthy' },
  node: {
    mode: 'failover',
    routingPreference: ['network', 'region', 'zone', 'subzone', 'node'],
    healthPolicy: 'only-healthy',
  },
  local: { mode: 'strict', routingPreference: ['node'], healthPolicy: 'only-healthy' },
} as const;
const KEY = 'networking.istio.io/traffic-distribution';

/** What a Service says, what its namespace says, and how its endpoints are then chosen. */
const balancingRows: ReadonlyArray<readonly [string, Said, string, LoadBalancing | undefined]> = [
  ['nothing', {}, '{}', undefined],
  ['internalTrafficPolicy Local', { spec: ['internalTrafficPolicy: Local'] }, '{}', PREFERENCE.local],
  ['internalTrafficPolicy Cluster', { spec: ['internalTrafficPolicy: Cluster'] }, '{}', undefined],
  ['PreferClose', { spec: ['trafficDistribution: PreferClose'] }, '{}', PREFERENCE.zone],
  ['PreferSameZone', { spec: ['trafficDistribution: PreferSameZone'] }, '{}', PREFERENCE.zone],
  ['PreferSameNode', { spec: ['trafficDistribution: PreferSameNode'] }, '{}', PREFERENCE.node],
  ['an annotation', { annotations: `{${KEY}: prefersamenode}` }, '{}', PREFERENCE.node],
  ['an annotation of the namespace', {}, `{${KEY}: PreferClose}`, PREFERENCE.zone],
  [
    'its spec before its annotation',
    { annotations: `{${KEY}: PreferSameNode}`, spec: ['trafficDistribution: PreferClose'] },
    '{}',
    PREFERENCE.zone,
  ],
  [
    'its annotation before its namespace',
    { annotations: `{${KEY}: PreferSameNode}` },
    `{${KEY}: PreferClose}`,
    PREFERENCE.node,
  ],
  ['no preference before its namespace', { annotations: `{${KEY}: Any}` }, `{${KEY}: PreferClose}`, undefined],
  [
    'Local before any distribution',
    { spec: ['internalTrafficPolicy: Local', 'trafficDistribution: PreferClose'] },
    '{}',
    PREFERENCE.local,
  ],
  [
    'publishNotReadyAddresses',
    { spec: ['publishNotReadyAddresses: true'] },
    '{}',
    { mode: 'unspecified', routingPreference: [], healthPolicy: 'allow-all' },
  ],
  [
    'publishNotReadyAddresses and PreferClose',
    { spec: ['publishNotReadyAddresses: true', 'trafficDistribution: PreferClose'] },
    '{}',
    { ...PREFERENCE.zone, healthPolicy: 'allow-all' },
  ],
];
for (const [title, said, annotations, expected] of balancingRows)
  test(`endpoints are chosen by ${title}`, (t) => {
    t.deepEqual(serviceOf(build(service(said), namespace('shop', { annotations }))).loadBalancing, expected);
  });

const HOST = 'hosts: [api.example.com]';
const allocated = (...hosts: string[]) => hosts.map((host) => `addresses: [{value: 240.240.0.1, host: "${host}"}]`);

/** What a ServiceEntry says, and what its service is. */
const entryRows: ReadonlyArray<readonly [string, Said, Partial<Service>]> = [
  [
    'its names',
    { spec: [HOST] },
    { name: 'entry', namespace: 'shop', hostname: 'api.example.com', ipFamilies: 'automatic' },
  ],
  ['its host in lower case', { spec: ['hosts: [API.example.com]'] }, { hostname: 'api.example.com' }],
  ['its address', { spec: [HOST, 'addresses: [192.0.2.1]'] }, { addresses: at('192.0.2.1'), addressBlocks: [] }],
  [
    'its blocks',
    { spec: [HOST, 'addresses: [192.0.2.0/24, "fd00::/16", 192.0.3.1/32, "fd01::1/128"]'] },
    {
      addresses: at('192.0.3.1', 'fd01::1'),
      addressBlocks: [
        { network: '', cidr: '192.0.2.0/24' as Cidr },
        { network: '', cidr: 'fd00::/16' as Cidr },
      ],
    },
  ],
  [
    'the address that was chosen for it',
    { spec: [HOST, 'resolution: STATIC'], status: allocated('api.example.com') },
    { addresses: at('240.240.0.1') },
  ],
  [
    'the address that was chosen for all hosts',
    { spec: [HOST, 'resolution: STATIC'], status: allocated('') },
    { addresses: at('240.240.0.1') },
  ],
  [
    'no address that was chosen for another',
    { spec: [HOST, 'resolution: STATIC'], status: allocated('b.example.com') },
    { addresses: [] },
  ],
  [
    'its own address before a chosen one',
    { spec: [HOST, 'addresses: [192.0.2.1]', 'resolution: DNS'], status: allocated('') },
    { addresses: at('192.0.2.1') },
  ],
  [
    'no chosen address with resolution NONE',
    { spec: [HOST, 'resolution: NONE'], status: allocated('') },
    { addresses: [] },
  ],
  [
    'no chosen address if it wants none',
    {
      labels: '{networking.istio.io/enable-autoallocate-ip: "false"}',
      spec: [HOST, 'resolution: DNS'],
      status: allocated(''),
    },
    { addresses: [] },
  ],
  [
    'its ports',
    { spec: [HOST, 'ports: [{number: 80}, {number: 81, targetPort: 8081}]'] },
    {
      ports: [
        { servicePort: 80, targetPort: 80 },
        { servicePort: 81, targetPort: 8081 },
      ],
    },
  ],
  ['no UDP port', { spec: [HOST, 'ports: [{number: 53, protocol: UDP}]'] }, { ports: [] }],
  [
    'its further identities',
    { spec: [HOST, 'subjectAltNames: ["spiffe://td/ns/a/sa/b"]'] },
    { subjectAltNames: ['spiffe://td/ns/a/sa/b'] },
  ],
  ['no preference', { spec: [HOST, 'resolution: STATIC'] }, { loadBalancing: undefined }],
  [
    'the preference of its annotation',
    { annotations: `{${KEY}: PreferClose}`, spec: [HOST, 'resolution: STATIC'] },
    { loadBalancing: PREFERENCE.zone },
  ],
  [
    'no choice of endpoints with resolution NONE',
    { annotations: `{${KEY}: PreferClose}`, spec: [HOST] },
    { loadBalancing: { mode: 'passthrough', routingPreference: [], healthPolicy: 'allow-all' } },
  ],
  ['canonical and public', { spec: [HOST] }, { canonical: true, visibility: 'public' }],
];
for (const [title, said, expected] of entryRows)
  test(`a ServiceEntry has ${title}`, (t) => t.like(serviceOf(build(serviceEntry(said)), 'api.example.com'), expected));

for (const [resolution, count] of [
  ['DNS', 0],
  ['DYNAMIC_DNS', 1],
] as const)
  test(`a wildcard with resolution ${resolution} has ${count} chosen addresses`, (t) => {
    const mesh = build(
      serviceEntry({ spec: ['hosts: ["*.example.com"]', `resolution: ${resolution}`], status: allocated('') }),
    );
    t.is(serviceOf(mesh, '*.example.com').addresses.length, count);
  });

test('a ServiceEntry is a service for each of its hosts', (t) => {
  const mesh = build(serviceEntry({ spec: ['hosts: [a.example.com, b.example.com, a.example.com]'] }));
  t.deepEqual([...mesh.services.keys()], ['shop/a.example.com', 'shop/b.example.com']);
  t.deepEqual(mesh.findings, []);
});

test('a Service has its hostname before any ServiceEntry, which is told of it', (t) => {
  const spec = [
    'hosts: [web.shop.svc.cluster.local, api.example.com]',
    'resolution: STATIC',
    'endpoints: [{address: 192.0.2.1}]',
  ];
  const mesh = build(serviceEntry({ spec }), service());
  t.is(serviceOf(mesh).name, 'web');
  t.deepEqual(
    workloadsOf(mesh).map(({ services }) => Object.keys(services)),
    [['shop/api.example.com']],
  );
  t.like(mesh.findings, [{ reason: 'conflict', field: 'spec.hosts[0]' }]);
});

const dated = (name: string, year: string, said: Said = {}): string =>
  serviceEntry({
    name,
    metadata: year === '' ? [] : [`creationTimestamp: ${year}-01-01T00:00:00Z`],
    spec: [HOST],
    ...said,
  });

for (const [title, texts, winner] of [
  ['the oldest', [dated('a', '2026'), dated('b', '2024'), dated('c', '2025')], 'b'],
  ['one with a date', [dated('a', ''), dated('b', '2025')], 'b'],
  ['without dates the first by name', [dated('b', ''), dated('a', '')], 'a'],
] as const)
  test(`of several ServiceEntries with one host in one namespace, ${title} has it`, (t) => {
    const mesh = build(...texts);
    t.is(serviceOf(mesh, 'api.example.com').name, winner);
    t.is(mesh.findings.length, texts.length - 1);
  });

test('canonical is the oldest ServiceEntry of all namespaces', (t) => {
  const mesh = build(dated('a', '2026'), dated('b', '2024', { namespace: 'other' }));
  t.deepEqual(
    [...mesh.services.values()].map(({ name, canonical }) => [name, canonical]),
    [
      ['a', false],
      ['b', true],
    ],
  );
});

test('no ServiceEntry is canonical if a Service has the host, in whichever namespace', (t) => {
  const mesh = build(service(), serviceEntry({ namespace: 'other', spec: ['hosts: [web.shop.svc.cluster.local]'] }));
  t.deepEqual(
    [...mesh.services.values()].map(({ namespace: each, canonical }) => [each, canonical]),
    [
      ['shop', true],
      ['other', false],
    ],
  );
  t.deepEqual(mesh.findings, []);
});

for (const [visibility, expected] of [
  ['public', ['public', true]],
  ['namespace', ['namespace', false]],
] as const)
  test(`with serviceEntryVisibility ${visibility}, so are ServiceEntries`, (t) => {
    const mesh = build(serviceEntry({ spec: [HOST] }), meshConfig(`serviceEntryVisibility: ${visibility}`));
    const found = serviceOf(mesh, 'api.example.com');
    t.deepEqual([found.visibility, found.canonical], [...expected]);
  });

test('with serviceEntryVisibility none, ServiceEntries are not sent', (t) => {
  const mesh = build(serviceEntry({ spec: [HOST] }), pod(), meshConfig('serviceEntryVisibility: none'));
  t.is(mesh.services.size, 0);
});
