import test from 'ava';
import { changes, completeUpdate } from '../../../src/control/build/changes.ts';
import { type BuiltMesh, buildMesh, MeshBuilder } from '../../../src/control/build/mesh-builder.ts';
import type { KubernetesObject } from '../../../src/control/objects/index.ts';
import { policyName, ReadModel, type Service, type Workload } from '../../../src/mesh/index.ts';
import {
  authorizationPolicy,
  gateway,
  meshConfig,
  namespace,
  objects,
  peerAuthentication,
  pod,
  service,
  serviceEntry,
  workloadEntry,
} from './objects.ts';

const node = (zone: string) =>
  `{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/zone: ${zone}}}}`;

const SELECTS_WEB = 'selector: {matchLabels: {app: web}}';
const SELECTS_DB = 'selector: {matchLabels: {app: db}}';
const SELECTS_FAR = 'selector: {matchLabels: {app: far}}';

/** One object of each kind that matters to others; what an edit does not name stays the very same object. */
class Folder {
  readonly #objects = new Map<string, readonly KubernetesObject[]>();

  constructor() {
    this.write('pod', pod({ labels: '{app: web}' }));
    this.write('other pod', pod({ name: 'db-1', labels: '{app: db}', spec: ['serviceAccountName: db'] }));
    this.write('service', service());
    this.write(
      'entry',
      serviceEntry({ spec: ['hosts: [api.example.com]', 'resolution: DNS', 'ports: [{number: 80}]'] }),
    );
    this.write('vm', workloadEntry({ labels: '{app: db}' }));
    this.write('gateway', gateway({ labels: '{istio.io/waypoint-for: all}' }));
    this.write('node', node('a'));
    this.write('namespace', namespace('shop'));
    this.write('far pod', pod({ name: 'far-1', namespace: 'far', labels: '{app: far}' }));
    this.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'rules: [{}]'] }));
    this.write('wide policy', authorizationPolicy({ name: 'wide', spec: ['action: DENY'] }));
    this.write('root policy', authorizationPolicy({ namespace: 'istio-system', spec: [SELECTS_FAR] }));
    this.write('strict', peerAuthentication({ namespace: 'db' }));
  }

  write(name: string, ...texts: readonly string[]): void {
    this.#objects.set(name, objects(...texts));
  }

  read(): readonly KubernetesObject[] {
    return [...this.#objects.values()].flat();
  }
}

function namesOf(update: ReturnType<typeof changes>): string[] {
  const named = ({ name }: Workload | Service) => name;
  const policies = [...(update?.policies ?? []).map(policyName), ...(update?.removedPolicies ?? []).map(minus)];
  return [...[...(update?.workloads ?? []), ...(update?.services ?? [])].map(named), ...policies].toSorted();
}

function minus(name: string): string {
  return `-${name}`;
}

