/** Who may connect to whom, by what a policy says: at both ends, in every log, and as the agent itself says when it is asked. */
import test from 'ava';
import type { PolicyAnswer } from '../../src/agent/index.ts';
import {
  apps,
  authorizationPolicyManifest,
  type LabPod,
  type Manifest,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { families, readMetrics, serve } from './conversation.ts';
import { accepted, settled } from './inspect.ts';
import { changed, from, OTHER_PORT, reached } from './policy-bed.ts';
import {
  assertLetIn,
  assertRefused,
  type Call,
  everybody,
  type PartyName as Name,
  type PolicyScene,
  policyScene,
} from './policy-callers.ts';
import { APP_PORT, listen, podOf, SERVICE_PORT, sealed, VIP } from './tunnel-bed.ts';

const REJECTED = 'connection closed due to policy rejection: ';
const provers: readonly Name[] = ['client', 'teller', 'neighbour'];
const nearPods: readonly Name[] = ['client', 'teller', 'outsider'];

let bed: PolicyScene['bed'];
let callers: PolicyScene['callers'];
let policies: PolicyScene['policies'];

test.serial.before(async () => {
  ({ bed, callers, policies } = await policyScene('who may'));
});

test.serial.after.always(() => bed?.lab.dispose());

/** A policy for the server: `shop/rule`. */
function rule(action: 'ALLOW' | 'DENY', ...rules: readonly Manifest[]): Manifest {
  return authorizationPolicyManifest('rule', { action, rules, selector: { app: 'server' } });
}

const onlyClient = rule('ALLOW', from({ principals: ['cluster.local/ns/shop/sa/client'] }));
const notClient = rule('DENY', from({ principals: ['cluster.local/ns/shop/sa/client'] }));

// These two come before all else: an agent says each kind of thing only so often a second.
test.serial('a refusal is told by both agents; the log of the server names the policy', async (t) => {
  const [near, far] = bed.agents;
  const { server } = bed.pods;
  for (const [policy, text, refused] of [
    [onlyClient, 'allow policies exist, but none allowed', ['teller', 'neighbour', 'outsider', 'stranger']],
    [notClient, 'explicitly denied by: shop/rule', ['client']],
  ] as const) {
    await policies.are(policy);
    const before = await reached(bed);
    for (const name of refused) {
      const log = listen(far);
      const nearLog = listen(name === 'neighbour' ? far : near);
      const call = await callers[name].call(server.ipv4, APP_PORT);
      assertRefused(t, call, name);
      const own = { 'src.addr': call.local, message: 'connection complete', level: 'error' };
      const isProven = provers.includes(name);
      t.like(await log({ ...own, direction: 'inbound' }), {
        reason: 'policy-denied',
        error: REJECTED + text,
        policy: 'shop/rule',
        path: isProven ? 'tunnel' : 'plain',
        'src.identity': isProven ? bed.pods[name].identity : undefined,
        'dst.workload': 'server',
      });
      if (isProven)
        t.like(await nearLog({ ...own, direction: 'outbound' }), {
          reason: 'tunnel-refused',
          error: 'http status: 401 Unauthorized',
          'dst.workload': 'server',
        });
    }
    t.is((await reached(bed)) - before, 0, 'nothing reaches the app');
  }
});

test.serial('a pod that calls its own service is judged by its own identity', async (t) => {
  const [, far] = bed.agents;
  const own = from({ principals: ['cluster.local/ns/shop/sa/server'] });
  for (const [policy, isAllowed] of [
    [rule('ALLOW'), false],
    [rule('ALLOW', own), true],
    [rule('DENY', own), false],
  ] as const) {
    await policies.are(policy);
    const before = await reached(bed);
    for (const vip of [VIP.ipv4, VIP.ipv6]) {
      const log = listen(far);
      const call = await callers.server.call(vip, SERVICE_PORT);
      if (isAllowed) t.is(call.error, undefined, JSON.stringify(call));
      else {
        assertRefused(t, call, vip);
        t.like(await log({ 'src.addr': call.local, direction: 'outbound' }), {
          message: 'connection complete',
          level: 'error',
          reason: 'policy-denied',
          policy: 'shop/rule',
          'src.workload': 'server',
          'dst.workload': 'server',
        });
      }
    }
    t.is((await reached(bed)) - before, isAllowed ? 2 : 0);
  }
  // By its own address it needs nobody, as on any host: what is inside the pod is the pod's.
  t.is((await callers.server.call(bed.pods.server.ipv4, APP_PORT)).error, undefined);
});

const named =
  (...names: readonly Name[]) =>
  (name: Name): boolean =>
    names.includes(name);

const cases: ReadonlyArray<
  readonly [law: string, policies: () => readonly Manifest[], lets: (name: Name, port: number) => boolean]
> = [
  ['no policy lets in everybody', () => [], () => true],
  ['ALLOW by principal lets in nobody else', () => [onlyClient], named('client')],
  ['DENY by principal refuses nobody else', () => [notClient], named('teller', 'outsider', 'neighbour', 'stranger')],
  [
    'ALLOW by namespace wants it proven',
    () => [rule('ALLOW', from({ namespaces: ['shop'] }))],
    named('client', 'neighbour'),
  ],
  [
    'DENY by namespace refuses those who prove it',
    () => [rule('DENY', from({ namespaces: ['shop'] }))],
    named('teller', 'outsider', 'stranger'),
  ],
  [
    'ALLOW by service account, of another namespace too',
    () => [rule('ALLOW', from({ serviceAccounts: ['neighbour', 'bank/teller'] }))],
    named('neighbour', 'teller'),
  ],
  [
    'DENY by service account',
    () => [rule('DENY', from({ serviceAccounts: ['bank/teller'] }))],
    named('client', 'outsider', 'neighbour', 'stranger'),
  ],
  [
    'ALLOW by port shuts the others',
    () => [rule('ALLOW', { to: [{ operation: { ports: [`${APP_PORT}`] } }] })],
    (_, port) => port === APP_PORT,
  ],
  [
    'DENY by port, for some',
    () => [rule('DENY', { ...from({ namespaces: ['shop'] }), to: [{ operation: { ports: [`${OTHER_PORT}`] } }] })],
    (name, port) => port === APP_PORT || named('teller', 'outsider', 'stranger')(name),
  ],
  [
    'ALLOW by block of addresses',
    () => [rule('ALLOW', from({ ipBlocks: [...bed.nodes[0].podCidrs] }))],
    (name) => nearPods.includes(name),
  ],
  [
    'DENY by address, of those in the tunnel and those who are not',
    () => [
      rule('DENY', from({ ipBlocks: [bed.pods.client, bed.pods.stranger].flatMap(({ addresses }) => addresses) })),
    ],
    named('teller', 'outsider', 'neighbour'),
  ],
  [
    'DENY comes before ALLOW',
    () => [
      authorizationPolicyManifest('all', { rules: [{}] }),
      rule('DENY', from({ notPrincipals: ['cluster.local/ns/shop/*'] })),
    ],
    named('client', 'neighbour'),
  ],
  ['ALLOW without rules lets in nobody', () => [rule('ALLOW')], () => false],
  [
    'DENY of the root namespace is for everybody',
    () => [authorizationPolicyManifest('rule', { namespace: 'istio-system', action: 'DENY', rules: [{}] })],
    () => false,
  ],
  [
    'a policy for other labels, or of another namespace, says nothing',
    () => [
      authorizationPolicyManifest('rule', { selector: { app: 'neighbour' } }),
      authorizationPolicyManifest('rule', { namespace: 'bank' }),
    ],
    () => true,
  ],
  [
    'STRICT lets in whoever proves an identity',
    () => [peerAuthenticationManifest('strict')],
    (name) => provers.includes(name),
  ],
  [
    'STRICT with an open port',
    () => [
      peerAuthenticationManifest('strict', { selector: { app: 'server' }, ports: { [OTHER_PORT]: 'PERMISSIVE' } }),
    ],
    (name, port) => port === OTHER_PORT || provers.includes(name),
  ],
  [
    'STRICT for one port',
    () => [
      peerAuthenticationManifest('strict', {
        mode: 'PERMISSIVE',
        selector: { app: 'server' },
        ports: { [OTHER_PORT]: 'STRICT' },
      }),
    ],
    (name, port) => port === APP_PORT || provers.includes(name),
  ],
];

/** What the agent of the server says when it is asked. */
async function asked(who: LabPod, isProven: boolean, at: string, port: number): Promise<PolicyAnswer> {
  const [namespace, name] = [who.request().namespace, who.name];
  const address = who.addresses.find((each) => each.includes(':') === at.includes(':'));
  const source = isProven ? `${namespace}/${name}` : address;
  const question = { method: 'policy-test', from: source, to: apps.endpoint(at, port), explain: false };
  return (await bed.agents[1].request(question)).answer as PolicyAnswer;
}

interface Tried {
  readonly who: string;
  readonly isAllowed: boolean;
  readonly call: Call;
  readonly answer: PolicyAnswer;
}

async function tried(name: Name, port: number, at: string, isAllowed: boolean): Promise<Tried> {
  const [call, answer] = await Promise.all([
    callers[name].call(at, port),
    asked(bed.pods[name], provers.includes(name), at, port),
  ]);
  return { who: `${name} to ${apps.endpoint(at, port)}`, isAllowed, call, answer };
}

for (const [law, wanted, lets] of cases)
  test.serial(law, async (t) => {
    await policies.are(...wanted());
    const [metrics, before] = [await readMetrics(bed.agents[1]), await reached(bed)];
    const all = await Promise.all(
      everybody.flatMap((name, at) =>
        [APP_PORT, OTHER_PORT].map((port) =>
          // Each pair in one of both families, by turns.
          tried(name, port, (at + port) % 2 ? bed.pods.server.ipv4 : bed.pods.server.ipv6, lets(name, port)),
        ),
      ),
    );
    for (const { who, isAllowed, call, answer } of all) {
      if (isAllowed) assertLetIn(t, call, who);
      else assertRefused(t, call, who);
      t.is(answer.verdict, isAllowed ? 'allowed' : 'denied', `${who}: ${JSON.stringify(answer)}`);
      if (!isAllowed) t.truthy(answer.policy ?? answer.candidates[0], who);
    }
    const letIn = all.filter(({ isAllowed }) => isAllowed).length;
    t.is((await reached(bed)) - before, letIn, 'what is refused does not reach the app');
    const after = await readMetrics(bed.agents[1]);
    const refusals = ['denied', 'not-allowed'].map((reason) => {
      const [name, label] = ['culvert_policy_decisions_total', `reason="${reason}"`];
      return after(name, label) - metrics(name, label);
    });
    t.is(
      refusals.reduce((sum, count) => sum + count),
      all.length - letIn,
      'each refusal is counted',
    );
  });

test.serial(
  'under STRICT no byte goes to an outsider, and what an enrolled pod says crosses in the tunnel',
  async (t) => {
    const { lab, pods } = bed;
    const { server, outsider, stranger } = pods;
    await policies.are(peerAuthenticationManifest('strict'));
    for (const [name, who] of Object.entries({ outsider, stranger })) {
      const capture = await lab.capture(who);
      for (const { of } of families)
        for (const port of [APP_PORT, OTHER_PORT])
          assertRefused(t, await callers[who === outsider ? 'outsider' : 'stranger'].call(of(server), port), name);
      const crossed = await capture.stop();
      t.true(crossed.packets.length > 0, name);
      const isFromServer = ({ source }: { readonly source: string | undefined }): boolean =>
        server.addresses.includes(source ?? '');
      t.is(crossed.payloadBytes(isFromServer), 0, name);
    }
    await sealed(t, bed, ['hello'], async () => {
      for (const { of } of families) assertLetIn(t, await callers.client.call(of(server), APP_PORT), 'client');
    });
    for (const { of } of families) assertLetIn(t, await callers.neighbour.call(of(server), APP_PORT), 'neighbour');
  },
);

test.serial(
  'plaintext to a pod that the mesh does not know yet waits, and is judged by what is then known',
  async (t) => {
    const { nodes, agents, control } = bed;
    const [, far] = agents;
    await policies.are(
      authorizationPolicyManifest('shut', { action: 'DENY', rules: [{}], selector: { app: 'shut' } }),
      authorizationPolicyManifest('open', { action: 'DENY', selector: { app: 'open' } }),
    );
    const [open, shut, unheard] = [
      await podOf(nodes[1], 'open'),
      await podOf(nodes[1], 'shut'),
      await podOf(nodes[1], 'unheard'),
    ];
    const late = [open, shut, unheard];
    const listening = await Promise.all(late.map((pod) => serve(pod, apps.echo({ port: APP_PORT, mode: 'tell' }))));
    for (const pod of late) await far.enrol(pod);
    const [before, log] = [await accepted(far), listen(far)];
    const calls = late.flatMap((pod) =>
      [callers.outsider, callers.stranger].map((who) => who.call(pod.ipv4, APP_PORT)),
    );
    const waiting = await settled(
      () => accepted(far),
      (count) => count >= before + calls.length,
    );
    t.is(waiting, before + calls.length);
    await changed(bed, () => control.write('late.yaml', [podManifest(open), podManifest(shut)]));
    const [a, b, c, d, ...none] = await Promise.all(calls);
    for (const call of [a, b]) assertLetIn(t, call as Call, 'open');
    for (const call of [c, d]) assertRefused(t, call as Call, 'shut');
    for (const call of none) {
      assertRefused(t, call, 'unheard');
      const line = await log({ 'src.addr': call.local, scope: 'access' });
      t.is(line.reason, 'mesh-unknown');
      t.regex(`${line.error}`, /failed to fetch information about local workload/);
    }
    const reachedThem = listening.map((app) => app.records.filter(({ event }) => event === 'accepted').length);
    t.deepEqual(reachedThem, [2, 0, 0]);
  },
);
