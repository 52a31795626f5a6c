import { symlinkSync } from 'node:fs';
import test from 'ava';
import { readManifests } from '../../../src/control/index.ts';
import { ReadModel } from '../../../src/mesh/index.ts';
import { ManifestDirectory } from './folder.ts';
import { authorizationPolicy, peerAuthentication, pod, service } from './objects.ts';

const SELECTOR = 'selector: {matchLabels: {app: web}}';

test('files and folders become one mesh, that a read model takes', async (t) => {
  const directory = new ManifestDirectory(t);
  directory.write('all/web.yaml', `${pod()}\n---\n${service()}`);
  directory.write('all/below/policy.yml', authorizationPolicy({ spec: [SELECTOR] }));
  directory.write('all/.hidden/pod.yaml', pod({ name: 'hidden' }));
  directory.write('all/notes.txt', 'nothing');
  symlinkSync('..', directory.file('all/below/up'));
  const file = directory.write('strict.manifest', peerAuthentication());
  const { problems, findings, mesh, policies } = await readManifests([file, directory.file('all'), file]);
  t.deepEqual(problems, []);
  t.deepEqual(findings, []);
  const model = new ReadModel();
  model.apply(mesh);
  t.true(model.isComplete);
  const web = model.workload('Kubernetes//Pod/shop/web-1');
  t.deepEqual(web?.authorizationPolicies, ['istio-system/istio_converted_static_strict', 'shop/only']);
  t.is(web && model.policiesOf(web).policies.length, 2);
  t.deepEqual(
    policies.map(({ kind, namespace, name }) => `${kind} ${namespace}/${name}`),
    ['PeerAuthentication shop/strict', 'AuthorizationPolicy shop/only'],
  );
});

test('each policy comes with what agents are told of it', async (t) => {
  const directory = new ManifestDirectory(t);
  const file = directory.write(
    'a.yaml',
    [
      authorizationPolicy({ spec: ['action: DENY', 'rules: [{}]'] }),
      authorizationPolicy({ name: 'audit', spec: ['action: AUDIT'] }),
      peerAuthentication(),
      peerAuthentication({ name: 'open', spec: [SELECTOR, 'mtls: {mode: PERMISSIVE}'] }),
      peerAuthentication({ name: 'ports', spec: [SELECTOR, 'portLevelMtls: {80: {mode: PERMISSIVE}}'] }),
    ].join('\n---\n'),
  );
  const { policies, findings } = await readManifests([file]);
  t.deepEqual(
    policies.map(({ name, policy, condition, place }) => [name, policy?.name, condition.status, place.line]),
    [
      ['only', 'only', 'True', 1],
      ['audit', undefined, 'False', 12],
      ['strict', 'istio_converted_static_strict', 'True', 22],
      ['open', undefined, 'True', 32],
      ['ports', 'converted_peer_authentication_ports', 'True', 43],
    ],
  );
  t.like(findings, [
    {
      object: 'AuthorizationPolicy shop/audit',
      place: { file, line: 12, column: 1 },
      condition: { status: 'False' },
    },
  ]);
  t.deepEqual(policies[0]?.condition, {
    type: 'ZtunnelAccepted',
    status: 'True',
    reason: 'Accepted',
    message: 'It is enforced as it is written.',
    ignored: [],
  });
});

test('what is wrong is reported with its place; the rest is read', async (t) => {
  const directory = new ManifestDirectory(t);
  const broken = directory.write('a.yaml', `${pod()}\n---\n${authorizationPolicy({ spec: ['rules: 3'] })}`);
  const second = directory.write('b.yaml', pod());
  const missing = directory.file('c.yaml');
  const { problems, mesh, policies } = await readManifests([broken, second, missing]);
  t.like(problems, [
    { reason: 'field', field: 'spec.rules', place: { file: broken, line: 22, column: 3 } },
    { reason: 'unreadable', place: { file: missing, line: 1, column: 1 } },
    { reason: 'duplicate', place: { file: second, line: 1, column: 1 } },
  ]);
  t.is(problems.length, 3);
  t.is(mesh.workloads.length, 1);
  t.deepEqual(policies, []);
});

test('each policy comes with whom it selects', async (t) => {
  const directory = new ManifestDirectory(t);
  directory.write(
    'a.yaml',
    [
      pod(),
      pod({ name: 'far', namespace: 'far' }),
      pod({ name: 'db', labels: '{app: db}' }),
      authorizationPolicy({ spec: [SELECTOR] }),
      authorizationPolicy({ name: 'all' }),
      authorizationPolicy({ namespace: 'istio-system', spec: [SELECTOR] }),
      peerAuthentication({ spec: [SELECTOR, 'mtls: {mode: STRICT}'] }),
    ].join('\n---\n'),
  );
  const { policies } = await readManifests([directory.path]);
  t.deepEqual(
    policies.map(({ selector, selected, mtls }) => [selector.app, selected.map(({ name }) => name), mtls]),
    [
      ['web', ['web-1'], undefined],
      [undefined, [], undefined],
      ['web', ['web-1', 'far'], undefined],
      ['web', ['web-1'], 'STRICT'],
    ],
  );
});

test('of two policies of one name only the first counts', async (t) => {
  const directory = new ManifestDirectory(t);
  const first = directory.write('a.yaml', authorizationPolicy({ spec: ['action: DENY'] }));
  directory.write('b.yaml', authorizationPolicy());
  const { policies, problems } = await readManifests([directory.path]);
  t.like(policies, [{ name: 'only', policy: { action: 'deny' }, place: { file: first } }]);
  t.is(policies.length, 1);
  t.like(problems, [{ reason: 'duplicate' }]);
});

test('no manifests are a mesh of nobody', async (t) => {
  const { problems, mesh } = await readManifests([]);
  t.deepEqual(problems, []);
  t.like(mesh, { complete: true, workloads: [], policies: [] });
});
