/** Agents and pods that leave, and sessions that nobody uses. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import { setTimeout as pause } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { apps, furnish, type LabAgent, type LabPod, podManifest, serviceManifest } from '../lab/index.ts';
import { converse, serve } from './conversation.ts';
import { Held } from './held.ts';
import { agentListeners, relayed, settled } from './inspect.ts';
import {
  APP_PORT,
  endpointsOf,
  HBONE_PORT,
  listen,
  podOf,
  SERVICE_PORT,
  sessionsOf,
  type TunnelBed,
  tunnelBed,
  VIP,
} from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
const held = 6;
/** A PING finds nobody here: whatever is found out is found out otherwise. */
const neverAsked = ['--ping-interval', '3600'];

interface Pods {
  /** On the near node. */
  readonly client: LabPod;
  readonly neighbour: LabPod;
  /** The endpoints of the service at VIP: on the far node, and on the near one. */
  readonly server: LabPod;
  readonly spare: LabPod;
}

async function bedOf(t: ExecutionContext, args: readonly string[]): Promise<TunnelBed<Pods>> {
  t.timeout(300_000);
  const bed = await tunnelBed(
    t.title,
    async (near, far) => {
      const [client, neighbour] = [await podOf(near, 'client'), await podOf(near, 'neighbour')];
      const [server, spare] = [await podOf(far, 'server'), await podOf(near, 'spare')];
      const labels = { app: 'server' };
      return {
        pods: { client, neighbour, server, spare },
        enrolled: [client, neighbour, server, spare],
        manifests: {
          'pods.yaml': [
            podManifest(client),
            podManifest(neighbour),
            podManifest(server, { labels }),
            podManifest(spare, { labels }),
          ],
          'service.yaml': serviceManifest('server', {
            namespace: 'shop',
            clusterIps: [VIP.ipv4, VIP.ipv6],
            ports: { [SERVICE_PORT]: APP_PORT },
          }),
        },
      };
    },
    { args },
  );
  return await furnish(bed, async ({ pods }) => {
    for (const pod of [pods.server, pods.spare, pods.neighbour])
      await serve(pod, apps.echo({ port: APP_PORT, quiet: true }));
    return bed;
  });
}

/** The agent has been told to stop, and accepts nothing any more. It says that it stops before its workers have heard of it. */
async function stopping(agent: LabAgent): Promise<void> {
  agent.process.signal('SIGTERM');
  for (const pod of agent.node.pods) {
    const open = await settled(
      () => agentListeners(pod),
      (listeners) => listeners.length === 0,
    );
    if (open.length > 0) throw new Error(`the agent still listens in ${pod.name}: ${open}`);
  }
}

/** Asserts that the service is reached, and by the endpoint on the client's own node. */
async function assertSpared(t: ExecutionContext, bed: TunnelBed<Pods>): Promise<void> {
  for (const to of [VIP.ipv4, VIP.ipv6]) {
    const log = listen(bed.agents[0]);
    const talk = await converse(bed.pods.client, apps.pythonConnect({ to, port: SERVICE_PORT }));
    t.is(talk.reply, 'hello', JSON.stringify(talk));
    t.like(await log({ 'src.addr': talk.local, direction: 'outbound' }), { path: 'tunnel', 'dst.workload': 'spare' });
  }
}

/** Asserts that the pod's own addresses lead nowhere, and that the log says why. */
async function assertUnreachable(t: ExecutionContext, bed: TunnelBed<Pods>, pod: LabPod): Promise<void> {
  for (const to of pod.addresses) {
    const log = listen(bed.agents[0]);
    const talk = await converse(bed.pods.client, apps.pythonConnect({ to, port: APP_PORT }));
    t.is(talk.error, 'ECONNRESET', JSON.stringify(talk));
    // By where it led: the reset may come before the client has looked at its own address.
    const dialled = { 'dst.addr': apps.endpoint(to, HBONE_PORT), direction: 'outbound' };
    t.like(await log(dialled), { message: 'connection complete', level: 'error', reason: 'tunnel-unreachable' });
  }
}

