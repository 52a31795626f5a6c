/** Connections past the agent that do not come about at once, and what is there when there is no room for more. */
import { join } from 'node:path';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { limit } from '../../src/gen/layout.ts';
import { apps, authorizationPolicyManifest } from '../lab/index.ts';
import { converse, serve } from './conversation.ts';
import { kernelEvents } from './evidence.ts';
import { Held } from './held.ts';
import { pinRoot } from './inspect.ts';
import {
  changed,
  direct,
  type PathBed,
  pastAgent,
  pathBed,
  pathStatus,
  type QuartetPods,
  quartet,
  tell,
  travel,
  waysTo,
} from './kernel-path-bed.ts';
import { Loss } from './loss.ts';
import { APP_PORT, tally } from './tunnel-bed.ts';

let bed: PathBed<QuartetPods>;

test.serial.before(async () => {
  bed = await pathBed('handshakes on the kernel path', quartet);
});

test.serial.after.always(() => bed?.lab.dispose());

const syn = 'tcp flags & (syn | ack) == syn';
const answer = 'tcp flags & (syn | ack) == syn | ack';
const acknowledgement = 'tcp flags & (syn | ack) == ack';

/** What is lost on the way to whom, and the server's port in that case. */
const lost = [
  { what: 'the SYN', to: 'server', match: `tcp dport 8081 ${syn}`, port: 8081 },
  { what: 'the answer to the SYN', to: 'client', match: `tcp sport 8082 ${answer}`, port: 8082 },
  { what: 'all that comes after the answer', to: 'server', match: `tcp dport 8083 ${acknowledgement}`, port: 8083 },
] as const;

test.serial('whatever of a handshake is lost for a moment, the connection comes about, past the agent', async (t) => {
  const { client, server } = bed.pods;
  await Promise.all(lost.map(({ port }) => tell(server, port)));
  const argvs = lost.map(({ port }) => apps.pythonConnect({ to: server.ipv4, port }));
  for (const argv of argvs) await direct(bed, client, argv);
  const past = await pastAgent(bed, client, async () => {
    await Promise.all(
      lost.map(async ({ what, to, match, port }, at) => {
        const loss = await Loss.begin(bed.pods[to], `lossy${port}`, match);
        const travelling = travel(bed, client, argvs[at] ?? []);
        await loss.happens();
        await loss.end();
        const { talk, told } = await travelling;
        t.is(talk.server?.peer, talk.local, what);
        t.like(told, { path: 'kernel', flow: 'local', error: undefined }, what);
      }),
    );
  });
  t.deepEqual(past, { direct_local: lost.length });
});

test.serial(
  'under SYN cookies connections come about past the agent, also when what confirms them is lost',
  async (t) => {
    const { client, server } = bed.pods;
    await server.sysctl({ 'net.ipv4.tcp_syncookies': 2 });
    await tell(server, 8084);
    const argv = apps.pythonConnect({ to: server.ipv4, port: 8084 });
    t.is((await direct(bed, client, argv)).told.error, undefined);
    const loss = await Loss.begin(server, 'lossy', `tcp dport 8084 ${acknowledgement}`);
    const travelling = travel(bed, client, argv);
    await loss.happens();
    await loss.end();
    t.like((await travelling).told, { path: 'kernel', error: undefined });
    await server.sysctl({ 'net.ipv4.tcp_syncookies': 1 });
  },
);

test.serial('what is still half-way when policy forbids it never comes about', async (t) => {
  const { agent, pods } = bed;
  const { client, server } = pods;
  const [{ argv }] = waysTo(server);
  await direct(bed, client, argv);
  const loss = await Loss.begin(server, 'lossy', `tcp dport ${APP_PORT} ${syn}`);
  const since = agent.process.lines.length;
  const talking = converse(client, argv);
  await loss.happens();
  const denial = authorizationPolicyManifest('no-client', {
    action: 'DENY',
    rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/client'] } }] }],
  });
  await changed(bed, (control) => control.write('policy.yaml', denial));
  await loss.end();
  const talk = await talking;
  t.true(['ECONNABORTED', 'ECONNREFUSED', 'ECONNRESET'].includes(`${talk.error}`), JSON.stringify(talk));
  t.is(talk.at, 'connect');
  const told = await agent.told({ message: 'flows ended by a policy change' }, { since });
  t.like(told, { policy: 'shop/no-client', count: 1 });
  await changed(bed, (control) => control.remove('policy.yaml'));
  t.is((await direct(bed, client, argv)).told.path, 'kernel');
});

test.serial('a pod that holds as many flows as it may goes through the tunnel, and harms no other', async (t) => {
  const { agent, pods } = bed;
  const { client, other, server } = pods;
  const [{ argv }] = waysTo(server);
  const port = 8085;
  const busy = apps.pythonConnect({ to: server.ipv4, port });
  await serve(server, await apps.answer({ port }));
  await direct(bed, client, busy);
  await direct(bed, other, argv);
  const held: Held[] = [];
  const past = await pastAgent(bed, client, async () => {
    held.push(await Held.open(client, [apps.endpoint(server.ipv4, port)], limit.FLOWS_PER_POD, 5000));
  });
  t.deepEqual(past, { direct_local: limit.FLOWS_PER_POD });

  const { flows_over_quota: before = 0 } = await kernelEvents(agent, client);
  t.is((await travel(bed, client, argv)).told.path, 'tunnel');
  t.is((await travel(bed, client, busy)).told.path, 'tunnel');
  t.is((await kernelEvents(agent, client)).flows_over_quota, before + 2);
  t.is((await travel(bed, other, argv)).told.path, 'kernel');

  for (const each of held) t.deepEqual(await each.close(), { open: limit.FLOWS_PER_POD, lost: 0, errors: {} });
  t.is((await direct(bed, client, busy)).told.path, 'kernel');
});

test.serial('where there is no room for another verdict an old one gives way, and no connection fails', async (t) => {
  const { node, agent, pods } = bed;
  const { client, other, server } = pods;
  const [known] = waysTo(server);
  await direct(bed, client, known.argv);
  await tell(server, 8086);
  const argv = apps.pythonConnect({ to: server.ipv4, port: 8086 });
  const map = addon.pinOpen(join(pinRoot(node), 'maps', 'verdicts'), 'map');
  const others = fill(map);
  const { verdicts } = await pathStatus(agent);

  t.is((await travel(bed, other, argv)).told.path, 'tunnel');
  t.is((await direct(bed, other, argv)).told.path, 'kernel');
  t.is((await pathStatus(agent)).verdicts, verdicts);
  for (const { to, port } of waysTo(server)) {
    const count = 8;
    for (const from of [client, other])
      t.like(await tally(from, { to, port, count }), { errors: {}, asItself: count }, from.name);
  }

  for (const key of others) addon.mapDelete(map, key);
  addon.close(map);
  for (const from of [client, other]) t.is((await direct(bed, from, known.argv)).told.path, 'kernel');
});

/** Writes verdicts of a pod that there is not, until the map is full. Returns their keys. */
function fill(map: addon.BpfMap): Uint8Array[] {
  const { keyBytes, valueBytes, maxEntries } = addon.info(map);
  const keys: Uint8Array[] = [];
  for (let at = 0; at < maxEntries; at += 1) {
    const key = new Uint8Array(keyBytes);
    new DataView(key.buffer).setBigUint64(0, 1n, true);
    new DataView(key.buffer).setUint32(8, at, true);
    try {
      addon.mapUpdate(map, key, new Uint8Array(valueBytes));
    } catch {
      return keys;
    }
    keys.push(key);
  }
  throw new Error('the map is not full');
}
