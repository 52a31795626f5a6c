import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { apps, existingLabs, furnish, Lab, type LabId, type LabPod, snapshot, sweep } from './index.ts';
import { cgroupMount, cgroupName, labOfNetns, labsDirectory, netnsDirectory } from './names.ts';

const port = 8080;

function reply(outcome: { stdout: string }): Record<string, unknown> {
  return JSON.parse(outcome.stdout) as Record<string, unknown>;
}

/** Everything that a lab could leave behind. */
function traces(id: LabId): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return [
    ...readdirSync(netnsDirectory).filter((name) => labOfNetns(name) === id),
    ...mounts.filter((line) => line.includes(id)),
    ...[join(cgroupMount(), cgroupName(id)), join(labsDirectory, id)].filter(existsSync),
  ];
}

async function told(client: LabPod, to: string): Promise<Record<string, unknown>> {
  return reply(await client.exec(apps.pythonConnect({ to, port })));
}

test.serial('pods of two nodes reach each other over a link, with IPv4 and IPv6, and see true addresses', async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2);
  const [client, server] = [await n1.pod('client'), await n2.pod('server')];
  await server.run(apps.echo({ port, mode: 'tell' })).json({ event: 'listening' });
  const v4 = await told(client, server.ipv4);
  t.is(v4.peer, apps.endpoint(server.ipv4, port));
  t.is((JSON.parse(`${v4.reply}`) as { peer: string }).peer, `[::ffff:${`${v4.local}`.replace(':', ']:')}`);
  t.true(`${v4.local}`.startsWith(`${client.ipv4}:`));
  const v6 = await told(client, server.ipv6);
  t.deepEqual(JSON.parse(`${v6.reply}`), { peer: v6.local, local: apps.endpoint(server.ipv6, port), got: 'hello' });
  t.true(`${v6.local}`.startsWith(`[${client.ipv6}]:`));
});

test.serial('pods of one node reach each other and their node, and a pod of one family has only that', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [client, server] = [await node.pod('client'), await node.pod('server', { ipv6: false })];
  await server.run(apps.pythonEcho({ port, bind: '0.0.0.0' })).json({ event: 'listening' });
  await node.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  t.is((await told(client, server.ipv4)).reply, 'hello');
  t.is((await told(client, node.ipv4)).reply, 'hello');
  t.is((await told(client, node.ipv6)).reply, 'hello');
  t.deepEqual(server.addresses, [server.ipv4]);
  t.throws(() => server.ipv6);
});

test.serial('every client app gets its answer: Python, Node, curl, nc and io_uring', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await server.run(apps.echo({ port, mode: 'tell' })).json({ event: 'listening' });
  await server.run(apps.echo({ port: 8081, mode: 'http' })).json({ event: 'listening' });
  const to = server.ipv4;
  for (const options of [
    {},
    { mapped: true },
    { nonblocking: true },
    { bind: client.ipv4 },
    { mptcp: true },
    { device: 'eth0' },
  ]) {
    const outcome = await client.exec(apps.pythonConnect({ to, port, ...options }));
    t.is(outcome.code, 0, `${JSON.stringify(options)}: ${outcome.stdout}${outcome.stderr}`);
  }
  t.like(reply(await client.exec(apps.connect({ to: server.ipv6, port }))), { peer: apps.endpoint(server.ipv6, port) });
  await server.run(apps.echo({ port: 8082 })).json({ event: 'listening' });
  for (const each of [to, server.ipv6])
    t.like(reply(await client.exec(await apps.uringConnect({ to: each, port: 8082 }))), { reply: 'hello' });
  const curled = reply(await client.exec(['curl', '--silent', '--show-error', `http://${to}:8081/`]));
  t.is(curled.local, `[::ffff:${to}]:8081`);
  const piped = await client.exec(['nc', '-N', to, `${port}`], { stdin: 'hello\n' });
  t.is(reply(piped).got, 'hello');
  t.like(reply(await client.exec(apps.pythonConnect({ to, port: 9 }))), { error: 'ECONNREFUSED', at: 'connect' });
});

