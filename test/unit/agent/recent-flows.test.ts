import test from 'ava';
import { RecentFlows } from '../../../src/agent/recent-flows.ts';
import type { Address, FlowRecord, NetnsCookie, SpiffeId } from '../../../src/mesh/index.ts';

const web = 7n as NetnsCookie;
const db = 8n as NetnsCookie;

function flow(changes: Partial<FlowRecord> = {}): FlowRecord {
  return {
    pod: web,
    endedAt: 1_700_000_000_123,
    direction: 'inbound',
    path: 'tunnel',
    client: { address: '10.0.0.9' as Address, port: 40_000 },
    server: { address: '10.0.0.1' as Address, port: 8080 },
    sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/buyer' as SpiffeId,
    destinationIdentity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId,
    service: 'web.shop.svc.cluster.local',
    ended: 'clean',
    decision: 'allowed',
    bytesSent: 5_000_000_000,
    bytesReceived: 77,
    durationMs: 12.5,
    ...changes,
  };
}

function flows(perPod?: number, known = new Set([web, db])): RecentFlows {
  return new RecentFlows({ isKnown: (pod) => known.has(pod) }, perPod === undefined ? {} : { perPod });
}

test('a record comes back as it went in, whatever is not known of it', (t) => {
  const recent = flows();
  const records = [
    flow(),
    flow({ direction: 'outbound', path: 'kernel' }),
    flow({ path: 'plain', sourceIdentity: undefined, client: undefined, service: undefined, decision: undefined }),
    flow({ path: 'passthrough', destinationIdentity: undefined, client: { address: 'fd00::1' as Address, port: 0 } }),
  ];
  recent.add(records);
  t.deepEqual(recent.of(web), records);
});

test('of each pod as many are kept as said, and the oldest goes', (t) => {
  const recent = flows(3);
  for (let n = 1; n <= 8; n += 1) recent.add([flow({ endedAt: n, service: `s${n}` }), flow({ pod: db, endedAt: n })]);
  t.deepEqual(
    recent.of(web).map(({ endedAt, service }) => [endedAt, service]),
    [
      [6, 's6'],
      [7, 's7'],
      [8, 's8'],
    ],
  );
  t.is(recent.of(db).length, 3);
  t.deepEqual(recent.of(9n as NetnsCookie), []);
});

test('1,000 of each pod are kept by default', (t) => {
  const recent = flows();
  recent.add(Array.from({ length: 1_001 }, (_, endedAt) => flow({ endedAt })));
  t.is(recent.of(web).length, 1_000);
  t.is(recent.of(web)[0]?.endedAt, 1);
});

test('texts that no record has any more are not held', (t) => {
  const recent = flows(2);
  for (let n = 0; n < 1_000; n += 1)
    recent.add([flow({ service: `s${n}`, client: { address: `10.1.${n >> 8}.${n & 255}` as Address, port: 1 } })]);
  // Of each of the two records service and client, and what both have in common.
  t.is(recent.textCount, 2 * 2 + 5);
  recent.forget(web);
  t.is(recent.textCount, 0);
});

test('a withdrawn pod is forgotten, and what its open connections still tell is not taken', (t) => {
  const known = new Set([web, db]);
  const recent = flows(10, known);
  recent.add([flow(), flow({ pod: db })]);
  known.delete(web);
  t.deepEqual(recent.of(web), []);
  recent.add([flow(), flow({ pod: db })]);
  t.deepEqual(recent.of(web), []);
  t.is(recent.of(db).length, 2);
  known.add(web);
  t.deepEqual(recent.of(web), []);
});
