/** Rows of the wire contract, sections 12.1 to 12.4: workloads. */
import test from 'ava';
import type { Address, ServiceName, Workload } from '../../../src/mesh/index.ts';
import {
  build,
  meshConfig,
  namespace,
  pod,
  type Said,
  service,
  serviceEntry,
  slice,
  workloadEntry,
  workloadOf,
  workloadsOf,
} from './objects.ts';

const READY = 'conditions: [{type: Ready, status: "True"}]';
const WEB = 'shop/web.shop.svc.cluster.local' as ServiceName;

/** What a pod says, and what its workload then is. */
const podRows: ReadonlyArray<readonly [string, Said, Partial<Workload>]> = [
  ['its key', {}, { uid: 'Kubernetes//Pod/shop/web-1', name: 'web-1', namespace: 'shop' }],
  ['its address', {}, { addresses: ['10.0.0.1' as Address] }],
  [
    'all of its addresses, canonical',
    { status: ['podIP: 10.0.0.1', 'podIPs: [{ip: 10.0.0.2}, {ip: "FD00::0:1"}, {ip: "::ffff:10.0.0.2"}]', READY] },
    { addresses: ['10.0.0.2', 'fd00::1'] as Address[] },
  ],
  ['healthy when it is ready', {}, { status: 'healthy' }],
  [
    'unhealthy when it is not',
    { status: ['podIP: 10.0.0.1', 'conditions: [{type: Ready, status: "False"}]'] },
    { status: 'unhealthy' },
  ],
  ['unhealthy when nobody says that it is ready', { status: ['podIP: 10.0.0.1'] }, { status: 'unhealthy' }],
  [
    'unhealthy while it is being deleted',
    { metadata: ['deletionTimestamp: 2026-01-01T00:00:00Z'] },
    { status: 'unhealthy' },
  ],
  ['plain', {}, { protocol: 'tcp', nativeTunnel: false }],
  [
    'plain while its redirection is pending',
    { annotations: '{ambient.istio.io/redirection: pending}' },
    { protocol: 'tcp' },
  ],
  [
    'HBONE by its agent',
    { annotations: '{ambient.istio.io/redirection: enabled}' },
    { protocol: 'hbone', nativeTunnel: false },
  ],
  ['HBONE by itself', { labels: '{networking.istio.io/tunnel: http}' }, { protocol: 'hbone', nativeTunnel: true }],
  ['always a pod', {}, { workloadType: 'pod' }],
  ['in its node’s network', { spec: ['hostNetwork: true'] }, { networkMode: 'host' }],
  ['on its node', {}, { node: 'n1', networkMode: 'standard' }],
  ['its service account', { spec: ['serviceAccountName: cart'] }, { serviceAccount: 'cart' }],
  ['of one cluster and one network', {}, { clusterId: 'Kubernetes', network: '', trustDomain: '', capacity: 1 }],
  ['canonical by its label app', {}, { canonicalName: 'web' }],
  ['canonical by its Kubernetes name', { labels: '{app: a, app.kubernetes.io/name: b}' }, { canonicalName: 'b' }],
  [
    'canonical by its Istio name',
    { labels: '{app: a, app.kubernetes.io/name: b, service.istio.io/canonical-name: c}' },
    { canonicalName: 'c' },
  ],
  ['canonical by its own name', { labels: '{}' }, { canonicalName: 'web-1' }],
  ['of the latest revision', {}, { canonicalRevision: 'latest' }],
  ['of the revision of its label', { labels: '{version: v1}' }, { canonicalRevision: 'v1' }],
  [
    'of the Kubernetes revision',
    { labels: '{version: v1, app.kubernetes.io/version: v2}' },
    { canonicalRevision: 'v2' },
  ],
  [
    'of the Istio revision',
    { labels: '{version: v1, app.kubernetes.io/version: v2, service.istio.io/canonical-revision: v3}' },
    { canonicalRevision: 'v3' },
  ],
];
for (const [title, said, expected] of podRows)
  test(`a pod is ${title}`, (t) => t.like(workloadOf(build(pod(said))), expected));

