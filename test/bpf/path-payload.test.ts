/** Bytes of a flow: exactly what its apps have written and read, however it ends. */
import anyTest, { type TestFn } from 'ava';
import { type FlowRecord, flowKind } from '../../src/gen/layout.ts';
import { appPort } from './path-maps.ts';
import { dropping, PathScene, until } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path payload');
});
test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});
test.beforeEach((t) => {
  t.context.scene.begin();
});

async function recorded(scene: PathScene): Promise<FlowRecord> {
  const found: FlowRecord[] = [];
  await until(() => found.push(...scene.records()) > 0);
  const [record] = found;
  if (record === undefined || found.length > 1) throw new Error(`${found.length} records`);
  return record;
}

/** A line that each party writes. */
const texts = { client: `${'x'.repeat(34_567)}\n`, server: `${'y'.repeat(23_456)}\n` };

/** Who does what. `tell` writes the party's line, `hear` reads the other's. */
const talks: ReadonlyArray<readonly [string, readonly string[]]> = [
  ['nothing is said', ['client close', 'server close']],
  ['the client speaks and closes', ['client tell', 'server hear', 'client close', 'server close']],
  ['the server speaks and closes', ['server tell', 'client hear', 'server close', 'client close']],
  [
    'the client shuts its side, and the server goes on',
    ['client tell', 'client shut', 'server hear', 'server tell', 'client hear', 'server close', 'client close'],
  ],
  [
    'the server shuts its side, and the client goes on',
    ['server tell', 'server shut', 'client hear', 'client tell', 'server hear', 'client close', 'server close'],
  ],
  ['both shut', ['client tell', 'client shut', 'server hear', 'server tell', 'server shut', 'client hear']],
  ['the client resets', ['client tell', 'server hear', 'server tell', 'client hear', 'client reset']],
  ['the server resets', ['client tell', 'server hear', 'server tell', 'client hear', 'server reset']],
  ['the client resets after its side was shut', ['client tell', 'client shut', 'server hear', 'client reset']],
  ['the server resets after the client has shut', ['client tell', 'client shut', 'server hear', 'server reset']],
  ['the client resets after the server has shut', ['server tell', 'server shut', 'client hear', 'client reset']],
];

for (const kind of ['LOCAL', 'OUTSIDE', 'PLAIN'] as const)
  for (const [what, steps] of talks)
    test.serial(`${kind}: ${what}: every byte is counted once`, async (t) => {
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
        const moved = { client: 0, server: Buffer.byteLength(greetingOf(answer)) };
        for (const [who, verb = ''] of steps.map((step) => step.split(' '))) {
          const party = who === 'client' ? near.party : far.party;
          const own = who === 'client' ? 'client' : 'server';
          if (verb === 'tell') moved[own] += texts[own].length;
          await party.ask({ do: verb, name: who === 'client' ? 'it' : from, text: texts[own] });
        }
        if (steps.every((step) => !step.endsWith('close') && !step.endsWith('reset'))) {
          await near.party.ask({ do: 'close', name: 'it' });
          await far.party.ask({ do: 'close', name: from });
        }
        const record = await recorded(scene);
        t.is(record.kind, flowKind[kind]);
        t.is(record.bytesSent, BigInt(moved.client));
        t.is(record.bytesReceived, BigInt(moved.server));
      }
    });

/** What the accepting party says first; Python puts a space behind each colon and comma. */
function greetingOf({ who, peer, local }: { who: string; peer?: string; local?: string }): string {
  return `{"who": "${who}", "peer": "${peer}", "local": "${local}"}\n`;
}

test.serial('bytes that wait in the socket do not count, nor does a FIN behind them', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  t.is((await scene.connect(client.party, { to, userMs: 500 })).who, 'app');
  // Nothing is acknowledged any more, so no more than the first window leaves; 2 MiB wait behind it.
  const heal = await dropping(server.pod, 'input', `tcp dport ${appPort}`);
  const written = 400_000;
  await client.party.ask({ do: 'tell', name: 'it', text: 'x'.repeat(written) });
  await client.party.ask({ do: 'shut', name: 'it' });
  const record = await recorded(scene);
  await heal();
  t.true(record.bytesSent > 0n && record.bytesSent < BigInt(written));
  t.true(record.retransmits > 0);
});

test.serial('what the pod itself drops on its way out is not counted each time that it is tried', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  const answer = await scene.connect(client.party, { to });
  const heal = await dropping(client.pod, 'output', `tcp dport ${appPort} ip length \\> 100`);
  const told = client.party.ask({ do: 'tell', name: 'it', text: `${'x'.repeat(9_999)}\n` });
  await told;
  await new Promise((resolve) => setTimeout(resolve, 700));
  await heal();
  await server.party.ask({ do: 'hear', name: answer.from ?? '' });
  await client.party.ask({ do: 'reset', name: 'it' });
  const record = await recorded(scene);
  t.is(record.bytesSent, 10_000n);
});

test.serial('a record names its flow as the entry was named, and says how long connecting took', async (t) => {
  const { scene } = t.context;
  const { client, server } = scene;
  const to = server.pod.ipv4;
  scene.service('198.51.100.80', 80, [[to, appPort, 1]]);
  scene.allow(to);
  t.is((await scene.connect(client.party, { to: '198.51.100.80', port: 80 })).who, 'app');
  const [flow] = scene.flows();
  t.is(flow?.asked.port, 80);
  await client.party.ask({ do: 'reset', name: 'it' });
  const record = await recorded(scene);
  t.is(record.socket, flow?.clientSocket ?? 0n);
  t.is(record.sinceNs, flow?.sinceNs ?? 0n);
  t.true(record.connectNs > 0n && record.connectNs < record.durationNs);
  scene.allow(to, { port: appPort + 1 });
  t.is((await scene.connect(client.party, { to, port: appPort + 1 })).who, 'ECONNREFUSED');
  const refused = await recorded(scene);
  t.is(refused.connectNs, 0n);
  t.is(refused.bytesSent, 0n);
});

test.serial('a full ring loses records, counts them, and disturbs no connection', async (t) => {
  const { scene } = t.context;
  const { client, server, kernel } = scene;
  const to = server.pod.ipv4;
  scene.allow(to);
  scene.allow(to, { port: appPort + 1 });
  const before = kernel.lostRecords();
  // Each takes 160 bytes of 4 MiB.
  const count = 26_500;
  for (let made = 0; made < count; made += 500)
    t.deepEqual(await client.party.ask({ do: 'refused', to, port: appPort + 1, count: 500 }), {});
  const lost = kernel.lostRecords().flows - before.flows;
  t.true(lost > 0);
  t.is((await scene.connect(client.party, { to })).who, 'app');
  await client.party.ask({ do: 'reset', name: 'it' });
  await until(() => scene.flows().length === 0);
  t.is(kernel.lostRecords().flows - before.flows, lost + 1);
  t.like(kernel.lostRecords(), { events: before.events, alarms: before.alarms });
  let told = 0;
  for (let some = scene.records(); some.length > 0; some = scene.records()) told += some.length;
  t.is(told + lost, count);
  t.is((await scene.connect(client.party, { to })).who, 'app');
  await client.party.ask({ do: 'reset', name: 'it' });
  await recorded(scene);
});