test.serial(
  'a restricted process is root without CAP_NET_ADMIN and CAP_NET_RAW, and lives in the cgroup of its pod',
  async (t) => {
    await using lab = await Lab.create(t.title);
    const pod = await (await lab.node('n1')).pod('a');
    const capabilities = async (restricted: boolean): Promise<bigint> => {
      const { stdout } = await pod.exec(['grep', 'CapEff', '/proc/self/status'], { restricted });
      return BigInt(`0x${stdout.split(/\s+/)[1]}`);
    };
    const netAdminAndRaw = (1n << 12n) | (1n << 13n);
    t.is((await capabilities(true)) & netAdminAndRaw, 0n);
    t.is((await capabilities(false)) & netAdminAndRaw, netAdminAndRaw);
    t.is((await pod.exec(['id', '-u'])).stdout, '0\n');
    t.is((await pod.exec(['id', '-u'], { uid: 1337 })).stdout, '1337\n');
    t.true((await pod.exec(['cat', '/proc/self/cgroup'])).stdout.includes(`0::/${cgroupName(lab.id)}/n1/pods/a\n`));
    t.is((await pod.exec(['sh', '-c', 'ulimit -n'], { maxFiles: 100 })).stdout, '100\n');
  },
);

test.serial('a link with a delay lets nothing across sooner', async (t) => {
  const delayMs = 40;
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2, { delayMs });
  const [client, server] = [await n1.pod('client'), await n2.pod('server')];
  await server.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  const talk = client.run(apps.pythonConnect({ to: server.ipv4, port, hold: true }));
  await talk.json({ event: 'connected' });
  const began = performance.now();
  talk.write('there and back\n');
  await talk.json({ reply: 'there and back' });
  t.true(performance.now() - began >= 2 * delayMs);
});

test.serial('a link with a delay carries every byte, in both families', async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2, { delayMs: 2 });
  const [client, server] = [await n1.pod('client'), await n2.pod('server')];
  await server.run(apps.echo({ port, mode: 'drain' })).json({ event: 'listening' });
  const megabytes = 16;
  for (const to of [server.ipv4, server.ipv6]) {
    const sent = await client.exec(['sh', '-c', `head -c ${megabytes}M /dev/zero | nc -N ${to} ${port}`]);
    t.is(reply(sent).bytes, megabytes * 2 ** 20);
  }
});

test.serial('a link with loss and a rate has both, loses packets, and can become a black hole', async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  const link = await lab.link(n1, n2, { lossPercent: 12.5, rateMbit: 50 });
  const [client, server] = [await n1.pod('client'), await n2.pod('server')];
  await server.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  for (const [node, name] of [
    [n1, 'to-n2'],
    [n2, 'to-n1'],
  ] as const) {
    t.regex((await node.exec(['nft', 'list', 'ruleset'])).stdout, /numgen random mod 10000 <= 1249 counter .* drop/);
    t.regex((await node.exec(['tc', 'qdisc', 'show', 'dev', name])).stdout, /tbf .* rate 50Mbit/);
  }
  t.is((await told(client, server.ipv4)).reply, 'hello');
  await link.lose(100);
  const lost = await client.exec(apps.pythonConnect({ to: server.ipv4, port, timeout: 0.2 }));
  t.like(reply(lost), { error: 'ETIMEDOUT', at: 'connect' });
  await link.lose(0);
  t.is((await told(client, server.ipv4)).reply, 'hello');
  await link.down();
  t.is(reply(await client.exec(apps.pythonConnect({ to: server.ipv4, port, timeout: 0.2 }))).at, 'connect');
  await link.up();
  t.is((await told(client, server.ipv6)).reply, 'hello');
});

