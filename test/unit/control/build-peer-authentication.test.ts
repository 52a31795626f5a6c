/** Rows of the wire contract, section 5.4: PeerAuthentication to what agents enforce. */
import test from 'ava';
import {
  build,
  clausesOf,
  meshConfig,
  peerAuthentication,
  pod,
  policyOf,
  type Said,
  service,
  slice,
  workloadEntry,
  workloadOf,
  workloadsOf,
} from './objects.ts';

const STATIC = 'istio-system/istio_converted_static_strict';
const OWN = 'shop/converted_peer_authentication_some';
const ROOT = 'istio-system';
const SELECTOR = 'selector: {matchLabels: {app: web}}';
const NOBODY = { notPrincipals: [{ kind: 'presence' }] };

const mode = (said: string) => `mtls: {mode: ${said}}`;
const mesh = (said: string): Said => ({ namespace: ROOT, name: 'mesh', spec: [mode(said)] });
const wide = (said: string): Said => ({ name: 'wide', spec: [mode(said)] });
const some = (...spec: readonly string[]): Said => ({ name: 'some', spec: [SELECTOR, ...spec] });
const ports = (said: string) => `portLevelMtls: {${said}}`;

test('as soon as there is any, agents are told of the policy that all of them share', (t) => {
  t.is(policyOf(build(pod()), STATIC), undefined);
  for (const said of ['STRICT', 'PERMISSIVE', 'DISABLE', 'UNSET']) {
    const found = policyOf(build(peerAuthentication(wide(said))), STATIC);
    t.like(found, { action: 'deny', scope: 'workload-selector', dryRun: false });
    t.deepEqual(clausesOf(found), [[[NOBODY]]] as never);
    t.is(found?.rules[0]?.unlessThroughWaypoint, false);
  }
});

test('it is of the root namespace, whichever that is', (t) => {
  const built = build(meshConfig('rootNamespace: root'), pod(), peerAuthentication(wide('STRICT')));
  t.deepEqual(workloadOf(built).authorizationPolicies, ['root/istio_converted_static_strict']);
  t.deepEqual([...built.policies.keys()], ['root/istio_converted_static_strict']);
});

