import { join } from 'node:path';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { encodePodUsage, limit } from '../../src/gen/layout.ts';
import type { LabPod } from '../lab/index.ts';
import { apps, Lab } from '../lab/index.ts';
import {
  converse,
  families,
  labOptions,
  metric,
  parseConversation,
  scene,
  serve,
  socketKinds,
} from './conversation.ts';

const closedPort = 9;
/** Of pod_usage: no flow on the kernel path. */
const noFlows = { flowsBegun: 0n, flowsOver: 0n };
const python = '/usr/bin/python3';
/** How an app may learn that there is nobody: while it connects, or by a reset once it is connected. Never by an end. */
const refusals = ['ECONNREFUSED', 'ECONNRESET'];
const unreachables = ['ENETUNREACH', 'EHOSTUNREACH', 'ECONNRESET'];

/** Sends, says that it has finished, and waits for what comes. */
const halfClosing = `
import errno, json, socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
client.settimeout(30)
try:
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.sendall(b"all there is")
    client.shutdown(socket.SHUT_WR)
    print(json.dumps({"error": "EOF"} if not client.recv(1) else {"reply": "data"}))
except OSError as error:
    print(json.dumps({"error": errno.errorcode.get(error.errno, str(error))}))
`;

test.serial(
  'a closed port is learned of by a reset, whatever the client does and wherever the server is',
  async (t) => {
    await using stage = await scene(t.title);
    const { client, server, outside } = stage;
    for (const [from, to] of [
      [client, outside],
      [client, server],
      [outside, server],
    ] as const)
      for (const kind of socketKinds) {
        const target = { to: kind.of(to), port: closedPort, ...kind.options };
        const clients = {
          'that speaks': apps.pythonConnect(target),
          'that only listens': apps.pythonConnect({ ...target, listenFirst: true }),
          'that does not block': apps.pythonConnect({ ...target, nonblocking: true }),
          'on an event loop': apps.connect({ to: target.to, port: closedPort }),
          'on an event loop that only listens': apps.connect({ to: target.to, port: closedPort, listenFirst: true }),
          'that has bound its address': apps.pythonConnect({ ...target, bind: kind.of(from) }),
          'that has half-closed': [python, '-c', halfClosing, target.to, `${closedPort}`],
        };
        for (const [name, argv] of Object.entries(clients)) {
          const { error = 'none' } = await converse(from, argv);
          t.true(refusals.includes(error), `a client ${name}, ${kind.name}, ${from.name} to ${to.name}: ${error}`);
        }
      }
  },
);

test.serial('curl and nc fail at a closed port, and do not take it for an empty answer', async (t) => {
  await using stage = await scene(t.title);
  const { client, outside } = stage;
  const curlCodes = [7, 56]; // cannot connect; failure in receiving. Not 52: an empty reply.
  for (const { name, of } of families) {
    const curl = await client.exec(['curl', '--silent', `http://${apps.endpoint(of(outside), closedPort)}/`]);
    t.true(curlCodes.includes(curl.code ?? -1), `${name}: curl ended with ${curl.code}`);
    // In verbose mode, because this nc keeps a reset to itself otherwise.
    const nc = await client.exec(['nc', of(outside), `${closedPort}`], { stdin: 'hello\n' });
    t.is(nc.stdout, '', name);
  }
});

test.serial('an unreachable host is learned of by an error, never by an end', async (t) => {
  await using stage = await scene(t.title);
  const { client, outside } = stage;
  // The node has no route there (ICMP unreachable comes back); nobody there answers for the address (the pod finds out).
  const hosts = ['192.0.2.1', '2001:db8::1', '10.11.250.250', 'fd00:c:1::dead'];
  const tried = async (pod: LabPod): Promise<string[]> =>
    Promise.all(hosts.map(async (to) => (await converse(pod, apps.pythonConnect({ to, port: 80 }))).error ?? 'none'));
  // Side by side, so that the twin outside the mesh shows that the hosts are unreachable indeed.
  const [meshed, twin] = await Promise.all([tried(client), tried(outside)]);
  for (const [index, host] of hosts.entries()) {
    t.true(['ENETUNREACH', 'EHOSTUNREACH'].includes(twin[index] ?? ''), `${host} without the mesh: ${twin[index]}`);
    t.true(unreachables.includes(meshed[index] ?? ''), `${host}: ${meshed[index]}`);
  }
});

test.serial('what is prohibited on the way is learned of by an error', async (t) => {
  await using stage = await scene(t.title);
  const { node, client, outside } = stage;
  const { code, stderr } = await node.exec([
    'sh',
    '-c',
    'ip route add prohibit 198.51.100.0/24 && ip -6 route add prohibit 2001:db8:1::/64',
  ]);
  t.is(code, 0, stderr);
  for (const to of ['198.51.100.1', '2001:db8:1::1']) {
    const twin = await converse(outside, apps.pythonConnect({ to, port: 80 }));
    t.true(['EHOSTUNREACH', 'EACCES'].includes(twin.error ?? ''), `${to} without the mesh: ${twin.error}`);
    t.is((await converse(client, apps.pythonConnect({ to, port: 80 }))).error, 'ECONNRESET', to);
  }
});