/** An edit, and the names of the workloads, services and policies that it changes. */
const edits: ReadonlyArray<readonly [string, (folder: Folder) => void, readonly string[]]> = [
  ['nothing', () => undefined, []],
  ['a file written again as it was', (folder) => folder.write('pod', pod({ labels: '{app: web}' })), []],
  ['a pod’s labels', (folder) => folder.write('pod', pod({ labels: '{app: none}' })), ['web-1']],
  [
    'a service’s ports',
    (folder) => folder.write('service', service({ spec: ['selector: {app: web}', 'ports: [{port: 81}]'] })),
    ['web', 'web-1'],
  ],
  [
    'a service’s selector',
    (folder) =>
      folder.write(
        'service',
        service({ spec: ['clusterIP: 10.96.0.1', 'selector: {app: db}', 'ports: [{port: 80, targetPort: 8080}]'] }),
      ),
    ['db-1', 'vm', 'web-1'],
  ],
  [
    'a service’s address',
    (folder) =>
      folder.write(
        'service',
        service({ spec: ['clusterIP: 10.96.0.2', 'selector: {app: web}', 'ports: [{port: 80, targetPort: 8080}]'] }),
      ),
    ['web'],
  ],
  ['a service gone', (folder) => folder.write('service'), ['web-1']],
  ['a node’s zone', (folder) => folder.write('node', node('b')), ['db-1', 'far-1', 'web-1']],
  ['a node written again', (folder) => folder.write('node', node('a')), []],
  [
    'a namespace’s waypoint',
    (folder) => folder.write('namespace', namespace('shop', { labels: '{istio.io/use-waypoint: waypoint}' })),
    ['db-1', 'entry', 'entry', 'vm', 'web', 'web-1'],
  ],
  [
    'a namespace’s traffic distribution',
    (folder) =>
      folder.write(
        'namespace',
        namespace('shop', { annotations: '{networking.istio.io/traffic-distribution: PreferClose}' }),
      ),
    ['entry', 'web'],
  ],
  [
    'a waypoint that nobody uses',
    (folder) => folder.write('gateway', gateway({ status: ['addresses: [{value: 10.96.7.7}]'] })),
    [],
  ],
  [
    'another host',
    (folder) => folder.write('entry', serviceEntry({ spec: ['hosts: [b.example.com]', 'resolution: DNS'] })),
    ['entry', 'entry'],
  ],
  [
    'a setting of the mesh',
    (folder) => folder.write('config', meshConfig('trustDomain: td')),
    ['db-1', 'entry', 'far-1', 'vm', 'web-1'],
  ],
  [
    'a policy’s rules',
    (folder) => folder.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'rules: [{}, {}]'] })),
    ['shop/only'],
  ],
  [
    'a policy written again as it was',
    (folder) => folder.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'rules: [{}]'] })),
    [],
  ],
  [
    'a policy written in other words',
    (folder) =>
      folder.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'action: ALLOW', 'rules: [{from: []}]'] })),
    [],
  ],
  [
    'a policy’s selector',
    (folder) => folder.write('policy', authorizationPolicy({ spec: [SELECTS_DB, 'rules: [{}]'] })),
    ['db-1', 'vm', 'web-1'],
  ],
  [
    'a policy’s scope',
    (folder) => folder.write('policy', authorizationPolicy({ spec: ['rules: [{}]'] })),
    ['shop/only', 'web-1'],
  ],
  ['a policy gone', (folder) => folder.write('policy'), ['-shop/only', 'web-1']],
  ['a policy for a namespace gone', (folder) => folder.write('wide policy'), ['-shop/wide']],
  [
    'a policy that is not told any more',
    (folder) => folder.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'action: AUDIT'] })),
    ['-shop/only', 'web-1'],
  ],
  [
    'a policy for the whole mesh',
    (folder) => folder.write('new', authorizationPolicy({ namespace: 'istio-system', name: 'new' })),
    ['istio-system/new'],
  ],
  [
    'a policy of the root namespace for some workloads of all namespaces',
    (folder) =>
      folder.write(
        'root policy',
        authorizationPolicy({ namespace: 'istio-system', spec: [SELECTS_DB, 'rules: [{}]'] }),
      ),
    ['db-1', 'far-1', 'istio-system/only', 'vm'],
  ],
  [
    'a PeerAuthentication of one namespace',
    (folder) => folder.write('peers', peerAuthentication({ namespace: 'far' })),
    ['far-1'],
  ],
  [
    'a PeerAuthentication of the mesh',
    (folder) => folder.write('peers', peerAuthentication({ namespace: 'istio-system' })),
    ['db-1', 'entry', 'far-1', 'vm', 'web-1'],
  ],
  [
    'a PeerAuthentication with ports',
    (folder) =>
      folder.write('peers', peerAuthentication({ spec: [SELECTS_WEB, 'portLevelMtls: {80: {mode: STRICT}}'] })),
    ['shop/converted_peer_authentication_strict', 'web-1'],
  ],
  [
    'the last PeerAuthentication gone',
    (folder) => folder.write('strict'),
    ['-istio-system/istio_converted_static_strict'],
  ],
  [
    'how a namespace talks to its own node',
    (folder) => folder.write('namespace', namespace('shop', { annotations: '{culvert.dev/same-node: mtls}' })),
    ['db-1', 'web-1'],
  ],
  [
    'how the mesh talks to its own nodes',
    (folder) => folder.write('config', meshConfig('sameNode: mtls')),
    ['db-1', 'entry', 'far-1', 'vm', 'web-1'],
  ],
  ['a setting as it was', (folder) => folder.write('config', meshConfig('trustDomain: cluster.local')), []],
];
for (const [title, edit, changed] of edits)
  test(`an edit costs only what it changes: ${title}`, (t) => {
    const folder = new Folder();
    const builder = new MeshBuilder();
    const before = builder.build(folder.read());
    edit(folder);
    const after = builder.build(folder.read());
    const update = changes(before, after);
    t.deepEqual(namesOf(update), [...changed]);
    t.deepEqual(withoutOrder(after), withoutOrder(buildMesh(folder.read())));
    if (update === undefined) return;

    const followed = new ReadModel();
    followed.apply(completeUpdate(before));
    followed.apply(update);
    const fresh = new ReadModel();
    fresh.apply(completeUpdate(after));
    t.deepEqual(bySnapshot(followed), bySnapshot(fresh));
  });

