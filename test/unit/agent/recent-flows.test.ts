import test from 'ava';
import { RecentFlows } from '../../../src/agent/recent-flows.ts';
import type { Address, FlowRecord, NetnsCookie, PolicyName } from '../../../src/mesh/index.ts';
import { flowId, flowParty, flowPod, flowRecord } from '../../contract/fakes/flows.ts';

const web = 7n as NetnsCookie;
const db = 8n as NetnsCookie;

function flows(perPod?: number): RecentFlows {
  const recent = new RecentFlows(perPod === undefined ? {} : { perPod });
  recent.podChanged(flowPod(), web, 'enrolled');
  recent.podChanged(flowPod({ uid: 'db-0-uid', name: 'db-0', addresses: ['10.0.0.2' as Address] }), db, 'enrolled');
  return recent;
}

function numbered(count: number, changes: Partial<FlowRecord> = {}): FlowRecord[] {
  return Array.from({ length: count }, (_, n) => flowRecord({ id: flowId(n + 1), endedAt: n + 1, ...changes }));
}

test('a record comes back as it went in, whatever is not known of it', (t) => {
  const recent = flows();
  const records = [
    flowRecord(),
    flowRecord({ id: 'ffffffff00000000fedcba9876543210', direction: 'outbound', path: 'kernel', security: 'kernel' }),
    flowRecord({
      ...{ path: 'plain', security: 'none', stage: 'early', kind: 'probe', attempts: 3, waypoint: 'shop/waypoint' },
      ...{ sourceIdentity: undefined, client: undefined, service: undefined, decision: undefined },
      ...{ connectMs: undefined, firstByteMs: undefined, roundTripUs: undefined, retransmits: undefined },
      ...{ source: undefined, authority: undefined, error: 'connection failed: it is broken' },
    }),
    flowRecord({
      ...{ path: 'passthrough', destinationIdentity: undefined, destination: undefined, stage: 'addressed' },
      ...{ client: { address: 'fd00::1' as Address, port: 0 }, ended: 'policy-denied' },
      decision: { allowed: false, reason: 'denied', policy: 'shop/rule' as PolicyName, text: 'no' },
      dryRun: [{ policy: 'shop/new' as PolicyName, would: 'deny' }],
    }),
  ];
  recent.add(records);
  t.deepEqual(recent.of(web), records);
  t.deepEqual([...recent.all()], records);
});

test('of each pod as many are kept as said, and the oldest goes', (t) => {
  const recent = flows(3);
  for (let n = 1; n <= 8; n += 1) recent.add([flowRecord({ endedAt: n }), flowRecord({ pod: db, endedAt: n })]);
  t.deepEqual(
    recent.of(web).map(({ endedAt }) => endedAt),
    [6, 7, 8],
  );
  t.is(recent.of(db).length, 3);
  t.deepEqual(recent.of(9n as NetnsCookie), []);
});

test('1,000 of each pod are kept by default', (t) => {
  const recent = flows();
  recent.add(numbered(1_001));
  t.is(recent.of(web).length, 1_000);
  t.is(recent.of(web)[0]?.endedAt, 2);
});

test('what no record has any more is not held', (t) => {
  const recent = flows(2);
  for (let n = 0; n < 1_000; n += 1)
    recent.add([
      flowRecord({ source: flowParty(`s${n}`), client: { address: `10.1.${n >> 8}.${n & 255}` as Address, port: 1 } }),
    ]);
  const held = recent.held;
  recent.add(numbered(2));
  t.true(recent.held <= held);
  recent.podChanged(flowPod(), web, 'left');
  t.is(recent.held, 0);
});

test('a long text is cut, so that a peer cannot make the agent hold it', (t) => {
  const recent = flows();
  recent.add([flowRecord({ error: 'x'.repeat(100_000) })]);
  t.is(recent.of(web)[0]?.error?.length, 1_003);
});

