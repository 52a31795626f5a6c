/** Connections to whom the mesh does not reach, when it reaches them after all. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { AuthorizationPolicy, MeshUpdate, Workload } from '../../../src/mesh/index.ts';
import { NodeView } from '../../../src/ztunnel/node-view.ts';
import type { PodSockets } from '../../../src/ztunnel/ports.ts';
import { meshUpdate } from '../../contract/fakes/mesh.ts';
import { allow, deny, named, selected } from '../policy/policies.ts';
import { ending } from './loopback.ts';
import { endpoint, memberOf, service, workload } from './mesh.ts';
import { World, type WorldApp, type WorldPod } from './mesh-world.ts';

interface Scene {
  readonly world: World;
  readonly client: WorldPod;
  readonly app: WorldApp;
  /** Who is at the app's address, once somebody is. */
  readonly joined: Workload;
}

/** What the mesh knows of the app at first. */
type Before = 'nobody' | 'a workload that takes no tunnel';

const STRICT = named('istio-system/istio_converted_static_strict', selected(deny({ notPrincipals: ['*'] })));
const STRICT_NAME = `${STRICT.namespace}/${STRICT.name}`;

const law = (title: string, run: (t: ExecutionContext) => Promise<void>): void =>
  test(title, async (t) => {
    t.timeout(60_000);
    await run(t);
  });

async function scene(
  t: ExecutionContext,
  before: Before = 'nobody',
  wish: Parameters<World['pod']>[1] = {},
): Promise<Scene> {
  const world = await World.create(t);
  const client = await world.pod('client', wish);
  const app = await world.app({ address: world.address() });
  const joined = workload('server', { addresses: [app.endpoint.address] });
  world.tell([], before === 'nobody' ? [] : [{ ...joined, protocol: 'tcp' }]);
  return { world, client, app, joined };
}

/** Opens one, and sends something through, there and back. */
async function open(client: WorldPod, app: WorldApp): Promise<[near: Socket, far: Socket]> {
  const near = client.open(app.endpoint);
  const far = await app.accepted();
  await talk(near, far);
  return [near, far];
}

async function talk(near: Socket, far: Socket): Promise<void> {
  near.write('ping');
  await once(far.resume(), 'data');
  far.write('pong');
  await once(near, 'data');
}

/** Asserts that a change resets it at both ends, in the very turn in which it is known, and that the log says why. */
async function ended(
  t: ExecutionContext,
  client: WorldPod,
  [near, far]: readonly [Socket, Socket],
  policy: string,
  change: () => void,
): Promise<void> {
  const from = `${near.localAddress}:${near.localPort}`;
  const endings = Promise.all([ending(near), ending(far)]);
  change();
  t.like(client.logged.at(-1), {
    message: 'connection closed',
    'src.addr': from,
    'dst.addr': `${far.localAddress}:${far.localPort}`,
    direction: 'outbound',
    reason: 'policy-changed',
    error: 'connection closed due to policy change',
    policy,
  });
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  await client.until(() => client.records.length > 0);
  t.is(client.records.at(-1)?.ended, 'policy-changed');
  t.is(client.records.at(-1)?.decision?.allowed, false);
}

const strict = ({ joined }: Scene): Partial<MeshUpdate> => ({
  workloads: [{ ...joined, authorizationPolicies: [STRICT_NAME] }],
  policies: [STRICT],
});

for (const before of ['nobody', 'a workload that takes no tunnel'] as const) {
  law(`what leads to ${before} is reset when who joins the mesh there lets in nobody without identity`, async (t) => {
    const all = await scene(t, before);
    const pair = await open(all.client, all.app);
    t.deepEqual(all.client.paths, [before === 'nobody' ? 'outboundPassthrough' : 'outboundPlain']);
    await ended(t, all.client, pair, STRICT_NAME, () => all.world.change(strict(all)));
  });

  law(
    `what leads to ${before} lives on when who joins the mesh there lets it in, and until policy forbids it`,
    async (t) => {
      const { world, client, app, joined } = await scene(t, before);
      const pair = await open(client, app);
      world.change({ workloads: [joined] });
      world.rule(deny({ principals: ['*'] }));
      await talk(...pair);
      world.change({ workloads: [{ ...joined, name: 'renamed' }] });
      await talk(...pair);
      t.deepEqual(client.logged, []);
      await ended(t, client, pair, 'shop/deny', () => world.rule(deny([])));
    },
  );
}

law(
  'a connection that is being dialled when somebody joins the mesh there ends, and nothing reaches the app',
  async (t) => {
    const opened: Socket[] = [];
    const hang = (sockets: PodSockets): PodSockets => ({
      ...sockets,
      openOutbound: (...args) => {
        const socket = sockets.openOutbound(...args);
        // It never answers.
        socket.connect = () => socket;
        opened.push(socket);
        return socket;
      },
    });
    const all = await scene(t, 'nobody', { sockets: hang });
    const near = ending(all.client.open(all.app.endpoint));
    while (opened.length === 0) await turn();
    all.world.change(strict(all));
    t.is((await near).how, 'ECONNRESET');
    t.true(opened[0]?.destroyed);
    await all.client.until(() => all.client.records.length === 1);
    t.is(all.client.records[0]?.ended, 'policy-changed');
    t.is(all.client.held, 0);
  },
);

const lasting: ReadonlyArray<
  readonly [law: string, update: (all: Scene) => Partial<MeshUpdate>, policies?: readonly AuthorizationPolicy[]]
