/** Rows of the wire contract, section 5.5: AuthorizationPolicy to what agents enforce. */
import test from 'ava';
import type { AuthorizationPolicy, PolicyMatch } from '../../../src/mesh/index.ts';
import { authorizationPolicy, build, clausesOf, meshConfig, pod, policyOf, type Said, workloadOf } from './objects.ts';

const policy = (...spec: readonly string[]) => policyOf(build(authorizationPolicy({ spec })));
const conditionsOf = (...texts: readonly string[]) => build(...texts).findings.map(({ condition }) => condition);
const exact = (value: string) => ({ kind: 'exact', value }) as const;

const SELECTOR = 'selector: {matchLabels: {app: web}}';

/** What a policy says, and what it is then. */
const rows: ReadonlyArray<readonly [string, Said, Partial<AuthorizationPolicy>]> = [
  ['ALLOW if it says no action', { spec: ['rules: [{}]'] }, { action: 'allow' }],
  ['ALLOW', { spec: ['action: ALLOW'] }, { action: 'allow' }],
  ['DENY', { spec: ['action: DENY'] }, { action: 'deny' }],
  ['for its namespace without a selector', { spec: ['{}'] }, { scope: 'namespace', namespace: 'shop', name: 'only' }],
  ['for its namespace with a selector of no labels', { spec: ['selector: {}'] }, { scope: 'namespace' }],
  ['for its namespace with no labels to match', { spec: ['selector: {matchLabels: {}}'] }, { scope: 'namespace' }],
  ['for the workloads that it selects', { spec: [SELECTOR] }, { scope: 'workload-selector' }],
  ['without rules where it says none', { spec: ['{}'] }, { rules: [] }],
  ['without rules where it has no spec at all', { spec: [] }, { action: 'allow', rules: [] }],
  ['without rules where their list is empty', { spec: ['rules: []'] }, { rules: [] }],
  ['enforced', {}, { dryRun: false }],
  ['enforced if it says so', { annotations: '{istio.io/dry-run: "false"}' }, { dryRun: false }],
  ['only tried', { annotations: '{istio.io/dry-run: "true"}' }, { dryRun: true }],
  [
    'enforced if what it says of that is not understood',
    { annotations: '{istio.io/dry-run: "yes"}' },
    { dryRun: false },
  ],
];
for (const [title, said, expected] of rows)
  test(`a policy is ${title}`, (t) => {
    const found = policyOf(build(authorizationPolicy(said)));
    t.truthy(found);
    t.like(found, expected);
  });

test('a policy of the root namespace is for the whole mesh, or for what it selects', (t) => {
  const mesh = build(
    authorizationPolicy({ namespace: 'istio-system' }),
    authorizationPolicy({ namespace: 'istio-system', name: 'some', spec: [SELECTOR] }),
  );
  t.is(policyOf(mesh, 'istio-system/only')?.scope, 'global');
  t.is(policyOf(mesh, 'istio-system/some')?.scope, 'workload-selector');
});

test('which namespace is the root one is a setting', (t) => {
  const mesh = build(meshConfig('rootNamespace: shop'), authorizationPolicy());
  t.is(policyOf(mesh)?.scope, 'global');
});

for (const version of ['v1', 'v1beta1', 'v1alpha1'])
  test(`policies of security.istio.io/${version} are read`, (t) => {
    t.truthy(policyOf(build(authorizationPolicy().replace('istio.io/v1', `istio.io/${version}`))));
  });

