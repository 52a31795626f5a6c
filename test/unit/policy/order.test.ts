import test from 'ava';
import { PolicyBook } from '../../../src/policy/index.ts';
import { laws } from './law.ts';
import { judge } from './oracle.ts';
import {
  ATTEMPT,
  allow,
  by,
  deny,
  dryRun,
  global,
  meshOf,
  named,
  naming,
  nobody,
  rulesOf,
  selected,
  throughWaypoint,
  to,
  unlessThroughWaypoint,
} from './policies.ts';

const WEB = { principals: ['cluster.local/ns/front/sa/web'] };
const API = { principals: ['cluster.local/ns/front/sa/api'] };
const PORT = { destinationPorts: [8080] };
const STRICT = named('istio-system/istio_converted_static_strict', selected(deny({ notPrincipals: ['*'] })));
const strict = naming('istio-system/istio_converted_static_strict');
/** Base not strict, some ports STRICT. */
const PORTS_STRICT = named(
  'shop/converted_peer_authentication_web',
  selected(
    deny({ notPrincipals: ['*'], destinationPorts: [8080] }, { notPrincipals: ['*'], destinationPorts: [9090] }),
  ),
);
/** Base strict, some ports PERMISSIVE. */
const PORTS_OPEN = named(
  'shop/converted_peer_authentication_web',
  selected(deny([[{ notPrincipals: ['*'] }], [{ notDestinationPorts: [8080] }], [{ notDestinationPorts: [9090] }]])),
);
const converted = naming('shop/converted_peer_authentication_web');

// biome-ignore format: one law a line
laws('5.1', [
  ['without any policy everything is let in', 'no-policy', []],
  ['without any policy nobody is let in too', 'no-policy', [], nobody],
  ['a policy of the destination\'s namespace applies', 'denied shop/deny#0', [deny([])]],
  ['a policy of another namespace does not apply', 'no-policy', [named('pay/deny', deny([]))]],
  ['a policy of the source\'s namespace does not apply', 'no-policy', [named('front/deny', deny([]))]],
  ['a global policy applies in every namespace', 'denied istio-system/deny#0', [global(deny([]))]],
  ['a global policy applies whatever namespace it is of', 'denied pay/deny#0', [{ ...global(deny([])), namespace: 'pay' }]],
  ['a namespace policy of the root namespace applies only there', 'no-policy', [named('istio-system/deny', deny([]))]],
  ['a selector policy does not apply to a workload that does not name it', 'no-policy', [selected(deny([]))]],
  ['a selector policy applies to a workload that names it', 'denied shop/deny#0', [selected(deny([]))], {}, naming('shop/deny')],
  ['a selector policy of another namespace applies to a workload that names it', 'denied pay/deny#0', [named('pay/deny', selected(deny([])))], {}, naming('pay/deny')],
  ['a policy of the same name of another namespace is another', 'unknown-policy shop/deny', [named('pay/deny', selected(deny()))], {}, naming('shop/deny')],
  ['a namespace policy of another namespace applies to a workload that names it', 'denied pay/deny#0', [named('pay/deny', deny([]))], {}, naming('pay/deny')],
  ['a policy that applies and is named applies once', 'not-allowed', [allow(API)], {}, naming('shop/allow')],
  ['a policy that is named twice applies once', 'not-allowed', [selected(allow(API))], {}, naming('shop/allow', 'shop/allow')],
  ['a global policy that is named applies once', 'denied istio-system/deny#0', [global(deny([]))], {}, naming('istio-system/deny')],
  ['all scopes apply together', 'denied pay/deny#0', [allow([]), global(allow([])), named('pay/deny', selected(deny([])))], {}, naming('pay/deny')],
  ['an ALLOW of one scope is enough beside one of another that does not match', 'allowed istio-system/allow#0', [allow(API), global(allow(WEB))]],
  ['a named policy that nobody knows lets nothing in', 'unknown-policy shop/gone', [], {}, naming('shop/gone')],
  ['a named policy that nobody knows lets nothing in although an ALLOW matches', 'unknown-policy shop/gone', [allow([])], {}, naming('shop/gone')],
  ['a named policy that nobody knows lets nobody in', 'unknown-policy shop/gone', [], nobody, naming('shop/gone')],
  ['a DENY that matches says so also where a policy is not known', 'denied shop/deny#0', [deny([])], {}, naming('shop/gone')],
  ['a DENY that does not match leaves the no to the policy that is not known', 'unknown-policy shop/gone', [deny(API)], {}, naming('shop/gone')],
  ['one policy that is not known is enough', 'unknown-policy shop/gone', [selected(allow([]))], {}, naming('shop/allow', 'shop/gone')],
  ['of several that are not known the first by name is told', 'unknown-policy shop/a', [], {}, naming('shop/b', 'shop/a')],
  ['a name without a slash is one that nobody knows', 'unknown-policy odd', [], {}, naming('odd')],
  ['a dry-run policy that is named is known', 'no-allow-policy', [selected(dryRun(deny([])))], {}, naming('shop/dry-deny')],
]);

