/** What a change does: at once to new connections, and to those that are open. */
import test, { type ExecutionContext } from 'ava';
import { authorizationPolicyManifest, type Manifest, peerAuthenticationManifest, podManifest } from '../lab/index.ts';
import { metric } from './conversation.ts';
import { changed, forAll, forServer, type PolicyPods, pods } from './policy-bed.ts';
import {
  assertNew,
  everybody,
  type PartyName as Name,
  opened,
  type PolicyScene,
  policyScene,
} from './policy-callers.ts';
import { APP_PORT, listen } from './tunnel-bed.ts';

const STRICT = 'istio-system/istio_converted_static_strict';

let scene: PolicyScene;
const the = (): PolicyPods => scene.bed.pods;

test.serial.before(async () => {
  scene = await policyScene('changes of policy');
});

test.serial.after.always(() => scene?.bed.lab.dispose());

/** The server's pod, with a label more. */
async function labelled(labels: Readonly<Record<string, string>>): Promise<void> {
  const { bed } = scene;
  const manifest = podManifest(the().server, { labels: { app: 'server', ...labels } });
  await changed(bed, () => bed.control.write('server.yaml', manifest));
}

type Change = () => Promise<unknown>;

interface Expected {
  /** Who is connected before. */
  readonly open: readonly Name[];
  readonly forbids: readonly Name[];
  /** What the log names. */
  readonly policy: string;
}

/** Asserts that a change is in force at once: for those who are connected, and for those who connect. */
async function assertChange(t: ExecutionContext, { open, forbids, policy }: Expected, change: Change): Promise<void> {
  const calls = await opened(scene, open);
  const [log, closed] = [listen(scene.bed.agents[1]), await closedByPolicy()];
  await change();
  for (const [name, call] of calls) {
    if (!forbids.includes(name)) await call.talk();
    else {
      t.is(await call.over(), 'ECONNRESET', name);
      // Told by the agent that had let it in.
      t.like(await log({ 'src.addr': call.call.local, direction: 'inbound', message: 'connection complete' }), {
        reason: 'policy-changed',
        policy,
      });
    }
  }
  t.is((await closedByPolicy()) - closed, forbids.length, 'nothing else was ended');
  await assertNew(t, scene, open, forbids);
  for (const [name, call] of calls)
    if (!forbids.includes(name)) {
      await call.talk();
      call.close();
      t.is(await call.over(), 'EOF', name);
    }
}

function closedByPolicy(): Promise<number> {
  return metric(scene.bed.agents[1], 'culvert_policy_closed_connections_total', 'path="tunnel"');
}

// Before all else: an agent says each kind of thing only so often a second.
test.serial('what a change ends is told in a line for each, which names the policy and who it was', async (t) => {
  const { bed, policies } = scene;
  await policies.are();
  const calls = await opened(scene, ['client', 'outsider']);
  const log = listen(bed.agents[1]);
  await policies.are(forServer('ALLOW', pods(the().teller)));
  for (const [name, { call }] of calls)
    t.like(await log({ 'src.addr': call.local, message: 'connection closed' }), {
      level: 'warn',
      reason: 'policy-changed',
      error: 'connection closed due to policy change',
      policy: 'shop/rule',
      decision: 'allow policies exist, but none allowed',
      'src.identity': name === 'client' ? the().client.identity : undefined,
      direction: 'inbound',
    });
});

