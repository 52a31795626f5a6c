/** The kernel path as the kernel room offers it to the agent, on the real programs: decided, listed, ended, swept. */
import anyTest, { type TestFn } from 'ava';
import { parsePod } from '../../src/agent/index.ts';
import { readU64 } from '../../src/kernel/bytes.ts';
import { type FlowEnd, type Kernel, type KernelFlow, type KernelVerdict, openKernel } from '../../src/kernel/index.ts';
import type { Address, Endpoint, NetnsCookie } from '../../src/mesh/index.ts';
import { appPort, endpoint } from '../bpf/path-maps.ts';
import { Party, PathScene, type Seat, until } from '../bpf/path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('the flows of the kernel room');
});
test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});
test.beforeEach((t) => {
  const { scene } = t.context;
  scene.begin();
  // Its counts are those of nobody's flows now, so nothing of them is swept.
  for (const { cookie } of [scene.client, scene.server]) scene.setPod(cookie, () => ({ flowsSwept: 0 }));
  scene.kernel.clearPaths();
  for (const { cookie } of [scene.client, scene.server]) scene.kernel.setKernelPath(cookie as NetnsCookie, true);
  scene.kernel.beat();
});

const raw = ({ address, port }: Endpoint) => endpoint(address, port);
const cookieOf = (seat: Seat): NetnsCookie => seat.cookie as NetnsCookie;
const at = (address: string, port = appPort): Endpoint => ({ address: address as Address, port });

function local({ kernel, client, server }: PathScene, to: string): KernelVerdict {
  const [source, destination] = [cookieOf(client), cookieOf(server)];
  const epochs = { sourceEpoch: kernel.epochOf(source), destinationEpoch: kernel.epochOf(destination) };
  return { kind: 'local', source, destination: at(to), to: destination, ...epochs };
}

/** The next record; the kernel tells nobody that there is one. */
async function ended(kernel: Kernel): Promise<FlowEnd> {
  const found: FlowEnd[] = [];
  await until(() => found.push(...kernel.flowRecords()) > 0);
  const [first] = found;
  if (first === undefined || found.length > 1) throw new Error(`${found.length} records`);
  return first;
}

async function established(kernel: Kernel): Promise<KernelFlow> {
  const flows = (): KernelFlow[] => kernel.flows().filter(({ state }) => state === 'established');
  await until(() => flows().length === 1);
  const [flow] = flows();
  if (flow === undefined) throw new Error('it is over already');
  return flow;
}

for (const mapped of [false, true])
  test.serial(
    `a verdict lets a connection through, which is listed and told of at its end${mapped ? ', v4-mapped' : ''}`,
    async (t) => {
      const { scene } = t.context;
      const { kernel, client, server } = scene;
      for (const to of mapped ? [server.pod.ipv4] : server.pod.addresses) {
        t.true(kernel.putVerdict(local(scene, to)));
        t.is((await scene.connect(client.party, { to, mapped })).who, 'app');
        const flow = await established(kernel);
        const from = to.includes(':') ? client.pod.ipv6 : client.pod.ipv4;
        t.like(flow, { kind: 'local', source: client.cookie, destination: server.cookie, server: at(to) });
        t.is(flow.client.address, from as Address);
        t.true(flow.clientSocket > 0n && flow.serverSocket > 0n && flow.clientSocket !== flow.serverSocket);
        t.is(kernel.flowCount(), 1);
        t.is(kernel.sweepFlows(), 0);
        await client.party.ask({ do: 'close', name: 'it' });
        const record = await ended(kernel);
        t.like(record, {
          kind: 'local',
          source: client.cookie,
          client: flow.client,
          server: flow.server,
          asked: undefined,
        });
        t.true(record.bytesReceived > 0 && record.durationMs > 0 && record.roundTripUs > 0);
        t.deepEqual(kernel.flows(), []);
        t.is(kernel.flowCount(), 0);
      }
    },
  );

test.serial('a verdict counts no more once either epoch is raised, or all is cleared', async (t) => {
  const { scene } = t.context;
  const { kernel, client, server } = scene;
  const to = server.pod.ipv4;
  const voids = [
    () => kernel.raiseEpoch(cookieOf(client)),
    () => kernel.raiseEpoch(cookieOf(server)),
    () => kernel.deleteVerdict(cookieOf(client), at(to)),
    () => kernel.setKernelPath(cookieOf(client), false),
    () => kernel.clearPaths(),
  ];
  for (const undo of voids) {
    kernel.setKernelPath(cookieOf(client), true);
    kernel.putVerdict(local(scene, to));
    t.is((await scene.connect(client.party, { to })).who, 'app', undo.toString());
    undo();
    t.is((await scene.connect(client.party, { to })).who, 'outbound', undo.toString());
  }
});