test.serial('a capture finds what crossed, also across packets, and nothing else', async (t) => {
  await using lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  const link = await lab.link(n1, n2);
  const [client, server] = [await n1.pod('client'), await n2.pod('server')];
  await server.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  const captures = [await lab.capture(link), await lab.capture(client), await lab.capture(client, 'lo')] as const;
  for (const to of [server.ipv4, server.ipv6]) {
    const talk = client.run(apps.pythonConnect({ to, port, hold: true }));
    await talk.json({ event: 'connected' });
    for (const word of ['left', 'right']) {
      talk.write(`${word}\n`);
      await talk.json({ reply: word });
    }
    talk.end();
    await talk.exit;
  }
  for (const capture of captures.slice(0, 2)) {
    const captured = await capture.stop();
    t.true(captured.contains('left\nright\n'));
    t.false(captured.contains('left\nwrong\n'));
    const bytesEachWay = 'left\nright\n'.length * 2;
    t.is(captured.between(client.ipv4, server.ipv4).payloadBytes(), bytesEachWay);
    t.is(captured.between(client.ipv6, apps.endpoint(server.ipv6, port)).payloadBytes(), bytesEachWay);
    t.is(
      captured.payloadBytes((packet) => packet.source === server.ipv4),
      bytesEachWay / 2,
    );
  }
  t.is((await captures[2].stop()).packets.length, 0);
});

test.serial('load answers for every connection it started, and hold for every one it holds', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await server.run(apps.echo({ port, quiet: true })).json({ event: 'listening' });
  const to = [apps.endpoint(server.ipv4, port)];
  const loading = client.run(
    await apps.load({ rate: 200, seconds: 0.5, to: [...to, apps.endpoint(server.ipv4, 9)], local: client.ipv4 }),
  );
  const load = await loading.json({ event: 'end' });
  const refused = (load.errors as Record<string, number>).ECONNREFUSED ?? 0;
  t.like(load, { local_wrong: 0 });
  t.true(refused > 0);
  t.is(Number(load.answered) + refused, Number(load.started));

  const holding = client.run(apps.hold({ to: [apps.endpoint(server.ipv6, port)], count: 300 }));
  t.like(await holding.json({ event: 'held' }), { open: 300, errors: {} });
  holding.write('ping\n');
  t.like(await holding.json({ event: 'ping' }), { alive: 300 });
  await server.delete();
  t.false(existsSync(server.netns));
  t.false(existsSync(server.cgroup));
});

test.serial('a socket can be made before, and be passed from, another pod', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [giver, taker, server] = [await node.pod('giver'), await node.pod('taker'), await node.pod('server')];
  await server.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  const door = join(node.runDirectory, 'door');
  const taking = taker.run(apps.pythonConnect({ to: server.ipv4, port, take: door }));
  await taking.json({ event: 'waiting' });
  t.is((await giver.exec(apps.pythonConnect({ to: server.ipv4, port, give: door }))).code, 0);
  t.true(`${(await taking.json({ reply: 'hello' })).local}`.startsWith(`${giver.ipv4}:`));
  const early = taker.run(apps.pythonConnect({ to: server.ipv4, port, wait: true }));
  await early.json({ event: 'made' });
  early.write('\n');
  t.is((await early.json({ reply: 'hello' })).peer, apps.endpoint(server.ipv4, port));
});

test.serial(
  'what a process has told counts whenever it was said, and leaves its lines to whoever reads them in turn',
  async (t) => {
    await using lab = await Lab.create(t.title);
    const pod = await (await lab.node('n1')).pod('a');
    const said = `echo '{"event":"early"}'; echo '{"event":"ready"}'; echo no object; read word; echo '{"event":"late"}'; cat`;
    const app = pod.run(['sh', '-c', said]);
    await app.json({ event: 'ready' });
    const since = app.lines.length;
    t.deepEqual(await app.told({ event: 'early' }), { event: 'early' });
    const late = app.told({ event: 'late' }, { since });
    app.write('word\n');
    t.deepEqual(await late, { event: 'late' });
    t.deepEqual(await app.json(), { event: 'late' });
    t.deepEqual(
      app.records.map(({ event }) => event),
      ['early', 'ready', 'late'],
    );
    for (const never of [{ event: 'never' }, { other: undefined }])
      await t.throwsAsync(app.told(never, { deadlineMs: 10 }), { message: /no line \{.*\} within 10 ms/ });
    await t.throwsAsync(app.told({ event: 'early' }, { since, deadlineMs: 10 }), { message: /no line/ });
  },
);

