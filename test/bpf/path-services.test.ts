/** Connects to the address of a service: which backend the kernel picks, who learns of it, and what the app sees. */
import anyTest, { type TestFn } from 'ava';
import { appPort } from './path-maps.ts';
import { PathScene, written } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;
const vip = { 4: '198.51.100.80', 6: '2001:db8:80::1' } as const;
const vipPort = 80;

test.before(async (t) => {
  t.context.scene = await PathScene.create('path services');
});

test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

test.beforeEach((t) => {
  t.context.scene.begin();
});

const families = [
  [4, false],
  [4, true],
  [6, false],
] as const;

for (const [family, mapped] of families) {
  const title = `IPv${family}${mapped ? ' in an IPv6 socket' : ''}`;
  test.serial(`a service leads to its backend, and getpeername shows the service, ${title}`, async (t) => {
    const { scene } = t.context;
    const { server, client } = scene;
    const to = server.pod.addresses[family === 4 ? 0 : 1] ?? '';
    scene.service(vip[family], vipPort, [[to, appPort, 1]]);
    scene.allow(to);
    const answer = await scene.connect(client.party, { to: vip[family], port: vipPort, mapped });
    t.is(answer.who, 'app');
    t.is(answer.shown, written(vip[family], vipPort));
    t.is(answer.local, written(to, appPort));
    t.is(answer.peer, answer.from);
    t.deepEqual(await client.party.ask({ do: 'real', name: 'it' }), { to: written(to, appPort) });
  });

  test.serial(`a backend without a verdict is handed to the agent with the service asked for, ${title}`, async (t) => {
    const { scene } = t.context;
    const to = scene.server.pod.addresses[family === 4 ? 0 : 1] ?? '';
    scene.service(vip[family], vipPort, [[to, appPort, 1]]);
    // A verdict for the service's own address is not its backend's.
    scene.allow(vip[family], { port: vipPort });
    const answer = await scene.connect(scene.client.party, { to: vip[family], port: vipPort, mapped });
    t.is(answer.who, 'outbound');
    t.is(answer.asked, written(vip[family], vipPort));
    t.is(answer.picked, written(to, appPort));
    t.is(answer.shown, written(vip[family], vipPort));
  });
}

test.serial('a backend outside the mesh is reached by its verdict', async (t) => {
  const { scene } = t.context;
  const to = scene.stranger.pod.ipv4;
  scene.service(vip[4], vipPort, [[to, appPort, 1]]);
  scene.allowOutside(to);
  const answer = await scene.connect(scene.client.party, { to: vip[4], port: vipPort });
  t.is(answer.who, 'app');
  t.is(answer.shown, written(vip[4], vipPort));
});

test.serial(
  'what is no service, another port, or a service of another family’s backends is not picked from',
  async (t) => {
    const { scene } = t.context;
    const { server, client } = scene;
    scene.service(vip[4], vipPort, [[server.pod.ipv4, appPort, 1]]);
    for (const [to, port] of [
      [vip[4], vipPort + 1],
      ['198.51.100.81', vipPort],
    ] as const) {
      const answer = await scene.connect(client.party, { to, port });
      t.is(answer.who, 'outbound');
      t.is(answer.picked, undefined);
    }
    scene.service(vip[6], vipPort, [[server.pod.ipv4, appPort, 1]]);
    const crossed = await scene.connect(client.party, { to: vip[6], port: vipPort });
    t.is(crossed.who, 'outbound');
    t.is(crossed.picked, undefined);
  },
);

test.serial('a service without weights is not picked from', async (t) => {
  const { scene } = t.context;
  scene.service(vip[4], vipPort, [[scene.server.pod.ipv4, appPort, 0]]);
  const answer = await scene.connect(scene.client.party, { to: vip[4], port: vipPort });
  t.is(answer.picked, undefined);
  t.is(answer.who, 'outbound');
});

test.serial('nothing is picked for sockets that may not take the kernel path', async (t) => {
  const { scene } = t.context;
  scene.service(vip[4], vipPort, [[scene.server.pod.ipv4, appPort, 1]]);
  for (const how of [{ mptcp: true }, { device: 'eth0' }]) {
    const answer = await scene.connect(scene.client.party, { to: vip[4], port: vipPort, ...how });
    t.is(answer.who, 'outbound');
    t.is(answer.picked, undefined);
  }
});

