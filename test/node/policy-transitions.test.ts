/** Pods and agents that come, go and change: whatever is open stays under policy until its end. */
import test from 'ava';
import { type LabPod, type Manifest, peerAuthenticationManifest, podManifest } from '../lab/index.ts';
import { changed, forAll, forServer, pods, reached } from './policy-bed.ts';
import {
  assertLetIn,
  assertNew,
  assertRefused,
  everybody,
  opened,
  type PolicyScene,
  policyScene,
} from './policy-callers.ts';
import { APP_PORT, listen } from './tunnel-bed.ts';

let scene: PolicyScene;

test.serial.before(async () => {
  scene = await policyScene('transitions', { args: ['--drain', '3600'] });
});

test.serial.after.always(() => scene?.bed.lab.dispose());

/** A pod's manifest with another service account. */
function accountOf(pod: LabPod, serviceAccountName: string): Manifest {
  const manifest = podManifest(pod);
  return { ...manifest, spec: { ...(manifest.spec as object), serviceAccountName } };
}

test.serial('a client that becomes somebody else is judged as who it is; what is open, as who it was', async (t) => {
  const { bed, callers, policies } = scene;
  const [near, far] = bed.agents;
  const { client, server } = bed.pods;
  const become = async (account: string): Promise<void> => {
    await changed(bed, () => bed.control.write('client.yaml', accountOf(client, account)));
    await near.enrol(client, { serviceAccount: account });
  };
  const letsIn = (...serviceAccounts: readonly string[]): Promise<void> =>
    policies.are(forServer('ALLOW', { serviceAccounts }));
  await letsIn('client', 'other');
  const open = await callers.client.open(server.ipv4, APP_PORT);
  await become('other');
  await open.talk();
  const log = listen(far);
  const call = await callers.client.call(server.ipv4, APP_PORT);
  assertLetIn(t, call, 'other');
  const { 'src.identity': identity } = await log({ 'src.addr': call.local, direction: 'inbound' });
  t.is(identity, client.identity.replace('/sa/client', '/sa/other'));
  await letsIn('other');
  t.is(await open.over(), 'ECONNRESET');
  await assertNew(t, scene, ['client'], []);
  await letsIn('client');
  await assertNew(t, scene, ['client'], ['client']);
  await become('client');
  await assertNew(t, scene, ['client'], []);
});

test.serial(
  'a server that the mesh takes for somebody else lets nobody in; what is open stays, under policy',
  async (t) => {
    const { bed, callers, policies } = scene;
    const { client, server } = bed.pods;
    await policies.are();
    const calls = await opened(scene, ['client', 'outsider']);
    const before = await reached(bed);
    await changed(bed, () => bed.control.write('server.yaml', accountOf(server, 'other')));
    for (const [, call] of calls) await call.talk();
    const refused = await Promise.all(everybody.map((name) => callers[name].call(server.ipv4, APP_PORT)));
    for (const [at, call] of refused.entries()) assertRefused(t, call, everybody[at] ?? '');
    t.is((await reached(bed)) - before, 0);
    await policies.are(forAll('shop', 'DENY', pods(client)));
    for (const [name, call] of calls)
      if (name === 'client') t.is(await call.over(), 'ECONNRESET');
      else await call.talk();
    for (const [, call] of calls) call.close();
    await changed(bed, () => bed.control.write('server.yaml', podManifest(server)));
    await assertNew(t, scene, everybody, ['client']);
  },
);

test.serial('what a pod has open when it is withdrawn stays under policy until its end', async (t) => {
  const { bed, policies } = scene;
  const [, far] = bed.agents;
  const { client, server } = bed.pods;
  const strict = peerAuthenticationManifest('strict');
  await policies.are();
  const calls = await opened(scene, everybody);
  await far.withdraw(server);
  for (const [, call] of calls) await call.talk();
  await policies.are(forAll('shop', 'DENY', pods(client)), strict);
  const ended = ['client', 'outsider', 'stranger'];
  for (const [name, call] of calls)
    if (ended.includes(name)) t.is(await call.over(), 'ECONNRESET', name);
    else await call.talk();
  // Nobody knows the pod any more, but what applied to it still does.
  await changed(bed, () => bed.control.remove('server.yaml'));
  for (const [name, call] of calls) if (!ended.includes(name)) await call.talk();
  await policies.are(forAll('shop', 'DENY', { namespaces: ['bank'] }), strict);
  for (const [name, call] of calls)
    if (name === 'teller') t.is(await call.over(), 'ECONNRESET', name);
    else if (name === 'neighbour') await call.talk();
  for (const [, call] of calls) call.close();
  await changed(bed, () => bed.control.write('server.yaml', podManifest(server)));
  await far.enrol(server);
  await assertNew(t, scene, everybody, ['teller', 'outsider', 'stranger']);
});

test.serial('what an agent that stops still has open stays under policy until its end', async (t) => {
  const { bed, policies } = scene;
  const [, far] = bed.agents;
  await policies.are();
  const calls = await opened(scene, everybody);
  far.process.signal('SIGTERM');
  await far.told({ message: 'agent stops: draining' });
  for (const [, call] of calls) await call.talk();
  await policies.are(forAll('shop', 'DENY', pods(bed.pods.client)), peerAuthenticationManifest('strict'));
  for (const [name, call] of calls)
    if (name === 'teller' || name === 'neighbour') {
      await call.talk();
      call.close();
    } else t.is(await call.over(), 'ECONNRESET', name);
  t.deepEqual(await far.process.exit, { code: 0, signal: null });
});