/** The owner of a generated pod, and the name that the workload has from it. */
const ownerRows: ReadonlyArray<readonly [string, Said, string]> = [
  ['no owner', {}, 'web-1'],
  ['a label before all', { labels: '{service.istio.io/workload-name: said}' }, 'said'],
  ['a Deployment', owner('ReplicaSet', 'web-5d4f', '{pod-template-hash: 5d4f}'), 'web'],
  ['a Rollout', owner('ReplicaSet', 'web-77aa', '{rollouts-pod-template-hash: 77aa}'), 'web'],
  ['a bare ReplicaSet', owner('ReplicaSet', 'web-5d4f'), 'web-5d4f'],
  ['a ReplicaSet with another hash', owner('ReplicaSet', 'web-5d4f', '{pod-template-hash: aaaa}'), 'web-5d4f'],
  ['a DeploymentConfig', owner('ReplicationController', 'web-3', '{deploymentconfig: web}'), 'web'],
  ['a CronJob', owner('Job', 'backup-28312345'), 'backup'],
  ['a Job', owner('Job', 'backup-once'), 'backup-once'],
  ['a Job with few digits', owner('Job', 'backup-1234567'), 'backup-1234567'],
  ['a Job with many digits', owner('Job', 'backup-12345678901'), 'backup-12345678901'],
  ['any other controller', owner('StatefulSet', 'db'), 'db'],
  ['an owner that is no controller', owner('ReplicaSet', 'x', '{}', 'false'), 'web-1'],
  [
    'a pod whose name was chosen',
    { metadata: ['ownerReferences: [{kind: StatefulSet, name: db, controller: true}]'] },
    'web-1',
  ],
];
function owner(kind: string, name: string, labels = '{}', controller = 'true'): Said {
  const reference = `ownerReferences: [{kind: ${kind}, name: ${name}, controller: ${controller}}]`;
  return { labels, metadata: ['generateName: web-', reference] };
}
for (const [title, said, name] of ownerRows)
  test(`a workload is called after ${title}`, (t) => t.is(workloadOf(build(pod(said))).workloadName, name));

for (const [title, status] of [
  ['without address', ['phase: Pending', 'podIP: ""']],
  ['that has succeeded', ['phase: Succeeded', 'podIP: 10.0.0.1']],
  ['that has failed', ['phase: Failed', 'podIP: 10.0.0.1']],
] as const)
  test(`a pod ${title} is no workload`, (t) => t.deepEqual(workloadsOf(build(pod({ status }))), []));

test('a pod without status is no workload', (t) => {
  t.deepEqual(workloadsOf(build('{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}')), []);
});

test('a workload’s locality is that of its node', (t) => {
  const labels = '{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}';
  const mesh = build(pod(), `{apiVersion: v1, kind: Node, metadata: {name: n1, labels: ${labels}}}`);
  t.deepEqual(workloadOf(mesh).locality, { region: 'r', zone: 'z', subzone: 's' });
});

test('the network is that of the root namespace’s label', (t) => {
  const mesh = build(pod(), service(), namespace('istio-system', { labels: '{topology.istio.io/network: east}' }));
  t.is(workloadOf(mesh).network, 'east');
  t.is(mesh.services.get(WEB)?.addresses[0]?.network, 'east');
  t.is(mesh.settings.network, 'east');
});

test('settings of the mesh go into every workload', (t) => {
  const mesh = build(
    pod(),
    service(),
    meshConfig('trustDomain: td', 'clusterId: c1', 'clusterDomain: k8s.test', 'network: n'),
  );
  t.like(workloadOf(mesh), { uid: 'c1//Pod/shop/web-1', trustDomain: 'td', clusterId: 'c1', network: 'n' });
  t.deepEqual(Object.keys(workloadOf(mesh).services), ['shop/web.shop.svc.k8s.test']);
  t.deepEqual(mesh.settings, {
    trustDomain: 'td',
    clusterDomain: 'k8s.test',
    rootNamespace: 'istio-system',
    network: 'n',
    clusterId: 'c1',
  });
});

test('settings in another namespace do not count', (t) => {
  const mesh = build(meshConfig('trustDomain: td').replace('namespace: istio-system', 'namespace: shop'));
  t.is(mesh.settings.trustDomain, 'cluster.local');
});