> = [
  ['somebody who takes no tunnel', (all) => ({ ...strict(all), workloads: [{ ...all.joined, protocol: 'tcp' }] })],
  [
    'somebody at another address',
    (all) => ({ ...strict(all), workloads: [workload('far', { addresses: ['10.9.9.9'] })] }),
  ],
  ['somebody of another network', (all) => ({ ...strict(all), workloads: [{ ...all.joined, network: 'far' }] })],
  [
    'somebody who lets in this address',
    ({ joined }) => ({ workloads: [joined] }),
    [allow({ sourceIps: ['127.0.0.0/8'] })],
  ],
];

for (const [who, update, policies = []] of lasting)
  law(`what leads outside lives on when the mesh gets ${who}`, async (t) => {
    const all = await scene(t);
    const pair = await open(all.client, all.app);
    all.world.rule(...policies);
    all.world.change(update(all));
    await talk(...pair);
    t.is(all.client.records.length, 0);
    t.deepEqual(all.client.logged, []);
  });

law('a policy that looks at addresses is asked for the address of the pod', async (t) => {
  const { world, client, app, joined } = await scene(t);
  const pair = await open(client, app);
  // Of this process, the client's socket comes from there.
  world.rule(deny({ sourceIps: [`${pair[0].localAddress}/32`] }));
  await ended(t, client, pair, 'shop/deny', () => world.change({ workloads: [joined] }));
});

law('who was behind another at an address and is there when that one is gone has a say too', async (t) => {
  const { world, client, app, joined } = await scene(t);
  const machine: Workload = { ...joined, uid: 'Kubernetes//WorkloadEntry/shop/machine' };
  world.rule(deny({ notPrincipals: ['*'] }));
  world.change({ workloads: [{ ...joined, protocol: 'tcp' }, machine] });
  const pair = await open(client, app);
  await ended(t, client, pair, 'shop/deny', () => world.change({ removed: [joined.uid] }));
});

law('a complete update is looked through for everything that is open', async (t) => {
  const all = await scene(t);
  const pair = await open(all.client, all.app);
  all.world.rule(STRICT);
  await ended(t, all.client, pair, STRICT_NAME, () =>
    all.world.tell([], [{ ...all.joined, authorizationPolicies: [STRICT_NAME] }]),
  );
});

law('an update of more addresses than are open finds those that are', async (t) => {
  const all = await scene(t);
  const pair = await open(all.client, all.app);
  const others = ['10.9.9.1', '10.9.9.2', '10.9.9.3'].map((each) => workload(each, { addresses: [each] }));
  const update = strict(all);
  all.world.rule(STRICT);
  await ended(t, all.client, pair, STRICT_NAME, () =>
    all.world.change({ workloads: [...others, ...(update.workloads ?? [])] }),
  );
});

law('of several connections, those to who has joined end, and those to others live on', async (t) => {
  const all = await scene(t);
  const other = await all.world.app({ address: all.world.address() });
  const pairs = [await open(all.client, all.app), await open(all.client, all.app)];
  const kept = await open(all.client, other);
  const endings = Promise.all(pairs.flat().map(ending));
  all.world.change(strict(all));
  t.deepEqual([...new Set((await endings).map(({ how }) => how))], ['ECONNRESET']);
  await talk(...kept);
  await all.client.until(() => all.client.records.length === 2);
});

law('what a pod has open when nobody knows it any more is judged nevertheless', async (t) => {
  const all = await scene(t);
  const pair = await open(all.client, all.app);
  all.world.change({ removed: [all.client.workload.uid] });
  await talk(...pair);
  await ended(t, all.client, pair, STRICT_NAME, () => all.world.change(strict(all)));
});

law('a pod that leaves keeps what policy lets in, and nothing else', async (t) => {
  const all = await scene(t);
  const pair = await open(all.client, all.app);
  all.client.proxy.leave();
  await talk(...pair);
  await ended(t, all.client, pair, STRICT_NAME, () => all.world.change(strict(all)));
});

law(
  'a connection that found nobody at one endpoint and took the tunnel to another has nothing to do with the first',
  async (t) => {
    const world = await World.create(t);
    const client = await world.pod('client');
    const server = await world.pod('server', { workload: { services: memberOf('shop') } });
    const app = await world.app(server, 8080);
    const shop = service('shop', { addresses: ['10.9.0.1'] });
    const dead = world.address();
    const machine = workload('machine', { addresses: [dead], protocol: 'tcp', services: memberOf('shop') });
    world.tell([shop], [machine]);
    const near = client.open(endpoint('10.9.0.1:80'), { address: dead, port: 8080 });
    const far = await app.accepted();
    await talk(near, far);
    world.rule(deny({ notPrincipals: ['*'] }));
    world.change({ workloads: [{ ...machine, protocol: 'hbone' }] });
    await talk(near, far);
    t.deepEqual([client.paths, client.records], [['outboundTunnel'], []]);
  },
);

test('an update says at which addresses it may have changed something', (t) => {
  const view = new NodeView('n1');
  const server = workload('server', { addresses: ['10.1.0.1'] });
  const at = (update: Partial<MeshUpdate>): unknown => {
    const changed = view.apply(meshUpdate(update));
    return changed === 'anywhere' ? changed : [...changed].sort();
  };
  t.is(at({ complete: true, workloads: [server] }), 'anywhere');
  t.deepEqual(at({}), []);
  t.deepEqual(at({ workloads: [workload('server', { addresses: ['10.1.0.2'] })] }), ['10.1.0.1', '10.1.0.2']);
  t.deepEqual(at({ services: [service('shop', { addresses: ['10.9.0.1'] })] }), []);
  t.deepEqual(at({ removed: [server.uid, 'shop/nothing'] }), ['10.1.0.2']);
  t.is(at({ policies: [STRICT] }), 'anywhere');
  t.is(at({ removedPolicies: ['istio-system/istio_converted_static_strict'] }), 'anywhere');
});
