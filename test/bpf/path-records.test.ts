/** What is told of a flow when it is over: once, by the socket that holds the plan, and the entry is gone. */
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { type FlowRecord, flowEnd, flowKind } from '../../src/gen/layout.ts';
import { decodeAddress } from '../../src/mesh/index.ts';
import { appPort } from './path-maps.ts';
import { dropping, PathScene, until, written } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;
const vip = '198.51.100.80';

test.before(async (t) => {
  t.context.scene = await PathScene.create('path records');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

/** The next record, and that no entry and no count are left behind it. */
async function recorded(t: ExecutionContext<{ scene: PathScene }>): Promise<FlowRecord> {
  const { scene } = t.context;
  const found: FlowRecord[] = [];
  await until(() => found.push(...scene.records()) > 0);
  const [record] = found;
  if (record === undefined) throw new Error('no record');
  t.is(found.length, 1);
  t.is(scene.flows().length, 0);
  for (const { cookie } of [scene.client, scene.server]) t.is(scene.flowsHeld(cookie), 0n);
  return record;
}

const textOf = ({ address, port }: FlowRecord['client']): string =>
  written(decodeAddress(address.bytes).replace('::ffff:', ''), port);

test.serial('a record has both ends, what was asked for, how long it took, and every byte', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  for (const [index, to] of server.pod.addresses.entries()) {
    const asked = index === 0 ? vip : to;
    if (index === 0) scene.service(vip, 80, [[to, appPort, 1]]);
    scene.allow(to);
    const began = process.hrtime.bigint();
    const answer = await scene.connect(client.party, { to: asked, port: index === 0 ? 80 : appPort });
    const from = answer.from ?? '';
    await client.party.ask({ do: 'tell', name: 'it', text: `${'x'.repeat(99_999)}\n` });
    await server.party.ask({ do: 'hear', name: from });
    await client.party.ask({ do: 'shut', name: 'it' });
    await server.party.ask({ do: 'tell', name: from, text: 'good bye\n' });
    await server.party.ask({ do: 'close', name: from });
    t.deepEqual(await client.party.ask({ do: 'drain', name: 'it' }), { length: 9 });
    const record = await recorded(t);
    const greeting = JSON.stringify({ who: 'app', peer: answer.peer, local: answer.local }).length;
    t.is(record.kind, flowKind.LOCAL);
    t.is(record.end, flowEnd.CLEAN);
    t.is(record.source, client.cookie);
    t.is(record.destination, server.cookie);
    t.is(textOf(record.client), from);
    t.is(textOf(record.server), written(to, appPort));
    t.is(index === 0 ? textOf(record.asked) : String(record.asked.port), index === 0 ? written(vip, 80) : '0');
    t.is(record.bytesSent, 100_000n);
    // Python puts a space behind each colon and comma.
    t.is(record.bytesReceived, BigInt(greeting + 5 + 1 + 9));
    t.true(record.durationNs > 0n && record.durationNs < process.hrtime.bigint() - began);
    t.true(record.roundTripUs > 0);
    await client.party.ask({ do: 'close', name: 'it' });
  }
});

/** What the ends are asked to do, one after the other, and what such an end is called. */
const ends: ReadonlyArray<readonly [string, readonly string[], keyof typeof flowEnd]> = [
  ['the client closes first', ['client close', 'server close'], 'CLEAN'],
  ['the server closes first', ['server close', 'client drain', 'client close'], 'CLEAN'],
  ['the client shuts its side, and the server closes', ['client shut', 'server drain', 'server close'], 'CLEAN'],
  ['the client resets', ['client reset'], 'RESET_BY_CLIENT'],
  ['the server resets', ['server reset'], 'RESET_BY_SERVER'],
  ['the client closes with data unread', ['server tell', 'client peek', 'client close'], 'RESET_BY_CLIENT'],
  ['the server closes with data unread', ['client tell', 'server peek', 'server close'], 'RESET_BY_SERVER'],
];

for (const kind of ['LOCAL', 'OUTSIDE', 'PLAIN'] as const)
  for (const [what, steps, name] of ends)
    test.serial(`${kind}: ${what}: ${name}`, async (t) => {
      const { scene } = t.context;
      const near = kind === 'PLAIN' ? scene.stranger : scene.client;
      const far = kind === 'OUTSIDE' ? scene.stranger : scene.server;
      for (const to of far.pod.addresses) {
        if (kind === 'LOCAL') scene.allow(to);
        else if (kind === 'OUTSIDE') scene.allowOutside(to);
        else scene.open(far.cookie, appPort, true);
        const answer = await scene.connect(near.party, { to });
        t.is(answer.who, 'app');
        const from = answer.from ?? '';
        for (const [who, verb] of steps.map((step) => step.split(' '))) {
          const [party, name] = who === 'client' ? [near.party, 'it'] : [far.party, from];
          await party.ask({ do: verb ?? '', name, text: 'unread\n' });
        }
        const record = await recorded(t);
        t.is(record.kind, flowKind[kind]);
        t.is(record.end, flowEnd[name]);
        t.is(record.source, kind === 'PLAIN' ? 0n : scene.client.cookie);
        t.is(record.destination, kind === 'OUTSIDE' ? 0n : scene.server.cookie);
        t.is(textOf(record.client), from);
        t.is(textOf(record.server), written(to, appPort));
      }
    });

test.serial('a connect that is refused, given up or never answered is told of as such', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  scene.allow(to, { port: appPort + 1 });
  t.is((await scene.connect(client.party, { to, port: appPort + 1 })).who, 'ECONNREFUSED');
  t.is((await recorded(t)).end, flowEnd.REFUSED);
  const heal = await dropping(client.pod, 'output', `tcp dport ${appPort}`);
  await client.party.ask({ do: 'connect', name: 'it', to, port: appPort, start: true });
  await client.party.ask({ do: 'close', name: 'it' });
  t.is((await recorded(t)).end, flowEnd.ABORTED);
  t.is((await scene.connect(client.party, { to, userMs: 300 })).who, 'ETIMEDOUT');
  t.is((await recorded(t)).end, flowEnd.TIMED_OUT);
  await heal();
  t.is((await scene.connect(client.party, { to, userMs: 300 })).who, 'app');
  // At the other end: what is dropped on its way out counts as never sent.
  const healAgain = await dropping(server.pod, 'input', `tcp dport ${appPort}`);
  await client.party.ask({ do: 'tell', name: 'it', text: 'into the void\n' });
  const silent = await recorded(t);
  t.is(silent.end, flowEnd.TIMED_OUT);
  t.is(silent.bytesSent, 14n);
  t.true(silent.retransmits > 0);
  await healAgain();
});