/** Ports of a service, what a pod has, and the pod's port map. */
const portRows: ReadonlyArray<readonly [string, readonly string[], string, ReadonlyArray<readonly [number, number]>]> =
  [
    ['a number as it is', [], '{port: 80, targetPort: 8080}', [[80, 8080]]],
    ['the same port if none is said', [], '{port: 80}', [[80, 80]]],
    [
      'a name by its container port',
      ['containers: [{ports: [{name: http, containerPort: 81}]}]'],
      '{port: 80, targetPort: http}',
      [[80, 81]],
    ],
    [
      'a name by a sidecar’s port',
      ['initContainers: [{restartPolicy: Always, ports: [{name: http, containerPort: 82}]}]'],
      '{port: 80, targetPort: http}',
      [[80, 82]],
    ],
    [
      'nothing by an init container’s port',
      ['initContainers: [{ports: [{name: http, containerPort: 82}]}]'],
      '{port: 80, targetPort: http}',
      [],
    ],
    [
      'nothing by a UDP port',
      ['containers: [{ports: [{name: http, containerPort: 81, protocol: UDP}]}]'],
      '{port: 80, targetPort: http}',
      [],
    ],
    ['nothing by a name that is not there', [], '{port: 80, targetPort: http}', []],
    ['nothing of UDP', [], '{port: 53, protocol: UDP}', []],
  ];
for (const [title, spec, port, expected] of portRows)
  test(`a port map has ${title}`, (t) => {
    const mesh = build(pod({ spec }), service({ spec: ['selector: {app: web}', `ports: [${port}]`] }));
    const ports = workloadOf(mesh).services[WEB]?.map(({ servicePort, targetPort }) => [servicePort, targetPort]);
    t.deepEqual(
      ports,
      expected.map((pair) => [...pair]),
    );
  });

for (const [title, said, selected] of [
  ['all of its labels', { spec: ['selector: {app: web, tier: a}'] }, true],
  ['another value', { spec: ['selector: {app: web, tier: b}'] }, false],
  ['a label that is not there', { spec: ['selector: {app: web, zone: a}'] }, false],
  ['nothing', { spec: ['clusterIP: 10.96.0.1'] }, false],
  ['its labels, in another namespace', { namespace: 'other', spec: ['selector: {app: web}'] }, false],
  ['its labels, but is an alias', { spec: ['type: ExternalName', 'selector: {app: web}'] }, false],
] as const)
  test(`a service that selects ${title} ${selected ? 'has' : 'does not have'} the pod`, (t) => {
    const mesh = build(pod({ labels: '{app: web, tier: a}' }), service(said));
    t.is(Object.keys(workloadOf(mesh).services).length, selected ? 1 : 0);
  });

test('a service without selector has the pods that its slices name', (t) => {
  const top = ['addressType: IPv4', 'endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-1}}]'];
  const mesh = build(pod(), service({ spec: ['ports: [{port: 80, targetPort: 8080}]'] }), slice({ top }));
  t.deepEqual(workloadOf(mesh).services, { [WEB]: [{ servicePort: 80, targetPort: 8080 }] });
  t.is(workloadsOf(mesh).length, 1);
});

test('the slices of a service with selector name no further pods', (t) => {
  const top = ['addressType: IPv4', 'endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-1}}]'];
  const mesh = build(pod({ labels: '{}' }), service(), slice({ top }));
  t.deepEqual(workloadOf(mesh).services, {});
});

const SLICE = ['addressType: IPv4', 'ports: [{name: "", port: 9000}]', 'endpoints:', '- addresses: [192.0.2.1]'];

test('an endpoint of a slice that is no pod is a workload in host network mode', (t) => {
  const mesh = build(service(), slice({ top: SLICE }));
  t.like(workloadOf(mesh, 'web-x'), {
    uid: 'Kubernetes/discovery.k8s.io/EndpointSlice/shop/web-x/192.0.2.1',
    namespace: 'shop',
    addresses: ['192.0.2.1'],
    networkMode: 'host',
    status: 'healthy',
    protocol: 'tcp',
    services: { [WEB]: [{ servicePort: 80, targetPort: 9000 }] },
  });
});

