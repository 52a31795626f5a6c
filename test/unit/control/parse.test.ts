import test from 'ava';
import { EMPTY_MANIFEST, parseManifest } from '../../../src/control/manifests/parse.ts';
import { quietFor } from '../../../src/control/manifests/settle.ts';

const SERVICE = [
  'apiVersion: v1',
  'kind: Service',
  'metadata: {name: web, namespace: shop}',
  'spec:',
  '  ports:',
  '  - port: 80',
];
const namespace = (name: string) => `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`;
const keysOf = (text: string) => parseManifest(text).objects.map(({ key, line }) => `${key} ${line}`);

for (const [title, text, keys] of [
  ['nothing', '', []],
  ['comments only', '# nothing\n---\n# either\n', []],
  ['one document', namespace('a'), ['Namespace//a 1']],
  ['several', `${namespace('a')}---\n${namespace('b')}`, ['Namespace//a 1', 'Namespace//b 5']],
  ['a start before the first', `---\n${namespace('a')}---\n\n${namespace('b')}`, ['Namespace//a 2', 'Namespace//b 7']],
  [
    'a comment behind the start',
    `${namespace('a')}--- # the next\n${namespace('b')}`,
    ['Namespace//a 1', 'Namespace//b 5'],
  ],
  ['an end', `${namespace('a')}...\n---\n${namespace('b')}`, ['Namespace//a 1', 'Namespace//b 6']],
  ['directives', `%YAML 1.2\n---\n${namespace('a')}---\n${namespace('b')}`, ['Namespace//a 3', 'Namespace//b 7']],
  [
    'Windows line ends',
    `${namespace('a')}---\n${namespace('b')}`.replaceAll('\n', '\r\n'),
    ['Namespace//a 1', 'Namespace//b 5'],
  ],
  ['no namespace', 'apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}', ['ServiceAccount/default/a 1']],
  [
    'JSON',
    JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'a' } }, undefined, '\t'),
    ['Namespace//a 1'],
  ],
  ['a List', `apiVersion: v1\nkind: List\nitems:\n- ${namespace('a').replaceAll('\n', '\n  ')}\n`, ['Namespace//a 4']],
  [
    'a list of one kind',
    'apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n',
    ['Namespace//a 4', 'Namespace//b 5'],
  ],
  ['an empty list', 'apiVersion: v1\nkind: PodList\nitems: []\n', []],
  [
    'anchors and merges',
    `apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: &l {x: y}, annotations: {<<: *l}}\nspec: {}\n`,
    ['Service/default/a 1'],
  ],
  [
    'any version of a kind',
    'apiVersion: networking.istio.io/v1alpha3\nkind: WorkloadEntry\nmetadata: {name: a}\nspec: {}\n',
    ['WorkloadEntry/default/a 1'],
  ],
  ['another group’s kind of that name', 'apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {}\n', []],
  ['an unknown kind, however wrong', 'apiVersion: apps/v1\nkind: Deployment\nspec: 3\n', []],
] as const)
  test(`a file with ${title} has ${keys.length} objects`, (t) => {
    t.deepEqual(keysOf(text), [...keys]);
    t.deepEqual(parseManifest(text).issues, []);
  });

test('kinds that the mesh is not built of are named', (t) => {
  t.deepEqual(parseManifest('apiVersion: apps/v1\nkind: Deployment\n').foreign, ['apps/v1 Deployment']);
});