/** One rule, and the clauses that it becomes: alternatives within, all of them together. */
const rules: ReadonlyArray<readonly [string, string, ReadonlyArray<ReadonlyArray<Partial<PolicyMatch>>>]> = [
  ['nothing: no clause, so it matches everything', '{}', []],
  ['empty lists: no clause either', '{from: [], to: [], when: []}', []],
  [
    'several sources: one clause, alternatives',
    '{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}]}',
    [[{ namespaces: [exact('a')] }, { namespaces: [exact('b')] }]],
  ],
  [
    'several operations: one clause, alternatives',
    '{to: [{operation: {ports: ["80"]}}, {operation: {notPorts: ["81", "82"]}}]}',
    [[{ destinationPorts: [80] }, { notDestinationPorts: [81, 82] }]],
  ],
  [
    'several conditions: a clause for each',
    '{when: [{key: source.namespace, values: [a]}, {key: source.namespace, notValues: [b]}]}',
    [[{ namespaces: [exact('a')] }], [{ notNamespaces: [exact('b')] }]],
  ],
  [
    'all of them: operations, sources, conditions',
    '{from: [{source: {namespaces: [a]}}], to: [{operation: {ports: ["80"]}}], when: [{key: destination.port, values: ["80"]}]}',
    [[{ destinationPorts: [80] }], [{ namespaces: [exact('a')] }], [{ destinationPorts: [80] }]],
  ],
  [
    'several fields of one source: one match',
    '{from: [{source: {namespaces: [a, b], notPrincipals: [c], ipBlocks: [10.0.0.0/8]}}]}',
    [[{ namespaces: [exact('a'), exact('b')], notPrincipals: [exact('c')], sourceIps: ['10.0.0.0/8'] as never }]],
  ],
  [
    'a condition with both kinds of values: one match',
    '{when: [{key: destination.port, values: ["80"], notValues: ["81"]}]}',
    [[{ destinationPorts: [80], notDestinationPorts: [81] }]],
  ],
];
for (const action of ['ALLOW', 'DENY'])
  for (const [title, rule, expected] of rules)
    test(`${action}: a rule says ${title}`, (t) => {
      const found = policy(`action: ${action}`, `rules: [${rule}]`);
      t.deepEqual(clausesOf(found), [[...expected.map((matches) => [...matches])]]);
      t.deepEqual(
        found?.rules.map(({ unlessThroughWaypoint }) => unlessThroughWaypoint),
        [false],
      );
      t.deepEqual(conditionsOf(authorizationPolicy({ spec: [`action: ${action}`, `rules: [${rule}]`] })), []);
    });

/** A field of a source, operation or condition, and what becomes of it. */
const accounts = [
  { namespace: 'shop', serviceAccount: 'a' },
  { namespace: 'other', serviceAccount: 'b' },
];
const fields: ReadonlyArray<readonly [string, unknown]> = [
  ['from: [{source: {principals: [a]}}]', { principals: [exact('a')] }],
  ['from: [{source: {notPrincipals: [a]}}]', { notPrincipals: [exact('a')] }],
  ['from: [{source: {namespaces: [a]}}]', { namespaces: [exact('a')] }],
  ['from: [{source: {notNamespaces: [a]}}]', { notNamespaces: [exact('a')] }],
  ['from: [{source: {serviceAccounts: [a, other/b]}}]', { serviceAccounts: accounts }],
  ['from: [{source: {notServiceAccounts: [a, other/b]}}]', { notServiceAccounts: accounts }],
  ['from: [{source: {ipBlocks: [10.0.0.1]}}]', { sourceIps: ['10.0.0.1/32'] }],
  ['from: [{source: {notIpBlocks: [10.0.0.1]}}]', { notSourceIps: ['10.0.0.1/32'] }],
  ['to: [{operation: {ports: ["80"]}}]', { destinationPorts: [80] }],
  ['to: [{operation: {notPorts: ["80"]}}]', { notDestinationPorts: [80] }],
  ['when: [{key: source.ip, values: [10.0.0.1]}]', { sourceIps: ['10.0.0.1/32'] }],
  ['when: [{key: source.ip, notValues: [10.0.0.1]}]', { notSourceIps: ['10.0.0.1/32'] }],
  ['when: [{key: source.namespace, values: [a]}]', { namespaces: [exact('a')] }],
  ['when: [{key: source.namespace, notValues: [a]}]', { notNamespaces: [exact('a')] }],
  ['when: [{key: source.principal, values: [a]}]', { principals: [exact('a')] }],
  ['when: [{key: source.principal, notValues: [a]}]', { notPrincipals: [exact('a')] }],
  ['when: [{key: destination.ip, values: [10.0.0.1]}]', { destinationIps: ['10.0.0.1/32'] }],
  ['when: [{key: destination.ip, notValues: [10.0.0.1]}]', { notDestinationIps: ['10.0.0.1/32'] }],
  ['when: [{key: destination.port, values: ["80"]}]', { destinationPorts: [80] }],
  ['when: [{key: destination.port, notValues: ["80"]}]', { notDestinationPorts: [80] }],
];
for (const [rule, expected] of fields)
  test(`every field is known: ${rule}`, (t) => t.deepEqual(clausesOf(policy(`rules: [{${rule}}]`)), [[[expected]]]));