for (const mapped of [false, true])
  test.serial(`a forbidden connection is ended at both ends${mapped ? ', v4-mapped' : ''}`, async (t) => {
    const { scene } = t.context;
    const { kernel, client, server } = scene;
    for (const to of mapped ? [server.pod.ipv4] : server.pod.addresses) {
      kernel.putVerdict(local(scene, to));
      t.is((await scene.connect(client.party, { to, mapped })).who, 'app');
      const flow = await established(kernel);
      t.true(kernel.destroyFlows([flow]) >= 1);
      t.is((await client.party.ask({ do: 'hear', name: 'it' })).error, 'ECONNABORTED');
      const atServer = `${to.includes(':') ? `[${flow.client.address}]` : flow.client.address}:${flow.client.port}`;
      t.regex(String((await server.party.ask({ do: 'hear', name: atServer })).error), /^(ECONNABORTED|ECONNRESET)$/);
      t.is((await ended(kernel)).server.address, to as Address);
      t.is(kernel.flowCount(), 0);
      t.is(kernel.destroyFlows([flow]), 0);
      t.is(kernel.flowCount(), 0);
    }
  });

test.serial('the kernel chooses among the backends, and the record says what was asked', async (t) => {
  const { scene } = t.context;
  const { kernel, client, server } = scene;
  const service = at('10.96.0.77', 80);
  kernel.putVerdict(local(scene, server.pod.ipv4));
  t.true(kernel.putService(service, [{ endpoint: at(server.pod.ipv4), weight: 3 }]));
  const answer = await scene.connect(client.party, { to: service.address, port: service.port });
  t.like(answer, { who: 'app', shown: '10.96.0.77:80' });
  await client.party.ask({ do: 'close', name: 'it' });
  t.like(await ended(kernel), { asked: service, server: at(server.pod.ipv4) });
  // Picked, but not allowed: the agent is told which.
  kernel.raiseEpoch(cookieOf(server));
  const led = await scene.connect(client.party, { to: service.address, port: service.port });
  t.like(led, { who: 'outbound', asked: '10.96.0.77:80', picked: `${server.pod.ipv4}:${appPort}` });
  kernel.deleteService(service);
  const unpicked = await scene.connect(client.party, { to: service.address, port: service.port });
  t.like(unpicked, { who: 'outbound', picked: undefined });
});

test.serial('plaintext reaches an open port, as a flow that can be ended, and no other port', async (t) => {
  const { scene } = t.context;
  const { kernel, server, stranger } = scene;
  for (const to of server.pod.addresses) {
    t.is((await scene.connect(stranger.party, { to })).who, 'inbound');
    t.true(kernel.setOpenPorts(cookieOf(server), { others: false, ports: new Map([[appPort, true]]) }));
    t.is((await scene.connect(stranger.party, { to })).who, 'app');
    const flow = await established(kernel);
    t.like(flow, { kind: 'plain', source: 0n, destination: server.cookie, server: at(to) });
    t.is(kernel.destroyFlows([flow]), 1);
    t.is((await stranger.party.ask({ do: 'hear', name: 'it' })).error, 'ECONNRESET');
    t.is((await ended(kernel)).kind, 'plain');
    kernel.setOpenPorts(cookieOf(server), undefined);
    t.is((await scene.connect(stranger.party, { to })).who, 'inbound');
  }
  t.is(kernel.flowCount(), 0);
});

test.serial('a flow whose close nobody reported is not there for ever', async (t) => {
  const { scene } = t.context;
  const { kernel, client, server } = scene;
  const remove = scene.foreignSockops();
  t.teardown(remove);
  kernel.putVerdict(local(scene, server.pod.ipv4));
  t.is((await scene.connect(client.party, { to: server.pod.ipv4 })).who, 'app');
  const flow = await established(kernel);
  // So old that a sweep looks at it.
  const connection = { netns: server.cookie, client: raw(flow.client), server: raw(flow.server) };
  const entry = scene.flow(connection);
  if (entry === undefined) throw new Error('there is no entry');
  scene.approve(connection, { ...entry, sinceNs: entry.sinceNs - 20_000_000_000n });
  t.is(kernel.sweepFlows(), 0);
  await client.party.ask({ do: 'reset', name: 'it' });
  t.is(kernel.flows().length, 1);
  t.is(kernel.flowCount(), 1);
  await until(() => kernel.sweepFlows() > 0);
  t.deepEqual([kernel.flows().length, kernel.flowCount()], [0, 0]);
  t.deepEqual(kernel.flowRecords(), []);
});