/** Pearson's statistic; its critical value at alpha 0.000001 with so many degrees of freedom (Wilson and Hilferty). */
function chiSquare(seen: readonly number[], weights: readonly number[]): { value: number; critical: number } {
  const draws = seen.reduce((sum, each) => sum + each, 0);
  const total = weights.reduce((sum, each) => sum + each, 0);
  let value = 0;
  for (const [at, weight] of weights.entries()) {
    const expected = (draws * weight) / total;
    value += ((seen[at] ?? 0) - expected) ** 2 / expected;
  }
  const freedom = weights.length - 1;
  return { value, critical: freedom * (1 - 2 / (9 * freedom) + 4.7534 * Math.sqrt(2 / (9 * freedom))) ** 3 };
}

/** Backends are told apart by their ports: who has picked which is handed to the agent. */
const tables: ReadonlyArray<readonly [string, readonly number[]]> = [
  ['one', [1]],
  ['two that are equal', [1, 1]],
  ['three of weights 1, 2, 5', [1, 2, 5]],
  ['one of next to no weight among heavy ones', [1000, 1000, 100]],
  ['as many as there may be', Array.from({ length: 64 }, (_, at) => 1 + (at % 4))],
];

for (const [what, weights] of tables)
  test.serial(`each backend is picked as often as its weight says: ${what}`, async (t) => {
    const { scene } = t.context;
    const { pod } = scene.server;
    scene.service(
      vip[4],
      vipPort,
      weights.map((weight, at) => [pod.ipv4, 9000 + at, weight] as const),
    );
    const seen = weights.map(() => 0);
    for (let draw = 0; draw < 1000; draw += 1) {
      const answer = await scene.connect(scene.client.party, { to: vip[4], port: vipPort });
      const at = Number(answer.picked?.split(':').at(-1)) - 9000;
      seen[at] = (seen[at] ?? 0) + 1;
      await scene.client.party.ask({ do: 'close', name: 'it' });
    }
    t.is(seen.length, weights.length);
    if (weights.length === 1) return;
    const { value, critical } = chiSquare(seen, weights);
    t.true(value < critical, `${seen.join(' ')}: ${value} of ${critical}`);
  });

// --- the same socket again ------------------------------------------------------------------------------------------------

test.serial('a socket that connects again goes by what holds now, and shows what it asks for now', async (t) => {
  const { scene } = t.context;
  const { server, stranger, client } = scene;
  const to = server.pod.ipv4;
  scene.service(vip[4], vipPort, [[to, appPort, 1]]);
  scene.allow(to);
  const again = (address: string, port: number) => scene.connect(client.party, { to: address, port, again: true });
  t.is((await scene.connect(client.party, { to: vip[4], port: vipPort })).shown, written(vip[4], vipPort));
  t.is(scene.flows().length, 1);
  // Disconnected and connected: to the tunnel, to where nothing is led, and straight again.
  const tunnelled = await again(stranger.pod.ipv4, appPort);
  t.is(tunnelled.who, 'outbound');
  t.is(tunnelled.shown, written(stranger.pod.ipv4, appPort));
  t.is(scene.flows().length, 0);
  t.is((await again(to, appPort)).shown, written(to, appPort));
  t.is(scene.flows().length, 1);
  const own = await again(client.pod.ipv4, appPort);
  t.is(own.who, 'app');
  t.is(own.shown, written(client.pod.ipv4, appPort));
  t.is(scene.flows().length, 0);
  t.is(scene.flowsHeld(client.cookie), 0n);
});

test.serial('a connect that failed leaves nothing to the next one', async (t) => {
  const { scene } = t.context;
  const { server, stranger, client } = scene;
  const to = server.pod.ipv4;
  scene.service(vip[4], vipPort, [[to, appPort + 1, 1]]);
  scene.allow(to, { port: appPort + 1 });
  t.is((await scene.connect(client.party, { to: vip[4], port: vipPort })).who, 'ECONNREFUSED');
  t.is(scene.flows().length, 0);
  const next = await scene.connect(client.party, { to: stranger.pod.ipv4, again: true });
  t.is(next.who, 'outbound');
  t.is(next.shown, written(stranger.pod.ipv4, appPort));
  t.is(next.picked, undefined);
  t.is(scene.flows().length, 0);
});

test.serial('a connect that had sent nothing yet leaves nothing to the next one either', async (t) => {
  const { scene } = t.context;
  const { server, client } = scene;
  await client.pod.sysctl({ 'net.ipv4.tcp_fastopen': 0x207 });
  scene.allow(server.pod.ipv4);
  await client.party.ask({ do: 'connect', name: 'it', to: server.pod.ipv4, port: appPort, fastopen: 'connect' });
  await client.party.ask({ do: 'connect', name: 'it', to: client.pod.ipv4, port: appPort, again: true });
  await client.party.ask({ do: 'tell', name: 'it', text: 'hello\n' });
  t.is((await scene.answer(client.party)).local, written(client.pod.ipv4, appPort));
  t.is(scene.flows().length, 0);
  t.deepEqual(scene.events(), []);
});
