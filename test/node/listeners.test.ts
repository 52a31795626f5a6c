import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  type AgentOptions,
  apps,
  Lab,
  type LabAgent,
  type LabNode,
  type LabPod,
  type LabProcess,
  type Packet,
} from '../lab/index.ts';
import { metric } from './conversation.ts';
import { endpoint, grown, kernelEvents, port, serving, statusOf, told } from './evidence.ts';
import { agentListeners, settled } from './inspect.ts';

/** Connections per second of each load. CULVERT_SOAK=1: as the issue has it. */
const rate = process.env.CULVERT_SOAK === '1' ? 2000 : 200;
/** How often what ends the listeners is done. */
const rounds = process.env.CULVERT_SOAK === '1' ? 50 : 3;
/** Of the apps whose connections are held open. */
const heldPort = port + 1;
/** Longer than any test: loads are ended by SIGTERM. */
const loadSeconds = 600;
/** Hang guard: ten times what is promised. */
const restartedMs = 20_000;

interface Scene {
  readonly lab: Lab;
  readonly node: LabNode;
  /** Both enrolled. */
  readonly client: LabPod;
  readonly target: LabPod;
  /** Not enrolled. */
  readonly outside: LabPod;
  readonly outsideApp: LabProcess;
  readonly targetApp: LabProcess;
}

const test = anyTest as TestFn<Scene>;

test.beforeEach(async (t) => {
  const lab = await Lab.create(t.title);
  // At once, so that it is removed if what follows fails.
  Object.assign(t.context, { lab });
  const node = await lab.node('n1');
  const [client, target, outside] = [await node.pod('client'), await node.pod('target'), await node.pod('outside')];
  const outsideApp = await serving(outside, apps.echo({ port, quiet: true }));
  const targetApp = await serving(target, apps.echo({ port, quiet: true }));
  Object.assign(t.context, { node, client, target, outside, outsideApp, targetApp });
});

test.afterEach.always(async (t) => {
  await t.context.lab?.dispose();
});

async function enrolled(t: ExecutionContext<Scene>, options: AgentOptions = {}): Promise<LabAgent> {
  const agent = await t.context.node.agent(options);
  await agent.enrol(t.context.client);
  await agent.enrol(t.context.target);
  return agent;
}

/** Every way between an enrolled pod and one that is not, in both families: [from, to]. */
function ways({ client, target, outside }: Scene): Array<readonly [LabPod, string]> {
  return [
    ...outside.addresses.map((to) => [client, to] as const),
    ...target.addresses.map((to) => [outside, to] as const),
  ];
}

async function assertAll(t: ExecutionContext<Scene>, wanted: { reply: string } | { error: string }): Promise<void> {
  for (const [from, to] of ways(t.context))
    t.like(told(await from.exec(apps.pythonConnect({ to, port }))), wanted, `${from.name} to ${to}`);
}

/** Both ways of traffic, all the time. */
async function loads({ client, target, outside }: Scene, perSecond = rate): Promise<LabProcess[]> {
  const all = [
    client.run(await apps.load({ rate: perSecond, seconds: loadSeconds, to: destinations(outside) })),
    outside.run(await apps.load({ rate: perSecond, seconds: loadSeconds, to: destinations(target) })),
  ];
  for (const load of all) await load.json({ event: 'started' });
  return all;
}

function destinations(pod: LabPod): string[] {
  return pod.addresses.map((address) => endpoint(address, port));
}

interface LoadEnd {
  readonly started: number;
  readonly answered: number;
  readonly errors: Readonly<Record<string, number>>;
}

async function ended(load: LabProcess): Promise<LoadEnd> {
  load.signal('SIGTERM');
  return (await load.json({ event: 'end' }, 60_000)) as unknown as LoadEnd;
}

/** Connections that an app has accepted so far. */
async function accepted(app: LabProcess): Promise<number> {
  app.signal('SIGUSR2');
  return Number((await app.json({ event: 'totals' })).accepted);
}

/** Waits until both apps have accepted `count` connections more. */
async function flowing({ outsideApp, targetApp }: Scene, count: number): Promise<void> {
  for (const app of [outsideApp, targetApp]) {
    const before = await accepted(app);
    const now = await settled(
      () => accepted(app),
      (all) => all >= before + count,
    );
    if (now < before + count) throw new Error('no traffic flows');
  }
}

const python = '/usr/bin/python3';
const destroy = join(import.meta.dirname, 'destroy.py');
const privileged = { restricted: false };

/**
 * Kills the agent's listeners in a pod. `ss -K` as people know it; it does not find them, since the kernel looks the socket up as
 * it would for a packet, and the pod's lookup program refuses. So also by naming packets that the program gives to them: one from
 * outside, and one of a connection that is under way (`ip6` and `ip` rules hold its SYN back).
 *
 * @param outside an address out of the pod
 */