/** PeerAuthentications, and what a pod with `app: web` in namespace shop names. */
const rows: ReadonlyArray<readonly [string, readonly Said[], readonly string[]]> = [
  ['nothing: nobody need prove anything', [], []],
  ['STRICT in the mesh', [mesh('STRICT')], [STATIC]],
  ['PERMISSIVE in the mesh', [mesh('PERMISSIVE')], []],
  ['DISABLE in the mesh is as PERMISSIVE', [mesh('DISABLE')], []],
  ['UNSET in the mesh', [mesh('UNSET')], []],
  ['STRICT in the namespace', [wide('STRICT')], [STATIC]],
  ['STRICT in another namespace', [{ ...wide('STRICT'), namespace: 'other' }], []],
  ['STRICT for the pod', [some(mode('STRICT'))], [STATIC]],
  ['STRICT for other pods', [{ spec: ['selector: {matchLabels: {app: db}}', mode('STRICT')] }], []],
  ['the namespace before the mesh: opened', [mesh('STRICT'), wide('PERMISSIVE')], []],
  ['the namespace before the mesh: closed', [mesh('PERMISSIVE'), wide('STRICT')], [STATIC]],
  ['DISABLE in the namespace opens it too', [mesh('STRICT'), wide('DISABLE')], []],
  ['UNSET in the namespace: the mesh decides', [mesh('STRICT'), wide('UNSET')], [STATIC]],
  ['no word in the namespace: the mesh decides', [mesh('STRICT'), { name: 'wide', spec: ['{}'] }], [STATIC]],
  ['the pod before the namespace: opened', [wide('STRICT'), some(mode('PERMISSIVE'))], []],
  ['the pod before the namespace: opened by DISABLE', [wide('STRICT'), some(mode('DISABLE'))], []],
  ['the pod before the namespace: closed', [wide('PERMISSIVE'), some(mode('STRICT'))], [STATIC]],
  ['UNSET for the pod: the namespace decides', [wide('STRICT'), some(mode('UNSET'))], [STATIC]],
  ['UNSET for the pod and the namespace: the mesh decides', [mesh('STRICT'), wide('UNSET'), some()], [STATIC]],
  ['a selector of no labels is for the namespace', [{ spec: ['selector: {}', mode('STRICT')] }], [STATIC]],
  ['a selector in the root namespace selects nothing', [{ ...some(mode('STRICT')), namespace: ROOT }], []],
  [
    'the oldest in the namespace',
    [
      { name: 'a', spec: [mode('STRICT')], metadata: ['creationTimestamp: "2026-01-02T00:00:00Z"'] },
      { name: 'b', spec: [mode('PERMISSIVE')], metadata: ['creationTimestamp: "2026-01-01T00:00:00Z"'] },
    ],
    [],
  ],
  [
    'the oldest in the mesh',
    [
      { ...mesh('PERMISSIVE'), name: 'a', metadata: ['creationTimestamp: "2026-01-02T00:00:00Z"'] },
      { ...mesh('STRICT'), name: 'b', metadata: ['creationTimestamp: "2026-01-01T00:00:00Z"'] },
    ],
    [STATIC],
  ],
  [
    'the oldest for the pod',
    [
      { ...some(mode('STRICT')), name: 'a', metadata: ['creationTimestamp: "2026-01-02T00:00:00Z"'] },
      { ...some(mode('PERMISSIVE')), name: 'b', metadata: ['creationTimestamp: "2026-01-01T00:00:00Z"'] },
    ],
    [],
  ],
  [
    'the oldest for the pod, whatever it selects by',
    [
      { ...some(mode('STRICT')), name: 'a', metadata: ['creationTimestamp: "2026-01-02T00:00:00Z"'] },
      {
        name: 'b',
        spec: ['selector: {matchLabels: {tier: front}}', mode('PERMISSIVE')],
        metadata: ['creationTimestamp: "2026-01-01T00:00:00Z"'],
      },
    ],
    [],
  ],
  [
    'of those without a date the first by name',
    [
      { name: 'b', spec: [mode('STRICT')] },
      { name: 'a', spec: [mode('PERMISSIVE')] },
    ],
    [],
  ],
  [
    'a STRICT port where the rest is open: its own policy',
    [some(mode('PERMISSIVE'), ports('8080: {mode: STRICT}'))],
    [OWN],
  ],
  ['a STRICT port where nothing else is said', [some(ports('8080: {mode: STRICT}'))], [OWN]],
  ['a STRICT port beside DISABLE', [some(mode('DISABLE'), ports('8080: {mode: STRICT}'))], [OWN]],
  ['a STRICT port below STRICT is no exception', [some(mode('STRICT'), ports('8080: {mode: STRICT}'))], [STATIC]],
  [
    'a STRICT port under a STRICT namespace is none either',
    [wide('STRICT'), some(ports('8080: {mode: STRICT}'))],
    [STATIC],
  ],
  ['an open port below STRICT', [some(mode('STRICT'), ports('8080: {mode: PERMISSIVE}'))], [OWN]],
  ['a DISABLE port below STRICT', [some(mode('STRICT'), ports('8080: {mode: DISABLE}'))], [OWN]],
  ['an open port under a STRICT namespace', [wide('STRICT'), some(ports('8080: {mode: PERMISSIVE}'))], [OWN]],
  ['an open port under a STRICT mesh', [mesh('STRICT'), some(ports('8080: {mode: PERMISSIVE}'))], [OWN]],
  [
    'a DISABLE port under a STRICT namespace is not heard alone',
    [wide('STRICT'), some(ports('8080: {mode: DISABLE}'))],
    [STATIC],
  ],
  ['an open port where all is open', [some(mode('PERMISSIVE'), ports('8080: {mode: PERMISSIVE}'))], []],
  ['an UNSET port below STRICT', [some(mode('STRICT'), ports('8080: {mode: UNSET}'))], [STATIC]],
  ['a port with no mode below STRICT', [some(mode('STRICT'), ports('8080: {}'))], [STATIC]],
  [
    'STRICT for all if there are more ports than agents take',
    [some(ports(Array.from({ length: 1001 }, (_, at) => `${at + 1}: {mode: PERMISSIVE}`).join(', ')))],
    [STATIC],
  ],
  ['no port below STRICT', [some(mode('STRICT'), ports(''))], [STATIC]],
];
for (const [title, said, names] of rows)
  test(`what a pod names: ${title}`, (t) => {
    const built = build(pod({ labels: '{app: web, tier: front}' }), ...said.map(peerAuthentication));
    t.deepEqual(workloadOf(built).authorizationPolicies, [...names]);
    for (const name of names) t.truthy(policyOf(built, name));
  });