/** What an agent cannot look at, in a rule beside `from: [{source: {namespaces: [a]}}]`. */
const l7: ReadonlyArray<readonly [string, string]> = [
  ...['hosts', 'notHosts', 'methods', 'notMethods', 'paths', 'notPaths'].map(
    (field) => [`to: [{operation: {${field}: [x]}}]`, `to[0].operation.${field} needs a waypoint`] as const,
  ),
  ...['requestPrincipals', 'notRequestPrincipals', 'remoteIpBlocks', 'notRemoteIpBlocks'].map(
    (field) => [`to: [], from: [{source: {${field}: [x]}}]`, `from[0].source.${field} needs a waypoint`] as const,
  ),
  ...[
    'remote.ip',
    'request.headers[x-a]',
    'request.auth.principal',
    'request.auth.audiences',
    'request.auth.presenter',
    'request.auth.claims[iss]',
    'connection.sni',
    'experimental.envoy.filters.network.mysql_proxy[a]',
  ].map((key) => [`when: [{key: "${key}", values: [x]}]`, `when[0].key "${key}" needs a waypoint`] as const),
];
for (const [rule, text] of l7) {
  const only = `rules: [{${rule}}, {from: [{source: {namespaces: [a]}}]}]`;
  const rest = [[{ namespaces: [exact('a')] }]];
  test(`ALLOW: a rule that needs L7 is left out, the others stay: ${rule}`, (t) => {
    const mesh = build(authorizationPolicy({ spec: [only] }));
    t.deepEqual(clausesOf(policyOf(mesh)), [rest]);
    t.like(mesh.findings, [
      {
        reason: 'UnsupportedValue',
        text: `Rules with what cannot be looked at are left out, so it allows less: spec.rules[0].${text}.`,
        field: `spec.rules[0].${text.split(' ')[0]}`,
        condition: { type: 'ZtunnelAccepted', status: 'True', reason: 'UnsupportedValue' },
      },
    ]);
  });
  test(`DENY: what needs L7 is left out of its rule, which denies more: ${rule}`, (t) => {
    const mesh = build(authorizationPolicy({ spec: ['action: DENY', only] }));
    t.deepEqual(clausesOf(policyOf(mesh)), [[], rest]);
    t.deepEqual(
      policyOf(mesh)?.rules.map(({ unlessThroughWaypoint }) => unlessThroughWaypoint),
      [true, false],
    );
    t.like(mesh.findings, [
      {
        text: `What cannot be looked at is left out, so it denies more, unless a waypoint asks: spec.rules[0].${text}.`,
        condition: { status: 'True' },
      },
    ]);
  });
}

test('agents are told of which policies something has been left out', (t) => {
  t.is(policy()?.partial, undefined);
  t.is(policy('rules: [{to: [{operation: {methods: [GET]}}]}]')?.partial, true);
  t.is(policy('action: DENY', 'rules: [{from: [{source: {ipBlocks: [everywhere]}}]}]')?.partial, true);
  t.is(policyOf(build(authorizationPolicy({ annotations: '{istio.io/dry-run: "yes"}' })))?.partial, true);
});

test('an ALLOW of which no rule is left is still told, and allows nothing', (t) => {
  const mesh = build(authorizationPolicy({ spec: ['rules: [{to: [{operation: {paths: [/a], ports: ["80"]}}]}]'] }));
  t.like(policyOf(mesh), { action: 'allow', rules: [] });
  t.like(mesh.findings, [
    {
      text: 'No rule is left, so it allows nothing: spec.rules[0].to[0].operation.paths needs a waypoint.',
      condition: { status: 'False' },
    },
  ]);
});