async function killListeners(t: ExecutionContext<Scene>, pod: LabPod, outside: string): Promise<void> {
  t.is((await pod.exec(['ss', '-K', '-ltn', '( sport = :15001 or sport = :15006 )'], privileged)).code, 0);
  const inbound = await pod.exec([python, destroy, pod.ipv4, `${port}`, outside, '7777'], privileged);
  t.like(JSON.parse(inbound.stdout), { destroyed: true }, inbound.stderr);
  const hold = `nft add table ip hold
    nft 'add chain ip hold in { type filter hook input priority 0; }'
    nft add rule ip hold in tcp dport 15001 drop`;
  t.is((await pod.exec(['sh', '-ec', hold], privileged)).code, 0);
  const held = pod.run(apps.pythonConnect({ to: outside, port }));
  const syn = await settled(
    async () => /(\S+):(\d+)\s+(\S+):(\d+)\s*$/m.exec((await pod.exec(['ss', '-tnH', 'state', 'syn-sent'])).stdout),
    (found) => found !== null,
  );
  const [, own = '', ownPort = '', led = '', ledPort = ''] = syn ?? [];
  const outbound = await pod.exec([python, destroy, led, ledPort, own, ownPort], privileged);
  t.like(JSON.parse(outbound.stdout), { destroyed: true }, outbound.stderr);
  await held.kill();
  t.is((await pod.exec(['nft', 'delete', 'table', 'ip', 'hold'], privileged)).code, 0);
}

/** The agent's listeners in a pod for what is captured, each with its inode. */
function listeners(pod: LabPod): Promise<string[]> {
  return agentListeners(pod, [15001, 15006]);
}

/** A connection through the agent, open from end to end. */
async function holding(from: LabPod, to: LabPod): Promise<LabProcess> {
  const held = from.run(apps.hold({ to: [endpoint(to.ipv4, heldPort)], count: 1 }));
  await held.json({ event: 'held' });
  held.write('ping\n');
  await held.json({ event: 'ping' });
  return held;
}

/**
 * What happened at a pod's interface after the reset of its held connection, so after the agent's end, in connections begun
 * after it: how many there were, and what the pod sent.
 */
function afterReset(packets: readonly Packet[], pod: LabPod): { refused: number; bytes: number } {
  const isHeld = ({ sourcePort, destinationPort }: Packet): boolean => [sourcePort, destinationPort].includes(heldPort);
  const reset = packets.findIndex((packet) => isHeld(packet) && packet.flags.includes('R'));
  if (reset < 0) throw new Error('the held connection was not reset');
  const begun = new Set<string>();
  let bytes = 0;
  for (const packet of packets.slice(reset)) {
    const ends = [`${packet.source} ${packet.sourcePort}`, `${packet.destination} ${packet.destinationPort}`];
    const connection = ends.sort().join();
    if (packet.flags === 'S') begun.add(connection);
    if (begun.has(connection) && pod.addresses.includes(packet.source ?? '')) bytes += packet.payload.length;
  }
  return { refused: begun.size, bytes };
}

/** Connections that wait in a listener of the pod's for somebody to accept them. */
async function waiting(pod: LabPod): Promise<number> {
  const { stdout } = await pod.exec(['ss', '-ltnH', '( sport = :15001 or sport = :15006 )']);
  return [...stdout.matchAll(/^LISTEN\s+(\d+)/gm)].reduce((sum, [, queued]) => sum + Number(queued), 0);
}

test.serial("while the agent's listeners are dead nothing passes, either way, and then they are back", async (t) => {
  const { lab, client, target, outside } = t.context;
  // One worker, so that there is no second listener to take over.
  const agent = await enrolled(t, { workers: 1 });
  await assertAll(t, { reply: 'hello' });
  // So that they stay dead for as long as is looked at.
  agent.process.signal('SIGSTOP');
  for (const pod of [client, target]) {
    t.is((await listeners(pod)).length, 2);
    await killListeners(t, pod, outside.ipv4);
    t.deepEqual(await listeners(pod), []);
  }
  const captures = [await lab.capture(client), await lab.capture(target)];
  await assertAll(t, { error: 'ECONNREFUSED' });
  for (const capture of captures)
    t.is(
      (await capture.stop()).payloadBytes(({ protocol }) => protocol === 'tcp'),
      0,
    );
  agent.process.signal('SIGCONT');
  for (const pod of [client, target])
    await settled(
      () => listeners(pod),
      (all) => all.length === 2,
    );
  for (const [from, to] of ways(t.context)) {
    const answer = await settled(
      async () => told(await from.exec(apps.pythonConnect({ to, port }))),
      ({ error }) => error === undefined,
    );
    t.like(answer, { reply: 'hello' });
  }
  t.is((await kernelEvents(agent, client)).no_listener, 2);
  t.is((await kernelEvents(agent, target)).no_listener, 2);
});