/** Modes of the ports of a PeerAuthentication, and the clauses of the rules of its own policy. */
const own: ReadonlyArray<readonly [string, readonly Said[], unknown]> = [
  [
    'one rule for each STRICT port',
    [some(mode('PERMISSIVE'), ports('8081: {mode: STRICT}, 8080: {mode: STRICT}, 8082: {mode: PERMISSIVE}'))],
    [[[{ ...NOBODY, destinationPorts: [8080] }]], [[{ ...NOBODY, destinationPorts: [8081] }]]],
  ],
  [
    'one rule with a clause for each open port',
    [some(mode('STRICT'), ports('8081: {mode: DISABLE}, 8080: {mode: PERMISSIVE}, 8082: {mode: STRICT}'))],
    [[[NOBODY], [{ notDestinationPorts: [8080] }], [{ notDestinationPorts: [8081] }]]],
  ],
  [
    'the same under a STRICT namespace, DISABLE along with PERMISSIVE',
    [wide('STRICT'), some(ports('8081: {mode: DISABLE}, 8080: {mode: PERMISSIVE}'))],
    [[[NOBODY], [{ notDestinationPorts: [8080] }], [{ notDestinationPorts: [8081] }]]],
  ],
];
for (const [title, said, expected] of own)
  test(`a policy of its own has ${title}`, (t) => {
    const found = policyOf(build(...said.map(peerAuthentication)), OWN);
    t.like(found, { action: 'deny', scope: 'workload-selector', dryRun: false });
    t.deepEqual(clausesOf(found) as unknown, expected);
  });

for (const [title, said, text] of [
  [
    'a selector in the root namespace',
    [{ ...some(mode('STRICT')), namespace: ROOT }],
    'It counts for nothing: spec.selector selects no workload from the root namespace.',
  ],
  [
    'a second one for the namespace',
    [wide('STRICT'), { name: 'x', spec: [mode('PERMISSIVE')] }],
    'It counts for nothing: metadata.name comes after wide, which is for the same workloads.',
  ],
  [
    'DISABLE that is not heard',
    [wide('STRICT'), some(ports('8080: {mode: DISABLE}'))],
    'STRICT holds for all ports, as around it: spec.portLevelMtls["8080"] must say PERMISSIVE instead.',
  ],
  [
    'more ports than agents take',
    [some(mode('PERMISSIVE'), ports(Array.from({ length: 1001 }, (_, at) => `${at + 1}: {mode: STRICT}`).join(', ')))],
    'STRICT holds for all ports: spec.portLevelMtls has more than 1000 ports.',
  ],
] as const)
  test(`${title} is said`, (t) => {
    const { findings } = build(...said.map(peerAuthentication));
    t.deepEqual(
      findings.map((each) => each.text),
      [text],
    );
  });

test('machines and bare endpoints name what holds for their namespace', (t) => {
  const built = build(
    peerAuthentication(wide('STRICT')),
    peerAuthentication({ name: 'vm', spec: ['selector: {matchLabels: {app: vm}}', mode('PERMISSIVE')] }),
    workloadEntry({ labels: '{app: vm}' }),
    workloadEntry({ name: 'other', spec: ['address: 10.9.0.2'] }),
    service(),
    slice({ top: ['addressType: IPv4', 'endpoints: [{addresses: [192.0.2.1]}]', 'ports: [{port: 80}]'] }),
  );
  t.deepEqual(
    workloadsOf(built).map(({ name, authorizationPolicies }) => [name, authorizationPolicies]),
    [
      ['vm', []],
      ['other', [STATIC]],
      ['web-x', [STATIC]],
    ],
  );
});
