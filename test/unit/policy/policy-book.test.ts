import { setImmediate } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';
import test from 'ava';
import { type AuthorizationPolicy, policyName } from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { Interned } from '../../../src/policy/interned.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';
import { ATTEMPT, allow, deny, dryRun, global, meshOf, named, naming, rulesOf, selected } from './policies.ts';

const WEB = { principals: ['cluster.local/ns/front/sa/web'] };
const put = (...policies: AuthorizationPolicy[]) => meshUpdate({ policies });
const again = (policy: AuthorizationPolicy): AuthorizationPolicy => structuredClone(policy);

test('workloads to which the same policies apply share their rules', (t) => {
  const book = new PolicyBook(meshOf([deny(WEB), global(allow(WEB)), named('shop/s', selected(deny()))]));
  const [a, b] = [workload({ name: 'a' }), workload({ name: 'b' })];
  t.is(book.rulesFor(a), book.rulesFor(b));
  t.is(book.rulesFor(a), book.rulesFor(workload({ name: 'a', status: 'unhealthy' })));
  t.not(book.rulesFor(a), book.rulesFor(naming('shop/s')));
  t.not(book.rulesFor(a), book.rulesFor(workload({ namespace: 'pay' })));
});

test('the order in which a workload names its policies makes no other rules', (t) => {
  const book = new PolicyBook(meshOf([named('shop/a', selected(deny(WEB))), named('shop/b', selected(allow(WEB)))]));
  t.is(book.rulesFor(naming('shop/a', 'shop/b')), book.rulesFor(naming('shop/b', 'shop/a', 'shop/b')));
});

test('rules stay the same while nothing that applies has changed', (t) => {
  const mesh = meshOf([deny(WEB)]);
  const book = new PolicyBook(mesh);
  const rules = book.rulesFor(naming());
  mesh.apply(put(named('pay/other', deny([])), named('shop/unused', selected(deny([])))));
  t.is(book.rulesFor(naming()), rules);
  mesh.apply(meshUpdate({ removedPolicies: ['pay/other', 'shop/unused'] }));
  t.is(book.rulesFor(naming()), rules);
});

test('rules stay the same when the same policies are sent again', (t) => {
  const mesh = meshOf([deny(WEB), named('shop/b', allow(WEB)), global(allow([]))]);
  const book = new PolicyBook(mesh);
  const rules = book.rulesFor(naming());
  mesh.apply(put(again(deny(WEB))));
  t.is(book.rulesFor(naming()), rules);
  mesh.apply({ ...mesh.snapshot(), policies: [...mesh.policies()].map(again).reverse() });
  t.is(book.rulesFor(naming()), rules);
});

test('rules are others after each change of what applies, and the ones before when it is taken back', (t) => {
  const mesh = meshOf([deny(WEB)]);
  const book = new PolicyBook(mesh);
  const of = naming();
  const first = book.rulesFor(of);
  const changes: readonly AuthorizationPolicy[] = [
    deny([]),
    dryRun(deny(WEB)),
    named('shop/b', allow(WEB)),
    global(deny()),
  ];
  const seen = new Set([first]);
  for (const change of changes) {
    mesh.apply(put(change));
    seen.add(book.rulesFor(of));
  }
  t.is(seen.size, 5);
  mesh.apply(meshUpdate({ policies: [deny(WEB)], removedPolicies: changes.slice(1).map(policyName) }));
  t.is(book.rulesFor(of), first);
});

test('rules know a policy that the workload names as soon as it comes, and that it is missing when it goes', (t) => {
  const mesh = meshOf([]);
  const book = new PolicyBook(mesh);
  const of = naming('shop/late');
  t.deepEqual(book.rulesFor(of).unknown, ['shop/late']);
  t.is(book.rulesFor(of).decide(ATTEMPT).reason, 'unknown-policy');
  mesh.apply(put(named('shop/late', selected(allow(WEB)))));
  t.deepEqual(book.rulesFor(of).unknown, []);
  t.is(book.rulesFor(of).decide(ATTEMPT).reason, 'allowed');
  mesh.apply(meshUpdate({ removedPolicies: ['shop/late'] }));
  t.is(book.rulesFor(of).decide(ATTEMPT).reason, 'unknown-policy');
});

test('rules say whether an enforced policy looks at source addresses, and whether any is a dry run', (t) => {
  const fields = { sourceIps: ['10.0.0.0/8'] };
  const facts = (...policies: AuthorizationPolicy[]) => {
    const { dependsOnSourceAddress, hasDryRun } = rulesOf(policies);
    return [dependsOnSourceAddress, hasDryRun];
  };
  t.deepEqual(facts(), [false, false]);
  t.deepEqual(facts(deny(WEB, { destinationIps: ['10.0.0.0/8'] })), [false, false]);
  t.deepEqual(facts(deny(WEB, fields)), [true, false]);
  t.deepEqual(facts(allow([[], [WEB, { notSourceIps: ['10.0.0.0/8'] }]])), [true, false]);
  t.deepEqual(facts(dryRun(deny(fields))), [false, true]);
  t.deepEqual(facts(named('pay/deny', deny(fields))), [false, false]);
});

test('rules list what applies by name', (t) => {
  const rules = rulesOf([named('shop/b', deny()), global(allow()), named('shop/a', allow([]))]);
  t.deepEqual(rules.policies.map(policyName), ['istio-system/allow', 'shop/a', 'shop/b']);
});

test('what nobody holds any more is not kept', async (t) => {
  v8.setFlagsFromString('--expose-gc');
  const collect: () => void = vm.runInNewContext('gc');
  const interned = new Interned<object>();
  const held = interned.get('held', () => ({}));
  for (let count = 0; count < 100; count += 1) interned.get(`${count}`, () => ({ count }));
  t.is(interned.size, 101);
  while (interned.size > 1) {
    await setImmediate();
    collect();
  }
  t.is(
    interned.get('held', () => ({})),
    held,
  );
});
