/** Two pods of one node, and a pod and itself: through the tunnel too, as long as there is no shorter way. */
import test, { type ExecutionContext } from 'ava';
import { apps, furnish, Lab, type LabAgent, type LabPod, podManifest, serviceManifest } from '../lab/index.ts';
import { addressOf, type Conversation, converse, families, labOptions, serve, socketKinds } from './conversation.ts';
import { APP_PORT, besideHbone, HBONE_PORT, identity, listen, podOf, SERVICE_PORT, VIP } from './tunnel-bed.ts';

interface Bed {
  readonly lab: Lab;
  readonly agent: LabAgent;
  readonly client: LabPod;
  /** The only endpoint of the service at VIP. */
  readonly server: LabPod;
}

let bed: Bed;

test.serial.before(async () => {
  bed = await furnish(await Lab.create('one node', labOptions), async (lab) => {
    const node = await lab.node('n1');
    const [client, server] = [await podOf(node, 'client'), await podOf(node, 'server')];
    const control = await lab.control({
      manifests: {
        'pods.yaml': [
          podManifest(client),
          podManifest(server),
          serviceManifest('server', {
            namespace: 'shop',
            clusterIps: [VIP.ipv4, VIP.ipv6],
            ports: { [SERVICE_PORT]: APP_PORT },
          }),
        ],
      },
    });
    const agent = await node.agent({ control });
    for (const pod of [client, server]) await agent.enrol(pod);
    await serve(server, apps.echo({ port: APP_PORT, mode: 'tell' }));
    return { lab, agent, client, server };
  });
});

test.serial.after.always(() => bed?.lab.dispose());

/** Has a client talk, and asserts that it came through the tunnel, between these two. Both ends are the same agent's. */
async function assertTunnelled(t: ExecutionContext, from: LabPod, to: LabPod, argv: string[]): Promise<Conversation> {
  const log = listen(bed.agent);
  const talk = await converse(from, argv);
  t.is(talk.error, undefined, JSON.stringify(talk));
  const own = { 'src.addr': talk.local };
  const told = { out: await log({ ...own, direction: 'outbound' }), in: await log({ ...own, direction: 'inbound' }) };
  for (const each of Object.values(told))
    t.like(each, {
      message: 'connection complete',
      path: 'tunnel',
      'src.identity': identity(from.name),
      'src.workload': from.name,
      'dst.identity': identity(to.name),
      'dst.workload': to.name,
      error: undefined,
    });
  t.is(told.out['dst.hbone_addr'], told.in['dst.hbone_addr']);
  return talk;
}

test.serial('two pods of one node talk through the tunnel, each as itself', async (t) => {
  const { lab, client, server } = bed;
  const capture = await lab.capture(client);
  for (const { name, of, options } of socketKinds)
    for (const [to, port] of [
      [of(server), APP_PORT],
      [name === 'IPv6' ? VIP.ipv6 : VIP.ipv4, SERVICE_PORT],
    ] as const) {
      const argv = apps.pythonConnect({ to, port, send: 'secret', ...options });
      const talk = await assertTunnelled(t, client, server, argv);
      t.is(talk.peer, apps.endpoint(to, port), name);
      t.is(talk.server?.peer, talk.local, name);
      t.is(talk.server?.local, apps.endpoint(of(server), APP_PORT), name);
    }
  const crossed = (await capture.stop()).filter(({ protocol }) => protocol === 'tcp');
  t.true(crossed.packets.length > 0);
  t.deepEqual(besideHbone(crossed), []);
  t.false(crossed.contains('secret'));
});

test.serial('a pod that calls its own service reaches itself, and nothing leaves it', async (t) => {
  const { lab, agent, server } = bed;
  const capture = await lab.capture(server);
  for (const { name, of } of families) {
    const log = listen(agent);
    const to = name === 'IPv6' ? VIP.ipv6 : VIP.ipv4;
    const talk = await converse(server, apps.pythonConnect({ to, port: SERVICE_PORT }));
    t.is(talk.error, undefined, JSON.stringify(talk));
    t.is(talk.peer, apps.endpoint(to, SERVICE_PORT), name);
    t.is(addressOf(talk.server?.peer), of(server), `${name}: what its own app is shown`);
    t.like(await log({ 'src.addr': talk.local }), {
      direction: 'outbound',
      path: 'plain',
      'src.workload': 'server',
      'dst.workload': 'server',
      'dst.addr': apps.endpoint(of(server), APP_PORT),
    });
  }
  // Sessions that others have with it may still say something of themselves.
  t.deepEqual(besideHbone((await capture.stop()).filter(({ protocol }) => protocol === 'tcp')), []);
});

test.serial('a pod that calls itself by its own address needs nobody', async (t) => {
  const { agent, server } = bed;
  const before = agent.process.lines.length;
  for (const { name, of, loopback } of families)
    for (const to of [of(server), loopback]) {
      const talk = await converse(server, apps.pythonConnect({ to, port: APP_PORT }));
      t.is(talk.error, undefined, `${name}, ${to}`);
      t.is(talk.server?.peer, talk.local);
    }
  const since = agent.process.lines.slice(before);
  t.deepEqual(
    since.filter((line) => line.includes('"src.addr"')),
    [],
  );
});

test.serial('a pod cannot call the HBONE port of its neighbour, nor its own, past the agent', async (t) => {
  const { client, server } = bed;
  for (const { name, of } of families)
    for (const to of [of(server), of(client)]) {
      const { error } = await converse(client, apps.pythonConnect({ to, port: HBONE_PORT }));
      t.true(['ECONNRESET', 'ECONNREFUSED'].includes(error ?? 'none'), `${name}, ${to}: ${error}`);
    }
});
