import test from 'ava';
import { NodePolicy } from '../../../src/agent/node-policy.ts';
import { parseReply, type Replies } from '../../../src/agent/protocol.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type FlowRecord,
  type NetnsCookie,
  ReadModel,
  type SpiffeId,
} from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { flowRecord } from '../../contract/fakes/flows.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';

const pod = 7n as NetnsCookie;
const buyer = 'spiffe://cluster.local/ns/shop/sa/buyer' as SpiffeId;

function flow(changes: Partial<FlowRecord> = {}): FlowRecord {
  return flowRecord({ pod, endedAt: 1_700_000_000_000, sourceIdentity: buyer, ...changes });
}

const policies: AuthorizationPolicy[] = (['shop', 'bank'] as const).map((namespace) => ({
  namespace,
  name: 'all',
  scope: 'namespace',
  action: 'allow',
  dryRun: false,
  rules: [{ clauses: [], unlessThroughWaypoint: false }],
}));

function node(records: readonly FlowRecord[]): NodePolicy {
  const mesh = new ReadModel();
  const workloads = [
    workload({ name: 'web-0', addresses: ['10.0.0.1' as Address], authorizationPolicies: ['shop/x'] }),
    workload({
      name: 'behind-0',
      addresses: ['10.0.0.3' as Address],
      waypoint: { destination: { kind: 'hostname', namespace: 'shop', hostname: 'gw' }, hboneMtlsPort: 15_008 },
    }),
    workload({ name: 'old-0', addresses: ['10.0.0.2' as Address], protocol: 'tcp' }),
  ];
  mesh.apply(meshUpdate({ complete: true, workloads, policies }));
  const flows = { of: (asked: NetnsCookie) => (asked === pod ? records : []) };
  return new NodePolicy({ mesh, book: new PolicyBook(mesh), flows });
}

test('connections that are the same to policy are counted together, with the last time', (t) => {
  const elsewhere = { address: '10.0.0.8' as Address, port: 1 };
  const { flows } = node([
    flow(),
    flow({ client: { address: '10.0.0.9' as Address, port: 2 }, ended: 'policy-denied' }),
    flow({ endedAt: 1_700_000_001_000, ended: 'policy-changed' }),
    flow({ client: elsewhere, sourceIdentity: undefined }),
    flow({ direction: 'outbound', client: undefined }),
  ]).recentFlows(pod);
  t.deepEqual(
    flows.map(({ direction, identity, sourceAddress, count, refused }) => [
      direction,
      identity,
      sourceAddress,
      count,
      refused,
    ]),
    [
      ['inbound', buyer, '10.0.0.9', 3, 2],
      ['inbound', undefined, '10.0.0.8', 1, 0],
      ['outbound', buyer, undefined, 1, 0],
    ],
  );
  t.is(flows[0]?.last, '2023-11-14T22:13:21.000Z');
});

test('what is told of a pod is bounded by what policy can tell apart, and holds only what applies', (t) => {
  const recent = node(Array.from({ length: 1_000 }, () => flow())).recentFlows(pod);
  t.is(recent.flows.length, 1);
  t.deepEqual(recent.workloads, [
    {
      uid: 'Kubernetes//Pod/shop/web-0',
      namespace: 'shop',
      name: 'web-0',
      protocol: 'hbone',
      authorizationPolicies: ['shop/x'],
    },
  ]);
  t.deepEqual(recent.policies, [policies[0]]);
});

test('connections to what is not of the mesh are only counted', (t) => {
  const outside = flow({ server: { address: '192.0.2.1' as Address, port: 443 }, direction: 'outbound' });
  const plain = flow({ server: { address: '10.0.0.2' as Address, port: 80 }, direction: 'outbound' });
  const { flows, outsideMesh } = node([outside, plain, flow()]).recentFlows(pod);
  t.deepEqual([flows.length, outsideMesh], [1, 2]);
});

test('what no policy is asked about, or another one than at the end that is told of, is left out', (t) => {
  const kubelet = { allowed: true, reason: 'kubelet-probe', policy: undefined, text: 'the kubelet asks' };
  const probe = flow({ path: 'kernel', sourceIdentity: undefined, decision: kubelet });
  const waypoint = flow({ direction: 'outbound', server: { address: '10.0.0.3' as Address, port: 80 } });
  const { flows, outsideMesh } = node([probe, waypoint]).recentFlows(pod);
  t.deepEqual([flows, outsideMesh], [[], 0]);
});

test('of a pod that is not there nothing is told', (t) => {
  t.deepEqual(node([flow()]).recentFlows(undefined).flows, []);
  t.deepEqual(node([flow()]).recentFlows(8n as NetnsCookie).flows, []);
});

test('a question that is not understood is a bad request', (t) => {
  t.throws(() => node([]).test({ from: 'x', to: 'shop/web-0:80', explain: false }), { message: /^from: / });
  t.throws(() => node([]).test({ from: 'none', to: 'shop/web-0', explain: false }), { message: /^to: / });
});

test('both answers survive the socket', (t) => {
  const bytes = (reply: Replies['policy-test'] | Replies['recent-flows']) =>
    new TextEncoder().encode(JSON.stringify(reply));
  const recent = node([flow(), flow({ sourceIdentity: undefined, client: undefined })]).recentFlows(pod);
  t.deepEqual(parseReply('recent-flows', bytes({ ok: true, recent })).recent, recent);
  const answer = node([]).test({ from: 'none', to: 'shop/web-0:80', explain: true });
  t.deepEqual(parseReply('policy-test', bytes({ ok: true, answer })).answer, answer);
});
