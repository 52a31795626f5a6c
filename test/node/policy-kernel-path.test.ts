/** Policy at connections that go past the agent, as far as it is the same for them as for all others. */
import test from 'ava';
import type { PolicyAnswer } from '../../src/agent/index.ts';
import { apps, authorizationPolicyManifest, peerAuthenticationManifest } from '../lab/index.ts';
import { readMetrics, socketKinds } from './conversation.ts';
import { settled } from './inspect.ts';
import { changed, direct, type PathBed, type PathPods, pastAgent, pathBed, trio, waysTo } from './kernel-path-bed.ts';
import { forServer, pods } from './policy-bed.ts';
import { assertRefused, Caller } from './policy-callers.ts';
import { APP_PORT, listen } from './tunnel-bed.ts';

let bed: PathBed<PathPods>;

test.serial.before(async () => {
  bed = await pathBed('policy beside the tunnel', trio);
});

test.serial.after.always(() => bed?.lab.dispose());

test.serial('under STRICT a pod of the node is let in over the kernel path, and an outsider is not', async (t) => {
  const { agent, pods: them } = bed;
  const { client, server, stranger } = them;
  const outsider = await Caller.start(stranger);
  // Before: its plaintext needs no agent either, for everybody may send it.
  const open = await pastAgent(bed, server, async () => {
    for (const to of server.addresses) t.is((await outsider.call(to, APP_PORT)).error, undefined);
  });
  t.deepEqual(open, { direct_plain: 2 });
  await changed(bed, (control) => control.write('strict.yaml', peerAuthenticationManifest('strict')));
  const capture = await bed.lab.capture(stranger);
  for (const to of server.addresses) {
    const log = listen(agent);
    const call = await outsider.call(to, APP_PORT);
    assertRefused(t, call, to);
    t.like(await log({ 'src.addr': call.local }), {
      reason: 'policy-denied',
      path: 'plain',
      policy: 'istio-system/istio_converted_static_strict',
    });
  }
  const isFromServer = ({ source = '' }): boolean => server.addresses.includes(source);
  t.is((await capture.stop()).payloadBytes(isFromServer), 0, 'without a byte');
  for (const kind of socketKinds)
    for (const { argv } of waysTo(server, kind)) {
      const { told } = await direct(bed, client, argv);
      t.like(told, { path: 'kernel', flow: 'local', 'src.identity': client.identity, error: undefined });
    }
  await changed(bed, (control) => control.remove('strict.yaml'));
});

test.serial('a dry run is told and counted beside the tunnel too, and enforced for none', async (t) => {
  const { agent, pods: them } = bed;
  const { client, server } = them;
  const annotations = { 'istio.io/dry-run': 'true' };
  await changed(bed, (control) => control.write('dry.yaml', forServer('DENY', pods(client), { annotations })));
  const [way] = waysTo(server);
  await direct(bed, client, way.argv);
  const [before, log] = [await readMetrics(agent), listen(agent)];
  const { talk } = await direct(bed, client, way.argv);
  t.like(await log({ message: 'policy dry run', 'src.addr': talk.local, path: 'kernel' }), {
    policy: 'shop/rule',
    would: 'deny',
    'src.identity': client.identity,
  });
  const denied = await settled(
    async () => (await readMetrics(agent))('culvert_policy_dry_run_total', 'result="deny"'),
    (count) => count > before('culvert_policy_dry_run_total', 'result="deny"'),
  );
  t.is(denied - before('culvert_policy_dry_run_total', 'result="deny"'), 1);
  await changed(bed, (control) => control.remove('dry.yaml'));
});

test.serial('the agent answers for a pair as the kernel does, before a change and after it', async (t) => {
  const { agent, pods: them } = bed;
  const { client, server } = them;
  const caller = await Caller.start(client);
  const asked = async (): Promise<PolicyAnswer> => {
    const question = { from: 'shop/client', to: apps.endpoint(server.ipv4, APP_PORT), explain: false };
    return (await agent.request({ method: 'policy-test', ...question })).answer as PolicyAnswer;
  };
  const [way] = waysTo(server);
  for (const [policies, verdict] of [
    [[forServer('ALLOW', pods(client))], 'allowed'],
    [[forServer('DENY', pods(client))], 'denied'],
    [
      [authorizationPolicyManifest('rule', { rules: [{ to: [{ operation: { ports: [`${APP_PORT}`] } }] }] })],
      'allowed',
    ],
    [[authorizationPolicyManifest('rule')], 'denied'],
  ] as const) {
    await changed(bed, (control) => control.write('policies.yaml', policies));
    t.is((await asked()).verdict, verdict);
    if (verdict === 'allowed') await direct(bed, client, way.argv);
    else assertRefused(t, await caller.call(server.ipv4, APP_PORT), verdict);
  }
});
