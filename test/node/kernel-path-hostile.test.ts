/** Those who want to use the kernel path around the policy: by forgery, by odd sockets, by haste. */
import { join } from 'node:path';
import test from 'ava';
import { apps, type LabPod, type LabProcess, type Packet } from '../lab/index.ts';
import { converse, families, plain, serve } from './conversation.ts';
import { grown, told } from './evidence.ts';
import { forge, impersonate } from './forgery.ts';
import { settled } from './inspect.ts';
import { direct, pastAgent, pathStatus, travel, waysTo } from './kernel-path-bed.ts';
import {
  assertClientUnharmed,
  assertKeptOut,
  type GuardedBed,
  guardedBed,
  letIn,
  MASQUERADED,
  newcomer,
  refusals,
  rules,
  usual,
} from './path-guard.ts';
import { reached } from './policy-bed.ts';
import { APP_PORT } from './tunnel-bed.ts';

const privileged = { restricted: false };
const python = '/usr/bin/python3';

let bed: GuardedBed;

test.serial.before(async () => {
  bed = await guardedBed('hostile to the kernel path');
});

test.serial.after.always(() => bed?.lab.dispose());

test.serial.beforeEach(() => bed.policies.are(...usual));

// --- who claims to be somebody else -------------------------------------------------------------------------------------

test.serial('packets that claim to come from the client reach no app, and no mark opens the way to one', async (t) => {
  const { lab, agent, pods, app } = bed;
  const { client, server, rogue, stranger } = pods;
  await assertClientUnharmed(bed);
  const before = await reached({ apps: [app] });
  for (const from of [rogue, stranger])
    for (const { of } of families)
      for (const mark of [0, 0x539]) {
        const wire = await lab.capture(server);
        const source = of(client);
        const seen = await grown(agent, server, () =>
          forge(from, { source, sourcePort: 32_768, to: of(server), port: APP_PORT, mark, count: 20 }),
        );
        const arrived = (await wire.stop()).filter((packet) => packet.flags === 'S' && packet.source === source);
        t.is(arrived.packets.length, 20, 'what is forged arrives');
        t.deepEqual(seen, {}, `${from.name}, mark ${mark}`);
        const argv = apps.pythonConnect({ to: of(server), port: APP_PORT, mark });
        await assertKeptOut(t, app, `${from.name}, mark ${mark}`, () => converse(from, argv, privileged));
      }
  t.is(await reached({ apps: [app] }), before);
  await assertClientUnharmed(bed);
});

test.serial(
  'a pod that has taken the client’s address, and its neighbours’ belief, is not let in for it',
  async (t) => {
    const { pods, app } = bed;
    const { client, server, rogue, stranger } = pods;
    await assertClientUnharmed(bed);
    for (const { of } of families)
      for (const impostor of [rogue, stranger]) {
        await using _ = await impersonate(impostor, of(client), server);
        const argv = apps.pythonConnect({ to: of(server), port: APP_PORT, bind: of(client), timeout: 2 });
        await assertKeptOut(t, app, `${impostor.name} as ${of(client)}`, () => converse(impostor, argv, privileged));
      }
    await assertClientUnharmed(bed);
  },
);

test.serial('a connection made by hand with the client’s address is taken for plaintext of nobody', async (t) => {
  const { agent, pods, app } = bed;
  const { client, server, stranger } = pods;
  await assertClientUnharmed(bed);
  await using _ = await impersonate(stranger, client.ipv4, server);
  await using __ = await rules(
    stranger,
    'chain out { type filter hook output priority 0; tcp flags rst tcp sport 20000-29999 drop; };',
  );
  const script = join(import.meta.dirname, 'handmade.py');
  const argv = [python, script, 'packet', client.ipv4, server.ipv4, `${APP_PORT}`];
  const seen = await grown(agent, server, () =>
    assertKeptOut(t, app, 'by hand', async () => told(await stranger.exec(argv, privileged))),
  );
  t.deepEqual(seen, { captured_inbound: 1 });
});

test.serial(
  'who answers with the server’s address is found out: what is open ends, and no more is said to it',
  async (t) => {
    const { agent, pods } = bed;
    const { server, stranger } = pods;
    const port = APP_PORT + 4;
    await serve(server, apps.echo({ port, mode: 'tell' }));
    const impostor = await serve(stranger, apps.echo({ port, mode: 'tell' }));
    // Of its own, since these two go through the tunnel from then on.
    const client = await newcomer(bed, 'deceived', { serviceAccount: 'client' });
    for (const { of } of families) {
      const to = of(server);
      const argv = apps.pythonConnect({ to, port });
      await direct(bed, client, argv);
      await using _ = await impersonate(stranger, to, client);
      const since = agent.process.lines.length;
      const deceived = client.run(apps.pythonConnect({ to, port, hold: true }));
      await deceived.json({ event: 'connected' });
      await agent.told({ name: client.name, message: MASQUERADED }, { since });
      deceived.write('secret\n');
      await deceived.exit;
      t.true(refusals.includes(`${deceived.records.at(-1)?.error}`), deceived.stdout);
      await assertKeptOut(t, impostor, 'the next connection', () => converse(client, argv));
    }
  },
);