test.serial('a family that the pod has no address of is refused at once, as without the mesh', async (t) => {
  await using lab = await Lab.create(t.title, labOptions);
  const node = await lab.node('n1');
  const [v4, v6, target] = [
    await node.pod('v4', { ipv6: false }),
    await node.pod('v6', { ipv4: false }),
    await node.pod('target'),
  ];
  const agent = await node.agent();
  await agent.enrol(v4);
  await agent.enrol(v6);
  await serve(target, apps.echo({ port: 8080, mode: 'tell' }));
  t.like(await converse(v4, apps.pythonConnect({ to: target.ipv6, port: 8080 })), {
    error: 'ENETUNREACH',
    at: 'connect',
  });
  t.like(await converse(v6, apps.pythonConnect({ to: target.ipv4, port: 8080 })), {
    error: 'ENETUNREACH',
    at: 'connect',
  });
  t.is((await converse(v4, apps.pythonConnect({ to: target.ipv4, port: 8080 }))).error, undefined);
  t.is((await converse(v6, apps.pythonConnect({ to: target.ipv6, port: 8080 }))).error, undefined);
});

test.serial('a source address that cannot be had there is learned of by a reset', async (t) => {
  await using stage = await scene(t.title);
  const { client, outside } = stage;
  await serve(outside, apps.echo({ port: 8080, mode: 'tell' }));
  const request = apps.pythonConnect({ to: outside.ipv4, port: 8080, bind: '127.0.0.1' });
  t.is((await converse(client, request)).error, 'ECONNRESET');
});

test.serial(
  'a black hole is learned of by a reset, when the kernel gives up as it would without the mesh',
  async (t) => {
    await using lab = await Lab.create(t.title, labOptions);
    const [near, far] = [await lab.node('n1'), await lab.node('n2')];
    const link = await lab.link(near, far);
    const [client, twin, target] = [await near.pod('client'), await near.pod('twin'), await far.pod('target')];
    const agent = await near.agent();
    await agent.enrol(client);
    await serve(target, apps.echo({ port: 8080, mode: 'tell' }));
    for (const pod of [client, twin]) {
      await pod.sysctl({ 'net.ipv4.tcp_syn_retries': 1 });
      t.is((await converse(pod, apps.pythonConnect({ to: target.ipv4, port: 8080 }))).error, undefined);
    }
    await link.lose(100);
    for (const { name, of } of families) {
      const failed = async (pod: LabPod, timeoutS: number): Promise<string | undefined> =>
        parseConversation(await pod.exec(apps.pythonConnect({ to: of(target), port: 8080, timeout: timeoutS }))).error;
      const began = performance.now();
      t.is(await failed(twin, 600), 'ETIMEDOUT', `${name} without the mesh`);
      // A guard against never, not a measure: the app's own patience, of ten times what the twin needed.
      const patienceS = ((performance.now() - began) / 1000) * 10;
      t.is(await failed(client, patienceS), 'ECONNRESET', name);
    }
    t.is(await metric(agent, 'culvert_connections_ended_total', 'reason="dial-timed-out"'), 2);
  },
);

/** Reads until the client has ended, then sends on until it is told that nobody listens. */
const sendsOn = `
import json, socket, sys, time
server = socket.socket(socket.AF_INET6)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("::", int(sys.argv[1])))
server.listen()
print(json.dumps({"event": "listening"}), flush=True)
while True:
    client, _ = server.accept()
    client.settimeout(20)
    while client.recv(1000):
        pass
    try:
        while True:
            client.sendall(b"still here")
            time.sleep(0.01)
    except OSError as error:
        print(json.dumps({"event": "told", "error": type(error).__name__}), flush=True)
`;

test.serial('a server that sends on after its client has gone is told by a reset', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, server, outside } = stage;
  const leaving = 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()';
  for (const [from, to] of [
    [client, outside],
    [outside, server],
    [client, server],
  ] as const) {
    const app = await serve(to, [python, '-c', sendsOn, '8080']);
    for (const { name, of } of families) {
      t.is((await from.exec([python, '-c', leaving, of(to), '8080'])).code, 0);
      const { error } = await app.json({ event: 'told' }, 60_000);
      t.true(
        ['BrokenPipeError', 'ConnectionResetError'].includes(`${error}`),
        `${name}, ${from.name} to ${to.name}: ${error}`,
      );
    }
    await app.kill();
  }
  t.like(await agent.status(), { status: { totals: { unattributed: 0 } } });
});

test.serial('a client that the app would not see is reset before a byte, and nobody else is', async (t) => {
  await using stage = await scene(t.title);
  const { agent, server, outside } = stage;
  const app = await serve(server, apps.echo({ port: 8080, mode: 'tell' }));
  const usage = addon.pinOpen(join(server.node.bpffs, `culvert/v${limit.SCHEMA}/maps/pod_usage`), 'map');
  const { netnsCookie } = (await agent.enrol(server)) as { netnsCookie: string };
  const key = new Uint8Array(8);
  new DataView(key.buffer).setBigUint64(0, BigInt(netnsCookie), true);
  // More hand-overs than any pod may hold: the agent's own dials get none.
  addon.mapUpdate(usage, key, encodePodUsage({ given: BigInt(2 * limit.HANDOVERS_PER_POD), taken: 0n, ...noFlows }));
  for (const { of } of families) {
    const { error, reply } = await converse(outside, apps.pythonConnect({ to: of(server), port: 8080, send: 'word' }));
    t.is(reply, undefined);
    t.is(error, 'ECONNRESET');
  }
  t.false(app.stdout.includes('word'));
  t.like(await agent.status(), { status: { ended: { 'client-hidden': 2 } } });
  addon.mapUpdate(usage, key, encodePodUsage({ given: 0n, taken: 0n, ...noFlows }));
  addon.close(usage);
  for (const { of } of families) {
    const { error } = await converse(outside, apps.pythonConnect({ to: of(server), port: 8080 }));
    t.is(error, undefined);
  }
});