/** The service above with a line changed or added; the field, its line and column, and what is said of it. */
for (const [title, lines, field, line, column, text] of [
  [
    'of the wrong type',
    [...SERVICE, '    targetPort: true'],
    'spec.ports[0].targetPort',
    7,
    5,
    'must be a port number or the name of a container port',
  ],
  ['out of range', SERVICE.with(5, '  - port: 70000'), 'spec.ports[0].port', 6, 5, 'must be at most 65535'],
  ['that is missing', SERVICE.with(5, '  - name: http'), 'spec.ports[0].port', 6, 5, 'is missing'],
  ['that is missing at the top', SERVICE.slice(0, 3), 'spec', 1, 1, 'is missing'],
  ['without name', SERVICE.with(2, 'metadata: {}'), 'metadata.name', 3, 1, 'is missing'],
  ['that is no list', [...SERVICE.slice(0, 4), '  ports: 80'], 'spec.ports', 5, 3, 'must be a list, not a number'],
  ['that is no map', [...SERVICE.slice(0, 3), 'spec: []'], 'spec', 4, 1, 'must be a map, not a list'],
  [
    'with a label that is a number',
    SERVICE.with(2, 'metadata: {name: web, labels: {a/b: 1}}'),
    'metadata.labels["a/b"]',
    3,
    32,
    'must be a text, not a number',
  ],
  [
    'with an address that is none',
    [...SERVICE, '  clusterIPs:', '  - 10.0.0.999'],
    'spec.clusterIPs[0]',
    8,
    5,
    'is not an IP address',
  ],
  [
    'with a value that is unknown',
    [...SERVICE, '  ipFamilies: [IPv5]'],
    'spec.ipFamilies[0]',
    7,
    16,
    'must be "IPv4" or "IPv6"',
  ],
  ['of no kind', SERVICE.with(1, 'type: Service'), 'kind', 1, 1, 'is missing'],
] as const)
  test(`a field ${title} is reported with its place`, (t) => {
    const { issues } = parseManifest(`# first\n---\n${lines.join('\n')}\n`);
    t.like(issues, [{ reason: 'field', field, line: line + 2, column, text: `${field} ${text}.` }]);
    t.is(issues.length, 1);
  });

const security = (kind: string, ...spec: readonly string[]) =>
  [`apiVersion: security.istio.io/v1`, `kind: ${kind}`, 'metadata: {name: a}', 'spec:', ...spec].join('\n');
/** Of a policy: what must be understood, or nobody can tell what is safe. */
for (const [text, line, column, expected] of [
  [
    security('AuthorizationPolicy', '  action: allow'),
    5,
    3,
    'spec.action must be "ALLOW" or "DENY" or "AUDIT" or "CUSTOM".',
  ],
  [security('AuthorizationPolicy', '  rule: []'), 5, 3, 'spec.rule is not a known field.'],
  [
    security('AuthorizationPolicy', '  selector:', '    matchLables: {}'),
    6,
    5,
    'spec.selector.matchLables is not a known field.',
  ],
  [
    security('AuthorizationPolicy', '  selector: {matchLabels: {app: "*"}}'),
    5,
    28,
    'spec.selector.matchLabels.app must be empty, or letters, digits, -, _ and ., at most 63, with a letter or digit at both ends.',
  ],
  [security('AuthorizationPolicy', '  selector:'), 5, 3, 'spec.selector must be a map, not null.'],
  [security('AuthorizationPolicy', '  rules:'), 5, 3, 'spec.rules must be a list, not null.'],
  [security('AuthorizationPolicy', '  rules:', '  - from:'), 6, 5, 'spec.rules[0].from must be a list, not null.'],
  [security('AuthorizationPolicy', '  rules:', '  -'), 6, 4, 'spec.rules[0] must be a map, not null.'],
  [
    security('AuthorizationPolicy', '  rules:', '  - from:', '    - source:'),
    7,
    7,
    'spec.rules[0].from[0].source must be a map, not null.',
  ],
  [
    security('AuthorizationPolicy', '  rules:', '  - to:', '    - operation: {ports: [80]}'),
    7,
    27,
    'spec.rules[0].to[0].operation.ports[0] must be a text, not a number.',
  ],
  [
    security('AuthorizationPolicy', '  rules:', '  - to:', '    - operation: {ports: "80"}'),
    7,
    19,
    'spec.rules[0].to[0].operation.ports must be a list, not a text.',
  ],
  [
    security('AuthorizationPolicy', '  rules:', '  - when: [{values: [a]}]'),
    6,
    12,
    'spec.rules[0].when[0].key is missing.',
  ],
  [
    security('AuthorizationPolicy', '  targetRefs: [{kind: Service, name: a}]', '  selector: {matchLabels: {a: b}}'),
    6,
    3,
    'spec.selector must not be there beside targetRefs: it is either for workloads or for waypoints.',
  ],
  [
    security('PeerAuthentication', '  mtls: {mode: strict}'),
    5,
    10,
    'spec.mtls.mode must be "UNSET" or "DISABLE" or "PERMISSIVE" or "STRICT".',
  ],
  [security('PeerAuthentication', '  mtsl: {mode: STRICT}'), 5, 3, 'spec.mtsl is not a known field.'],
  [security('PeerAuthentication', '  mtls: STRICT'), 5, 3, 'spec.mtls must be a map, not a text.'],
  [security('PeerAuthentication', '  mtls:'), 5, 3, 'spec.mtls must be a map, not null.'],
  [
    security('PeerAuthentication', '  portLevelMtls: {80: {mode: STRICT}}'),
    5,
    3,
    'spec.portLevelMtls needs a selector.',
  ],
  [
    security('PeerAuthentication', '  selector: {matchLabels: {a: b}}', '  portLevelMtls: {http: {}}'),
    6,
    19,
    'spec.portLevelMtls.http must be a port number, 1 to 65535.',
  ],
] as const)
  test(`a policy is not taken: ${expected}`, (t) => {
    t.like(parseManifest(text).issues, [{ reason: 'field', line, column, text: expected }]);
    t.deepEqual(parseManifest(text).objects, []);
  });

