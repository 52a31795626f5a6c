import test from 'ava';
import { answerQuestion } from '../../../src/agent/policy-answer.ts';
import type { PolicyAnswer } from '../../../src/agent/policy-protocol.ts';
import { parseQuestionSource, parseQuestionTarget } from '../../../src/agent/policy-question.ts';
import {
  type Address,
  type AuthorizationPolicy,
  matchOf,
  type PolicyMatch,
  ReadModel,
  type Workload,
} from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';

function policy(name: string, action: 'allow' | 'deny', ...matches: PolicyMatch[]): AuthorizationPolicy {
  const rules = matches.map((each) => ({ clauses: [{ matches: [each] }], unlessThroughWaypoint: false }));
  return { namespace: 'shop', name, scope: 'workload-selector', action, dryRun: false, rules };
}

const cidr = (text: string) => text as PolicyMatch['sourceIps'][number];
const addresses = (...texts: string[]): readonly Address[] => texts as unknown as Address[];

const web = workload({ name: 'web-0', serviceAccount: 'web', addresses: addresses('10.0.0.1', 'fd00::1') });
const web1 = workload({ name: 'web-1', serviceAccount: 'web', addresses: addresses('10.0.0.4') });
const db = workload({ name: 'db-0', serviceAccount: 'db', addresses: addresses('10.0.0.2', 'fd00::2') });
const plain = workload({ name: 'old-0', serviceAccount: 'old', protocol: 'tcp', addresses: addresses('10.0.0.3') });
const nowhere = workload({ name: 'none-0', addresses: [] });
const guarded = (policies: readonly AuthorizationPolicy[]): Workload => ({
  ...db,
  authorizationPolicies: policies.map(({ name }) => `shop/${name}`),
});

function ask(from: string, to: string, policies: readonly AuthorizationPolicy[] = [], explain = false): PolicyAnswer {
  const mesh = new ReadModel();
  const workloads = [web, web1, plain, nowhere, guarded(policies)];
  mesh.apply(meshUpdate({ complete: true, workloads, services: [service()], policies }));
  return answer(mesh, from, to, explain);
}

function answer(mesh: ReadModel, from: string, to: string, explain = false): PolicyAnswer {
  const question = { source: parseQuestionSource(from), target: parseQuestionTarget(to), explain };
  return answerQuestion({ mesh, book: new PolicyBook(mesh) }, question);
}

const webOnly = policy(
  'web-only',
  'allow',
  matchOf({ serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }] }),
);
const noPort = policy('no-port', 'deny', matchOf({ destinationPorts: [22] }));
const strict = {
  ...policy('istio_converted_static_strict', 'deny', matchOf({ notPrincipals: [{ kind: 'presence' }] })),
};
const fromBlock = policy('block', 'allow', matchOf({ sourceIps: [cidr('10.0.0.1/32')] }));
const to4 = policy('to4', 'deny', matchOf({ destinationIps: [cidr('10.0.0.2/32')] }));