/** How many connections the agent carries, once it is what it should be. */
function carried(agent: LabAgent, wanted: number): Promise<number> {
  return settled(
    () => relayed(agent),
    (open) => open === wanted,
  );
}

test.serial(
  'an agent that stops finishes what is open, sends its peers elsewhere, and ends with the last',
  async (t) => {
    await using bed = await bedOf(t, ['--drain', '3600', ...neverAsked]);
    const [near, far] = bed.agents;
    const open = await Held.open(bed.pods.client, endpointsOf(bed.pods.server), held);
    await stopping(far);
    t.is(await open.alive(), held);
    await assertUnreachable(t, bed, bed.pods.server);
    await assertSpared(t, bed);
    t.is(await open.alive(), held);
    t.is(far.process.exited, undefined);
    t.deepEqual(await open.close(), { open: held, lost: 0, errors: {} });
    t.deepEqual(await far.process.exit, { code: 0, signal: null });
    t.is(await carried(near, 0), 0);
  },
);

test.serial("an agent that stops finishes its own pods' connections, and refuses further ones", async (t) => {
  await using bed = await bedOf(t, ['--drain', '3600', ...neverAsked]);
  const [near, far] = bed.agents;
  const { client, server, spare } = bed.pods;
  const open = await Held.open(client, endpointsOf(server), held);
  await stopping(near);
  for (const to of [server.ipv4, server.ipv6, VIP.ipv4, VIP.ipv6, spare.ipv4]) {
    const port = to.startsWith('10.96.') || to === VIP.ipv6 ? SERVICE_PORT : APP_PORT;
    t.is((await converse(client, apps.pythonConnect({ to, port }))).error, 'ECONNREFUSED', to);
  }
  t.is(await open.alive(), held);
  t.deepEqual(await open.close(), { open: held, lost: 0, errors: {} });
  t.deepEqual(await near.process.exit, { code: 0, signal: null });
  t.is(await carried(far, 0), 0);
  const { ended } = (await far.status()).status as { ended: Record<string, number> };
  t.is(ended.clean, held);
});

test.serial('what outlives the drain is reset, and the agent ends well nevertheless', async (t) => {
  await using bed = await bedOf(t, ['--drain', '1', ...neverAsked]);
  const [near, far] = bed.agents;
  const open = await Held.open(bed.pods.client, endpointsOf(bed.pods.server), held);
  const log = listen(near);
  far.process.signal('SIGTERM');
  t.deepEqual(await far.process.exit, { code: 0, signal: null });
  const { lost, errors } = await settled(
    () => open.state(),
    (state) => state.lost === held,
  );
  t.is(lost, held);
  t.deepEqual(errors, { ECONNRESET: held });
  t.like(await log({ 'dst.workload': 'server' }), { message: 'connection complete', reason: 'reset-by-server' });
  t.is(await carried(near, 0), 0);
});

test.serial('tunnelled connections live on when their pods, or a neighbour, are withdrawn', async (t) => {
  await using bed = await bedOf(t, neverAsked);
  const [near, far] = bed.agents;
  const { client, neighbour, server } = bed.pods;
  t.is((await converse(neighbour, apps.pythonConnect({ to: server.ipv4, port: APP_PORT }))).error, undefined);
  const open = await Held.open(client, endpointsOf(server), held);
  const sessions = await sessionsOf(client);
  t.is((await sessionsOf(neighbour)).length, 1);

  await near.withdraw(neighbour);
  const none = (found: readonly string[]): boolean => found.length === 0;
  t.deepEqual(await settled(() => sessionsOf(neighbour), none), [], 'an idle session ends with its pod');
  t.deepEqual(await sessionsOf(client), sessions);
  t.is(await open.alive(), held);

  await far.withdraw(server);
  t.is(await open.alive(), held);
  await assertUnreachable(t, bed, server);
  await assertSpared(t, bed);
  bed.control.write('server.yaml', podManifest(server, { labels: { app: 'server' }, enrolled: false }));
  bed.control.write('pods.yaml', [podManifest(client), podManifest(bed.pods.spare, { labels: { app: 'server' } })]);
  await near.log({ message: 'the mesh has changed' });
  const plain = await settled(
    () => converse(client, apps.pythonConnect({ to: server.ipv4, port: APP_PORT })),
    ({ error }) => error === undefined,
  );
  t.is(plain.reply, 'hello', 'in the clear, once the mesh says that it takes no tunnel');

  await near.withdraw(client);
  t.is(await open.alive(), held);
  t.is((await converse(client, apps.pythonConnect({ to: server.ipv4, port: APP_PORT }))).reply, 'hello');
  t.is(await relayed(near), held);
  t.deepEqual(await open.close(), { open: held, lost: 0, errors: {} });
  for (const agent of [near, far]) t.is(await carried(agent, 0), 0);
  t.deepEqual(await settled(() => sessionsOf(client), none), [], 'the last connection takes the sessions with it');
});