test.serial(
  'listeners that are killed again and again under load are back each time, and no connection goes past them',
  async (t) => {
    const { client, target, outside, targetApp, outsideApp } = t.context;
    const agent = await enrolled(t);
    const running = await loads(t.context);
    for (let round = 0; round < rounds; round++) {
      await flowing(t.context, 20);
      for (const pod of [client, target]) {
        const before = await listeners(pod);
        await killListeners(t, pod, outside.ipv4);
        const back = (all: readonly string[]): boolean =>
          all.length === 4 && before.filter((each) => !all.includes(each)).length >= 2;
        t.true(back(await settled(() => listeners(pod), back)));
      }
    }
    await flowing(t.context, 20);
    const [outbound, inbound] = await Promise.all(running.map(ended));
    for (const [load, app, pod, reason] of [
      [outbound, outsideApp, client, 'captured_outbound'],
      [inbound, targetApp, target, 'captured_inbound'],
    ] as const) {
      t.true((load?.answered ?? 0) > 0);
      // What the app got is at most what the agent was given: nothing came to it by another way.
      const seen = await accepted(app);
      const events = await kernelEvents(agent, pod);
      t.true(seen <= (events[reason] ?? 0), `${seen} ${JSON.stringify(events)}`);
    }
    t.true((await metric(agent, 'culvert_listeners_reopened_total')) >= 2 * rounds);
    await assertAll(t, { reply: 'hello' });
  },
);

test.serial(
  'an agent killed under load leaves new connections refused, with no payload byte on the wire, until it is back',
  async (t) => {
    const { lab, client, target, outside, node } = t.context;
    let agent = await enrolled(t);
    for (const pod of [outside, target]) await serving(pod, apps.echo({ port: heldPort, quiet: true }));
    const running = await loads(t.context);
    for (let round = 0; round < rounds; round++) {
      await flowing(t.context, 20);
      // Begun before the end, so that its first moments are seen too; what is held tells where in the capture it came.
      const captures = [await lab.capture(client), await lab.capture(target)];
      const held = [await holding(client, outside), await holding(outside, target)];
      await agent.kill();
      for (let each = 0; each < 3; each++) await assertAll(t, { error: 'ECONNREFUSED' });
      for (const [at, pod] of [client, target].entries()) {
        const { refused, bytes } = afterReset((await captures[at]?.stop())?.packets ?? [], pod);
        t.is(bytes, 0, pod.name);
        // Connects to the outside are refused before there is a packet.
        if (pod === target) t.true(refused > 0);
      }
      for (const each of held) await each.kill();
      agent = await node.agent({ readyMs: restartedMs });
      // Nothing was enrolled by hand.
      await flowing(t.context, 20);
      await assertAll(t, { reply: 'hello' });
      t.deepEqual(
        (await statusOf(agent)).pods.map(({ path }) => path),
        ['enrolled', 'enrolled'],
      );
    }
    for (const { answered, errors } of await Promise.all(running.map(ended))) {
      t.true(answered > 0);
      t.true((errors.ECONNREFUSED ?? 0) > 0);
      t.deepEqual(
        Object.keys(errors).filter((name) => !['ECONNREFUSED', 'ECONNRESET', 'EOF'].includes(name)),
        [],
      );
    }
  },
);

test.serial('while the agent stands still connections wait, and are served when it goes on', async (t) => {
  const { lab, client, target } = t.context;
  const agent = await enrolled(t);
  const captures = [await lab.capture(client), await lab.capture(target, 'lo')];
  agent.process.signal('SIGSTOP');
  const clients = ways(t.context).map(([from, to]) => from.run(apps.pythonConnect({ to, port })));
  for (const pod of [client, target])
    t.is(
      await settled(
        () => waiting(pod),
        (queued) => queued === 2,
      ),
      2,
    );
  t.deepEqual(
    clients.map(({ exited }) => exited),
    clients.map(() => undefined),
  );
  for (const capture of captures) t.false((await capture.stop()).contains('hello'));
  agent.process.signal('SIGCONT');
  for (const each of clients) {
    await each.exit;
    t.like(told(each), { reply: 'hello' });
  }
});

test.serial("one worker's end refuses nobody, and the listeners stay the same", async (t) => {
  const { client, target, node } = t.context;
  const agent = await enrolled(t, { nodeArgs: ['--inspect=127.0.0.1:0'] });
  const url = /ws:\S+/.exec(agent.process.stderr)?.[0] ?? '';
  const before = [await listeners(client), await listeners(target)];
  const running = await loads(t.context);
  for (let round = 1; round <= rounds; round++) {
    await flowing(t.context, 20);
    const ending = await node.exec([process.execPath, join(import.meta.dirname, 'end-worker.ts'), url]);
    t.regex(ending.stdout, /"ended"/, ending.stderr);
    await settled(
      () => statusOf(agent),
      ({ workers }) =>
        workers.every(({ state }) => state === 'serving') &&
        workers.reduce((sum, { restarts }) => sum + restarts, 0) >= round,
    );
  }
  await flowing(t.context, 20);
  for (const { answered, errors } of await Promise.all(running.map(ended))) {
    t.true(answered > 0);
    t.is(errors.ECONNREFUSED, undefined, JSON.stringify(errors));
  }
  t.is(
    (await statusOf(agent)).workers.reduce((sum, { restarts }) => sum + restarts, 0),
    rounds,
  );
  t.deepEqual([await listeners(client), await listeners(target)], before);
  const events = await grown(agent, client, () => assertAll(t, { reply: 'hello' }));
  t.is(events.no_listener, undefined);
});