for (const [title, from, to, policies, verdict, reason, text] of [
  ['nothing applies', 'shop/web-0', 'shop/db-0:80', [], 'allowed', 'no-policy', /^no policy applies to shop\/db-0$/],
  [
    'an ALLOW matches a pod',
    'shop/web-0',
    'shop/db-0:80',
    [webOnly],
    'allowed',
    'allowed',
    /shop\/web-only, rule 1, l/,
  ],
  ['an ALLOW matches an account', 'shop/web', 'shop/db-0:80', [webOnly], 'allowed', 'allowed', /web-only, rule 1/],
  ['an identity is given', 'spiffe://x/ns/shop/sa/web', '10.0.0.2:80', [webOnly], 'allowed', 'allowed', /rule 1/],
  [
    'no ALLOW matches',
    'shop/old',
    'shop/db-0:80',
    [webOnly],
    'denied',
    'not-allowed',
    /would have to: shop\/web-only$/,
  ],
  ['a DENY matches', 'shop/web-0', '[fd00::2]:22', [webOnly, noPort], 'denied', 'denied', /shop\/no-port, rule 1, ref/],
  ['a DENY does not', 'shop/web-0', '[fd00::2]:23', [noPort], 'allowed', 'no-allow-policy', /no DENY policy matches/],
  ['nobody is strict', 'none', 'shop/db-0:80', [], 'allowed', 'no-policy', /no policy/],
  [
    'STRICT is asked without identity',
    'none',
    'shop/db-0:80',
    [strict],
    'denied',
    'denied',
    /PeerAuthentication says STR/,
  ],
  ['STRICT is asked from an address', '10.0.0.1', 'shop/db-0:80', [strict], 'denied', 'denied', /nobody has proven/],
  ['a pod outside proves nothing', 'shop/old-0', 'shop/db-0:80', [strict], 'denied', 'denied', /STRICT/],
  ['a pod outside enforces nothing', 'none', 'shop/old-0:80', [], 'allowed', 'not-in-mesh', /old-0 is not in the mesh/],
  ['an address decides', '10.0.0.1', 'shop/db-0:80', [fromBlock], 'allowed', 'allowed', /shop\/block/],
  ['an address decides otherwise', '10.0.0.9', 'shop/db-0:80', [fromBlock], 'denied', 'not-allowed', /shop\/block/],
  ['a pod has the address', 'shop/web-0', '10.0.0.2:80', [fromBlock], 'allowed', 'allowed', /shop\/block/],
  [
    'the pods differ',
    'shop/web',
    'shop/db-0:80',
    [fromBlock],
    'unknown',
    'depends-on-address',
    /from 10\.0\.0\.1 .* allowed,/,
  ],
  [
    'no address is said',
    'none',
    'shop/db-0:80',
    [fromBlock],
    'unknown',
    'depends-on-address',
    /--from with an IP address/,
  ],
  ['no pod has it', 'x/y', 'shop/db-0:80', [fromBlock], 'unknown', 'depends-on-address', /--from with a pod/],
  ['the target is two', 'shop/web-0', 'shop/db-0:80', [to4], 'unknown', 'depends-on-address', /fd00::2\]:80 allowed/],
  [
    'the pod is not known',
    'none',
    'shop/db-9:80',
    [],
    'unknown',
    'no-such-pod',
    /known; pods of that namespace: shop\/db-0, /,
  ],
  ['the namespace is not known', 'none', 'shpo/db-0:80', [], 'unknown', 'no-such-pod', /has no pod in namespace shpo/],
  ['the address is not known', 'none', '10.9.9.9:80', [], 'unknown', 'no-such-pod', /has the address 10\.9\.9\.9/],
  ['the pod has no address', 'none', 'shop/none-0:80', [], 'unknown', 'no-such-pod', /has no address/],
  [
    'the target is a service',
    'none',
    'shop/web:80',
    [],
    'unknown',
    'not-a-pod',
    /the service shop\/web, .* no pod that is ready/,
  ],
  [
    'the target is the address of a service',
    'none',
    '10.96.0.1:80',
    [],
    'unknown',
    'not-a-pod',
    /10\.96\.0\.1 is the addr/,
  ],
] as ReadonlyArray<[string, string, string, AuthorizationPolicy[], string, string, RegExp]>)
  test(`where ${title}, ${from} to ${to} is ${verdict}: ${reason}`, (t) => {
    const found = ask(from, to, policies);
    t.is(found.verdict, verdict as typeof found.verdict);
    t.is(found.reason, reason);
    t.regex(found.text, text);
    t.deepEqual(found.explanation, []);
  });

test('a policy that nobody knows refuses, and is named', (t) => {
  const mesh = new ReadModel();
  const lost = { ...db, authorizationPolicies: ['shop/lost'] };
  mesh.apply(meshUpdate({ complete: true, workloads: [lost] }));
  const found = answer(mesh, 'none', 'shop/db-0:80');
  t.like(found, { verdict: 'denied', reason: 'unknown-policy', policy: 'shop/lost' });
});