// biome-ignore format: one law a line
laws('5.2', [
  ['a DENY that matches refuses', 'denied shop/deny#0', [deny(WEB)]],
  ['a DENY that does not match does not refuse', 'no-allow-policy', [deny(API)]],
  ['a DENY comes before an ALLOW that matches too', 'denied shop/deny#0', [allow(WEB), deny(WEB)]],
  ['a DENY comes before an ALLOW also where it has a later name', 'denied shop/z#0', [named('shop/a', allow([])), named('shop/z', deny([]))]],
  ['a global DENY comes before an ALLOW of the namespace', 'denied istio-system/deny#0', [allow(WEB), global(deny(WEB))]],
  ['a DENY of the namespace comes before a global ALLOW', 'denied shop/deny#0', [global(allow(WEB)), deny(WEB)]],
  ['one DENY of several is enough', 'denied shop/b#0', [named('shop/a', deny(API)), named('shop/b', deny(WEB))]],
  ['of several DENY that match the first by name is told', 'denied shop/a#0', [named('shop/b', deny(WEB)), named('shop/a', deny([]))]],
  ['of several rules that match the first is told', 'denied shop/deny#1', [deny(API, WEB, [])]],
  ['the first rule is told also where a later one is narrower', 'denied shop/deny#0', [deny([], WEB)]],
  ['without an ALLOW whatever is not denied is let in', 'no-allow-policy', [deny(API), global(deny(API))]],
  ['an ALLOW that matches lets in', 'allowed shop/allow#0', [allow(WEB)]],
  ['an ALLOW that does not match refuses', 'not-allowed', [allow(API)]],
  ['one ALLOW of several is enough', 'allowed shop/b#0', [named('shop/a', allow(API)), named('shop/b', allow(WEB))]],
  ['of several ALLOW that match the first by name is told', 'allowed shop/a#0', [named('shop/b', allow(WEB)), named('shop/a', allow([]))]],
  ['an ALLOW that matches is enough beside a DENY that does not', 'allowed shop/allow#0', [allow(WEB), deny(API)]],
  ['neither a DENY nor an ALLOW that match: refused', 'not-allowed', [allow(API), deny(API)]],
  ['a dry-run DENY that matches does not refuse', 'no-allow-policy', [dryRun(deny(WEB))]],
  ['a dry-run DENY that matches does not refuse what an ALLOW lets in', 'allowed shop/allow#0', [dryRun(deny(WEB)), allow(WEB)]],
  ['a dry-run ALLOW that matches lets nothing in beside an ALLOW that does not', 'not-allowed', [dryRun(allow(WEB)), allow(API)]],
  ['a dry-run ALLOW that does not match refuses nothing', 'no-allow-policy', [dryRun(allow(API))]],
  ['a dry-run ALLOW without rules refuses nothing', 'no-allow-policy', [dryRun(allow())]],
  ['a dry-run policy refuses nothing where nothing else applies', 'no-allow-policy', [dryRun(deny([])), dryRun(allow())]],
  ['a dry-run ALLOW does not make up for a DENY', 'denied shop/deny#0', [dryRun(allow([])), deny([])]],
]);

