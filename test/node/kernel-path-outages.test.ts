/** The agent dies, stops, is silent, comes back: what is on the kernel path does not notice, and nothing gets onto it that should not. */
import test from 'ava';
import {
  apps,
  authorizationPolicyManifest,
  type LabPod,
  type Manifest,
  peerAuthenticationManifest,
} from '../lab/index.ts';
import { type Conversation, converse, families } from './conversation.ts';
import { kernelEvents } from './evidence.ts';
import { Held } from './held.ts';
import { settled } from './inspect.ts';
import {
  direct,
  type PathBed,
  pathBed,
  pathStatus,
  type QuartetPods,
  quartet,
  silent,
  waysTo,
} from './kernel-path-bed.ts';
import { APP_PORT } from './tunnel-bed.ts';

const count = 12;

let bed: PathBed<QuartetPods>;

test.serial.before(async () => {
  bed = await pathBed('outages and the kernel path', quartet);
});

test.serial.after.always(() => bed?.lab.dispose());

/** A way past the agent, of each kind that there is. */
interface Road {
  readonly what: string;
  readonly from: LabPod;
  readonly argv: string[];
  readonly to: string;
}

function roads(): Road[] {
  const { client, server, stranger } = bed.pods;
  return families.flatMap((kind) => {
    const [own, service] = waysTo(server, kind);
    const [outside] = waysTo(stranger, kind);
    const road = (what: string, from: LabPod, way: typeof own): Road => ({
      what: `${what}, ${kind.name}`,
      from,
      argv: [...way.argv, '--timeout', '2'],
      to: apps.endpoint(way.to, way.port),
    });
    return [
      road('to a pod', client, own),
      road('to a service', client, service),
      road('outside', client, outside),
      road('to an open port', stranger, own),
    ];
  });
}

/** Connections that are held, of both pods that roads begin at, by all their roads in turn. */
function hold(each: number): Promise<Held[]> {
  const { client, stranger } = bed.pods;
  const open = (from: LabPod): Promise<Held> =>
    Held.open(
      from,
      roads()
        .filter((road) => road.from === from)
        .map(({ to }) => to),
      each,
    );
  return Promise.all([open(client), open(stranger)]);
}

async function holdAll(): Promise<Held[]> {
  for (const { from, argv } of roads()) await direct(bed, from, argv);
  return await hold(count);
}

async function alive(held: readonly Held[]): Promise<number[]> {
  return await Promise.all(held.map((each) => each.alive()));
}

async function talkAll(): Promise<Array<Conversation & Pick<Road, 'what'>>> {
  return await Promise.all(roads().map(async ({ what, from, argv }) => ({ what, ...(await converse(from, argv)) })));
}

test.serial('what is past the agent outlives it, and for 5 s the kernel goes on by what it has decided', async (t) => {
  const { node, agent, pods } = bed;
  const { other, server } = pods;
  const held = await holdAll();
  const all = held.map(() => count);
  await agent.kill();

  const early = await talkAll();
  for (const { what, server: seen, local, error } of early) t.deepEqual([seen?.peer, error], [local, undefined], what);
  const late = await hold(count);
  const [{ argv }] = waysTo(server);
  t.truthy((await converse(other, argv)).error, 'nothing was decided about this one');
  t.deepEqual(await alive(held), all);

  await silent(node);
  for (const { what, error, reply } of await talkAll()) t.deepEqual([error, reply], ['ECONNREFUSED', undefined], what);
  t.deepEqual(await alive(held), all);

  const again = await bed.restart();
  t.deepEqual(await alive(held), all);
  t.is((await pathStatus(again)).flows, 2 * count * held.length, 'the agent knows of them');
  const since = again.process.lines.length;
  for (const { from, argv } of roads()) await direct(bed, from, argv);
  for (const each of [...held, ...late]) t.deepEqual(await each.close(), { open: count, lost: 0, errors: {} });
  const isTold = (line: string): boolean =>
    line.includes('"message":"connection complete"') && line.includes('"path":"kernel"');
  const told = (): string[] => again.process.lines.slice(since).filter(isTold);
  const ended = 2 * count * held.length;
  t.true(
    (await settled(
      () => told().length,
      (lines) => lines >= ended,
    )) >= ended,
    'and tells of their end',
  );
});

