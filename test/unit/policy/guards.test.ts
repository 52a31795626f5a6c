import test from 'ava';
import type { AuthorizationPolicy, SpiffeId } from '../../../src/mesh/index.ts';
import * as room from '../../../src/policy/index.ts';
import { type Decision, Guards } from '../../../src/policy/index.ts';
import { ATTEMPT, allow, by, deny, naming, rulesOf, throughWaypoint, unlessThroughWaypoint } from './policies.ts';

const WEB = { principals: ['cluster.local/ns/front/sa/web'] };
const API = { principals: ['cluster.local/ns/front/sa/api'] };
const OPEN = rulesOf([]);
const CLOSED = rulesOf([allow()]);

/** A connection that has entered, and what it was told. */
function entered(guards: Guards, attempt = ATTEMPT) {
  const told: Decision[] = [];
  return { guard: guards.enter(attempt, (decision) => void told.push(decision)), told };
}

function answerTo(policies: readonly AuthorizationPolicy[]) {
  const guards = new Guards();
  const { guard, told } = entered(guards);
  const answer = guard.ask(rulesOf(policies));
  return { guards, guard, told, answer };
}

test('a connection is registered before it is asked about', (t) => {
  const guards = new Guards();
  const { guard } = entered(guards);
  t.is(guards.size, 1);
  t.is(guard.decision, undefined);
});

test('a yes is a permit that says why, and the connection stays registered', (t) => {
  const { guards, guard, answer } = answerTo([allow(WEB)]);
  if (!('permit' in answer)) return t.fail();
  t.is(answer.permit.decision.policy, 'shop/allow');
  t.is(guard.decision, answer.permit.decision);
  t.is(guards.size, 1);
});

test('a no has no permit, and the connection has left', (t) => {
  const { guards, guard, told, answer } = answerTo([deny(WEB)]);
  if (!('denied' in answer)) return t.fail();
  t.is(answer.denied.text, 'explicitly denied by: shop/deny');
  t.is(guard.decision, answer.denied);
  t.is(guards.size, 0);
  t.is(guards.recheck(CLOSED), 0);
  t.deepEqual(told, []);
});

test('nobody outside can make a permit', (t) => {
  t.deepEqual(Object.keys(room).sort(), [
    'Guards',
    'PolicyBook',
    'decisivePolicy',
    'explanationLines',
    'plaintextRules',
  ]);
  const { answer } = answerTo([]);
  if (!('permit' in answer)) return t.fail();
  const { permit } = answer;
  // A copy is none: what makes it one is private to it.
  t.throws(() => Object.create(Object.getPrototypeOf(permit)).decision, { instanceOf: TypeError });
  t.is(({ ...permit } as Partial<typeof permit>).decision, undefined);
});

test('a recheck ends exactly the forbidden, and tells each once', (t) => {
  const guards = new Guards();
  const [web, api, gone] = [entered(guards), entered(guards, { ...ATTEMPT, ...by('front/api') }), entered(guards)];
  for (const { guard } of [web, api, gone]) guard.ask(OPEN);
  gone.guard.leave();
  t.is(guards.recheck(rulesOf([deny(WEB)])), 1);
  t.deepEqual(
    web.told.map(({ text }) => text),
    ['explicitly denied by: shop/deny'],
  );
  t.is(web.guard.decision, web.told[0]);
  t.deepEqual([api.told, gone.told], [[], []]);
  t.is(guards.size, 1);
  t.is(guards.recheck(rulesOf([deny(WEB)])), 0);
  t.is(guards.recheck(CLOSED), 1);
  t.is(web.told.length, 1);
  t.is(api.told.length, 1);
});

test('a recheck that allows all ends nothing, and renews the reasons', (t) => {
  const guards = new Guards();
  const { guard, told } = entered(guards);
  guard.ask(OPEN);
  t.is(guards.recheck(rulesOf([allow(WEB)])), 0);
  t.is(guard.decision?.reason, 'allowed');
  t.deepEqual(told, []);
});

