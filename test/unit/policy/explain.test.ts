import test from 'ava';
import type { AuthorizationPolicy } from '../../../src/mesh/index.ts';
import { type Attempt, explanationLines } from '../../../src/policy/index.ts';
import {
  ATTEMPT,
  allow,
  by,
  deny,
  dryRun,
  naming,
  nobody,
  rulesOf,
  selected,
  throughWaypoint,
  unlessThroughWaypoint,
} from './policies.ts';

const API = { principals: ['cluster.local/ns/front/sa/api'] };

function lines(policies: readonly AuthorizationPolicy[], changes: Partial<Attempt> = {}): string[] {
  return explanationLines(rulesOf(policies).explain({ ...ATTEMPT, ...changes }));
}

test('an explanation names every field that does not hold, what it wants and what there is', (t) => {
  const fields = { principals: [...API.principals, '*/sa/job'], destinationPorts: [80, 443], notNamespaces: ['fr*'] };
  t.deepEqual(lines([allow(fields)]), [
    'denied: allow policies exist, but none allowed',
    'shop/allow (ALLOW, namespace) does not match',
    '  rule 1 does not match',
    '    clause 1, match 1: destinationPorts: 8080 is none of 80, 443',
    '    clause 1, match 1: principals: cluster.local/ns/front/sa/web is none of cluster.local/ns/front/sa/api, */sa/job',
    '    clause 1, match 1: notNamespaces: front is among fr*',
  ]);
});

test('an explanation tells addresses and accounts', (t) => {
  const fields = { sourceIps: ['10.2.0.0/16'], destinationIps: ['10.0.0.2'], serviceAccounts: ['front/api'] };
  t.deepEqual(lines([allow(fields)]).slice(3), [
    '    clause 1, match 1: serviceAccounts: front/web is none of front/api',
    '    clause 1, match 1: sourceIps: 10.1.2.3 is none of 10.2.0.0/16',
    '    clause 1, match 1: destinationIps: 10.0.0.1 is none of 10.0.0.2/32',
  ]);
});

test('an explanation tells of nobody that there is no identity', (t) => {
  t.deepEqual(lines([allow(API, { namespaces: ['front'] })], nobody).slice(2), [
    '  rule 1 does not match',
    '    clause 1, match 1: principals: no identity is none of cluster.local/ns/front/sa/api',
    '  rule 2 does not match',
    '    clause 1, match 1: namespaces: no identity is none of front',
  ]);
});

test('an explanation names only the clauses that fail, with each of their matches', (t) => {
  t.deepEqual(lines([deny([[{ destinationPorts: [8080] }], [{}, API]])]), [
    'allowed: no ALLOW policy applies, and none denies',
    'shop/deny (DENY, namespace) does not match',
    '  rule 1 does not match',
    '    clause 2, match 1: it has no field, so it never matches',
    '    clause 2, match 2: principals: cluster.local/ns/front/sa/web is none of cluster.local/ns/front/sa/api',
  ]);
});

test('an explanation tells which rules match', (t) => {
  t.deepEqual(lines([allow(API, []), dryRun(deny({ destinationPorts: [8080] })), deny()]), [
    'allowed: allowed by: shop/allow',
    'shop/allow (ALLOW, namespace) matches',
    '  rule 1 does not match',
    '    clause 1, match 1: principals: cluster.local/ns/front/sa/web is none of cluster.local/ns/front/sa/api',
    '  rule 2 matches: it asks for nothing',
    'shop/deny (DENY, namespace) does not match: it has no rule',
    'shop/dry-deny (dry-run DENY, namespace) matches',
    '  rule 1 matches',
  ]);
});

test('an explanation tells what is left to the waypoint', (t) => {
  t.deepEqual(lines([unlessThroughWaypoint(deny([]))], { ...by('istio-system/gate'), ...throughWaypoint }), [
    'allowed: no ALLOW policy applies, and none denies',
    'shop/deny (DENY, namespace) does not match',
    '  rule 1 is left to the waypoint that the connection comes from',
  ]);
});

test('an explanation names what is missing, and has the decision with all its parts', (t) => {
  const rules = rulesOf([selected(allow(API))], naming('shop/gone', 'shop/allow'));
  const explanation = rules.explain(ATTEMPT);
  t.deepEqual(explanation.decision, rules.decide(ATTEMPT));
  t.deepEqual(explanation.unknown, ['shop/gone']);
  t.deepEqual(explanationLines(explanation).slice(0, 3), [
    'denied: policy not known: shop/gone',
    'policy shop/gone is named by the workload and not known',
    'shop/allow (ALLOW, workload-selector) does not match',
  ]);
});