const named = (kind: string, name: string, apiVersion = 'v1') =>
  `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: ${JSON.stringify(name)}}\n`;
const odd = (kind: string, metadata: string, spec: string, apiVersion = 'v1') =>
  `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: ${metadata}\nspec: ${spec}\n`;
const ISTIO = 'networking.istio.io/v1';
const LONG = 'x'.repeat(254);

/** Names that would separate an identity, a key, a path or a header where nothing is to be separated. */
for (const [text, field] of [
  [odd('Pod', '{name: a/b}', '{}'), 'metadata.name'],
  [odd('Pod', '{name: ""}', '{}'), 'metadata.name'],
  [odd('Pod', '{name: A}', '{}'), 'metadata.name'],
  [odd('Pod', `{name: ${LONG}}`, '{}'), 'metadata.name'],
  [odd('Pod', '{name: "a\\n"}', '{}'), 'metadata.name'],
  [odd('Pod', '{name: a, namespace: b/c}', '{}'), 'metadata.namespace'],
  [odd('Pod', '{name: a, namespace: b.c}', '{}'), 'metadata.namespace'],
  [odd('Pod', `{name: a, namespace: ${'n'.repeat(64)}}`, '{}'), 'metadata.namespace'],
  [odd('Pod', '{name: a}', '{serviceAccountName: a/b}'), 'spec.serviceAccountName'],
  [odd('Pod', '{name: a}', '{serviceAccountName: "a b"}'), 'spec.serviceAccountName'],
  [odd('Pod', '{name: a}', '{nodeName: ../n}'), 'spec.nodeName'],
  [odd('Pod', `{name: a, labels: {app: ${'l'.repeat(64)}}}`, '{}'), 'metadata.labels.app'],
  [odd('Pod', '{name: a, labels: {app: "a\u00e4"}}', '{}'), 'metadata.labels.app'],
  [
    odd('Pod', '{name: a, ownerReferences: [{kind: Job, name: a/b, controller: true}]}', '{}'),
    'metadata.ownerReferences[0].name',
  ],
  [odd('Service', '{name: a.b}', '{}'), 'metadata.name'],
  [named('Namespace', 'a.b'), 'metadata.name'],
  [named('Node', 'a/b'), 'metadata.name'],
  [named('ServiceAccount', 'a_b'), 'metadata.name'],
  [odd('ServiceEntry', '{name: a}', '{hosts: ["a,b"]}', ISTIO), 'spec.hosts[0]'],
  [odd('ServiceEntry', '{name: a}', `{hosts: [${LONG}]}`, ISTIO), 'spec.hosts[0]'],
  [odd('ServiceEntry', '{name: a}', '{hosts: ["*.*.a"]}', ISTIO), 'spec.hosts[0]'],
  [odd('ServiceEntry', '{name: a}', '{hosts: ["*"]}', ISTIO), 'spec.hosts[0]'],
  [odd('ServiceEntry', '{name: a}', '{hosts: [a], subjectAltNames: ["a b"]}', ISTIO), 'spec.subjectAltNames[0]'],
  [odd('ServiceEntry', '{name: a}', '{hosts: [a], endpoints: [{address: a/b}]}', ISTIO), 'spec.endpoints[0].address'],
  [odd('WorkloadEntry', '{name: a}', '{serviceAccount: a/b}', ISTIO), 'spec.serviceAccount'],
  [odd('WorkloadEntry', '{name: a}', '{network: a/b}', ISTIO), 'spec.network'],
  [odd('WorkloadEntry', '{name: a}', '{locality: "a b/c"}', ISTIO), 'spec.locality'],
  [
    odd('WorkloadEntry', '{name: a, annotations: {istio.io/autoRegistrationGroup: a b}}', '{}', ISTIO),
    'metadata.annotations["istio.io/autoRegistrationGroup"]',
  ],
  [
    `${odd('Gateway', '{name: a}', '{}', 'gateway.networking.k8s.io/v1')}status: {addresses: [{type: Hostname, value: a b}]}\n`,
    'status.addresses[0].value',
  ],
] as const)
  test(`${text.slice(text.indexOf('kind'), 120).replaceAll('\n', ' ')} is wrong in ${field}`, (t) => {
    const { issues, objects } = parseManifest(text);
    t.deepEqual(
      issues.map((issue) => [issue.reason, issue.field]),
      [['field', field]],
    );
    t.deepEqual(objects, []);
  });

