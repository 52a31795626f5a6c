/** Rows of the wire contract, section 12.6: which waypoint something has. */
import test from 'ava';
import type { GatewayAddress } from '../../../src/mesh/index.ts';
import {
  build,
  gateway,
  meshConfig,
  namespace,
  pod,
  type Said,
  service,
  serviceEntry,
  serviceOf,
  workloadEntry,
  workloadOf,
} from './objects.ts';

const USE = 'istio.io/use-waypoint';
const FOR = 'istio.io/waypoint-for';
const hostname = (namespaceName: string, name: string): GatewayAddress => ({
  destination: { kind: 'hostname', namespace: namespaceName, hostname: name },
  hboneMtlsPort: 15_008,
});

/** `10.96.9.9`, or nothing. */
function shown(waypoint: GatewayAddress | undefined): string | undefined {
  if (waypoint?.destination.kind === 'address') return waypoint.destination.address;
  return waypoint?.destination.hostname;
}

/** Labels of the service and of its namespace, and whether it then has the waypoint `shop/waypoint`. */
for (const [title, own, inherited, has] of [
  ['nothing', '{}', '{}', false],
  ['its own label', `{${USE}: waypoint}`, '{}', true],
  ['its namespace’s label', '{}', `{${USE}: waypoint}`, true],
  ['none, against its namespace', `{${USE}: none}`, `{${USE}: waypoint}`, false],
  ['its own label, against its namespace', `{${USE}: waypoint}`, `{${USE}: other}`, true],
  ['a waypoint of its own namespace by name', `{${USE}: waypoint, ${USE}-namespace: shop}`, '{}', true],
  [
    'that it is a waypoint itself',
    `{${USE}: waypoint, gateway.istio.io/managed: istio.io-mesh-controller}`,
    '{}',
    false,
  ],
  [
    'that it is an east-west gateway',
    `{${USE}: waypoint, gateway.istio.io/managed: istio.io-eastwest-controller}`,
    '{}',
    false,
  ],
] as const)
  test(`a service that says ${title} ${has ? 'has' : 'has no'} waypoint`, (t) => {
    const mesh = build(gateway(), service({ labels: own }), namespace('shop', { labels: inherited }));
    t.is(shown(serviceOf(mesh).waypoint), has ? '10.96.9.9' : undefined);
    t.deepEqual(mesh.findings, []);
  });

test('a waypoint’s hostname is preferred to its address', (t) => {
  const status = ['addresses: [{type: IPAddress, value: 10.96.9.9}, {type: Hostname, value: W.example.com}]'];
  const mesh = build(gateway({ status }), service({ labels: `{${USE}: waypoint}` }));
  t.deepEqual(serviceOf(mesh).waypoint, hostname('shop', 'w.example.com'));
});

test('a waypoint’s address is on the mesh’s own network', (t) => {
  const mesh = build(gateway(), service({ labels: `{${USE}: waypoint}` }), meshConfig('network: east'));
  t.deepEqual(serviceOf(mesh).waypoint?.destination, { kind: 'address', network: 'east', address: '10.96.9.9' });
});

/** `istio.io/waypoint-for` of the gateway and of its class, and what then has the waypoint. */
for (const [own, ofClass, forService, forWorkload] of [
  ['', '', true, false],
  ['service', '', true, false],
  ['workload', '', false, true],
  ['all', '', true, true],
  ['none', '', false, false],
  ['', 'all', true, true],
  ['service', 'all', true, false],
] as const)
  test(`a waypoint for "${own}", of a class for "${ofClass}", serves ${[forService, forWorkload].join(' and ')}`, (t) => {
    const label = (value: string) => (value === '' ? '{}' : `{${FOR}: ${value}}`);
    const gatewayClass = [
      'apiVersion: gateway.networking.k8s.io/v1',
      'kind: GatewayClass',
      `metadata: {name: istio-waypoint, labels: ${label(ofClass)}}`,
    ].join('\n');
    const use = `${USE}: waypoint`;
    const mesh = build(
      gateway({ labels: label(own) }),
      gatewayClass,
      service({ labels: `{${use}}` }),
      pod({ labels: `{${use}}` }),
      workloadEntry({ labels: `{${use}}` }),
    );
    t.is(serviceOf(mesh).waypoint !== undefined, forService);
    t.is(workloadOf(mesh).waypoint !== undefined, forWorkload);
    t.is(workloadOf(mesh, 'vm').waypoint !== undefined, forWorkload);
    const refused = mesh.findings.map(({ reason, object }) => [object.kind, reason]);
    t.deepEqual(refused, [
      ...(forService ? [] : [['Service', 'UnsupportedTrafficType']]),
      ...(forWorkload
        ? []
        : [
            ['Pod', 'UnsupportedTrafficType'],
            ['WorkloadEntry', 'UnsupportedTrafficType'],
          ]),
    ]);
  });

