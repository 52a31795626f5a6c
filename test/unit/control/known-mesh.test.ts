import test from 'ava';
import { KnownMesh } from '../../../src/control/known-mesh.ts';
import type { Address, AuthorizationPolicy, MeshUpdate } from '../../../src/mesh/index.ts';
import { meshSettings, meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';

const [one, two] = [workload({ name: 'one' }), workload({ name: 'two' })];
const moved = { ...two, addresses: ['10.0.0.9' as Address] };
const web = service();
const allow: AuthorizationPolicy = {
  namespace: 'shop',
  name: 'allow',
  scope: 'namespace',
  action: 'allow',
  rules: [],
  dryRun: false,
};
const deny: AuthorizationPolicy = { ...allow, name: 'deny', action: 'deny' };
const whole = meshUpdate({ complete: true, workloads: [one, two], services: [web], policies: [allow, deny] });

function after(...updates: MeshUpdate[]): KnownMesh {
  const known = new KnownMesh();
  for (const update of updates) known.take(update);
  return known;
}

for (const [title, before, update, news] of [
  ['the first complete update is passed on whole', [], whole, whole],
  ['an empty mesh is news at first', [], meshUpdate({ complete: true }), meshUpdate({ complete: true })],
  ['a change is passed on as it is', [whole], meshUpdate({ removed: [one.uid] }), meshUpdate({ removed: [one.uid] })],
  ['the same again is no news', [whole], structuredClone(whole), undefined],
  [
    'of another complete update only what differs is news',
    [whole],
    meshUpdate({
      complete: true,
      workloads: [structuredClone(one), moved],
      services: [],
      policies: [{ ...allow, dryRun: true }],
    }),
    meshUpdate({
      workloads: [moved],
      removed: ['shop/web.shop.svc.cluster.local'],
      policies: [{ ...allow, dryRun: true }],
      removedPolicies: ['shop/deny'],
    }),
  ],
  [
    'changes since the complete update are known',
    [whole, meshUpdate({ workloads: [moved], removed: [one.uid], removedPolicies: ['shop/deny'] })],
    meshUpdate({ complete: true, workloads: [moved], services: [web], policies: [structuredClone(allow)] }),
    undefined,
  ],
  [
    'a policy that is gone is news',
    [whole],
    { ...whole, policies: [allow] },
    meshUpdate({ removedPolicies: ['shop/deny'] }),
  ],
  [
    'other settings are news',
    [whole],
    { ...whole, settings: { ...meshSettings, network: 'east' } },
    meshUpdate({ settings: { ...meshSettings, network: 'east' } }),
  ],
] as Array<[string, MeshUpdate[], MeshUpdate, MeshUpdate | undefined]>)
  test(title, (t) => t.deepEqual(after(...before).take(update), news));

test('what was forgotten is news again, whole', (t) => {
  const known = after(whole);
  known.forget();
  t.deepEqual(known.take(whole), whole);
});
