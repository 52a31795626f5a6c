/** What real agents tell over HTTP of real connections, and their access logs. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { apps, furnish, type LabAgent, type LabNode } from '../lab/index.ts';
import { converse, serve } from './conversation.ts';
import { settled } from './inspect.ts';
import { APP_PORT, type Pair, pair, SERVICE_PORT, type TunnelBed, tunnelBed, VIP } from './tunnel-bed.ts';

const METRICS_PORT = 15020;
const UP = 3_000_001;
const DOWN = 1_234_567;

/** Reads to the end, then writes so much, and ends. */
const SERVER = `
import json, socket
listener = socket.create_server(('', ${APP_PORT}))
print(json.dumps({'event': 'listening'}), flush=True)
while True:
    peer, _ = listener.accept()
    while peer.recv(65536): pass
    peer.sendall(b'd' * ${DOWN})
    peer.close()
`;

/** Writes so much, ends its direction, and reads to the end. */
const CLIENT = `
import json, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
local = peer.getsockname()
peer.sendall(b'u' * ${UP})
peer.shutdown(socket.SHUT_WR)
got = 0
while piece := peer.recv(65536): got += len(piece)
print(json.dumps({'local': '%s:%d' % local[:2], 'got': got}))
`;

function python(script: string, ...argv: string[]): string[] {
  return ['/usr/bin/python3', '-c', script, ...argv];
}

/** What the agent's port answers to a request with these headers. */
async function scrape(node: LabNode, ...headers: string[]): Promise<{ head: string; body: string }> {
  const argv = ['curl', '--silent', '--show-error', '--include', ...headers.flatMap((header) => ['--header', header])];
  const { code, stdout, stderr } = await node.exec([...argv, `http://127.0.0.1:${METRICS_PORT}/metrics`]);
  if (code !== 0) throw new Error(stderr);
  const at = stdout.indexOf('\r\n\r\n');
  return { head: stdout.slice(0, at), body: stdout.slice(at + 4) };
}

