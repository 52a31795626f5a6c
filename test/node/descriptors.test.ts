import { readFileSync } from 'node:fs';
import test from 'ava';
import { apps, Lab, type LabAgent } from '../lab/index.ts';
import { addressOf, converse, labOptions, metric, serve } from './conversation.ts';

const port = 8080;
/** RLIMIT_NOFILE of the agent; it keeps a part of them for itself. */
const maxFiles = 256;
const descriptorsPerConnection = 2;

interface Status {
  readonly workers: ReadonlyArray<{ state: string; openConnections: number; descriptorStops: number }>;
  readonly descriptors: { readonly open: number; readonly limit: number };
}

/** How many connections the worker will hold at once, by what the agent says of itself. */
async function placesOf(agent: LabAgent): Promise<number> {
  const { open, limit } = (await statusOf(agent)).descriptors;
  return Math.floor((limit - open) / descriptorsPerConnection);
}

async function statusOf(agent: LabAgent): Promise<Status> {
  return (await agent.status()).status as Status;
}

/** Asks until it is so; the status is read from shared memory, there is no event to wait for. */
async function becomes(agent: LabAgent, wanted: (status: Status) => boolean): Promise<Status> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const status = await statusOf(agent);
    if (wanted(status)) return status;
    if (Date.now() > deadline) throw new Error(`not within a minute: ${wanted} of ${JSON.stringify(status)}`);
  }
}

/** CPU time of a process, in clock ticks. */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

test.serial(
  'near the descriptor limit the agent stops accepting, counts it, says so, rests, and resumes',
  async (t) => {
    await using lab = await Lab.create(t.title, labOptions);
    const node = await lab.node('n1');
    const [client, outside] = [await node.pod('client'), await node.pod('outside')];
    const agent = await node.agent({ workers: 1, maxFiles });
    await agent.enrol(client);
    const places = await placesOf(agent);
    t.true(places > 10 && places < maxFiles / descriptorsPerConnection);
    await serve(outside, apps.echo({ port, quiet: true }));
    const to = [apps.endpoint(outside.ipv4, port), apps.endpoint(outside.ipv6, port)];

    // Below the limit nothing is said.
    const first = client.run(apps.hold({ to, count: places - 1 }));
    t.like(await first.json({ event: 'held' }), { open: places - 1, errors: {} });
    first.write('ping\n');
    t.like(await first.json({ event: 'ping' }), { alive: places - 1 });
    t.is((await statusOf(agent)).workers[0]?.descriptorStops, 0);

    // Above it: the kernel still takes the callers, and they wait.
    const second = client.run(apps.hold({ to, count: places - 1 }));
    t.like(await second.json({ event: 'held' }), { open: places - 1, errors: {} });
    const said = await agent.log({
      message: 'no descriptors left: the worker accepts no connection until some are closed',
    });
    t.is(said.level, 'warn');
    const full = await becomes(agent, ({ workers }) => workers[0]?.state === 'paused');
    t.like(full.workers[0], { state: 'paused', openConnections: places, descriptorStops: 1 });
    t.true(full.descriptors.open <= full.descriptors.limit);
    t.is(await metric(agent, 'culvert_accept_stops_total'), 1);
    t.is(await metric(agent, 'culvert_connections_open'), places);

    // It rests: no retries are counted, and a second costs it next to no CPU (a spinning thread would take all it can get).
    const before = cpuTicks(agent.process.pid);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    t.true(cpuTicks(agent.process.pid) - before < 30, 'a third of a second of CPU time in a second of rest');
    t.is((await statusOf(agent)).workers[0]?.descriptorStops, 1);

    // What is open is served meanwhile; nobody who waits was refused or ended.
    first.write('ping\n');
    t.like(await first.json({ event: 'ping' }), { alive: places - 1 });
    second.write('state\n');
    t.like(await second.json({ event: 'state' }), { open: places - 1, lost: 0, errors: {} });

    // It resumes as soon as there is room, with those that have waited.
    first.end();
    await first.exit;
    second.write('ping\n');
    t.like(await second.json({ event: 'ping' }, 60_000), { alive: places - 1 });
    t.like((await becomes(agent, ({ workers }) => workers[0]?.state === 'serving')).workers[0], { state: 'serving' });
    second.end();
    await second.exit;
    const talk = await converse(client, apps.pythonConnect({ to: outside.ipv4, port }));
    t.is(talk.reply, 'hello');
    t.is(addressOf(talk.local), client.ipv4);
    t.is(agent.process.exited, undefined);
  },
);

test.serial('at the descriptor limit inbound callers wait too, and none is given a clean end', async (t) => {
  await using lab = await Lab.create(t.title, labOptions);
  const node = await lab.node('n1');
  const [server, outside] = [await node.pod('server'), await node.pod('outside')];
  const agent = await node.agent({ workers: 1, maxFiles });
  await agent.enrol(server);
  const places = await placesOf(agent);
  await serve(server, apps.echo({ port, quiet: true }));
  const rounds = 3;
  for (let round = 1; round <= rounds; round += 1) {
    const callers = outside.run(
      apps.hold({ to: [apps.endpoint(server.ipv4, port), apps.endpoint(server.ipv6, port)], count: places * 2 }),
    );
    t.like(await callers.json({ event: 'held' }), { open: places * 2, errors: {} });
    // It may have stopped more than once by then: each that ends makes room for one that waits.
    const { workers: full } = await becomes(agent, ({ workers }) => workers[0]?.state === 'paused');
    t.true((full[0]?.descriptorStops ?? 0) >= round);
    t.is(full[0]?.openConnections, places);
    callers.write('state\n');
    t.like(await callers.json({ event: 'state' }), { open: places * 2, lost: 0, errors: {} });
    callers.end();
    await callers.exit;
    const { workers } = await becomes(
      agent,
      ({ workers: [worker] }) => worker?.state === 'serving' && worker.openConnections === 0,
    );
    t.like(workers[0], { state: 'serving', openConnections: 0 });
  }
  t.is((await converse(outside, apps.pythonConnect({ to: server.ipv4, port }))).reply, 'hello');
});