/** Parts of a DENY that are not understood or need L7, and what is left of its rule. */
const denials: ReadonlyArray<readonly [string, string, unknown, boolean]> = [
  [
    'the L4 fields of the same operation stay',
    '{to: [{operation: {paths: [/a], ports: ["80"]}}]}',
    [[{ destinationPorts: [80] }]],
    true,
  ],
  [
    'an operation with nothing else could be any, so the others do not matter',
    '{to: [{operation: {paths: [/a]}}, {operation: {ports: ["80"]}}], from: [{source: {namespaces: [a]}}]}',
    [[{ namespaces: [exact('a')] }]],
    true,
  ],
  [
    'a condition that needs L7 goes, the others stay',
    '{when: [{key: remote.ip, values: [x]}, {key: destination.port, values: ["80"]}]}',
    [[{ destinationPorts: [80] }]],
    true,
  ],
  [
    'one value to choose from that is not understood takes its field along',
    '{from: [{source: {ipBlocks: [10.0.0.0/8, ten], namespaces: [a]}}]}',
    [[{ namespaces: [exact('a')] }]],
    false,
  ],
  [
    'one value to be excluded that is not understood goes alone',
    '{from: [{source: {notIpBlocks: [10.0.0.0/8, ten]}}]}',
    [[{ notSourceIps: ['10.0.0.0/8'] }]],
    false,
  ],
  ['a field of which nothing is left goes', '{from: [{source: {notIpBlocks: [ten]}}]}', [], false],
  ['a source that nobody knows', '{from: [{source: {names: [a]}}]}', [], false],
  [
    'a field that nobody knows beside one that is known',
    '{from: [{source: {names: [a], namespaces: [b]}}]}',
    [[{ namespaces: [exact('b')] }]],
    false,
  ],
  ['something else than a source', '{from: [{sources: {namespaces: [a]}}]}', [], false],
  ['something else than an operation', '{to: [{ports: ["80"]}]}', [], false],
  ['something else than from, to and when', '{form: [{source: {namespaces: [a]}}]}', [], false],
  ['a source that says nothing', '{from: [{}]}', [], false],
  ['a source with empty lists', '{from: [{source: {namespaces: []}}]}', [], false],
  ['an operation that says nothing', '{to: [{operation: {}}, {operation: {ports: ["80"]}}]}', [], false],
  ['a condition that says nothing', '{when: [{key: source.ip}]}', [], false],
  ['a key that nobody knows', '{when: [{key: source.name, values: [a]}]}', [], false],
  [
    'a field that nobody knows in a condition',
    '{when: [{key: destination.port, values: ["80"], value: x}]}',
    [[{ destinationPorts: [80] }]],
    false,
  ],
  [
    'what a waypoint looks at beside what nobody understands: nobody looks at all of it',
    '{to: [{operation: {paths: [/a], ports: [http]}}]}',
    [],
    false,
  ],
];
for (const [title, rule, left, unlessThroughWaypoint] of denials) {
  test(`DENY: ${title}`, (t) => {
    const found = policy('action: DENY', `rules: [${rule}]`);
    t.deepEqual(clausesOf(found), [left as never]);
    t.is(found?.rules[0]?.unlessThroughWaypoint, unlessThroughWaypoint);
    t.is(conditionsOf(authorizationPolicy({ spec: ['action: DENY', `rules: [${rule}]`] }))[0]?.status, 'True');
  });
  test(`ALLOW is left without the rule: ${title}`, (t) => {
    const spec = [`rules: [${rule}, {from: [{source: {namespaces: [z]}}]}]`];
    t.deepEqual(clausesOf(policy(...spec)), [[[{ namespaces: [exact('z')] }]]]);
    t.is(conditionsOf(authorizationPolicy({ spec }))[0]?.status, 'True');
  });
}

/** What is not understood, and how it is named. */
for (const [rule, field, text] of [
  [
    '{from: [{source: {ipBlocks: [10.0.0.0/8, ten]}}]}',
    'from[0].source.ipBlocks[1]',
    'is neither an IP address nor a CIDR block',
  ],
  [
    '{from: [{source: {principals: ["spiffe://td/ns/a/sa/b"]}}]}',
    'from[0].source.principals[0]',
    'must be written without spiffe://',
  ],
  [
    '{from: [{source: {namespaces: ["a*b"]}}]}',
    'from[0].source.namespaces[0]',
    'must be a text, with one * at most, at its beginning or at its end',
  ],
  [
    '{from: [{source: {serviceAccounts: ["*"]}}]}',
    'from[0].source.serviceAccounts[0]',
    'must be a service account, or namespace/account, without *',
  ],
  ['{to: [{operation: {ports: ["80", "0"]}}]}', 'to[0].operation.ports[1]', 'must be a port number, 1 to 65535'],
  ['{when: [{key: destination.port, notValues: [x]}]}', 'when[0].notValues[0]', 'must be a port number, 1 to 65535'],
  ['{when: [{key: source.name, values: [a]}]}', 'when[0].key', '"source.name" is not known'],
  ['{from: [{source: {names: [a]}}]}', 'from[0].source.names', 'is not a known field'],
  ['{from: [{sources: {}}]}', 'from[0].sources', 'is not a known field'],
  ['{form: []}', 'form', 'is not a known field'],
  ['{from: [{}]}', 'from[0].source', 'says nothing'],
  ['{to: [{operation: {}}]}', 'to[0].operation', 'says nothing'],
  ['{when: [{key: source.ip}]}', 'when[0]', 'says nothing'],
] as const)
  test(`what is not understood is named: ${field} of ${rule}`, (t) => {
    const condition = conditionsOf(authorizationPolicy({ spec: ['action: DENY', `rules: [{}, ${rule}]`] }))[0];
    t.deepEqual(condition?.ignored, [{ field: `spec.rules[1].${field}`, text }]);
  });

