/** What is in doubt is refused, and people are told: by the control process, the agent's status and metrics, and the commands. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { stringify } from 'yaml';
import type { StatusReply } from '../../src/agent/index.ts';
import { ControlServer, nodeSocketPath } from '../../src/control/index.ts';
import { systemClock } from '../../src/identity/index.ts';
import { type Address, type AuthorizationPolicy, type MeshUpdate, ReadModel } from '../../src/mesh/index.ts';
import { silentLog } from '../../src/telemetry/index.ts';
import { meshUpdate, workload } from '../contract/fakes/mesh.ts';
import { FakeSigner } from '../contract/fakes/signer.ts';
import {
  apps,
  authorizationPolicyManifest,
  Lab,
  type LabNode,
  type Manifest,
  type Outcome,
  peerAuthenticationManifest,
} from '../lab/index.ts';
import { metric, readMetrics, serve } from './conversation.ts';
import { settled } from './inspect.ts';
import { forAll, forServer, from, pods } from './policy-bed.ts';
import {
  assertLetIn,
  assertNew,
  assertRefused,
  Caller,
  everybody,
  type PartyName as Name,
  type PolicyScene,
  policyScene,
} from './policy-callers.ts';
import { APP_PORT, listen } from './tunnel-bed.ts';

let scene: PolicyScene;

test.serial.before(async () => {
  scene = await policyScene('reports');
});

test.serial.after.always(() => scene?.bed.lab.dispose());

type Action = 'ALLOW' | 'DENY';

function rule(action: Action, ...rules: readonly Manifest[]): Manifest {
  return authorizationPolicyManifest('rule', { action, rules });
}

const shop = from({ namespaces: ['shop'] });
const teller = from({ namespaces: ['bank'] });
const to = (operation: Manifest): Manifest => ({ to: [{ operation }] });

const doubts: ReadonlyArray<
  readonly [law: string, policy: Manifest, refused: readonly Name[], status: 'True' | 'False', field: string]
> = [
  [
    'an ALLOW that needs a waypoint allows nobody',
    rule('ALLOW', { ...shop, ...to({ methods: ['GET'] }) }),
    everybody,
    'False',
    'spec.rules[0].to[0].operation.methods',
  ],
  [
    'an ALLOW allows by those of its rules that need none',
    rule('ALLOW', { ...shop, ...to({ paths: ['/public'] }) }, teller),
    ['client', 'outsider', 'neighbour', 'stranger'],
    'True',
    'spec.rules[0].to[0].operation.paths',
  ],
  [
    'a DENY that needs a waypoint denies all that it could be about',
    rule('DENY', { ...shop, ...to({ methods: ['DELETE'] }) }),
    ['client', 'neighbour'],
    'True',
    'spec.rules[0].to[0].operation.methods',
  ],
  [
    'a DENY that only a waypoint could look at denies everybody',
    rule('DENY', { when: [{ key: 'request.headers[x-token]', notValues: ['good'] }] }),
    everybody,
    'True',
    'spec.rules[0].when[0].key',
  ],
  [
    'an ALLOW with an unknown field allows nobody',
    rule('ALLOW', from({ namespaces: ['shop'], groups: ['staff'] })),
    everybody,
    'False',
    'spec.rules[0].from[0].source.groups',
  ],
  [
    'a DENY with an unknown field denies more',
    rule('DENY', from({ namespaces: ['shop'], groups: ['staff'] })),
    ['client', 'neighbour'],
    'True',
    'spec.rules[0].from[0].source.groups',
  ],
  [
    'an ALLOW with a block that is none allows nobody',
    rule('ALLOW', from({ ipBlocks: ['10.0.0.0/8', '10.0.0.0/33'] })),
    everybody,
    'False',
    'spec.rules[0].from[0].source.ipBlocks[1]',
  ],
  [
    'a DENY with a block that is none denies everybody',
    rule('DENY', from({ ipBlocks: ['192.0.2.0/24', '10.0.0.300'] })),
    everybody,
    'True',
    'spec.rules[0].from[0].source.ipBlocks[1]',
  ],
  [
    'an ALLOW with a condition that nobody knows allows nobody',
    rule('ALLOW', { ...shop, when: [{ key: 'source.mood', values: ['good'] }] }),
    everybody,
    'False',
    'spec.rules[0].when[0].key',
  ],
  [
    'a DENY that may be meant as a dry run is enforced',
    { ...forAll('shop', 'DENY', { namespaces: ['shop'] }), metadata: metadataWith({ 'istio.io/dry-run': 'yes' }) },
    ['client', 'neighbour'],
    'True',
    'metadata.annotations["istio.io/dry-run"]',
  ],
];

function metadataWith(annotations: Readonly<Record<string, string>>): Manifest {
  return { name: 'rule', namespace: 'shop', annotations };
}

for (const [law, policy, refused, status, field] of doubts)
  test.serial(`${law}; the control process says why, status and metrics that it is so`, async (t) => {
    const { bed, policies } = scene;
    await policies.are();
    const since = bed.control.process.lines.length;
    await policies.are(policy);
    const told = await bed.control.process.told({ object: 'AuthorizationPolicy shop/rule', status }, { since });
    t.like(told, { reason: 'UnsupportedValue', condition: 'ZtunnelAccepted' });
    t.true(`${told.message}`.includes(field), `${told.message}`);
    for (const agent of bed.agents) {
      const { mesh } = (await agent.status()).status as StatusReply;
      t.deepEqual(mesh?.partialPolicies, ['shop/rule']);
      t.is(await metric(agent, 'culvert_policies', 'state="partial"'), 1);
    }
    await assertNew(t, scene, everybody, refused);
  });

test.serial('a policy that is enforced as it is written is none of those', async (t) => {
  const { bed, policies } = scene;
  await policies.are(forServer('DENY', { namespaces: ['bank'] }), peerAuthenticationManifest('strict'));
  for (const agent of bed.agents) {
    const { mesh } = (await agent.status()).status as StatusReply;
    t.like(mesh, { policies: 2, partialPolicies: [], unknownPolicies: [] });
    t.is(await metric(agent, 'culvert_policies', 'state="partial"'), 0);
  }
});

test.serial('a dry run is told and counted for each connection, and enforced for none', async (t) => {
  const { bed, callers, policies } = scene;
  const [, far] = bed.agents;
  const { client, teller: bankTeller, server } = bed.pods;
  const annotations = { 'istio.io/dry-run': 'true' };
  await policies.are(
    forServer('DENY', pods(client), { name: 'deny', annotations }),
    forServer('ALLOW', pods(bankTeller), { name: 'allow', annotations }),
    { ...peerAuthenticationManifest('open', { mode: 'PERMISSIVE' }) },
  );
  const [before, log] = [await readMetrics(far), listen(far)];
  for (const [name, would] of [
    ['client', { 'shop/deny': 'deny', 'shop/allow': 'not-allow' }],
    ['teller', {}],
    ['outsider', { 'shop/allow': 'not-allow' }],
  ] as const) {
    const call = await callers[name].call(server.ipv4, APP_PORT);
    assertLetIn(t, call, name);
    for (const [policy, wouldBe] of Object.entries(would))
      t.like(await log({ message: 'policy dry run', policy, 'src.addr': call.local }), {
        would: wouldBe,
        direction: 'inbound',
        'dst.addr': apps.endpoint(server.ipv4, APP_PORT),
      });
  }
  const after = await readMetrics(far);
  const more = (label: string): number =>
    after('culvert_policy_dry_run_total', label) - before('culvert_policy_dry_run_total', label);
  t.deepEqual([more('result="deny"'), more('result="allow"')], [3, 1]);
});

/** Runs the command on a node, as an operator would. */
function culvert(node: LabNode, ...argv: readonly string[]): Promise<Outcome> {
  const main = join(import.meta.dirname, '../../src/cli/main.ts');
  return node.exec([process.execPath, main, ...argv, '--run', node.runDirectory]);
}