test('what a namespace asks in vain for its workloads is not said of each of them, but of its services', (t) => {
  const mesh = build(namespace('shop', { labels: `{${USE}: waypoint}` }), service(), pod());
  t.is(workloadOf(mesh).waypoint, undefined);
  t.like(mesh.findings, [
    { reason: 'WaypointIsNotReady', text: 'There is no Gateway shop/waypoint.', field: undefined },
  ]);
});

test('a waypoint without address is not ready', (t) => {
  for (const status of [
    ['addresses: []'],
    ['addresses: [{type: NamedAddress, value: x}]'],
    ['addresses: [{value: x}]'],
  ]) {
    const mesh = build(gateway({ status }), service({ labels: `{${USE}: waypoint}` }));
    t.is(serviceOf(mesh).waypoint, undefined);
    t.like(mesh.findings, [{ reason: 'WaypointIsNotReady', field: `metadata.labels["${USE}"]` }]);
  }
});

const selector = (rule: string) => `{namespaces: {from: Selector, selector: {${rule}}}}`;
/** `allowedRoutes` of the HBONE listener, and whether namespace shop (label team: a) may use it from outside. */
for (const [routes, admitted] of [
  ['{}', false],
  ['{namespaces: {from: Same}}', false],
  ['{namespaces: {from: None}}', false],
  ['{namespaces: {from: All}}', true],
  [selector('matchLabels: {team: a}'), true],
  [selector('matchLabels: {team: b}'), false],
  [selector('matchLabels: {kubernetes.io/metadata.name: shop}'), true],
  [selector('matchExpressions: [{key: team, operator: In, values: [a, b]}]'), true],
  [selector('matchExpressions: [{key: team, operator: NotIn, values: [a, b]}]'), false],
  [selector('matchExpressions: [{key: none, operator: NotIn, values: [a]}]'), true],
  [selector('matchExpressions: [{key: team, operator: Exists}]'), true],
  [selector('matchExpressions: [{key: team, operator: DoesNotExist}]'), false],
] as const)
  test(`a waypoint that allows routes ${routes} ${admitted ? 'serves' : 'does not serve'} another namespace`, (t) => {
    const listeners = `listeners: [{port: 80, protocol: HTTP}, {port: 15008, protocol: HBONE, allowedRoutes: ${routes}}]`;
    const mesh = build(
      gateway({ namespace: 'infra', spec: [listeners] }),
      namespace('shop', { labels: '{team: a}' }),
      service({ labels: `{${USE}: waypoint, ${USE}-namespace: infra}` }),
    );
    t.is(serviceOf(mesh).waypoint !== undefined, admitted);
    t.deepEqual(
      mesh.findings.map(({ reason }) => reason),
      admitted ? [] : ['AttachmentDenied'],
    );
  });

test('what only its namespace can find has no waypoint of another', (t) => {
  const listeners = 'listeners: [{port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]';
  const entry: Said = { labels: `{${USE}: waypoint, ${USE}-namespace: infra}`, spec: ['hosts: [a.example.com]'] };
  const texts = [gateway({ namespace: 'infra', spec: [listeners] }), serviceEntry(entry)];
  t.is(shown(serviceOf(build(...texts), 'a.example.com').waypoint), '10.96.9.9');
  const mesh = build(...texts, meshConfig('serviceEntryVisibility: namespace'));
  t.is(serviceOf(mesh, 'a.example.com').waypoint, undefined);
  t.like(mesh.findings, [{ reason: 'CrossNamespaceWaypointForbidden' }]);
});