test.serial('what is past the agent does not notice that it ends in good order and another takes over', async (t) => {
  const held = await holdAll();
  const all = held.map(() => count);
  await bed.agent.stop();
  t.deepEqual(await alive(held), all);
  await bed.restart();
  for (const { from, argv } of roads()) await direct(bed, from, argv);
  t.deepEqual(await alive(held), all);
  for (const each of held) t.deepEqual(await each.close(), { open: count, lost: 0, errors: {} });
});

const denial: Manifest = authorizationPolicyManifest('no-client', {
  action: 'DENY',
  rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/client'] } }] }],
});

test.serial('what was revoked while the agent was dead ends when it is back, and nothing else does', async (t) => {
  const { agent, control, pods } = bed;
  const { client, other, server, stranger } = pods;
  const own = server.addresses.map((address) => apps.endpoint(address, APP_PORT));
  const [{ argv }] = waysTo(server);
  for (const road of roads()) await direct(bed, road.from, road.argv);
  for (const kind of families) await direct(bed, other, waysTo(server, kind)[0].argv);
  const revoked = await Held.open(client, own, count);
  const unsigned = await Held.open(stranger, own, count);
  const allowed = [
    await Held.open(other, own, count),
    await Held.open(
      client,
      stranger.addresses.map((address) => apps.endpoint(address, APP_PORT)),
      count,
    ),
  ];
  await agent.kill();
  control.write('policy.yaml', [denial, peerAuthenticationManifest('strict')]);
  t.is(await revoked.alive(), count, 'nobody is there to end it');

  const again = await bed.restart();
  const told = await settled(
    () => again.process.records.filter(({ message }) => message === 'flows ended by a policy change'),
    (lines) => lines.length === 2,
  );
  t.deepEqual(told.map((line) => [line.count, line.policy === 'shop/no-client']).sort(), [
    [count, false],
    [count, true],
  ]);
  for (const each of [revoked, unsigned]) {
    t.is(await each.alive(), 0);
    t.is((await each.close()).lost, count);
  }
  t.truthy((await converse(client, argv)).error);
  for (const each of allowed) t.deepEqual(await each.close(), { open: count, lost: 0, errors: {} });
  control.remove('policy.yaml');
  await again.log({ message: 'the mesh has changed' });
});

test.serial(
  'an agent that has been silent for 5 s lets nobody past it, and serves those who wait when it is back',
  async (t) => {
    const { node, agent, pods } = bed;
    const { client } = pods;
    const held = await holdAll();
    const all = held.map(() => count);
    const before = await kernelEvents(agent, client);
    agent.process.signal('SIGSTOP');
    await silent(node);
    // They come into the agent's queue: connected, as it looks, and not answered.
    const waiting = roads().map(({ from, argv }) => from.run([...argv, '--timeout', '60', '--hold']));
    for (const app of waiting) {
      await app.json({ event: 'connected' });
      app.write('hello\n');
    }
    t.deepEqual(await alive(held), all);
    for (const app of waiting) t.is(app.lines.length, 1, 'not answered');
    agent.process.signal('SIGCONT');
    for (const app of waiting) t.is(typeof (await app.json()).reply, 'string');
    const after = await kernelEvents(agent, client);
    t.deepEqual([after.direct_local, after.direct_outside], [before.direct_local, before.direct_outside]);
    t.true((after.heartbeat_old ?? 0) > (before.heartbeat_old ?? 0));
    for (const { from, argv } of roads()) await direct(bed, from, argv);
    for (const each of held) t.deepEqual(await each.close(), { open: count, lost: 0, errors: {} });
  },
);
