/** How workloads talk to those of their own node: mesh.yaml, and annotations on Namespace and Pod. */
import test from 'ava';
import { build, meshConfig, namespace, pod, workloadEntry, workloadOf } from './objects.ts';

const said = (value: string) => ({ annotations: `{culvert.dev/same-node: ${value}}` });

for (const [title, texts, expected] of [
  ['by the kernel where nobody says anything', [pod()], 'kernel'],
  ['as the mesh says', [meshConfig('sameNode: mtls'), pod()], 'mtls'],
  ['as the namespace says', [namespace('shop', said('mtls')), pod()], 'mtls'],
  [
    'as the namespace says, not the mesh',
    [meshConfig('sameNode: mtls'), namespace('shop', said('kernel')), pod()],
    'kernel',
  ],
  ['as the pod says', [pod(said('mtls'))], 'mtls'],
  ['as the pod says, not its namespace', [namespace('shop', said('mtls')), pod(said('kernel'))], 'kernel'],
  ['as no other namespace says', [namespace('other', said('mtls')), pod()], 'kernel'],
  ['safely if the pod says what it cannot', [pod(said('Kernel'))], 'mtls'],
  ['safely if its namespace says what it cannot', [namespace('shop', said('""')), pod()], 'mtls'],
  [
    'as it says itself if its namespace says what it cannot',
    [namespace('shop', said('x')), pod(said('kernel'))],
    'kernel',
  ],
] as const)
  test(`a pod talks to its own node ${title}`, (t) => t.is(workloadOf(build(...texts)).sameNode, expected));

test('a machine talks to its own node as the mesh says', (t) => {
  t.is(workloadOf(build(workloadEntry({})), 'vm').sameNode, 'kernel');
  t.is(workloadOf(build(meshConfig('sameNode: mtls'), workloadEntry({})), 'vm').sameNode, 'mtls');
});

test('what an annotation cannot say is reported where it stands, once for a namespace', (t) => {
  const { findings } = build(namespace('shop', said('x')), pod(), pod({ name: 'web-2', ...said('y') }));
  const field = 'metadata.annotations["culvert.dev/same-node"]';
  t.deepEqual(
    findings.map(({ reason, text, field: where, object }) => [object.kind, reason, where, text]),
    ['Namespace', 'Pod'].map((kind) => [kind, 'field', field, `${field} must be kernel or mtls; mtls counts.`]),
  );
});