/** What a pod may make of its packets to `may`, so that they go to `wants`. */
interface Rewriting {
  readonly family: 'ip' | 'ip6';
  readonly may: string;
  readonly wants: string;
  readonly client: string;
}

const redirected = ({ family, may, wants }: Rewriting): string =>
  `chain out { type nat hook output priority -100; ${family} daddr ${may} dnat ${family} to ${wants}; };`;
const disguised = ({ family, wants, client }: Rewriting): string =>
  `chain post { type nat hook postrouting priority 100; ${family} daddr ${wants} snat ${family} to ${client}; };`;

const rewritings = [
  ['leads what it may send to the server', ['other', 'stranger'], redirected],
  ['does so under the client’s address', ['other'], (ways: Rewriting) => redirected(ways) + disguised(ways)],
] as const;

for (const [at, [what, allowed, chains]] of rewritings.entries())
  test.serial(`a pod that ${what} gets nowhere by it`, async (t) => {
    const { lab, pods, app } = bed;
    const { client, server } = pods;
    const rogue = await newcomer(bed, `rogue${at}`, { serviceAccount: 'rogue' });
    for (const { name, of } of families)
      for (const may of allowed.map((each) => pods[each])) {
        const [{ to, port, argv }] = waysTo(may, { name, of, options: {} });
        await direct(bed, rogue, argv);
        const hasty = apps.pythonConnect({ to, port, timeout: 1 });
        const family = name === 'IPv4' ? 'ip' : 'ip6';
        const lines = chains({ family, may: of(may), wants: of(server), client: of(client) });
        await using _ = await rules(rogue, lines);
        const wire = await lab.capture(server);
        await assertKeptOut(t, app, `${name}, as if to ${may.name}`, () => converse(rogue, hasty));
        const claimed = lines.includes('snat') ? of(client) : of(rogue);
        const arrived = (await wire.stop()).filter(({ flags, source }) => flags === 'S' && source === claimed);
        t.true(arrived.packets.length > 0, 'it arrives');
      }
    await assertClientUnharmed(bed);
  });

// --- odd sockets ----------------------------------------------------------------------------------------------------------

test.serial('a socket that is bound to a device, or speaks MPTCP, takes the tunnel, and is judged there', async (t) => {
  const { pods, app } = bed;
  const { client, server, rogue } = pods;
  await assertClientUnharmed(bed);
  for (const { of } of families)
    for (const options of [{ device: 'eth0' }, { mptcp: true }, { device: 'eth0', mptcp: true }]) {
      const argv = apps.pythonConnect({ to: of(server), port: APP_PORT, ...options });
      const past = await pastAgent(bed, client, async () => {
        const { talk, told: line } = await travel(bed, client, argv);
        t.is(talk.server?.peer, talk.local);
        t.is(line.path, 'tunnel', argv.join(' '));
      });
      t.deepEqual(past, {});
      await assertKeptOut(t, app, argv.join(' '), () => converse(rogue, argv));
    }
});

test.serial('a socket that is bound to somebody else’s address does not go past the agent', async (t) => {
  const { pods, app } = bed;
  const { client, server, other, rogue } = pods;
  await assertClientUnharmed(bed);
  for (const pod of [client, rogue])
    await pod.sysctl({ 'net.ipv4.ip_nonlocal_bind': 1, 'net.ipv6.ip_nonlocal_bind': 1 });
  for (const { of } of families)
    for (const from of [client, rogue]) {
      const bind = of(from === client ? other : client);
      const argv = apps.pythonConnect({ to: of(server), port: APP_PORT, bind, timeout: 1 });
      const past = await pastAgent(bed, from, () =>
        assertKeptOut(t, app, `${from.name} as ${bind}`, () => converse(from, argv)),
      );
      t.deepEqual(past, {});
    }
});

test.serial('a socket that connects again is judged by where it goes now', async (t) => {
  const { pods } = bed;
  const { client, server, other, stranger } = pods;
  await assertClientUnharmed(bed);
  for (const kind of families) {
    await direct(bed, client, waysTo(stranger, kind)[0].argv);
    const [yes, no, out] = [kind.of(server), kind.of(other), kind.of(stranger)];
    const hops = [yes, no, yes, no, no, out, no, yes, kind.loopback, no];
    const script = join(import.meta.dirname, 'reconnect.py');
    const past = await pastAgent(bed, client, async () => {
      const { stdout } = await client.exec([python, script, ...hops.flatMap((to) => [to, `${APP_PORT}`])]);
      const said = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { to: string; reply?: string });
      t.deepEqual(
        said.map(({ to, reply }) => [to, reply !== undefined]),
        hops.map((to) => [to, to === yes || to === out]),
        stdout,
      );
    });
    t.deepEqual(past, { direct_local: 3, direct_outside: 1 });
  }
});

