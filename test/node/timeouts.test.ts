/** What apps set on their sockets about silence holds for the way to the other end, not only for the way to the agent. */
import { join } from 'node:path';
import test from 'ava';
import { Lab, type LabPod, type LabProcess } from '../lab/index.ts';
import { labOptions } from './conversation.ts';

const app = ['/usr/bin/python3', join(import.meta.dirname, 'timeouts.py')];
/** A hang guard: without the app's settings it would take at least a quarter of an hour. */
const hangMs = 60_000;

const userTimeout = ['TCP_USER_TIMEOUT=2000'];
const keepAlive = ['SO_KEEPALIVE=1', 'TCP_KEEPIDLE=1', 'TCP_KEEPINTVL=1', 'TCP_KEEPCNT=2'];
const settings = [
  ['a user time-out', userTimeout],
  ['keepalive', keepAlive],
] as const;

interface Held {
  readonly what: string;
  readonly process: LabProcess;
  readonly sends: boolean;
}

/** An app with the settings on one side, one without on the other; both have heard of each other. */
async function hold(inPod: LabPod, far: LabPod, options: HoldOptions): Promise<Held> {
  const { role, family, when, set, port } = options;
  const [server, client] = role === 'connect' ? [far, inPod] : [inPod, far];
  const of = (pod: LabPod): readonly string[] => (pod === inPod ? set : []);
  const serving = server.run([...app, 'serve', server[family], `${port}`, 'after', ...of(server)]);
  await serving.json({ event: 'listening' });
  const connecting = client.run([...app, 'connect', server[family], `${port}`, when, ...of(client)]);
  await serving.json({ event: 'ready' });
  await connecting.json({ event: 'ready' });
  return {
    what: `${role} ${family} ${when} ${set.join(' ')}`,
    process: role === 'connect' ? connecting : serving,
    sends: set === userTimeout,
  };
}

interface HoldOptions {
  readonly role: 'connect' | 'serve';
  readonly family: 'ipv4' | 'ipv6';
  readonly when: 'before' | 'after';
  readonly set: readonly string[];
  readonly port: number;
}

test('keepalive and user time-outs of apps end their connections when the far end falls silent', async (t) => {
  await using lab = await Lab.create(t.title, labOptions);
  const [near, beyond] = [await lab.node('near'), await lab.node('beyond')];
  const link = await lab.link(near, beyond);
  const [pod, far] = [await near.pod('pod'), await beyond.pod('far')];
  const agent = await near.agent();
  await agent.enrol(pod);
  const held: Held[] = [];
  for (const family of ['ipv4', 'ipv6'] as const)
    for (const [, set] of settings)
      for (const [role, when] of [
        ['connect', 'before'],
        ['connect', 'after'],
        ['serve', 'after'],
      ] as const)
        held.push(await hold(pod, far, { role, family, when, set, port: 8080 + held.length }));
  const plain = await hold(pod, far, { role: 'connect', family: 'ipv4', when: 'before', set: [], port: 8079 });
  await link.lose(100);
  for (const { process, sends } of held) if (sends) process.write('\n');
  for (const { what, process } of held)
    t.is((await process.json({ event: 'ended' }, hangMs)).error, 'ECONNRESET', what);
  t.false(plain.process.stdout.includes('ended'), 'who has set nothing waits on');
});

test('a user time-out also ends an attempt to connect', async (t) => {
  await using lab = await Lab.create(t.title, labOptions);
  const [near, beyond] = [await lab.node('near'), await lab.node('beyond')];
  const link = await lab.link(near, beyond);
  const [pod, far] = [await near.pod('pod'), await beyond.pod('far')];
  const agent = await near.agent();
  await agent.enrol(pod);
  await link.lose(100);
  for (const to of far.addresses) {
    const client = pod.run([...app, 'connect', to, '8080', 'before', ...userTimeout]);
    t.not((await client.exit).code, 0);
    t.regex(client.stderr, /ConnectionResetError/);
  }
});