test.serial('culvert policy test asks the agent, and its exit code is the answer', async (t) => {
  const { bed, policies } = scene;
  const [, node] = bed.nodes;
  const { server, outsider } = bed.pods;
  await policies.are(forServer('DENY', { namespaces: ['shop'] }), peerAuthenticationManifest('strict'));
  for (const [source, code, text] of [
    ['shop/client', 1, /^denied: .*shop\/rule/],
    ['bank/teller', 0, /^allowed: /],
    [outsider.ipv4, 1, /^denied: .*istio-system\/istio_converted_static_strict/],
    ['shop/nobody', 1, /no pod of the mesh has the identity/],
  ] as const) {
    const said = await culvert(node, 'policy', 'test', '--from', source, '--to', `shop/server:${APP_PORT}`);
    t.is(said.code, code, `${source}: ${said.stdout}${said.stderr}`);
    t.regex(said.stdout, text);
  }
  const said = await culvert(node, 'policy', 'test', '--from', 'none', '--to', `${server.ipv4}:${APP_PORT}`, '--json');
  t.like(JSON.parse(said.stdout), { verdict: 'denied', reason: 'denied' });
});

test.serial('culvert policy replay names the connections that new policies would have refused', async (t) => {
  const { bed, callers, policies } = scene;
  const [, far] = bed.agents;
  const [, node] = bed.nodes;
  const { client, server, outsider } = bed.pods;
  await policies.are();
  await assertNew(t, scene, ['client', 'teller', 'outsider'], []);
  // Also one that is refused now, and would not be.
  await policies.are(forAll('shop', 'DENY', { namespaces: ['bank'] }));
  assertRefused(t, await callers.teller.call(server.ipv4, APP_PORT), 'teller');
  const recorded = async (): Promise<string> =>
    JSON.stringify(await far.request({ method: 'recent-flows', uid: server.uid }));
  const sources = [client.identity, '/sa/teller', outsider.ipv4];
  const flows = await settled(recorded, (text) => sources.every((source) => text.includes(source)));
  for (const source of sources) t.true(flows.includes(source), flows);
  const folder = join(bed.lab.directory, 'proposed');
  mkdirSync(folder);
  const replace = forAll('shop', 'DENY', pods(client));
  writeFileSync(
    join(folder, 'new.yaml'),
    [replace, peerAuthenticationManifest('strict')].map((each) => stringify(each)).join('---\n'),
  );
  const said = await culvert(node, 'policy', 'replay', join(folder, 'new.yaml'));
  t.is(said.code, 1, said.stderr);
  const [refused = '', allowed = ''] = said.stdout.split('\n\n');
  t.regex(refused, /^would be refused:/);
  t.regex(refused, new RegExp(`${client.identity} +shop/server:${APP_PORT} .* shop/rule, rule 1`));
  t.regex(
    refused,
    new RegExp(`10\\.11\\.0\\.\\d+ +shop/server:${APP_PORT} .* istio-system/istio_converted_static_strict`),
  );
  t.false(refused.includes('/sa/teller'));
  t.regex(allowed, /refused now and would be allowed:/);
  t.regex(allowed, /\/sa\/teller +shop\/server/);
  // Nothing has changed by that.
  await assertNew(t, scene, everybody, ['teller']);
});