test.serial('a connect by io_uring goes the same ways, and is judged the same', async (t) => {
  const { policies, pods } = bed;
  const { client, server, rogue } = pods;
  const port = APP_PORT + 1;
  const app = await serve(server, apps.echo({ port }));
  for (const { of } of families) {
    await policies.are(...usual);
    const argv = await apps.uringConnect({ to: of(server), port });
    t.is((await direct(bed, client, argv)).talk.reply, 'hello');
    await assertKeptOut(t, app, 'the rogue', () => converse(rogue, argv));
    await policies.are(...letIn());
    await assertKeptOut(t, app, 'the client', () => converse(client, argv));
  }
});

test.serial('an MPTCP server is reached past the agent, and what it has open ends with a change', async (t) => {
  const { agent, policies, pods } = bed;
  const { client, server, stranger } = pods;
  const port = APP_PORT + 3;
  await serve(server, apps.pythonEcho({ port, mode: 'tell', mptcp: true }));
  for (const { of } of families) {
    const to = of(server);
    await policies.are();
    for (const [from, options] of [
      [client, {}],
      [stranger, {}],
      [stranger, { mptcp: true }],
    ] as const)
      await direct(bed, from, apps.pythonConnect({ to, port, ...options }));
    const hold = (from: LabPod, options = {}): LabProcess =>
      from.run(apps.pythonConnect({ to, port, hold: true, ...options }));
    const [one, other, multipath] = [hold(client), hold(stranger), hold(stranger, { mptcp: true })];
    for (const each of [one, other, multipath]) {
      await each.json({ event: 'connected' });
      each.write('before\n');
      await each.json();
    }
    await policies.are(...letIn());
    for (const each of [one, other]) {
      each.write('after\n');
      await each.exit;
      t.true(refusals.includes(`${each.records.at(-1)?.error}`), each.stdout);
    }
    // MPTCP waits for another way to come up, and is told of nothing; but the server's end is gone.
    multipath.write('after\n');
    t.is(
      await settled(
        async () => (await pathStatus(agent)).flows,
        (flows) => flows === 0,
      ),
      0,
    );
    t.is(multipath.records.filter(({ reply }) => reply !== undefined).length, 1);
    await multipath.kill();
  }
});

// --- haste ----------------------------------------------------------------------------------------------------------------

test.serial(
  'what TCP Fast Open decided early and sends after a change reaches no app, and the live flow ends',
  async (t) => {
    const { lab, agent, policies, pods } = bed;
    const { client, server, rogue } = pods;
    const port = APP_PORT + 2;
    for (const pod of [client, server]) await pod.sysctl({ 'net.ipv4.tcp_fastopen': 0x207 });
    const app = await serve(server, apps.pythonEcho({ port, mode: 'tell', fastopen: true }));
    for (const { of } of families) {
      const to = of(server);
      await policies.are(...usual);
      for (const way of [{ fastopen: true }, { fastopenConnect: true }]) {
        const wire = await lab.capture(server);
        const { talk } = await direct(bed, client, apps.pythonConnect({ to, port, ...way }));
        t.is(talk.server?.peer, talk.local);
        const early = ({ flags, destinationPort }: Packet) => flags === 'S' && destinationPort === port;
        t.true((await wire.stop()).payloadBytes(early) > 0, 'data go with the SYN');
      }
      const hold = (way: object) => client.run(apps.pythonConnect({ to, port, hold: true, ...way }));
      const [live, late] = [hold({ fastopen: true }), hold({ fastopenConnect: true })];
      await late.json({ event: 'connected' });
      await accepted(app, `${(await live.json({ event: 'connected' })).local}`);

      const [seen, since] = [app.lines.length, agent.process.lines.length];
      await policies.are(...letIn('rogue'));
      await agent.told({ message: 'flows ended by a policy change', policy: 'shop/to-server' }, { since });
      for (const each of [live, late]) {
        each.write('late\n');
        await each.exit;
        t.true(refusals.includes(`${each.records.at(-1)?.error}`), each.stdout);
      }
      const last = await converse(rogue, apps.pythonConnect({ to, port }));
      await accepted(app, `${last.local}`);
      const those = app.records.slice(seen).filter(({ event }) => event === 'accepted');
      t.is(those.length, 1, 'only the one that is let in now');
    }
  },
);

/** Waits until an app has told of a connection of this client. */
async function accepted(app: LabProcess, client: string): Promise<void> {
  const isThere = (): boolean =>
    app.records.some(({ event, peer }) => event === 'accepted' && plain(`${peer}`) === client);
  if (!(await settled(isThere, (is) => is))) throw new Error(`${client} has not come: ${app.stdout}`);
}