for (const text of [
  odd('Pod', '{name: 1.a-b.2, namespace: 1-a}', '{nodeName: ip-10-0-0-1.eu.compute.internal, serviceAccountName: a.b}'),
  odd('Pod', '{name: a, namespace: "", labels: {app: "", v: 1.0_B-c}}', '{nodeName: null, serviceAccountName: ""}'),
  odd('ServiceEntry', '{name: a}', '{hosts: [a, "*.B.example.com", a.example.com., 10.0.0.1]}', ISTIO),
  odd('WorkloadEntry', '{name: a}', '{address: VM.example.com, locality: a/b/c, network: n_1}', ISTIO),
  odd('WorkloadEntry', '{name: a}', '{address: "fd00::1", locality: null}', ISTIO),
  odd('WorkloadEntry', '{name: a}', '{address: "unix:///run/a b"}', ISTIO),
])
  test(`${text.slice(text.indexOf('kind')).replaceAll('\n', ' ')} is right`, (t) => {
    t.deepEqual(parseManifest(text).issues, []);
  });

test('the object that is wrong is named', (t) => {
  t.is(parseManifest(SERVICE.with(5, '  - {}').join('\n')).issues[0]?.object, 'Service shop/web');
  t.is(parseManifest('apiVersion: v1\nkind: Pod\n').issues[0]?.object, 'Pod');
});

test('all that is wrong is reported, in the order of lines', (t) => {
  const wrong = SERVICE.with(5, '  - port: x').join('\n');
  t.deepEqual(
    parseManifest(`${wrong}\n---\n- 1\n---\n${wrong}`).issues.map(({ line }) => line),
    [6, 8, 15],
  );
});

test('an item of a list is reported where it stands', (t) => {
  const text = [
    'apiVersion: v1',
    'kind: ServiceList',
    'items:',
    '- metadata: {name: a}',
    '  spec: {ports: [{port: 0}]}',
  ];
  t.like(parseManifest(text.join('\n')).issues, [{ field: 'spec.ports[0].port', line: 5, object: 'Service a' }]);
});

