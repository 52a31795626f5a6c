import test from 'ava';
import { NodeFlows } from '../../../src/agent/node-flows.ts';
import { parseReply, parseRequest } from '../../../src/agent/protocol.ts';
import { RecentFlows } from '../../../src/agent/recent-flows.ts';
import type { NetnsCookie } from '../../../src/mesh/index.ts';
import { flowId, flowPod, flowRecord } from '../../contract/fakes/flows.ts';

const ask = { after: 0, limit: 100, waitMs: 0 };
/** Longer than a test may last: whoever waits so long is woken by something else. */
const LONG_MS = 30_000;

function node() {
  const recent = new RecentFlows();
  recent.podChanged(flowPod(), 7n as NetnsCookie, 'enrolled');
  return { recent, flows: new NodeFlows({ flows: recent }) };
}

test('what matches already is told at once', async (t) => {
  const { recent, flows } = node();
  recent.add([flowRecord(), flowRecord({ ended: 'dial-refused' })]);
  const page = await flows.page({ ...ask, waitMs: LONG_MS, verdict: 'failed' });
  t.deepEqual([page.flows.length, page.next, page.missed], [1, 2, 0]);
});

test('whoever waits is told of the first flow that matches, and of no other', async (t) => {
  const { recent, flows } = node();
  recent.add([flowRecord()]);
  const waiting = flows.page({ ...ask, after: 1, waitMs: LONG_MS, verdict: 'failed' });
  recent.add([flowRecord()]);
  await new Promise(setImmediate);
  recent.add([flowRecord({ ended: 'dial-refused' })]);
  const page = await waiting;
  t.deepEqual(
    page.flows.map(({ sequence }) => sequence),
    [3],
  );
});

test('who waits before anything has ended is told of the first', async (t) => {
  const { recent, flows } = node();
  const waiting = flows.page({ ...ask, waitMs: LONG_MS });
  recent.add([flowRecord()]);
  t.is((await waiting).flows.length, 1);
});

test('a wait ends with its time', async (t) => {
  const { flows } = node();
  t.deepEqual(await flows.page({ ...ask, waitMs: 20 }), { flows: [], next: 0, missed: 0 });
});

test('a wait ends when the agent stops, and none begins any more', async (t) => {
  const { flows } = node();
  const waiting = flows.page({ ...ask, waitMs: LONG_MS });
  flows.release();
  t.deepEqual((await waiting).flows, []);
  t.deepEqual((await flows.page({ ...ask, waitMs: LONG_MS })).flows, []);
});

test('when too many wait, who has waited longest is answered, and the others wait on', async (t) => {
  const { recent, flows } = node();
  const all = Array.from({ length: 33 }, () => flows.page({ ...ask, waitMs: LONG_MS, verdict: 'failed' }));
  t.deepEqual(await all[0], { flows: [], next: 0, missed: 0 });
  recent.add([flowRecord({ ended: 'dial-refused' })]);
  const others = await Promise.all(all.slice(1));
  t.true(others.every((page) => page.flows.length === 1));
});

test('what is missed while waiting is told in the end', async (t) => {
  const recent = new RecentFlows({ perPod: 2 });
  recent.podChanged(flowPod(), 7n as NetnsCookie, 'enrolled');
  const flows = new NodeFlows({ flows: recent });
  recent.add([flowRecord()]);
  const waiting = flows.page({ ...ask, after: 1, waitMs: LONG_MS, verdict: 'failed' });
  recent.add(Array.from({ length: 5 }, () => flowRecord()));
  await new Promise(setImmediate);
  recent.add([flowRecord({ ended: 'dial-refused' })]);
  t.is((await waiting).missed, 3);
});

test('a pod that is not here and a verdict that is none are bad requests', async (t) => {
  const { flows } = node();
  await t.throwsAsync(flows.page({ ...ask, pod: 'shop/gone' }), { message: /^pod: no pod of this node/ });
  await t.throwsAsync(flows.page({ ...ask, verdict: 'bad' }), { message: /^verdict: "bad" is none of allowed/ });
  await t.notThrowsAsync(flows.page({ ...ask, pod: 'web-0', verdict: 'dial-refused' }));
});

const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

test('a request says what it leaves out by its defaults, and what is out of bounds is refused', (t) => {
  t.deepEqual(parseRequest(bytes({ method: 'flows' })), { method: 'flows', ...ask });
  for (const wrong of [{ limit: 0 }, { limit: 1_001 }, { waitMs: 30_001 }, { after: -1 }, { from: '' }, { other: 1 }])
    t.throws(() => parseRequest(bytes({ method: 'flows', ...wrong })), { code: 'BAD_REQUEST' });
  t.deepEqual(parseRequest(bytes({ method: 'explain', from: 'a', to: 'b' })), {
    method: 'explain',
    from: 'a',
    to: 'b',
  });
});

test('flows survive the socket, whatever is not known of them', async (t) => {
  const { recent, flows } = node();
  const nothing = { client: undefined, source: undefined, service: undefined, decision: undefined };
  recent.add([flowRecord(), flowRecord({ ...nothing, id: flowId(2) })]);
  const page = await flows.page(ask);
  const reply = parseReply('flows', bytes({ ok: true, page }));
  t.deepEqual(JSON.parse(JSON.stringify(reply.page)), JSON.parse(JSON.stringify(page)));
});

test('an explanation survives the socket', (t) => {
  const explanation = {
    connects: false,
    steps: [{ topic: 'a', state: 'bad', text: 'b', details: ['c'] }],
    conclusion: 'd',
  };
  t.deepEqual(parseReply('explain', bytes({ ok: true, explanation })).explanation, explanation as never);
});