test('as long as nothing is known of the mesh nothing is answered', (t) => {
  const found = answer(new ReadModel(), 'none', '10.0.0.2:80');
  t.like(found, { verdict: 'unknown', reason: 'mesh-unknown' });
});

test('the parties are told as they are known', (t) => {
  const found = ask('shop/web-0', 'shop/db-0:80', [webOnly]);
  t.deepEqual(found.source, {
    identity: 'spiffe://cluster.local/ns/shop/sa/web',
    pod: 'shop/web-0',
    addresses: ['10.0.0.1', 'fd00::1'],
  });
  t.deepEqual(found.destination, {
    pod: 'shop/db-0',
    identity: 'spiffe://cluster.local/ns/shop/sa/db',
    addresses: ['10.0.0.2', 'fd00::2'],
    port: 80,
  });
  t.deepEqual(ask('shop/web', 'shop/db-0:80').source.addresses, ['10.0.0.1', 'fd00::1', '10.0.0.4']);
  t.deepEqual(ask('none', 'shop/db-0:80').source, { addresses: [] });
});

test('a name that may be mistaken is remarked on', (t) => {
  t.regex(ask('10.0.0.1', 'shop/db-0:80').notes.join(), /is shop\/web-0, which is in the mesh/);
  t.regex(ask('shop/wbe', 'shop/db-0:80').notes.join(), /no pod of the mesh has the identity .*wbe; is the name right/);
  t.regex(ask('shop/old-0', 'shop/db-0:80').notes.join(), /not in the mesh, so its connections prove no identity/);
  t.deepEqual(ask('shop/web-0', 'shop/db-0:80').notes, []);
});

test('a pod that is called like the service account of others is the pod, and that is said', (t) => {
  const mesh = new ReadModel();
  const called = workload({ name: 'web', serviceAccount: 'other', addresses: addresses('10.0.0.8') });
  mesh.apply(meshUpdate({ complete: true, workloads: [called, web, db] }));
  const found = answer(mesh, 'shop/web', 'shop/db-0:80');
  t.is(found.source.identity, 'spiffe://cluster.local/ns/shop/sa/other');
  t.regex(
    found.notes.join(),
    /a pod and also a service account; .* --from spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web/,
  );
});

test('a dry run is told beside the answer, which it does not change', (t) => {
  const trial = { ...noPort, name: 'trial', dryRun: true };
  const found = ask('shop/web-0', 'shop/db-0:22', [trial]);
  t.is(found.verdict, 'allowed');
  t.deepEqual(found.dryRun, [{ policy: 'shop/trial', would: 'deny' }]);
});

test('a waypoint of the destination is one', (t) => {
  const mesh = new ReadModel();
  const gateway = workload({ name: 'gw-0', serviceAccount: 'gw', addresses: addresses('10.0.0.9') });
  const waypoint = {
    destination: { kind: 'address' as const, network: '', address: '10.0.0.9' as Address },
    hboneMtlsPort: 15_008,
  };
  const rule = { clauses: [], unlessThroughWaypoint: true };
  const broad: AuthorizationPolicy = { ...policy('broad', 'deny'), rules: [rule] };
  const behind = { ...db, waypoint, authorizationPolicies: ['shop/broad'] };
  mesh.apply(meshUpdate({ complete: true, workloads: [web, behind, gateway], policies: [broad] }));
  t.is(answer(mesh, 'shop/gw-0', 'shop/db-0:80').verdict, 'allowed');
  t.is(answer(mesh, 'shop/web-0', 'shop/db-0:80').verdict, 'denied');
});

test('every policy and rule is explained when that is asked for', (t) => {
  const lines = ask('shop/old', 'shop/db-0:80', [webOnly, noPort], true).explanation;
  t.true(lines.some((line) => line.includes('shop/web-only')));
  t.true(lines.some((line) => line.includes('shop/no-port')));
});