test.serial('a pod that is deleted takes its connections and sessions with it at once, at both ends', async (t) => {
  await using bed = await bedOf(t, neverAsked);
  const [near, far] = bed.agents;
  const { client, neighbour, server } = bed.pods;
  const none = (found: readonly string[]): boolean => found.length === 0;

  await Held.open(neighbour, endpointsOf(server), held);
  t.is(await carried(far, held), held);
  t.true((await sessionsTo(server)).length > 0);
  await neighbour.delete();
  for (const agent of [near, far]) t.is(await carried(agent, 0), 0, "without the client's pod");
  t.deepEqual(await settled(() => sessionsTo(server), none), []);

  const open = await Held.open(client, endpointsOf(server), held);
  await server.delete();
  const { lost } = await settled(
    () => open.state(),
    (state) => state.lost === held,
  );
  t.is(lost, held, "without the server's pod");
  for (const agent of [near, far]) t.is(await carried(agent, 0), 0);
  t.deepEqual(await settled(() => sessionsOf(client), none), []);
});

/** HBONE connections that peers have made to a pod. */
async function sessionsTo(pod: LabPod): Promise<string[]> {
  const { stdout } = await pod.exec(['ss', '-Htn', 'state', 'established', `sport = :${HBONE_PORT}`]);
  return stdout.split('\n').filter((line) => line !== '');
}

test.serial('a session that nobody uses is closed after its time, and made again when somebody asks', async (t) => {
  await using bed = await bedOf(t, ['--pool-idle', '0.5', ...neverAsked]);
  const { client, server } = bed.pods;
  const ports = new Set<string>();
  for (let round = 1; round <= 2; round += 1) {
    t.is((await converse(client, apps.pythonConnect({ to: server.ipv4, port: APP_PORT }))).reply, 'hello');
    const [session = 'none', ...others] = await sessionsOf(client);
    ports.add(session);
    t.deepEqual(others, []);
    const left = await settled(
      () => sessionsOf(client),
      (found) => found.length === 0,
    );
    t.deepEqual(left, []);
  }
  t.is(ports.size, 2);
});

test.serial('an idle connection is never closed for being idle, and keeps its session', async (t) => {
  const idleMs = soak ? 2 * 3_600_000 : 3_000;
  // Idle for many times what closes a session without connections, and what makes its ends ask for a sign of life.
  const args = soak ? [] : ['--pool-idle', '0.5', '--ping-interval', '0.5', '--ping-timeout', '60'];
  await using bed = await bedOf(t, args);
  t.timeout(idleMs + 300_000);
  const { client, server } = bed.pods;
  const open = await Held.open(client, [...endpointsOf(server), apps.endpoint(VIP.ipv4, SERVICE_PORT)], held);
  const sessions = (await sessionsOf(client)).sort();
  await pause(idleMs);
  t.deepEqual(await open.state(), { open: held, lost: 0, errors: {} });
  t.is(await open.alive(), held);
  t.deepEqual((await sessionsOf(client)).sort(), sessions);
});