test.serial('a flow that the agent destroys is told of as reset by that end', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  for (const [at, end] of [
    [client, flowEnd.RESET_BY_CLIENT],
    [server, flowEnd.RESET_BY_SERVER],
  ] as const) {
    scene.allow(server.pod.ipv4);
    const answer = await scene.connect(client.party, { to: server.pod.ipv4 });
    const [flow] = scene.flows();
    const [from = '', to = ''] = [answer.peer, answer.local];
    if (at === client) t.true(scene.destroy(client, flow?.clientSocket ?? 0n, from, to));
    else t.true(scene.destroy(server, flow?.serverSocket ?? 0n, to, from));
    t.is((await recorded(t)).end, end);
  }
});

test.serial('another owner’s program that clears the callbacks costs a record, and grants nothing', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const undo = scene.foreignSockops();
  t.teardown(undo);
  const to = server.pod.ipv4;
  scene.allow(to);
  const first = await scene.connect(client.party, { to, bind: client.pod.ipv4, bindPort: 6100 });
  t.is(first.who, 'app');
  await client.party.ask({ do: 'reset', name: 'it' });
  t.deepEqual(scene.records(), []);
  t.is(scene.flows().length, 1);
  // Revoked: neither the old entry nor the socket's plan opens anything.
  scene.setEpoch(server.cookie, 2n);
  t.is((await scene.connect(client.party, { to, bind: client.pod.ipv4, bindPort: 6100 })).who, 'outbound');
  // Allowed anew: the entry is taken over, and counted once.
  scene.allow(to, { epochs: [1n, 2n] });
  t.is((await scene.connect(client.party, { to, bind: client.pod.ipv4, bindPort: 6100, name: 'again' })).who, 'app');
  t.is(scene.flows().length, 1);
  t.is(scene.flowsHeld(client.cookie), 1n);
});