test('a change between enter and ask is not missed by one who asks with the rules before it', (t) => {
  const guards = new Guards();
  const { guard, told } = entered(guards);
  t.is(guards.recheck(CLOSED), 0);
  const answer = guard.ask(OPEN);
  t.is('denied' in answer && answer.denied.reason, 'not-allowed');
  t.deepEqual(told, []);
  t.is(guards.size, 0);
});

test('the last of several changes between enter and ask counts', (t) => {
  const guards = new Guards();
  const [{ guard: one }, { guard: other }] = [entered(guards), entered(guards)];
  guards.recheck(CLOSED);
  guards.recheck(rulesOf([allow(WEB)]));
  t.true('permit' in one.ask(OPEN));
  guards.recheck(CLOSED);
  t.true('denied' in other.ask(OPEN));
});

test('rules that forbid are heeded although those of the last change do not', (t) => {
  const guards = new Guards();
  const { guard } = entered(guards);
  guards.recheck(OPEN);
  t.true('denied' in guard.ask(CLOSED));
});

test('a change after the ask ends the connection', (t) => {
  const { guards, told } = answerTo([]);
  t.is(guards.recheck(CLOSED), 1);
  t.is(told[0]?.reason, 'not-allowed');
});

test('one that leaves is not rechecked, however often it leaves', (t) => {
  const { guards, guard, told } = answerTo([]);
  guard.leave();
  guard.leave();
  t.is(guards.size, 0);
  t.is(guards.recheck(CLOSED), 0);
  t.deepEqual(told, []);
  t.is(guard.decision?.reason, 'no-policy');
});

test('one that has left gets no permit', (t) => {
  const { guards, guard } = answerTo([]);
  guard.leave();
  t.throws(() => guard.ask(OPEN), { message: 'a guard that has left was asked' });
  const { guard: forbidden } = entered(guards);
  forbidden.ask(OPEN);
  guards.recheck(CLOSED);
  t.true('denied' in forbidden.ask(OPEN));
});

test('the forbidden are all told why, also where the end of one takes others along', (t) => {
  const guards = new Guards();
  const told: string[] = [];
  const all = ['a', 'b', 'c'].map((name) =>
    guards.enter(ATTEMPT, () => {
      told.push(name);
      for (const each of all) each.leave();
    }),
  );
  for (const guard of all) guard.ask(OPEN);
  t.is(guards.recheck(CLOSED), 3);
  t.deepEqual(told, ['a', 'b', 'c']);
  t.is(guards.size, 0);
});

test('one that cannot be ended does not save the others', (t) => {
  const guards = new Guards();
  const broken = guards.enter(ATTEMPT, () => {
    throw new Error('no end');
  });
  broken.ask(OPEN);
  const { guard, told } = entered(guards);
  guard.ask(OPEN);
  t.throws(() => guards.recheck(CLOSED), { message: 'no end' });
  t.is(told.length, 1);
  t.is(guards.size, 0);
});

test('one that enters while others are told is not one of them', (t) => {
  const guards = new Guards();
  guards.enter(ATTEMPT, () => void entered(guards)).ask(OPEN);
  t.is(guards.recheck(CLOSED), 1);
  t.is(guards.size, 1);
});

test('whether it comes through a waypoint is looked at each time', (t) => {
  const guards = new Guards();
  const rules = rulesOf([unlessThroughWaypoint(deny(API, WEB))], naming());
  let isWaypoint = true;
  const attempt = {
    ...ATTEMPT,
    get throughWaypoint() {
      return isWaypoint;
    },
  };
  const { guard, told } = entered(guards, attempt);
  t.true('permit' in guard.ask(rules));
  isWaypoint = false;
  t.is(guards.recheck(rules), 1);
  t.is(told.length, 1);
});

test('an id of another form than ours proves nothing', (t) => {
  const source = 'spiffe://cluster.local/front/web' as SpiffeId;
  const decide = (...policies: AuthorizationPolicy[]) =>
    rulesOf(policies).decide({ ...ATTEMPT, ...throughWaypoint, source }).allowed;
  t.false(decide(deny({ notPrincipals: ['*'] })));
  t.false(decide(allow({ principals: ['*'] })));
  t.false(decide(unlessThroughWaypoint(deny([]))));
});