const cases: ReadonlyArray<{
  readonly law: string;
  /** In force before. Default: none. */
  readonly before?: () => readonly Manifest[];
  /** In force from then on. */
  readonly after?: () => readonly Manifest[];
  /** The change, where it is not one of the policies. */
  readonly change?: Change;
  /** Who is connected before. Default: everybody. */
  readonly open?: readonly Name[];
  readonly forbids: readonly Name[];
  readonly policy: string;
}> = [
  { law: 'a new DENY', after: () => [forServer('DENY', pods(the().client))], forbids: ['client'], policy: 'shop/rule' },
  {
    law: 'a new ALLOW',
    after: () => [forServer('ALLOW', pods(the().teller))],
    forbids: ['client', 'outsider', 'neighbour', 'stranger'],
    policy: 'shop/rule',
  },
  {
    law: 'an ALLOW that names fewer',
    before: () => [forServer('ALLOW', pods(the().teller, the().client, the().neighbour))],
    after: () => [forServer('ALLOW', pods(the().teller))],
    open: ['teller', 'client', 'neighbour'],
    forbids: ['client', 'neighbour'],
    policy: 'shop/rule',
  },
  {
    law: 'an ALLOW that is gone, while another one stays',
    before: () => [forServer('ALLOW', pods(the().teller)), forServer('ALLOW', pods(the().client), { name: 'other' })],
    after: () => [forServer('ALLOW', pods(the().teller))],
    open: ['teller', 'client'],
    forbids: ['client'],
    policy: 'shop/rule',
  },
  {
    law: 'a DENY by address, for what is in the tunnel and what is not',
    after: () => [
      forServer('DENY', {
        ipBlocks: [the().client, the().stranger].flatMap(({ addresses }) => addresses),
      }),
    ],
    forbids: ['client', 'stranger'],
    policy: 'shop/rule',
  },
  {
    law: 'a dry run that ends',
    before: () => [forServer('DENY', pods(the().client), { annotations: { 'istio.io/dry-run': 'true' } })],
    after: () => [forServer('DENY', pods(the().client))],
    forbids: ['client'],
    policy: 'shop/rule',
  },
  {
    law: 'STRICT for the namespace',
    after: () => [peerAuthenticationManifest('strict')],
    forbids: ['outsider', 'stranger'],
    policy: STRICT,
  },
  {
    law: 'STRICT for the mesh',
    after: () => [peerAuthenticationManifest('strict', { namespace: 'istio-system' })],
    forbids: ['outsider', 'stranger'],
    policy: STRICT,
  },
  {
    law: 'an exception from STRICT that is gone',
    before: () => [
      peerAuthenticationManifest('strict', { namespace: 'istio-system' }),
      peerAuthenticationManifest('exception', { mode: 'PERMISSIVE' }),
    ],
    after: () => [peerAuthenticationManifest('strict', { namespace: 'istio-system' })],
    forbids: ['outsider', 'stranger'],
    policy: STRICT,
  },
  {
    law: 'STRICT for a port',
    after: () => [
      peerAuthenticationManifest('port', {
        mode: 'PERMISSIVE',
        selector: { app: 'server' },
        ports: { [APP_PORT]: 'STRICT' },
      }),
    ],
    forbids: ['outsider', 'stranger'],
    policy: 'shop/converted_peer_authentication_port',
  },
  {
    law: 'a policy for the whole namespace',
    after: () => [forAll('shop', 'DENY', { namespaces: ['bank'] })],
    forbids: ['teller'],
    policy: 'shop/rule',
  },
  {
    law: 'a policy for the whole mesh',
    after: () => [forAll('istio-system', 'DENY', { namespaces: ['bank'] })],
    forbids: ['teller'],
    policy: 'istio-system/rule',
  },
  {
    law: 'a label of the server that a DENY asks for',
    before: () => [
      authorizationPolicyManifest('rule', {
        action: 'DENY',
        rules: [{ from: [{ source: pods(the().client) }] }],
        selector: { tier: 'closed' },
      }),
    ],
    change: () => labelled({ tier: 'closed' }),
    forbids: ['client'],
    policy: 'shop/rule',
  },
  {
    law: 'a label of the server that STRICT asks for',
    before: () => [peerAuthenticationManifest('closed', { selector: { tier: 'closed' } })],
    change: () => labelled({ tier: 'closed' }),
    forbids: ['outsider', 'stranger'],
    policy: STRICT,
  },
];

for (const { law, before, after, change, open = everybody, forbids, policy } of cases)
  test.serial(`${law}: ends what it forbids and nothing else, and refuses the next`, async (t) => {
    const { policies } = scene;
    await policies.are(...(before?.() ?? []));
    await assertNew(t, scene, open, []);
    await assertChange(t, { open, forbids, policy }, change ?? (() => policies.are(...(after?.() ?? []))));
    if (change !== undefined) await labelled({});
    await policies.are(...(before?.() ?? []));
    await assertNew(t, scene, open, []);
  });

test.serial('when the file of the policies is gone, everybody is let in again', async (t) => {
  const { policies } = scene;
  await policies.are(forAll('shop', 'ALLOW', pods(the().client)), peerAuthenticationManifest('strict'));
  await assertNew(t, scene, everybody, ['teller', 'outsider', 'neighbour', 'stranger']);
  await policies.remove();
  await assertNew(t, scene, everybody, []);
});

test.serial('while the file of the policies is broken, the last good ones stay in force', async (t) => {
  const { bed, policies } = scene;
  const { control, agents } = bed;
  const policy = forServer('DENY', pods(the().client));
  await policies.are(policy, peerAuthenticationManifest('strict'));
  const calls = await opened(scene, ['teller', 'neighbour']);
  const from = agents.map(({ process }) => process.lines.length);
  for (const [broken, reason] of [
    ['apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: rule', 'syntax'],
    [JSON.stringify(policy).replace('"DENY"', '"REFUSE"'), 'field'],
    [JSON.stringify(policy).replace('"matchLabels"', '"labels"'), 'field'],
  ] as const) {
    const since = control.process.lines.length;
    control.write('policies.yaml', broken);
    const told = await control.process.told({ reason }, { since });
    t.regex(`${told.message}`, /policies\.yaml:\d+:\d+: /);
    await assertNew(t, scene, everybody, ['client', 'outsider', 'stranger']);
    for (const [, call] of calls) await call.talk();
  }
  for (const [at, { process }] of agents.entries())
    t.false(process.lines.slice(from[at]).some((line) => line.includes('the mesh has changed')));
  await policies.are(forServer('DENY', pods(the().teller)));
  for (const [name, call] of calls)
    if (name === 'teller') t.is(await call.over(), 'ECONNRESET');
    else await call.talk();
  await assertNew(t, scene, everybody, ['teller']);
});
