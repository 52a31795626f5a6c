import test from 'ava';
import { main } from '../../../src/cli/main.ts';
import { capture } from './capture.ts';
import { podYaml, policyYaml, shop } from './policy-manifests.ts';

type Lasting = Parameters<typeof shop>[0];

/** Of the shop's pods and these policies. */
async function check(t: Lasting, policies: string, { json = false, pods = true, colors = false } = {}) {
  const directory = shop(t);
  if (!pods) directory.delete('pods.yaml');
  const file = directory.write('policies.yaml', policies);
  const { written, output } = capture(colors);
  const code = await main(['policy', 'check', directory.path, ...(json ? ['--json'] : [])], output);
  return { code, file, out: written.out, error: written.error };
}

const authorization = (spec: string, annotations = '') =>
  policyYaml('AuthorizationPolicy', 'shop/it', spec, annotations);
const mtls = (spec: string) => policyYaml('PeerAuthentication', 'shop/it', spec);

for (const [title, policies, sentences] of [
  [
    'an ALLOW policy with a selector',
    authorization(
      '{selector: {matchLabels: {app: db}}, rules: [{from: [{source: {serviceAccounts: [web]}}], to: [{operation: {ports: ["5432"]}}]}]}',
    ),
    [
      'ALLOW, for workloads of namespace shop with app=db: 1 workload (shop/db-0)',
      'It lets in:',
      'rule 1: service account shop/web, to port 5432',
      'Everybody else is refused, unless another ALLOW policy lets them in.',
    ],
  ],
  [
    'a DENY policy of a namespace',
    authorization(
      '{action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}, {source: {ipBlocks: [10.0.0.0/8]}}]}]}',
    ),
    [
      'DENY, for all workloads of namespace shop: 2 workloads (shop/web-0, shop/db-0)',
      'It refuses:',
      'rule 1: (not from namespace shop) or (from address 10.0.0.0/8)',
      'Everybody else is let in or refused by the other policies.',
    ],
  ],
  [
    'a policy of the root namespace',
    policyYaml(
      'AuthorizationPolicy',
      'istio-system/it',
      '{action: DENY, rules: [{to: [{operation: {ports: ["22"]}}]}]}',
    ),
    ['DENY, for all workloads of the mesh: 2 workloads', 'rule 1: everybody, to port 22'],
  ],
  ['rules for everybody', authorization('{rules: [{}]}'), ['rule 1: everybody', 'Everybody else is refused, unless']],
  [
    'an ALLOW policy without rules',
    authorization('{}'),
    [
      'It lets nobody in, so whatever no other ALLOW policy lets in is refused.',
      'note: AuthorizationPolicy shop/it: an ALLOW policy without rules lets nobody in',
      'what to do: if everybody is meant, write rules: [{}]',
    ],
  ],
  [
    'a DENY policy without rules',
    authorization('{action: DENY}'),
    ['warning: AuthorizationPolicy shop/it: a DENY policy without rules does nothing', 'It refuses nobody'],
  ],
  [
    'a dry run',
    authorization('{action: DENY, rules: [{}]}', 'istio.io/dry-run: "true"'),
    [
      'DENY, dry run, for',
      'evaluated, logged and counted, never enforced',
      'note: AuthorizationPolicy shop/it: it is a dry run',
    ],
  ],
  [
    'a selector that selects nothing',
    authorization('{selector: {matchLabels: {app: dbb}}, rules: [{}]}'),
    [
      'warning: AuthorizationPolicy shop/it: spec.selector selects nothing',
      'what to do: correct the labels',
      '0 workloads',
    ],
  ],
  [
    'a PeerAuthentication whose selector selects nothing',
    mtls('{selector: {matchLabels: {app: dbb}}, mtls: {mode: STRICT}}'),
    ['warning: PeerAuthentication shop/it: spec.selector selects nothing'],
  ],
  [
    'a namespace without workloads',
    policyYaml('AuthorizationPolicy', 'shpo/it', '{rules: [{}]}'),
    [
      'warning: AuthorizationPolicy shpo/it: it applies to nothing: no workload of these manifests is in namespace shpo',
    ],
  ],
  [
    'a namespace that is not there',
    authorization('{rules: [{from: [{source: {namespaces: [shpo]}}]}]}'),
    ['warning: AuthorizationPolicy shop/it: it names namespace shpo, in which these manifests have no workload'],
  ],
  [
    'a principal that is not there',
    authorization('{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/wbe]}}]}]}'),
    ['it names principal cluster.local/ns/shop/sa/wbe, which no workload of these manifests has'],
  ],
  [
    'a principal of another trust domain',
    authorization('{rules: [{from: [{source: {principals: [other/ns/shop/sa/web]}}]}]}'),
    ["principal other/ns/shop/sa/web is of another trust domain than the mesh's, cluster.local"],
  ],
  [
    'STRICT for a namespace',
    mtls('{mtls: {mode: STRICT}}'),
    [
      'mutual TLS STRICT, for all workloads of namespace shop: 2 workloads',
      'It refuses:',
      'whoever proves no identity (plaintext)',
      'who would lose access for want of an identity cannot be told from manifests',
      'what to do: culvert policy replay ',
    ],
  ],
  [
    'STRICT with an exception',
    mtls('{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: PERMISSIVE}}}'),
    ['with app=web: 1 workload (shop/web-0)', 'whoever proves no identity (plaintext), to every port but 8080'],
  ],
  [
    'PERMISSIVE',
    mtls('{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}'),
    [
      'mutual TLS PERMISSIVE, for workloads of namespace shop with app=web: 1 workload',
      'It refuses nobody: plaintext is let in',
    ],
  ],
] as ReadonlyArray<[string, string, string[]]>)
  test(`says what it would do: ${title}`, async (t) => {
    const { code, out } = await check(t, policies);
    t.is(code, 0, out);
    for (const sentence of sentences) t.true(out.includes(sentence), `${sentence}\n\n${out}`);
  });