// biome-ignore format: one law a line
laws('5.4', [
  ['STRICT refuses who has no identity', 'denied istio-system/istio_converted_static_strict#0', [STRICT], nobody, strict],
  ['STRICT does not refuse who has one', 'no-allow-policy', [STRICT], {}, strict],
  ['STRICT does not refuse who has one of another trust domain', 'no-allow-policy', [STRICT], by('spiffe://other/ns/a/sa/b'), strict],
  ['STRICT is for the workloads that name it', 'no-policy', [STRICT], nobody],
  ['STRICT that has not been received yet refuses all', 'unknown-policy istio-system/istio_converted_static_strict', [], {}, strict],
  ['STRICT refuses nobody although an ALLOW would let them in', 'denied', [STRICT, allow(PORT)], nobody, strict],
  ['STRICT leaves identities to the ALLOW policies', 'not-allowed', [STRICT, allow(API)], {}, strict],
  ['a port that is STRICT refuses who has no identity', 'denied shop/converted_peer_authentication_web#0', [PORTS_STRICT], nobody, converted],
  ['another port that is STRICT refuses who has no identity', 'denied shop/converted_peer_authentication_web#1', [PORTS_STRICT], { ...nobody, ...to('9090') }, converted],
  ['beside STRICT ports the others let nobody in', 'no-allow-policy', [PORTS_STRICT], { ...nobody, ...to('80') }, converted],
  ['a port that is STRICT does not refuse who has an identity', 'no-allow-policy', [PORTS_STRICT], {}, converted],
  ['a PERMISSIVE port of a STRICT workload lets nobody in', 'no-allow-policy', [PORTS_OPEN], nobody, converted],
  ['another PERMISSIVE port of a STRICT workload lets nobody in', 'no-allow-policy', [PORTS_OPEN], { ...nobody, ...to('9090') }, converted],
  ['beside PERMISSIVE ports the others are STRICT', 'denied shop/converted_peer_authentication_web#0', [PORTS_OPEN], { ...nobody, ...to('80') }, converted],
  ['beside PERMISSIVE ports the others do not refuse who has an identity', 'no-allow-policy', [PORTS_OPEN], to('80'), converted],
]);

const NOT_L4 = unlessThroughWaypoint(deny(PORT));
// biome-ignore format: one law a line
laws('DENY that needs more than L4', [
  ['refuses who does not come through the waypoint', 'denied shop/deny#0', [NOT_L4]],
  ['is left to the waypoint that the connection comes through', 'no-allow-policy', [NOT_L4], throughWaypoint],
  ['refuses nobody, who cannot be a waypoint', 'denied shop/deny#0', [NOT_L4], { ...nobody, ...throughWaypoint }],
  ['does not refuse what it does not speak of', 'no-allow-policy', [NOT_L4], to('80')],
  ['is left to the waypoint rule by rule', 'denied shop/deny#1', [{ ...NOT_L4, rules: [...NOT_L4.rules, ...deny(WEB).rules] }], throughWaypoint],
  ['an ALLOW is not left to the waypoint', 'allowed shop/allow#0', [unlessThroughWaypoint(allow(WEB))], throughWaypoint],
  ['a DENY of L4 alone is not left to the waypoint', 'denied shop/deny#0', [deny(PORT)], throughWaypoint],
  ['an ALLOW that does not match is not made up for by the waypoint', 'not-allowed', [NOT_L4, allow(API)], throughWaypoint],
]);

// biome-ignore format: one a line
const TEXTS: ReadonlyArray<readonly [string, Parameters<typeof rulesOf>]> = [
  ['explicitly denied by: shop/deny', [[deny([])]]],
  ['explicitly denied by: istio-system/deny', [[global(deny([]))]]],
  ['allow policies exist, but none allowed', [[allow()]]],
  ['policy not known: shop/gone', [[], naming('shop/gone')]],
  ['allowed by: shop/allow', [[allow([])]]],
  ['no policy applies', [[]]],
  ['no ALLOW policy applies, and none denies', [[deny()]]],
];

for (const [text, [policies, workload]] of TEXTS)
  test(`5.6: a decision says in the log: ${text}`, (t) => {
    t.is(rulesOf(policies, workload).decide(ATTEMPT).text, text);
  });

