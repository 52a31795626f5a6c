import test from 'ava';
import type { Address, AuthorizationPolicy } from '../../../src/mesh/index.ts';
import { type Attempt, type Decision, PolicyBook } from '../../../src/policy/index.ts';
import { judge } from './oracle.ts';
import { meshOf } from './policies.ts';
import { Random, randomAttempt, randomCase } from './random.ts';

const ATTEMPTS = 20_000;
const PER_CASE = 5;

function comparable({ allowed, reason, candidates, dryRun }: Decision) {
  return {
    allowed,
    reason,
    candidates: candidates.toSorted(),
    dryRun: dryRun.map(({ policy, would }) => `${policy} ${would}`).sort(),
  };
}

test('random policies and attempts: decided as the oracle does, for one of its reasons, and as explained', (t) => {
  const random = new Random(1);
  const seen = new Map<string, number>();
  for (let count = 0; count < ATTEMPTS / PER_CASE; count += 1) {
    const { policies, workload } = randomCase(random, count % 50 === 0 ? 60 : 8);
    const rules = new PolicyBook(meshOf(policies)).rulesFor(workload);
    for (let each = 0; each < PER_CASE; each += 1) {
      const attempt = randomAttempt(random);
      const decision = rules.decide(attempt);
      const { because, ...oracle } = judge(policies, workload, attempt);
      const isSame = JSON.stringify(sorted(comparable(decision))) === JSON.stringify(sorted(oracle));
      const isNamed =
        decision.policy === undefined
          ? because.length === 0
          : because.includes(decision.rule === undefined ? decision.policy : `${decision.policy}#${decision.rule}`);
      if (!isSame || !isNamed) t.fail(JSON.stringify({ policies, workload, attempt, decision, oracle, because }));
      const explanation = rules.explain(attempt);
      const matched = explanation.policies
        .filter(({ matched: is, dryRun }) => is && !dryRun)
        .map(({ policy }) => policy);
      if (decision.policy !== undefined && decision.rule !== undefined) t.true(matched.includes(decision.policy));
      t.true(explanation.decision.allowed === decision.allowed);
      seen.set(decision.reason, (seen.get(decision.reason) ?? 0) + 1);
    }
  }
  // All of it was worth asking.
  for (const reason of ['no-policy', 'no-allow-policy', 'allowed', 'denied', 'not-allowed', 'unknown-policy'])
    t.true((seen.get(reason) ?? 0) > 100, `${reason}: ${seen.get(reason)}`);
});

function sorted(object: object): unknown {
  return Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));
}

const ADDRESSES = ['10.1.2.3', '192.168.1.1', '1.1.1.1', 'fd00::1', '2001:db8::1', 'fe80::1'] as Address[];
const PORTS = [1, 79, 80, 81, 443, 8080, 9090, 1234, 65535];

/** Connections of nobody to the port, from and to some addresses. */
function answersAt(decide: (attempt: Attempt) => Decision, port: number): Set<boolean> {
  const answers = new Set<boolean>();
  for (const sourceAddress of ADDRESSES)
    for (const address of ADDRESSES)
      answers.add(
        decide({ source: undefined, sourceAddress, destination: { address, port }, throughWaypoint: false }).allowed,
      );
  return answers;
}

function looksAtAddresses({ rules, dryRun }: AuthorizationPolicy): boolean {
  const matches = rules.flatMap(({ clauses }) => clauses.flatMap((clause) => clause.matches));
  const fields = ['sourceIps', 'notSourceIps', 'destinationIps', 'notDestinationIps'] as const;
  return !dryRun && matches.some((match) => fields.some((field) => match[field].length > 0));
}

test('random policies: openness is what is decided about nobody, at every port, from and to any address', (t) => {
  const random = new Random(2);
  let depends = 0;
  let mixed = 0;
  for (let count = 0; count < 3000; count += 1) {
    const { policies, workload } = randomCase(random, 5);
    const rules = new PolicyBook(meshOf(policies)).rulesFor(workload);
    const openness = rules.openness();
    if (openness.kind === 'depends') {
      depends += 1;
      if (!rules.policies.some(looksAtAddresses)) t.fail(JSON.stringify({ policies, workload }));
      continue;
    }
    if (openness.ports.size > 0) mixed += 1;
    for (const port of PORTS) {
      const answers = answersAt((attempt) => rules.decide(attempt), port);
      const wanted = openness.ports.get(port) ?? openness.others;
      if (answers.size !== 1 || !answers.has(wanted)) t.fail(JSON.stringify({ policies, workload, port }));
    }
  }
  t.true(depends > 50, `${depends}`);
  t.true(mixed > 50, `${mixed}`);
});

test('random policies: where an address decides, openness depends', (t) => {
  const random = new Random(3);
  let found = 0;
  for (let count = 0; count < 1000; count += 1) {
    const { policies, workload } = randomCase(random, 4);
    const rules = new PolicyBook(meshOf(policies)).rulesFor(workload);
    const isDecided = PORTS.some((port) => answersAt((attempt) => rules.decide(attempt), port).size > 1);
    if (!isDecided) continue;
    found += 1;
    t.is(rules.openness().kind, 'depends');
  }
  t.true(found > 20, `${found}`);
});

test('random policies: openness at each of all ports', (t) => {
  const random = new Random(4);
  for (let count = 0; count < 10; count += 1) {
    const { policies, workload } = randomCase(random, 4);
    const rules = new PolicyBook(meshOf(policies)).rulesFor(workload);
    const openness = rules.openness();
    if (openness.kind === 'depends') continue;
    const [address = '10.1.2.3' as Address] = ADDRESSES;
    for (let port = 1; port <= 65535; port += 1) {
      const attempt = {
        source: undefined,
        sourceAddress: address,
        destination: { address, port },
        throughWaypoint: false,
      };
      if (rules.decide(attempt).allowed !== (openness.ports.get(port) ?? openness.others)) t.fail(`${port}`);
    }
  }
  t.pass();
});