test.serial(
  'a workload that names a policy which nobody knows lets nobody in; status and metrics say so',
  async (t) => {
    // The file's own lab holds the lock until the end.
    await using lab = await Lab.create(t.title, { shared: true });
    const node = await lab.node('n1');
    const server = await node.pod('server', { namespace: 'shop', serviceAccount: 'server' });
    const outside = await node.pod('outside');
    const directory = join(lab.directory, 'made-up');
    mkdirSync(directory);
    const control = new ControlServer(
      { mesh: new ReadModel(), signer: new FakeSigner(), log: silentLog(), clock: systemClock },
      { directory },
    );
    t.teardown(() => control.close());
    const [served, policy] = [
      workload({
        name: 'server',
        serviceAccount: 'server',
        addresses: server.addresses as readonly Address[],
        authorizationPolicies: ['shop/missing'],
      }),
      {
        namespace: 'shop',
        name: 'missing',
        scope: 'workload-selector',
        action: 'deny',
        rules: [],
        dryRun: false,
      } as const,
    ] satisfies [unknown, AuthorizationPolicy];
    control.start();
    await control.publish(meshUpdate({ complete: true, workloads: [served] }));
    const agent = await node.agent({ args: ['--node', 'n1', '--control', nodeSocketPath(directory, 'n1')] });
    await agent.enrol(server);
    await agent.told({ message: 'the mesh is known' });
    const app = await serve(server, apps.echo({ port: APP_PORT, mode: 'tell' }));
    const caller = await Caller.start(outside);
    const told = async (update: Partial<MeshUpdate>): Promise<void> => {
      const since = agent.process.lines.length;
      await control.publish(meshUpdate(update));
      await agent.told({ message: 'the mesh has changed' }, { since });
    };
    const assertUnknown = async (): Promise<void> => {
      const log = listen(agent);
      const call = await caller.call(server.ipv4, APP_PORT);
      assertRefused(t, call, 'outside');
      t.like(await log({ 'src.addr': call.local }), {
        reason: 'policy-denied',
        error: 'connection closed due to policy rejection: policy not known: shop/missing',
        policy: 'shop/missing',
      });
      const { mesh } = (await agent.status()).status as StatusReply;
      t.deepEqual(mesh?.unknownPolicies, ['shop/missing']);
      t.is((await readMetrics(agent))('culvert_policies', 'state="unknown"'), 1);
      const { stdout } = await culvert(node, 'status');
      const text = stdout.replaceAll('\n  ', ' ');
      t.true(text.includes('policy shop/missing: not known, so pods of this node that it is for let nobody in'));
    };
    await assertUnknown();
    t.false(app.records.some(({ event }) => event === 'accepted'));
    t.is((await readMetrics(agent))('culvert_policy_decisions_total', 'reason="unknown-policy"'), 1);

    await told({ policies: [policy] });
    const open = await caller.open(server.ipv4, APP_PORT);
    const { mesh } = (await agent.status()).status as StatusReply;
    t.deepEqual(mesh?.unknownPolicies, []);
    t.is((await readMetrics(agent))('culvert_policies', 'state="unknown"'), 0);

    await told({ removedPolicies: ['shop/missing'] });
    t.is(await open.over(), 'ECONNRESET');
    await assertUnknown();
  },
);
