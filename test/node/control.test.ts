import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { StatusReply } from '../../src/agent/index.ts';
import { Lab, type LabAgent, podManifest, serviceManifest } from '../lab/index.ts';

async function meshOf(agent: LabAgent): Promise<NonNullable<StatusReply['mesh']>> {
  const { status } = (await agent.status()) as { status: StatusReply };
  if (status.mesh === null) throw new Error('the agent follows no mesh');
  return status.mesh;
}

test.serial('an agent serves its pods before there is a mesh, and joins it when its node is in it', async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  const here = await n1.pod('web', { namespace: 'shop', serviceAccount: 'web' });
  const there = await n2.pod('db', { namespace: 'shop', serviceAccount: 'db' });
  const control = await lab.control({ manifests: { 'db.yaml': podManifest(there) } });
  t.deepEqual(
    readdirSync(control.runDirectory).filter((name) => name.endsWith('.sock')),
    ['n2.sock'],
  );
  t.is(statSync(control.runDirectory).mode & 0o777, 0o700);
  t.is(statSync(control.socket(n2)).mode & 0o777, 0o600);

  const agent = await n1.agent({ control });
  t.is((await agent.enrol(here)).result, 'enrolled');
  t.like(await meshOf(agent), { node: 'n1', connected: false, workloads: 0, certificates: [] });

  control.write('web.yaml', [
    podManifest(here),
    serviceManifest('web', { namespace: 'shop', clusterIps: ['10.96.0.1'], ports: { 80: 8080 } }),
  ]);
  await agent.log({ message: 'the mesh is known', workloads: 2, services: 1 });
  await agent.issued(here);
  const mesh = await meshOf(agent);
  t.like(mesh, { connected: true, workloads: 2, services: 1 });
  t.deepEqual(
    mesh.certificates.map(({ identity, state }) => [identity, state]),
    [[here.identity, 'available']],
  );
  t.true(Date.parse(mesh.certificates[0]?.expires ?? '') > Date.now());
  t.deepEqual(await agent.stop(), { code: 0, signal: null });
});

test.serial(
  'an agent keeps what it knows while the control process is away, and then hears what has changed',
  async (t) => {
    await using lab = await Lab.create(t.title);
    const n1 = await lab.node('n1');
    const one = await n1.pod('web', { namespace: 'shop', serviceAccount: 'web' });
    const two = await n1.pod('db', { namespace: 'shop', serviceAccount: 'db' });
    const control = await lab.control({ manifests: { 'web.yaml': podManifest(one) } });
    const agent = await n1.agent({ control });
    await agent.issued(one);

    await control.kill();
    await agent.log({ message: 'no connection to the control process' });
    const alone = await meshOf(agent);
    t.like(alone, { connected: false, workloads: 1 });
    t.deepEqual(
      alone.certificates.map(({ identity, state }) => [identity, state]),
      [[one.identity, 'available']],
    );

    control.write('db.yaml', podManifest(two));
    await control.start();
    await agent.log({ message: 'the mesh has changed', workloads: 2 });
    await agent.issued(two);
    control.remove('web.yaml');
    await agent.log({ message: 'the mesh has changed', workloads: 1 });
    const mesh = await meshOf(agent);
    t.deepEqual(
      mesh.certificates.map(({ identity }) => identity),
      [two.identity],
    );
  },
);

test.serial('started with a broken manifest, a control process tells nobody anything until it is mended', async (t) => {
  await using lab = await Lab.create(t.title);
  const n1 = await lab.node('n1');
  const one = await n1.pod('web', { namespace: 'shop', serviceAccount: 'web' });
  const two = await n1.pod('db', { namespace: 'shop', serviceAccount: 'db' });
  const control = await lab.control({
    manifests: { 'web.yaml': podManifest(one), 'db.yaml': podManifest(two) },
  });
  const agent = await n1.agent({ control });
  await agent.told({ message: 'the mesh is known', workloads: 2 });

  await control.stop();
  await agent.log({ message: 'no connection to the control process' });
  control.write('db.yaml', 'apiVersion: v1\nkind: Pod\nmetadata: {name: db}\nspec: {nodeName: 7}\n');
  await control.start({ level: 'error', problems: 1 });
  t.like(await control.process.told({ reason: 'field' }), {
    level: 'error',
    file: join(control.manifests, 'db.yaml'),
    line: 4,
    field: 'spec.nodeName',
  });
  t.false(existsSync(control.socket(n1)));
  t.like(await meshOf(agent), { connected: false, workloads: 2 });

  control.write('db.yaml', podManifest(two));
  await control.log({ message: 'ready', workloads: 2 });
  await agent.log({ message: 'connected to the control process' });
  t.like(await meshOf(agent), { connected: true, workloads: 2 });

  await control.stop();
  control.write('db.yaml', 'kind: [');
  await control.start({ level: 'error', problems: 1 });
  t.deepEqual(await control.stop(), { code: 0, signal: null });
});

test.serial('a control process ends in good order, and there is one for each run directory', async (t) => {
  await using lab = await Lab.create(t.title);
  const n1 = await lab.node('n1');
  const pod = await n1.pod('web');
  const control = await lab.control({ manifests: { 'web.yaml': podManifest(pod) } });
  const argv = ['src/cli/main.ts', 'control', '--manifests', control.manifests, '--ca', control.ca];
  const second = await n1.exec([process.execPath, ...argv, '--run', control.runDirectory]);
  t.is(second.code, 1);
  t.regex(second.stdout, /another control process holds/);
  t.deepEqual(await control.stop(), { code: 0, signal: null });
  t.false(existsSync(control.socket(n1)));

  rmSync(control.manifests, { recursive: true });
  const without = await n1.exec([process.execPath, ...argv, '--run', join(lab.directory, 'other')]);
  t.is(without.code, 1);
  t.true(without.stdout.includes(control.manifests), without.stdout);
});