function withoutOrder({ workloads, services, policies, settings, findings }: BuiltMesh) {
  return {
    workloads: new Map([...workloads].toSorted()),
    services: new Map([...services].toSorted()),
    policies: new Map([...policies].toSorted()),
    settings,
    findings,
  };
}

function bySnapshot(mesh: ReadModel) {
  const { workloads, services, policies, settings } = mesh.snapshot();
  return {
    workloads: new Map(workloads.map((each) => [each.uid, each] as const).toSorted()),
    services: new Map(
      services.map((each) => [each.hostname, { each, endpoints: uidsOf(mesh, each) }] as const).toSorted(),
    ),
    policies: new Map(policies.map((each) => [policyName(each), each] as const).toSorted()),
    settings,
  };
}

function uidsOf(mesh: ReadModel, of: Service): string[] {
  return mesh
    .endpoints(of)
    .map(({ workload }) => workload.uid)
    .toSorted();
}

test('what is told again is the very same object as long as it is equal', (t) => {
  const folder = new Folder();
  const builder = new MeshBuilder();
  const before = builder.build(folder.read());
  folder.write('policy', authorizationPolicy({ spec: [SELECTS_WEB, 'rules: [{}, {}]'] }));
  folder.write('wide policy', authorizationPolicy({ name: 'wide', spec: ['action: DENY'] }));
  const after = builder.build(folder.read());
  for (const [name, policy] of after.policies) t.is(policy === before.policies.get(name), name !== 'shop/only');
  t.deepEqual([...after.workloads.keys()], [...before.workloads.keys()]);
  t.true([...after.workloads].every(([uid, workload]) => workload === before.workloads.get(uid)));
});

test('what goes is removed by uid and by name', (t) => {
  const folder = new Folder();
  const builder = new MeshBuilder();
  const before = builder.build(folder.read());
  folder.write('pod');
  folder.write('entry');
  t.deepEqual(changes(before, builder.build(folder.read()))?.removed, [
    'Kubernetes//Pod/shop/web-1',
    'Kubernetes/networking.istio.io/ServiceEntry/shop/entry/api.example.com',
    'shop/api.example.com',
  ]);
});

test('a service that is new, or has another health policy, comes with its endpoints', (t) => {
  const web = ['clusterIP: 10.96.0.1', 'selector: {app: web}', 'ports: [{port: 80, targetPort: 8080}]'];
  const folder = new Folder();
  const builder = new MeshBuilder();
  const before = builder.build(folder.read());
  folder.write('service', service({ spec: [...web, 'publishNotReadyAddresses: true'] }));
  const after = builder.build(folder.read());
  t.deepEqual(namesOf(changes(before, after)), ['web', 'web-1']);
  const without: BuiltMesh = { ...after, services: new Map() };
  t.deepEqual(namesOf(changes(without, after)), ['entry', 'entry', 'web', 'web-1']);
});

test('settings are sent when they change', (t) => {
  const builder = new MeshBuilder();
  const before = builder.build([]);
  t.is(changes(before, builder.build([])), undefined);
  t.is(changes(before, builder.build(objects(meshConfig('network: n'))))?.settings?.network, 'n');
});

test('where the settings are read from is an option', (t) => {
  const config = objects(meshConfig('trustDomain: td').replace('istio-system', 'mesh'));
  t.is(buildMesh(config, { rootNamespace: 'mesh' }).settings.trustDomain, 'td');
  t.is(buildMesh(config, { rootNamespace: 'mesh' }).settings.rootNamespace, 'mesh');
  t.is(buildMesh(config).settings.trustDomain, 'cluster.local');
});