for (const [title, top, expected] of [
  ['that is not ready', [...SLICE, '  conditions: {ready: false}'], ['unhealthy']],
  ['that is ready', [...SLICE, '  conditions: {ready: true}'], ['healthy']],
  ['of domain names', ['addressType: FQDN', 'endpoints: [{addresses: [a.example.com]}]'], []],
] as const)
  test(`an endpoint of a slice ${title} is ${expected[0] ?? 'none'}`, (t) => {
    t.deepEqual(
      workloadsOf(build(service(), slice({ top }))).map(({ status }) => status),
      [...expected],
    );
  });

test('a slice without its service is nothing', (t) => {
  t.deepEqual(workloadsOf(build(slice({ top: SLICE }))), []);
  t.deepEqual(workloadsOf(build(service(), slice({ top: SLICE, labels: '{}' }))), []);
});

test('a slice’s ports are those that its service names alike', (t) => {
  const ports = 'ports: [{name: http, port: 80, targetPort: 1}, {name: admin, port: 81, targetPort: 2}]';
  const top = [
    'addressType: IPv4',
    'ports: [{name: admin, port: 8081}, {name: stray, port: 8082}, {name: http, port: 8080, protocol: UDP}]',
    'endpoints: [{addresses: [192.0.2.1]}]',
  ];
  const mesh = build(service({ spec: [ports] }), slice({ top }));
  t.deepEqual(workloadOf(mesh, 'web-x').services[WEB], [{ servicePort: 81, targetPort: 8081 }]);
});

/** What a WorkloadEntry says, and what its workload then is. */
const entryRows: ReadonlyArray<readonly [string, Said, Partial<Workload>]> = [
  ['its key', {}, { uid: 'Kubernetes/networking.istio.io/WorkloadEntry/shop/vm', name: 'vm', status: 'healthy' }],
  ['its address', {}, { addresses: ['10.9.0.1' as Address], hostname: '' }],
  ['its name in DNS', { spec: ['address: VM.example.com'] }, { addresses: [], hostname: 'vm.example.com' }],
  ['of its weight', { spec: ['address: 10.9.0.1', 'weight: 7'] }, { capacity: 7 }],
  ['of weight one if it says zero', { spec: ['address: 10.9.0.1', 'weight: 0'] }, { capacity: 1 }],
  ['on its own network', { spec: ['address: 10.9.0.1', 'network: west'] }, { network: 'west' }],
  [
    'at its locality',
    { spec: ['address: 10.9.0.1', 'locality: r/z/s'] },
    { locality: { region: 'r', zone: 'z', subzone: 's' } },
  ],
  [
    'at as much of a locality as it says',
    { spec: ['address: 10.9.0.1', 'locality: r'] },
    { locality: { region: 'r', zone: '', subzone: '' } },
  ],
  ['its service account', { spec: ['address: 10.9.0.1', 'serviceAccount: vm'] }, { serviceAccount: 'vm' }],
  ['called by its name', {}, { workloadName: 'vm', canonicalName: 'vm', canonicalRevision: 'latest' }],
  ['called by its group', { annotations: '{istio.io/autoRegistrationGroup: group}' }, { workloadName: 'group' }],
  ['called by its label', { labels: '{service.istio.io/workload-name: said}' }, { workloadName: 'said' }],
  ['plain', {}, { protocol: 'tcp' }],
  ['HBONE by its label', { labels: '{networking.istio.io/tunnel: http}' }, { protocol: 'hbone', nativeTunnel: true }],
  [
    'labelled by its spec too',
    { spec: ['address: 10.9.0.1', 'labels: {app: x, version: v}'] },
    { canonicalName: 'x', canonicalRevision: 'v' },
  ],
];
for (const [title, said, expected] of entryRows)
  test(`a WorkloadEntry is ${title}`, (t) => t.like(workloadOf(build(workloadEntry(said)), 'vm'), expected));

test('a WorkloadEntry without an address of a network is no workload', (t) => {
  for (const address of ['unix:///run/x.sock', '""'])
    t.deepEqual(workloadsOf(build(workloadEntry({ spec: [`address: ${address}`] }))), [], address);
});

