import test from 'ava';
import { ENDS } from '../../../../src/agent/index.ts';
import type { Address, FlowRecord, PolicyName } from '../../../../src/mesh/index.ts';
import { flowParty, flowRecord } from '../../../contract/fakes/flows.ts';
import { DB, explainer, NOW, ONE_SENTENCE, said, WEB } from './explain-bed.ts';

const ID = '4bf92f3577b34da6a3ce929d0e0e4736';

function flow(changes: Partial<FlowRecord> = {}): FlowRecord {
  return flowRecord({ id: ID, pod: DB, endedAt: NOW - 5_000, ...changes });
}

const refused = {
  allowed: false,
  reason: 'denied',
  policy: 'shop/no' as PolicyName,
  text: 'explicitly denied by: shop/no',
};

interface Expected {
  readonly connects: boolean;
  readonly conclusion: RegExp;
  readonly says?: Readonly<Record<string, RegExp>>;
}

const cases: ReadonlyArray<readonly [law: string, records: readonly FlowRecord[], expected: Expected]> = [
  [
    'a connection that went well is told from beginning to end',
    [flow()],
    {
      connects: true,
      conclusion: /^The connection of shop\/buyer-0 to shop\/web-0 went well from beginning to end\.$/,
      says: {
        flow: /saw it reach the pod shop\/db-0\. It began at 2023-11-14T\S+Z and ended 5 s ago, after 13 ms\.\nid 4bf9/,
        route:
          /It was for web\.shop\.svc\.cluster\.local \(10\.0\.0\.1:8080\), and came through the tunnel\.\nit arrived at 10\.0\.0\.1:15008/,
        security: /^\[good\] It was encrypted[\s\S]*client: spiffe:\S+buyer\nserver: spiffe:\S+web/,
        policy: /^\[good\] Policy let it in: no policy applies\./,
        timing:
          /Connected after 1\.3 ms, first byte of the answer after 2\.5 ms, over after 13 ms\.\nbytes: 5000000000 from the client, 77 from the server\nround trip to the server: 0\.18 ms/,
        end: /^\[good\] It ended with clean: Both sides/,
      },
    },
  ],
  [
    'one that policy refused names the policy',
    [
      flow({
        ended: 'policy-denied',
        stage: 'addressed',
        decision: refused,
        connectMs: undefined,
        firstByteMs: undefined,
      }),
    ],
    {
      connects: false,
      conclusion:
        /^The connection of shop\/buyer-0 to shop\/web-0 was refused by policy \(shop\/no\); what to do: see error and policy in the log/,
      says: {
        policy: /^\[bad\] Policy refused it: explicitly denied by: shop\/no\./,
        flow: /It was never connected\./,
      },
    },
  ],
  [
    'one that the other end refused is known for what it is',
    [
      flow({
        ended: 'tunnel-refused',
        error: 'http status: 401',
        stage: 'addressed',
        decision: undefined,
        direction: 'outbound',
      }),
    ],
    {
      connects: false,
      conclusion: /was refused by policy; what to do/,
      says: { end: /what the log says: http status: 401/, policy: /^$/ },
    },
  ],
  [
    'one that nobody answered tells what that means and what to do',
    [flow({ ended: 'dial-refused', stage: 'addressed', attempts: 3 })],
    {
      connects: false,
      conclusion: /ended with dial-refused: nobody listens at the destination; what to do: see the app\.$/,
      says: { route: /3 endpoints were tried/, end: /^\[bad\][\s\S]*what to do: See the app\.$/ },
    },
  ],
  [
    'one that was reset by the server says so',
    [flow({ ended: 'reset-by-server', error: 'read ECONNRESET', retransmits: 4 })],
    {
      connects: false,
      conclusion: /ended with reset-by-server: the server reset it;/,
      says: { timing: /segments sent again: 4/ },
    },
  ],
  [
    'one that never became known says no more than that',
    [
      flow({
        stage: 'early',
        ended: 'mesh-unknown',
        service: undefined,
        source: undefined,
        client: undefined,
        destination: undefined,
      }),
    ],
    {
      connects: false,
      conclusion: /^The connection of somebody who was gone at once to 10\.0\.0\.1:8080 ended with mesh-unknown/,
      says: { route: /^\[bad\] It asked for 10\.0\.0\.1:8080\.$/, security: /^$/ },
    },
  ],
  [
    'one on the kernel path between two pods of the node is told from both',
    [
      flow({
        pod: WEB,
        direction: 'outbound',
        path: 'kernel',
        security: 'kernel',
        kind: 'local',
        source: flowParty('web'),
      }),
      flow({ path: 'kernel', security: 'kernel', kind: 'local', source: flowParty('web') }),
    ],
    {
      connects: true,
      conclusion: /went well/,
      says: {
        flow: /leave the pod shop\/web-0[\s\S]*reach the pod shop\/db-0/,
        security: /the kernel vouched for both/,
      },
    },
  ],
  [
    'one of which only one end went well did not go well',
    [flow({ pod: WEB, direction: 'outbound', ended: 'tunnel-lost' }), flow()],
    { connects: false, conclusion: /ended with tunnel-lost/ },
  ],
  [
    'a probe of the kubelet was asked about by no policy',
    [
      flow({
        ...{
          path: 'kernel',
          security: 'none',
          kind: 'probe',
          source: undefined,
          service: undefined,
          sourceIdentity: undefined,
        },
        client: { address: '10.0.0.254' as Address, port: 5 },
        decision: { allowed: true, reason: 'kubelet-probe', policy: undefined, text: '' },
      }),
    ],
    {
      connects: true,
      conclusion: /^The connection of 10\.0\.0\.254 to shop\/web-0 went well/,
      says: { policy: /no policy is asked about/, security: /^\[note\] It was in the clear/ },
    },
  ],
  [
    'dry runs and waypoints are told',
    [
      flow({
        waypoint: 'shop/gw',
        direction: 'outbound',
        dryRun: [{ policy: 'shop/new' as PolicyName, would: 'deny' }],
        decision: undefined,
      }),
    ],
    {
      connects: true,
      conclusion: /went well/,
      says: { route: /led to the waypoint shop\/gw/, policy: /dry run: shop\/new would deny it/ },
    },
  ],
  [
    'an end that this version does not know is told as it is',
    [flow({ ended: 'something-new' })],
    { connects: false, conclusion: /ended with something-new: this version does not know/ },
  ],
];

for (const [law, records, { connects, conclusion, says = {} }] of cases)
  test(law, (t) => {
    const explanation = explainer({ flows: records }).flow(ID.slice(0, 12));
    t.regex(explanation.conclusion, conclusion);
    t.regex(explanation.conclusion, ONE_SENTENCE);
    t.is(explanation.connects, connects);
    for (const [topic, expected] of Object.entries(says)) t.regex(said(explanation, topic), expected);
  });

for (const ended of ENDS.keys())
  test(`what a connection that ended with ${ended} comes to is one sentence`, (t) => {
    const { conclusion, steps } = explainer({ flows: [flow({ ended })] }).flow(ID);
    t.regex(conclusion, ONE_SENTENCE);
    t.regex(steps.at(-1)?.text ?? '', new RegExp(`^It ended with ${ended}: `));
  });