for (const [title, spec, text] of [
  ['AUDIT', ['action: AUDIT', 'rules: [{}]'], 'spec.action AUDIT is not supported'],
  ['CUSTOM', ['action: CUSTOM', 'provider: {name: a}'], 'spec.action CUSTOM is not supported'],
  [
    'a policy for waypoints',
    ['targetRefs: [{kind: Service, name: web, group: ""}]'],
    'spec.targetRefs is for waypoints',
  ],
  [
    'a policy for one waypoint',
    ['action: DENY', 'targetRef: {kind: Gateway, name: w}'],
    'spec.targetRefs is for waypoints',
  ],
] as const)
  test(`${title} is not told, and it is said`, (t) => {
    const mesh = build(authorizationPolicy({ spec }));
    t.is(policyOf(mesh), undefined);
    t.like(mesh.findings, [
      { text: `No agent enforces anything of it: ${text}.`, condition: { type: 'ZtunnelAccepted', status: 'False' } },
    ]);
  });

test('a word for dry-run that is not understood is said', (t) => {
  const mesh = build(authorizationPolicy({ annotations: '{istio.io/dry-run: "yes"}' }));
  t.like(mesh.findings, [
    {
      text: 'It is enforced, and not only tried: metadata.annotations["istio.io/dry-run"] must be "true" or "false".',
      condition: { status: 'True' },
    },
  ]);
});

test('of many parts that are left out ten are named', (t) => {
  const bad = Array.from({ length: 12 }, (_, at) => `x${at}`).join(', ');
  const [condition] = conditionsOf(authorizationPolicy({ spec: [`rules: [{to: [{operation: {ports: [${bad}]}}]}]`] }));
  t.is(condition?.ignored.length, 12);
  t.regex(condition?.message ?? '', /ports\[9\] must be a port number, 1 to 65535; 2 more\.$/);
});

for (const [action, expected, text] of [
  ['ALLOW', [], 'It allows nothing'],
  ['DENY', [{ clauses: [], unlessThroughWaypoint: false }], 'It denies everything'],
] as const)
  test(`${action} with more rules than agents take lets nothing pass`, (t) => {
    const sources = Array.from({ length: 5000 }, (_, at) => `{source: {principals: [p${at}]}}`).join(', ');
    const mesh = build(authorizationPolicy({ spec: [`action: ${action}`, `rules: [{from: [${sources}]}]`] }));
    t.deepEqual(policyOf(mesh)?.rules as unknown, expected);
    t.like(mesh.findings, [
      {
        text: `${text}: spec.rules is longer than 1048576 characters as agents are told of it.`,
        condition: { status: 'False' },
      },
    ]);
  });

/** Policies, and which of them a pod with `app: web` in namespace shop names. */
const selections: ReadonlyArray<readonly [string, readonly Said[], readonly string[]]> = [
  ['one of its namespace that selects it', [{ spec: [SELECTOR] }], ['shop/only']],
  [
    'one of the root namespace that selects it',
    [{ namespace: 'istio-system', spec: [SELECTOR] }],
    ['istio-system/only'],
  ],
  ['none of another namespace', [{ namespace: 'other', spec: [SELECTOR] }], []],
  ['none that selects others', [{ spec: ['selector: {matchLabels: {app: db}}'] }], []],
  ['none that asks for more labels', [{ spec: ['selector: {matchLabels: {app: web, tier: a}}'] }], []],
  ['none for the whole namespace: that one applies anyway', [{}], []],
  ['none that is not told', [{ spec: [SELECTOR, 'action: AUDIT'] }], []],
  ['one of which no rule is left', [{ spec: [SELECTOR, 'rules: [{to: [{operation: {paths: [x]}}]}]'] }], ['shop/only']],
  ['one that is only tried', [{ annotations: '{istio.io/dry-run: "true"}', spec: [SELECTOR] }], ['shop/only']],
  [
    'all of them, sorted',
    [
      { name: 'z', spec: [SELECTOR] },
      { name: 'b', spec: [SELECTOR] },
      { name: 'a', namespace: 'istio-system', spec: [SELECTOR] },
    ],
    ['istio-system/a', 'shop/b', 'shop/z'],
  ],
];
for (const [title, said, names] of selections)
  test(`a pod names ${title}`, (t) => {
    const mesh = build(pod(), ...said.map(authorizationPolicy));
    t.deepEqual(workloadOf(mesh).authorizationPolicies, [...names]);
  });