test.serial('an agent that is started again ends the flows of the one before, once it has their pods', async (t) => {
  const { scene } = t.context;
  const { kernel, client, server } = scene;
  kernel.putVerdict(local(scene, server.pod.ipv4));
  t.is((await scene.connect(client.party, { to: server.pod.ipv4 })).who, 'app');
  await established(kernel);
  // A second agent beside the first, which the kernel cannot tell from a later one.
  const later = openKernel({ cgroup: scene.node.cgroup, bpffs: scene.node.bpffs, workers: 1 });
  try {
    later.clearPaths();
    t.is(later.destroyFlows(later.flows()), 0);
    t.is(later.flows().length, 1);
    t.is(later.sweepFlows(), 0);
    await client.party.ask({ do: 'tell', name: 'it', text: 'still here' });
    later.prepare(parsePod(client.pod.request()));
    t.true(later.destroyFlows(later.flows()) >= 1);
    t.is(later.flows().length, 0);
    t.is((await client.party.ask({ do: 'hear', name: 'it' })).error, 'ECONNABORTED');
  } finally {
    later.dispose();
  }
});

test.serial(
  "a pod that is closed takes its flows, verdicts and addresses along, and not its neighbours'",
  async (t) => {
    const { scene } = t.context;
    const { kernel, client, server } = scene;
    kernel.putVerdict(local(scene, server.pod.ipv4));
    t.is((await scene.connect(client.party, { to: server.pod.ipv4, name: 'lasting' })).who, 'app');
    await established(kernel);
    const addresses = scene.keys('addresses').length;
    await kernel.release(cookieOf(client));
    kernel.close(cookieOf(client));
    t.is(scene.keys('verdicts').length, 0);
    t.is(kernel.flows().length, 0);
    t.is(kernel.epochOf(cookieOf(client)), 0n);
    t.is(scene.keys('addresses').length, addresses - client.pod.addresses.length);
    // Withdrawn, not cut off.
    await client.party.ask({ do: 'tell', name: 'lasting', text: 'still here' });
    const request = parsePod(client.pod.request());
    kernel.prepare(request);
    kernel.capture(request, cookieOf(client));
    t.true(kernel.epochOf(cookieOf(client)) > 0n);
  },
);

test.serial('what was open before a pod is enrolled is counted until it ends, also by the next agent', async (t) => {
  const { scene } = t.context;
  const { kernel, node, stranger } = scene;
  const pod = await node.pod('late');
  const party = new Party(pod, { restricted: true });
  for (const bind of pod.addresses) await party.ask({ do: 'listen', bind, port: appPort });
  for (const [name, to] of stranger.pod.addresses.entries())
    t.is((await scene.connect(party, { to, name: `${name}` })).who, 'app');
  t.is((await scene.connect(stranger.party, { to: pod.ipv4, name: 'inbound' })).who, 'app');
  t.is((await scene.connect(party, { to: pod.ipv4, name: 'itself' })).who, 'app');
  const request = parsePod(pod.request());
  const { cookie } = kernel.prepare(request);
  kernel.capture(request, cookie);
  const told = (of: Kernel): number | undefined => of.earlierConnections().get(cookie);
  const counted = (): number | undefined =>
    kernel.counts().find((each) => each.cookie === cookie && each.reason === 'opened_before_enrolment')?.count;
  t.deepEqual([told(kernel), counted()], [3, 3]);
  kernel.capture(request, cookie);
  t.deepEqual([told(kernel), counted()], [3, 3]);

  await party.ask({ do: 'close', name: '0' });
  const later = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
  try {
    later.prepare(request);
    later.capture(request, cookie);
    t.deepEqual([told(later), counted()], [2, 3]);
    await party.ask({ do: 'close', name: '1' });
    await stranger.party.ask({ do: 'reset', name: 'inbound' });
    // They are asked after every 10 s.
    await until(() => told(later) === undefined && told(kernel) === undefined);
    const kept = scene.keys('earlier_sockets').filter((key) => readU64(key) === cookie);
    t.is(kept.length, 0);
  } finally {
    later.dispose();
  }
});

test.serial('maps, programs and rings say how they are', (t) => {
  const { kernel } = t.context.scene;
  t.true(kernel.programs().length >= 10);
  t.true(kernel.programs().every(({ state }) => state === 'running'));
  const maps = new Map(kernel.maps().map(({ name, ...fill }) => [name, fill]));
  t.true((maps.get('pods')?.entries ?? 0) >= 3);
  t.true([...maps.values()].every(({ entries, capacity }) => entries >= 0 && entries <= capacity));
  t.deepEqual(kernel.lostRecords(), { flows: 0, events: 0, alarms: 0 });
});