test('nothing is let in to a workload that nobody knows', (t) => {
  for (const policies of [[], [allow([])], [deny([])]]) {
    const rules = new PolicyBook(meshOf(policies)).rulesFor(undefined);
    const { allowed, reason, text } = rules.decide(ATTEMPT);
    t.deepEqual([allowed, reason, text], [false, 'workload-unknown', 'workload not found']);
    t.is(judge(policies, undefined, ATTEMPT).reason, 'workload-unknown');
    t.deepEqual(rules.openness(), { kind: 'ports', others: false, ports: new Map() });
  }
});

test('5.2: who is not allowed is told which policies would have had to match', (t) => {
  const policies = [
    named('shop/b', allow(API)),
    named('shop/a', allow()),
    dryRun(allow([])),
    deny(API),
    global(allow(API)),
  ];
  const { candidates, policy, rule } = rulesOf(policies).decide(ATTEMPT);
  t.deepEqual(candidates, ['istio-system/allow', 'shop/a', 'shop/b']);
  t.deepEqual([policy, rule], [undefined, undefined]);
});

test('5.2: only who is not allowed is told of candidates', (t) => {
  for (const policies of [[], [deny([])], [allow([])], [allow(API), deny([])], [deny(API)]])
    t.deepEqual(rulesOf(policies).decide(ATTEMPT).candidates, []);
});

// biome-ignore format: one a line
const DRY_RUNS: ReadonlyArray<readonly [string, string, Parameters<typeof rulesOf>]> = [
  ['a DENY that matches would deny', 'shop/dry-deny deny', [[dryRun(deny(WEB))]]],
  ['a DENY that does not match would do nothing', '', [[dryRun(deny(API))]]],
  ['a DENY would deny also what an ALLOW lets in', 'shop/dry-deny deny', [[dryRun(deny(WEB)), allow(WEB)]]],
  ['a DENY would deny also what another DENY refuses', 'shop/dry-deny deny', [[dryRun(deny(WEB)), deny(WEB)]]],
  ['a DENY would deny also where a policy is not known', 'shop/dry-deny deny', [[dryRun(deny(WEB))], naming('shop/gone')]],
  ['an ALLOW that matches would allow', 'shop/dry-allow allow', [[dryRun(allow(WEB))]]],
  ['an ALLOW that matches would allow what another one does not', 'shop/dry-allow allow', [[dryRun(allow(WEB)), allow(API)]]],
  ['an ALLOW that does not match would deny if there is no other', 'shop/dry-allow not-allow', [[dryRun(allow(API))]]],
  ['an ALLOW without rules would deny if there is no other', 'shop/dry-allow not-allow', [[dryRun(allow())]]],
  ['an ALLOW that does not match would do nothing beside an enforced one that matches', '', [[dryRun(allow(API)), allow(WEB)]]],
  ['an ALLOW that does not match would do nothing beside an enforced one that does not match either', '', [[dryRun(allow(API)), allow(API)]]],
  ['an ALLOW that does not match would do nothing beside a dry-run one that does', 'shop/dry-b allow', [[dryRun(allow(API)), dryRun(named('shop/b', allow(WEB)))]]],
  ['each of the ALLOW that do not match would deny', 'shop/dry-allow not-allow, shop/dry-b not-allow', [[dryRun(allow(API)), dryRun(named('shop/b', allow(API)))]]],
  ['an ALLOW is not asked about what a DENY refuses', '', [[dryRun(allow(WEB)), deny(WEB)]]],
  ['an ALLOW is not asked where a policy is not known', '', [[dryRun(allow(WEB))], naming('shop/gone')]],
  ['a DENY and an ALLOW are both told', 'shop/dry-deny deny, shop/dry-allow allow', [[dryRun(allow(WEB)), dryRun(deny(WEB))]]],
  ['an enforced policy is none of these', '', [[allow(WEB), deny(API)]]],
];

for (const [title, outcome, [policies, workload]] of DRY_RUNS)
  test(`5.2: in a dry run ${title}`, (t) => {
    const { dryRun: outcomes } = rulesOf(policies, workload).decide(ATTEMPT);
    t.is(outcomes.map(({ policy, would }) => `${policy} ${would}`).join(', '), outcome);
  });