for (const [title, text, line, column] of [
  ['a bracket that is left open', 'a: 1\nb: [1\n', 3, 1],
  ['a key that is there twice', 'apiVersion: v1\na: 1\na: 2\n', 3, 1],
  ['a tab', 'a:\n\tb: 1\n', 2, 1],
  ['an alias of nothing', 'a: *b\n', 1, 1],
  [
    'aliases that grow without end',
    [
      'a: &a [x, x, x, x, x, x, x, x, x]',
      ...'bcdefg'.split('').map((k, i) => `${k}: &${k} [${Array(9).fill(`*${'abcdef'[i]}`).join(', ')}]`),
    ].join('\n'),
    1,
    1,
  ],
] as const)
  test(`${title} is reported with its place`, (t) => {
    const [issue] = parseManifest(`---\n${text}`).issues;
    t.like(issue, { reason: 'syntax', line: line + 1, column, object: undefined, field: undefined });
  });

const config = (...lines: string[]) =>
  [
    'apiVersion: v1',
    'kind: ConfigMap',
    'metadata: {name: culvert, namespace: istio-system}',
    'data:',
    '  mesh.yaml: |',
    ...lines.map((line) => `    ${line}`),
  ].join('\n');

for (const [title, text, field, line] of [
  ['a setting that is unknown', config('trustDomain: td', 'colour: red'), 'data["mesh.yaml"].colour', 7],
  [
    'a setting of the wrong type',
    config('exclusions:', '  outboundPorts: [80, x]'),
    'data["mesh.yaml"].exclusions.outboundPorts[1]',
    7,
  ],
  ['a setting that makes no sense', config('', '', 'sameNode: maybe'), 'data["mesh.yaml"].sameNode', 8],
  ['a text that is not YAML', config('trustDomain: [', 'x'), 'data["mesh.yaml"]', 7],
] as const)
  test(`in the mesh’s settings, ${title} is reported with its own line`, (t) => {
    t.like(parseManifest(text).issues, [{ field, line, object: 'ConfigMap istio-system/culvert' }]);
  });

test('in other ConfigMaps nothing is looked at', (t) => {
  t.deepEqual(parseManifest(config('colour: red').replace('name: culvert', 'name: other')).issues, []);
});

test('documents that stay the same stay the same objects, wherever they are now', (t) => {
  const last = parseManifest(`${namespace('a')}---\n${namespace('b')}---\n${namespace('c')}`);
  const next = parseManifest(`# one more line\n${namespace('a')}---\n${namespace('b')}---\n${namespace('c')}`, last);
  t.deepEqual(
    next.objects.map(({ object }) => last.objects.some((each) => each.object === object)),
    [false, true, true],
  );
  t.deepEqual(
    next.objects.map(({ line }) => line),
    [2, 6, 10],
  );
});

/** The last good text, the text now, and for how many times the debounce it must be left alone. */
for (const [title, last, text, quiet] of [
  ['any change', 'a: 1\n', 'a: 2\n', 1],
  ['more at the end', 'a: 1\n', 'a: 1\nb: 2\n', 1],
  ['a new file', undefined, 'a: 1\n', 1],
  ['a new file whose last line has no end', undefined, 'a: 1', 3],
  ['the beginning of what it was', 'a: 1\n---\nb: 1\n', 'a: 1\n', 3],
  ['a last line without end', 'a: 1\n', 'a: 2', 3],
  ['a last line without end, as before', 'a: 1', 'a: 2', 1],
  ['nothing any more', 'a: 1\n', '', 10],
  ['a new file that is empty', undefined, '', 10],
  ['nothing, as before', '', '', 3],
] as const)
  test(`a file that holds ${title} is believed after ${quiet} times the debounce`, (t) => {
    t.is(quietFor(last, text, EMPTY_MANIFEST), quiet);
  });

test('a broken file is believed last', (t) => {
  t.is(quietFor('a: 1\n', 'a: [\n', parseManifest('a: [\n')), 10);
});