for (const [title, policies, sentences] of [
  ['no YAML', 'a: [', ['policies.yaml:1:', 'problem: ', 'what to do: correct the YAML']],
  [
    'a field of the wrong type',
    authorization('{rules: [{from: [{source: {namespaces: shop}}]}]}'),
    [
      'policies.yaml:5:',
      'problem: AuthorizationPolicy shop/it: spec.rules[0].from[0].source.namespaces must be a list',
      'what to do: correct this field',
    ],
  ],
  [
    'what only HTTP has',
    authorization('{rules: [{to: [{operation: {paths: [/x]}}]}]}'),
    ['problem: AuthorizationPolicy shop/it: ', 'spec.rules[0].to[0].operation.paths', 'what to do: write it without'],
  ],
  [
    'an action that is not supported',
    authorization('{action: CUSTOM, rules: [{}]}'),
    ['problem: ', 'spec.action CUSTOM is not supported', 'what to do: use ALLOW or DENY', 'not enforced by agents'],
  ],
  [
    'two of one name',
    authorization('{}') + authorization('{rules: [{}]}'),
    ['problem: AuthorizationPolicy shop/it is in this file already', 'what to do: remove or rename one of the two'],
  ],
  [
    'another object that is wrong',
    '---\napiVersion: v1\nkind: Pod\nmetadata: {}\n',
    ['problem: Pod: metadata.name is missing'],
  ],
] as ReadonlyArray<[string, string, string[]]>)
  test(`fails and says where, and what to do: ${title}`, async (t) => {
    const { code, out } = await check(t, policies);
    t.is(code, 1, out);
    for (const sentence of sentences) t.true(out.includes(sentence), `${sentence}\n\n${out}`);
  });

test('a file that is not there is a problem', async (t) => {
  const { written, output } = capture();
  t.is(await main(['policy', 'check', '/nowhere/x.yaml'], output), 1);
  t.regex(written.out, /^\/nowhere\/x\.yaml:1:1: problem: .*ENOENT/);
});

test('a policy for waypoints is no mistake, but no agent enforces it', async (t) => {
  const { code, out } = await check(
    t,
    authorization('{targetRefs: [{kind: Service, group: "", name: db}], rules: [{}]}'),
  );
  t.is(code, 0);
  t.regex(out, /warning: AuthorizationPolicy shop\/it: .*spec\.targetRefs is for waypoints/);
});

test('workloads outside the mesh are named, because nothing is enforced there', async (t) => {
  const pods = podYaml('old-0', { ip: '10.0.0.3', app: 'db', enrolled: false });
  const { code, out } = await check(t, authorization('{selector: {matchLabels: {app: db}}, rules: [{}]}') + pods);
  t.is(code, 0);
  t.regex(out, /warning: .*: 1 of its 2 workloads is not in the mesh, so it is not enforced there \(shop\/old-0\)/);
});

test('without pods nothing is said about whom a policy selects', async (t) => {
  const policies = authorization(
    '{selector: {matchLabels: {app: db}}, rules: [{from: [{source: {namespaces: [x]}}]}]}',
  );
  const { code, out } = await check(t, policies, { pods: false });
  t.is(code, 0);
  t.notRegex(out, /selects nothing|names namespace|0 workloads/);
  t.regex(out, /cannot be told: give the manifests of their pods too/);
});

test('many workloads are counted, and the first are named', async (t) => {
  const pods = Array.from({ length: 9 }, (_, n) => podYaml(`x-${n}`, { ip: `10.0.1.${n}`, namespace: 'many' })).join(
    '',
  );
  const { out } = await check(t, policyYaml('AuthorizationPolicy', 'many/it', '{rules: [{}]}') + pods);
  t.true(out.includes('9 workloads (many/x-0, many/x-1, many/x-2, many/x-3, many/x-4 and 4 more)'));
});

test('machines get the same', async (t) => {
  const { code, file, out } = await check(t, authorization('{action: CUSTOM}') + mtls('{mtls: {mode: STRICT}}'), {
    json: true,
  });
  t.is(code, 1);
  const report = JSON.parse(out);
  t.false(report.sound);
  t.like(report.findings[0], { severity: 'problem', object: 'AuthorizationPolicy shop/it', file, line: 2 });
  t.is(typeof report.findings[0].advice, 'string');
  t.like(report.policies[1], {
    kind: 'PeerAuthentication',
    namespace: 'shop',
    name: 'it',
    action: 'deny',
    workloads: ['shop/web-0', 'shop/db-0'],
    outsideMesh: [],
  });
});

test('colours are for those who see them', async (t) => {
  const colour = String.fromCharCode(27);
  t.true((await check(t, authorization('{}'), { colors: true })).out.includes(`${colour}[`));
  t.false((await check(t, authorization('{}'))).out.includes(colour));
});