test('a pod of a waypoint has none, and wants its traffic as the waypoint’s annotation says', (t) => {
  const labels = `{${USE}: waypoint, gateway.networking.k8s.io/gateway-name: waypoint}`;
  for (const [binding, tunnel] of [
    ['PROXY', { protocol: 'proxy', port: 0 }],
    ['PROXY/15088', { protocol: 'proxy', port: 15_088 }],
    ['NONE', { protocol: 'none', port: 0 }],
    ['NONE/99999', undefined],
    ['other', undefined],
  ] as const) {
    const annotations = `{ambient.istio.io/waypoint-inbound-binding: ${binding}}`;
    const mesh = build(gateway({ annotations, labels: `{${FOR}: all}` }), pod({ labels }));
    t.is(workloadOf(mesh).waypoint, undefined);
    t.deepEqual(workloadOf(mesh).applicationTunnel, tunnel, binding);
  }
});

test('a pod that names no gateway that there is has no tunnel of its own', (t) => {
  t.is(
    workloadOf(build(pod({ labels: '{gateway.networking.k8s.io/gateway-name: waypoint}' }))).applicationTunnel,
    undefined,
  );
});

const CANARY = `${USE}-canary`;
const canary = gateway({ name: 'canary', status: ['addresses: [{value: 10.96.8.8}]'] });

/** Labels and annotations of the service, and the weights of primary and canary. */
for (const [title, said, weights, reasons] of [
  [
    'a weight',
    { labels: `{${USE}: waypoint, ${CANARY}: canary}`, annotations: `{${CANARY}-weight: "30"}` },
    [70, 30],
    [],
  ],
  [
    'all of it',
    { labels: `{${USE}: waypoint, ${CANARY}: canary}`, annotations: `{${CANARY}-weight: "100"}` },
    [0, 100],
    [],
  ],
  ['no weight', { labels: `{${USE}: waypoint, ${CANARY}: canary}` }, [], ['CanaryInvalidWeight']],
  [
    'too much',
    { labels: `{${USE}: waypoint, ${CANARY}: canary}`, annotations: `{${CANARY}-weight: "101"}` },
    [],
    ['CanaryInvalidWeight'],
  ],
  [
    'no number',
    { labels: `{${USE}: waypoint, ${CANARY}: canary}`, annotations: `{${CANARY}-weight: x}` },
    [],
    ['CanaryInvalidWeight'],
  ],
  [
    'the primary',
    { labels: `{${USE}: waypoint, ${CANARY}: waypoint}`, annotations: `{${CANARY}-weight: "1"}` },
    [],
    ['CanarySameAsPrimary'],
  ],
  [
    'no gateway',
    { labels: `{${USE}: waypoint, ${CANARY}: x}`, annotations: `{${CANARY}-weight: "1"}` },
    [],
    ['WaypointIsNotReady'],
  ],
  ['no primary', { labels: `{${CANARY}: canary}`, annotations: `{${CANARY}-weight: "1"}` }, [], []],
] as const)
  test(`a canary waypoint that has ${title}`, (t) => {
    const mesh = build(gateway(), canary, service(said));
    const found = serviceOf(mesh);
    t.deepEqual(
      found.weightedWaypoints.map(({ weight }) => weight),
      [...weights],
    );
    if (weights.length > 0)
      t.deepEqual(
        found.weightedWaypoints.map(({ destination }) => shown(destination)),
        ['10.96.9.9', '10.96.8.8'],
      );
    t.is(shown(found.waypoint), title === 'no primary' ? undefined : '10.96.9.9');
    t.deepEqual(
      mesh.findings.map(({ reason }) => reason),
      [...reasons],
    );
  });

test('a canary and its weight may be the namespace’s', (t) => {
  const labels = `{${USE}: waypoint, ${CANARY}: canary}`;
  const mesh = build(
    gateway(),
    canary,
    service(),
    namespace('shop', { labels, annotations: `{${CANARY}-weight: "5"}` }),
  );
  t.deepEqual(
    serviceOf(mesh).weightedWaypoints.map(({ weight }) => weight),
    [95, 5],
  );
});