test('a withdrawn pod is forgotten, and what its open connections still tell is not taken', (t) => {
  const recent = flows();
  recent.add([flowRecord(), flowRecord({ pod: db })]);
  recent.podChanged(flowPod(), web, 'left');
  t.deepEqual(recent.of(web), []);
  recent.add([flowRecord(), flowRecord({ pod: db })]);
  t.deepEqual(recent.of(web), []);
  t.is(recent.of(db).length, 2);
  recent.podChanged(flowPod(), web, 'captured');
  t.deepEqual(recent.of(web), []);
});

test('a pod that changes keeps its flows', (t) => {
  const recent = flows();
  recent.add([flowRecord()]);
  recent.podChanged(flowPod({ name: 'web-1' }), web, 'enrolled');
  t.is(recent.page().flows[0]?.podName, 'web-1');
});

test('without a cursor the newest come, in the order in which they ended', (t) => {
  const recent = flows();
  for (const record of numbered(10)) recent.add([record, { ...record, pod: db }]);
  const { flows: found, next, missed } = recent.page({ limit: 3 });
  t.deepEqual(
    found.map(({ sequence, podName, endedAt }) => [sequence, podName, endedAt]),
    [
      [18, 'db-0', 9],
      [19, 'web-0', 10],
      [20, 'db-0', 10],
    ],
  );
  t.is(next, 20);
  t.is(missed, 0);
  t.false('pod' in (found[0] ?? {}));
  t.is(found[0]?.podUid, 'db-0-uid');
});

test('with a cursor all come that follow, page by page, each once', (t) => {
  const recent = flows();
  for (const record of numbered(10)) recent.add([record, { ...record, pod: db }]);
  const seen: number[] = [];
  let after = 4;
  for (;;) {
    const page = recent.page({ after, limit: 7 });
    if (page.flows.length === 0) break;
    seen.push(...page.flows.map(({ sequence }) => sequence));
    after = page.next;
  }
  t.deepEqual(
    seen,
    Array.from({ length: 16 }, (_, n) => n + 5),
  );
});

test('what was gone before it could be read is counted as missed', (t) => {
  const recent = flows(5);
  recent.add(numbered(3));
  const { next } = recent.page();
  recent.add(numbered(20));
  recent.add(numbered(2, { pod: db }));
  t.is(recent.page({ after: next }).missed, 15);
  t.is(recent.page({ after: next, pod: 'web-0' }).missed, 15);
  t.is(recent.page({ after: next, pod: 'db-0' }).missed, 0);
  t.is(recent.page({ after: recent.page().next }).missed, 0);
  t.is(recent.page({ after: next }).flows.length, 7);
});

test('a cursor of an agent before this one shows all that there is', (t) => {
  const recent = flows();
  recent.add(numbered(3));
  const page = recent.page({ after: 1_000 });
  t.is(page.flows.length, 3);
  t.is(page.next, 3);
});

test('one answer looks at no more than it has time for, and says where to go on', (t) => {
  const recent = flows(200_000);
  recent.add(numbered(150_000));
  recent.add([flowRecord({ ended: 'dial-refused' })]);
  const first = recent.page({ after: 1, verdict: 'failed' });
  t.is(first.flows.length, 0);
  t.true(first.next > 20_000 && first.next < 100_000);
  let page = first;
  while (page.flows.length === 0) page = recent.page({ after: page.next, verdict: 'failed' });
  t.is(page.flows[0]?.sequence, 150_001);
});

test('a cursor from very long ago leads on at once to what there is', (t) => {
  const recent = flows(10);
  recent.add(numbered(1, { pod: db }));
  for (let n = 0; n < 100; n += 1) recent.add(numbered(1_000));
  const { flows: found, next, missed } = recent.page({ after: 1, limit: 5 });
  t.is(found.length, 5);
  t.is(found[0]?.sequence, 99_992);
  t.is(next, 99_996);
  t.is(missed, 99_990);
});

test('a flow is found by its id or the beginning of it, with the records of both pods', (t) => {
  const recent = flows();
  recent.add([...numbered(3), flowRecord({ id: flowId(2), pod: db, direction: 'outbound' })]);
  t.deepEqual(
    recent.find(flowId(2)).map(({ podName }) => podName),
    ['web-0', 'db-0'],
  );
  t.is(recent.find(flowId(2).slice(0, 8)).length, 2);
  t.is(recent.find('0000000').length, 4);
  t.is(recent.find('0', 2).length, 2);
  t.deepEqual(recent.find('f'), []);
  t.deepEqual(recent.find('x'), []);
});