test('Services and ServiceEntries select WorkloadEntries, each with its own meaning of port names', (t) => {
  const mesh = build(
    workloadEntry({ labels: '{app: web}', spec: ['address: 10.9.0.1', 'ports: {http: 8000, web: 8001}'] }),
    service({
      spec: [
        'selector: {app: web}',
        'ports: [{name: http, port: 80, targetPort: web}, {port: 81, targetPort: none}, {port: 82}]',
      ],
    }),
    serviceEntry({
      spec: [
        'hosts: [api.example.com]',
        'workloadSelector: {labels: {app: web}}',
        'ports: [{number: 80, name: http, targetPort: 9}, {number: 81, name: other, targetPort: 9}, {number: 82, name: more}]',
      ],
    }),
  );
  t.deepEqual(workloadOf(mesh, 'vm').services, {
    [WEB]: [
      { servicePort: 80, targetPort: 8001 },
      { servicePort: 82, targetPort: 82 },
    ],
    'shop/api.example.com': [
      { servicePort: 80, targetPort: 8000 },
      { servicePort: 81, targetPort: 9 },
      { servicePort: 82, targetPort: 82 },
    ],
  });
});

test('a ServiceEntry selects pods by number of port', (t) => {
  const spec = [
    'hosts: [api.example.com]',
    'workloadSelector: {labels: {app: web}}',
    'ports: [{number: 80, targetPort: 8080}]',
  ];
  t.deepEqual(workloadOf(build(pod(), serviceEntry({ spec }))).services, {
    ['shop/api.example.com' as ServiceName]: [{ servicePort: 80, targetPort: 8080 }],
  });
});

test('each endpoint of a ServiceEntry is a workload of all of its hosts', (t) => {
  const mesh = build(
    serviceEntry({
      labels: '{app: ext}',
      spec: [
        'hosts: [a.example.com, b.example.com]',
        'resolution: STATIC',
        'ports: [{number: 80, name: http}]',
        'endpoints:',
        '- {address: 192.0.2.1, ports: {http: 8080}, weight: 3}',
        '- {address: b.example.net, labels: {version: v2}}',
      ],
    }),
  );
  const [one, two] = workloadsOf(mesh);
  t.like(one, {
    uid: 'Kubernetes/networking.istio.io/ServiceEntry/shop/entry/192.0.2.1',
    name: 'entry',
    addresses: ['192.0.2.1'],
    capacity: 3,
    sameNode: 'kernel',
    canonicalName: 'ext',
    services: {
      'shop/a.example.com': [{ servicePort: 80, targetPort: 8080 }],
      'shop/b.example.com': [{ servicePort: 80, targetPort: 8080 }],
    },
  });
  t.like(two, { hostname: 'b.example.net', canonicalRevision: 'v2', addresses: [] });
  t.deepEqual(two?.services['shop/a.example.com' as ServiceName], [{ servicePort: 80, targetPort: 80 }]);
});

for (const resolution of ['DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'])
  test(`with resolution ${resolution} and no endpoints, each host is a workload of itself`, (t) => {
    const spec = ['hosts: [a.example.com, b.example.com]', `resolution: ${resolution}`, 'ports: [{number: 443}]'];
    t.deepEqual(
      workloadsOf(build(serviceEntry({ spec }))).map(({ uid, hostname, services }) => [uid, hostname, services]),
      ['a.example.com', 'b.example.com'].map((host) => [
        `Kubernetes/networking.istio.io/ServiceEntry/shop/entry/${host}`,
        host,
        { [`shop/${host}`]: [{ servicePort: 443, targetPort: 443 }] },
      ]),
    );
  });

for (const more of ['resolution: STATIC', 'resolution: NONE', 'workloadSelector: {labels: {a: b}}'])
  test(`with ${more.replace(/:.*? /, ' ')} and no endpoints, a ServiceEntry has no workload`, (t) => {
    t.deepEqual(workloadsOf(build(serviceEntry({ spec: ['hosts: [a.example.com]', more] }))), []);
  });

test('of two endpoints with one key the first stays, and it is said', (t) => {
  const mesh = build(
    serviceEntry({
      spec: [
        'hosts: [a.example.com]',
        'resolution: STATIC',
        'endpoints: [{address: 192.0.2.1, weight: 2}, {address: 192.0.2.1}]',
      ],
    }),
  );
  t.deepEqual(
    workloadsOf(mesh).map(({ capacity }) => capacity),
    [2],
  );
  t.deepEqual(
    mesh.findings.map(({ reason }) => reason),
    ['duplicate'],
  );
});