test.serial('two snapshots of a node differ exactly by what has changed between them', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pod = await node.pod('a');
  const [first, second] = [await snapshot(node), await snapshot(node)];
  t.deepEqual(second, first);
  await pod.run(apps.pythonEcho({ port })).json({ event: 'listening' });
  await pod.exec(['nft', 'add table inet left'], { restricted: false });
  await node.exec([
    'bpftool',
    'map',
    'create',
    join(node.bpffs, 'left'),
    ...'type array key 4 value 4 entries 1 name left'.split(' '),
  ]);
  const third = await snapshot(node);
  t.deepEqual(third.listeners, [`a: *:${port}`]);
  t.true(third.rules.includes('a: table inet left {'));
  t.deepEqual(third.pins, ['left']);
  t.true(third.maps.some((line) => line.endsWith(' array left')));
});

test.serial('a lab that has ended leaves no namespace, mount, cgroup, file or process', async (t) => {
  const lab = await Lab.create(t.title);
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2, { delayMs: 1 });
  const pod = await n1.pod('a');
  await lab.capture(pod);
  const stubborn = pod.run(['sh', '-c', 'trap "" TERM INT HUP; setsid sleep 1000 & echo $!; wait']);
  const [grandchild] = await stubborn.line(/^\d+$/);
  t.true(traces(lab.id).length > 0);
  await lab.dispose();
  t.deepEqual(traces(lab.id), []);
  t.is((await stubborn.exit).signal, 'SIGKILL');
  t.false(runs(Number(grandchild)));
  await t.notThrowsAsync(lab.dispose());
});

test.serial('a lab that cannot be furnished is gone', async (t) => {
  const lab = await Lab.create(t.title);
  const furnishing = furnish(lab, async () => {
    await lab.node('n1');
    throw new Error('on the way');
  });
  await t.throwsAsync(furnishing, { message: 'on the way' });
  t.deepEqual(traces(lab.id), []);
});

/** False for a zombie too: whoever inherits an orphan reaps it in its own time. */
function runs(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/** Another process that owns a lab with a pod and a process in it. */
async function owner(): Promise<{ child: ReturnType<typeof spawn>; id: LabId }> {
  const script = `
    import { Lab } from ${JSON.stringify(join(import.meta.dirname, 'index.ts'))};
    const lab = await Lab.create('owner');
    const pod = await (await lab.node('n1')).pod('a');
    await pod.run(['sh', '-c', 'echo up; sleep 1000']).line(/up/);
    console.log(lab.id);
    setInterval(() => undefined, 1000);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('the owner ended early')));
  ended.catch(() => undefined);
  const [id] = (await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended])) as [LabId];
  return { child, id };
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  test.serial(`a lab whose owner gets ${signal} leaves nothing behind`, async (t) => {
    const { child, id } = await owner();
    t.true(traces(id).length > 0);
    child.kill(signal);
    t.deepEqual(await once(child, 'exit'), [null, signal]);
    t.deepEqual(traces(id), []);
  });

test.serial('a lab whose owner was killed is swept by the next one, and a living one is left alone', async (t) => {
  const { child, id } = await owner();
  t.false(sweep().includes(id));
  t.true(existingLabs().includes(id));
  await t.throwsAsync(Lab.create(t.title, { lockWaitMs: 10 }), {
    message: new RegExp(`another lab .* pid ${child.pid}, owner`),
  });
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.true(traces(id).length > 0);
  await using lab = await Lab.create(t.title);
  t.not(lab.id, id);
  t.deepEqual(traces(id), []);
});