const filters: ReadonlyArray<readonly [filter: object, expected: number[]]> = [
  [{}, [1, 2, 3, 4, 5]],
  [{ pod: 'db-0' }, [5]],
  [{ pod: 'shop/web-0' }, [1, 2, 3, 4]],
  [{ pod: 'web-0-uid' }, [1, 2, 3, 4]],
  [{ pod: 'bank/web-0' }, []],
  [{ from: 'buyer-0' }, [1, 3, 4, 5]],
  [{ from: 'shop/buyer-0' }, [1, 3, 4, 5]],
  [{ from: 'shop/buyer' }, [1, 3, 4, 5]],
  [{ from: 'shop/' }, [1, 3, 4, 5]],
  [{ from: 'bank/' }, [2]],
  [{ from: '10.0.0.77' }, [2]],
  [{ from: '10.0.0.99' }, []],
  [{ from: 'spiffe://cluster.local/ns/shop/sa/buyer' }, [1, 3, 4, 5]],
  [{ to: 'web.shop.svc.cluster.local' }, [1, 3, 4, 5]],
  [{ to: 'web' }, [1, 2, 3, 4, 5]],
  [{ to: '10.96.0.9' }, [2]],
  [{ to: '10.0.0.1' }, [1, 3, 4, 5]],
  [{ to: 'shop/web-0', from: 'bank/teller-0' }, [2]],
  [{ verdict: 'denied' }, [3, 4]],
  [{ verdict: 'allowed' }, [1, 5]],
  [{ verdict: 'failed' }, [2, 3, 4]],
  [{ verdict: 'clean' }, [1, 5]],
  [{ verdict: 'policy-denied' }, [3]],
  [{ verdict: 'unheard-of' }, []],
];

for (const [filter, expected] of filters)
  test(`of five flows ${JSON.stringify(filter)} shows ${expected.join(', ') || 'none'}`, (t) => {
    const recent = flows();
    const denied = { allowed: false, reason: 'denied', policy: undefined, text: 'no' };
    recent.add([
      flowRecord(),
      flowRecord({
        ...{ source: flowParty('teller', { namespace: 'bank' }), sourceIdentity: undefined, service: undefined },
        client: { address: '10.0.0.77' as Address, port: 1 },
        asked: { address: '10.96.0.9' as Address, port: 80 },
        server: { address: '10.0.0.3' as Address, port: 80 },
        ...{ ended: 'dial-refused', decision: undefined, stage: 'addressed' },
      }),
      flowRecord({ ended: 'policy-denied', decision: denied, stage: 'addressed' }),
      flowRecord({ ended: 'tunnel-refused', error: 'http status: 401 Unauthorized', stage: 'addressed' }),
      flowRecord({ pod: db }),
    ]);
    t.deepEqual(
      recent.page(filter).flows.map(({ sequence }) => sequence),
      expected,
    );
    t.deepEqual(
      recent.page({ ...filter, after: 1 }).flows.map(({ sequence }) => sequence),
      expected.filter((sequence) => sequence > 1),
    );
  });

test('whoever waits is woken by what is added, until it has seen enough', (t) => {
  const recent = flows();
  let woken = 0;
  const stop = recent.onAdded(() => {
    woken += 1;
  });
  recent.add([flowRecord()]);
  recent.add([flowRecord()]);
  stop();
  recent.add([flowRecord()]);
  t.is(woken, 2);
});

test('a flow that ended well was not denied, whatever policy said later', (t) => {
  const recent = flows();
  recent.add([flowRecord({ decision: { allowed: false, reason: 'denied', policy: undefined, text: 'no' } })]);
  t.is(recent.page({ verdict: 'denied' }).flows.length, 0);
  t.is(recent.page({ verdict: 'allowed' }).flows.length, 1);
});