/** Sum of the samples of a name with all of these labels. */
function sumOf(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) && wanted.every((each) => line.includes(each)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** What promtool finds to say of it, but for names that the contract gives. */
function lint(text: string): string[] {
  const { stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  return `${stdout}${stderr}`.split('\n').filter((line) => line !== '' && !/^workload_manager_\w+_count /.test(line));
}

let bed: TunnelBed<Pair>;

test.before(async () => {
  bed = await tunnelBed('metrics', pair);
  await furnish(bed, ({ pods: { server } }) => serve(server, python(SERVER)));
});
test.after.always(async () => await bed?.[Symbol.asyncDispose]());

async function transfer(t: ExecutionContext, to: string, port: number): Promise<string> {
  const { stdout, stderr } = await bed.pods.client.exec(python(CLIENT, to, `${port}`));
  const { local, got } = JSON.parse(stdout || `{"local":${JSON.stringify(stderr)}}`) as { local: string; got: number };
  t.is(got, DOWN, local);
  return local;
}

test.serial(
  'both agents count every byte of the payload, in both directions, and the lines say the same',
  async (t) => {
    const [near, far] = bed.agents;
    const local = await transfer(t, VIP.ipv4, SERVICE_PORT);
    for (const [agent, reporter] of [
      [near, 'source'],
      [far, 'destination'],
    ] as const) {
      const line = await agent.told({ scope: 'access', 'src.addr': local });
      const isSource = reporter === 'source';
      t.like(line, { level: 'info', bytes_sent: isSource ? UP : DOWN, bytes_recv: isSource ? DOWN : UP });
      const { body } = await scrape(agent.node);
      const labels = { reporter, response_flags: '-', destination_service: 'server.shop.svc.cluster.local' };
      const secured = { ...labels, connection_security_policy: 'mutual_tls', source_workload: 'client' };
      t.is(sumOf(body, 'istio_tcp_received_bytes_total', secured), UP, `${reporter}\n${body}`);
      t.is(sumOf(body, 'istio_tcp_sent_bytes_total', secured), DOWN);
      t.is(sumOf(body, 'istio_tcp_connections_opened_total', secured), 1);
      t.is(sumOf(body, 'istio_tcp_connections_closed_total', secured), 1);
      t.is(sumOf(body, 'istio_tcp_connections_failed_total'), 0);
      for (const name of ['connection_duration', 'connect_duration', 'first_byte'])
        t.is(sumOf(body, `culvert_${name}_seconds_count`, { reporter, path: 'tunnel', namespace: 'shop' }), 1, name);
    }
  },
);

test.serial('bytes of a connection are counted while it is open', async (t) => {
  const [near] = bed.agents;
  const held = bed.pods.client.run(
    python(
      `import socket, sys\npeer = socket.create_connection(('${bed.pods.server.ipv4}', ${APP_PORT}))\n` +
        `peer.sendall(b'x' * 5000)\nprint('{"event":"sent"}', flush=True)\nsys.stdin.read()`,
    ),
  );
  await held.json({ event: 'sent' });
  const direct = { reporter: 'source', destination_service: 'unknown', destination_workload: 'server' };
  const sent = async (): Promise<number> =>
    sumOf((await scrape(near.node)).body, 'istio_tcp_received_bytes_total', direct);
  t.is(await settled(sent, (bytes) => bytes === 5000), 5000);
  t.is(sumOf((await scrape(near.node)).body, 'istio_tcp_connections_closed_total', direct), 0);
  held.end();
  await held.exit;
});

test.serial('promtool has nothing to say against the text, and OpenMetrics ends as it must', async (t) => {
  for (const { node } of bed.agents) {
    const plain = await scrape(node);
    t.regex(plain.head, /content-type: text\/plain/i);
    t.deepEqual(lint(plain.body), []);
    const open = await scrape(node, 'Accept: application/openmetrics-text;version=1.0.0');
    t.regex(open.head, /content-type: application\/openmetrics-text; version=1.0.0/i);
    t.true(open.body.endsWith('\n# EOF\n'));
    for (const name of ['istio_tcp_connections_opened', 'culvert_connect_duration_seconds', 'istio_build'])
      t.regex(open.body, new RegExp(`^# TYPE ${name} `, 'm'));
  }
});

test.serial('the socket gives the same families as the port', async (t) => {
  const [near] = bed.agents;
  const names = (text: string): string[] => [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name);
  // Each is counted itself: once both have been asked, both families are there.
  await near.request({ method: 'metrics' });
  await scrape(near.node);
  const { metrics } = await near.request({ method: 'metrics' });
  t.deepEqual(names(`${metrics}`), names((await scrape(near.node)).body));
});

test.serial('scrapers that never read, or never ask, disturb neither traffic nor other scrapers', async (t) => {
  const [near] = bed.agents;
  const stuck = near.node.run(
    python(
      `import socket, sys\nrequest = b'GET /metrics HTTP/1.1\\r\\nHost: node\\r\\n\\r\\n' * 200\nopen = []\n` +
        `for index in range(20):\n  peer = socket.socket()\n  peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)\n` +
        `  peer.connect(('127.0.0.1', ${METRICS_PORT}))\n  if index < 6: peer.setblocking(False); peer.send(request)\n  open.append(peer)\n` +
        `print('{"event":"stuck"}', flush=True)\nsys.stdin.read()`,
    ),
  );
  await stuck.json({ event: 'stuck' });
  await transfer(t, VIP.ipv4, SERVICE_PORT);
  t.true((await scrape(near.node)).body.length > 1000);
  stuck.end();
  await stuck.exit;
});

test.serial('as text, and also at the start, where that is asked for', async (t) => {
  const [, farNode] = bed.nodes;
  await bed.agents[1].stop();
  const args = ['--access-log-start', '--access-log-format', 'text'];
  const far = await farNode.agent({ control: bed.control, args });
  t.teardown(async () => {
    await far.stop();
    await farNode.agent({ control: bed.control });
  });
  await far.issued(bed.pods.server);
  const local = await transfer(t, VIP.ipv4, SERVICE_PORT);
  const lines = await settled(
    () => far.process.lines.filter((line) => line.includes(`\taccess\t`) && line.includes(`src.addr=${local} `)),
    ({ length }) => length === 2,
  );
  t.regex(
    lines[0] ?? '',
    /^\S+Z\tdebug\taccess\tconnection opened\tsrc\.addr=.* direction="inbound" path="tunnel" flow_id="\w{32}"$/,
  );
  t.regex(
    lines[1] ?? '',
    new RegExp(
      `^\\S+Z\\tinfo\\taccess\\tconnection complete\\tsrc\\.addr=.* direction="inbound" bytes_sent=${DOWN} bytes_recv=${UP} duration="\\d+ms" path="tunnel" flow_id=`,
    ),
  );
  const id = (line: string | undefined): string | undefined => /flow_id="(\w+)"/.exec(line ?? '')?.[1];
  t.is(id(lines[0]), id(lines[1]));
});

test.serial('an access log whose disk is full costs lines, which are counted, and nothing else', async (t) => {
  const [nearNode] = bed.nodes;
  const directory = join(bed.lab.directory, 'tiny');
  mkdirSync(directory);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', directory]);
  t.teardown(() => {
    execFileSync('umount', [directory]);
    rmSync(directory, { recursive: true });
  });
  const path = join(directory, 'access.log');
  await bed.agents[0].stop();
  const near: LabAgent = await nearNode.agent({ control: bed.control, args: ['--access-log-file', path] });
  t.teardown(() => near.stop());
  await near.issued(bed.pods.client);
  const lines = async (result: string): Promise<number> =>
    sumOf((await scrape(nearNode)).body, 'culvert_access_log_lines_total', { result });
  for (let round = 0; round < 30; round += 1) {
    const outcome = await converse(
      bed.pods.client,
      apps.pythonConnect({ to: bed.pods.server.ipv4, port: 9, send: 'x' }),
    );
    t.truthy(outcome.error);
    await transfer(t, VIP.ipv4, SERVICE_PORT);
  }
  t.true(
    (await settled(
      () => lines('failed'),
      (count) => count > 0,
    )) > 0,
  );
  t.true(near.process.lines.some((line) => line.includes('access log: ENOSPC')));
  const whole = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  for (const line of whole) t.notThrows(() => JSON.parse(line), line);
  t.true((await lines('written')) >= whole.length);
  execFileSync('mount', ['-o', 'remount,size=1m', directory]);
  const told = async (): Promise<number> => (await lines('written')) + (await lines('rate-limited'));
  t.is(await settled(told, (count) => count === 60), 60);
  t.is(await lines('dropped'), 0);
});
