import test from 'ava';
import {
  addressOf,
  apps,
  type Conversation,
  converse,
  counted,
  families,
  nothing,
  plain,
  scene,
  serve,
  socketKinds,
} from './conversation.ts';

const port = 8080;
const python = '/usr/bin/python3';

test.serial(
  "the app's accept and getpeername give the real client, to the exact port when it is not enrolled",
  async (t) => {
    await using stage = await scene(t.title);
    const { node, server, outside } = stage;
    const app = await serve(server, apps.pythonEcho({ port, mode: 'tell' }));
    await serve(server, apps.echo({ port: 8081, mode: 'tell' }));
    for (const caller of [outside, node])
      for (const kind of socketKinds) {
        const what = `${kind.name} from ${caller.name}`;
        const to = kind.of(server);
        const blocking = await converse(caller, apps.pythonConnect({ to, port, ...kind.options }));
        const seen = await app.json({ event: 'accepted' });
        t.is(plain(`${seen.accepted}`), `${blocking.local}`, `${what}: accept`);
        t.is(plain(`${seen.peer}`), `${blocking.local}`, `${what}: getpeername`);
        t.is(plain(`${seen.local}`), apps.endpoint(to, port), `${what}: getsockname`);
        const node = await converse(caller, apps.pythonConnect({ to, port: 8081, ...kind.options }));
        t.is(node.server?.peer, node.local, `${what}: remoteAddress of a Node server`);
        t.is(node.server?.local, apps.endpoint(to, 8081), `${what}: localAddress of a Node server`);
      }
  },
);

test.serial('of many clients at once each is shown to the server as itself', async (t) => {
  const atOnce = 200;
  await using stage = await scene(t.title);
  const { server, outside } = stage;
  await serve(server, apps.echo({ port, mode: 'greet', quiet: true, backlog: atOnce * 2 }));
  const script = `
import json, socket, sys
to, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
open = [socket.create_connection((to, port)) for _ in range(count)]
wrong = 0
for each in open:
    seen = json.loads(each.makefile().readline())["peer"].replace("[::ffff:", "").replace("[", "").replace("]", "")
    host, own = each.getsockname()[:2]
    wrong += seen != f"{host}:{own}"
print(json.dumps({"open": len(open), "wrong": wrong}))
`;
  for (const { name, of } of families) {
    const { stdout, stderr } = await outside.exec([python, '-c', script, of(server), `${port}`, `${atOnce}`]);
    t.deepEqual(JSON.parse(stdout || '{}'), { open: atOnce, wrong: 0 }, `${name}: ${stderr}`);
  }
});

test.serial('a pod that is not enrolled and a host-network process are untouched', async (t) => {
  await using stage = await scene(t.title);
  const { lab, node, agent, client, outside } = stage;
  const plainPod = await node.pod('plain');
  const target = await serve(outside, apps.pythonEcho({ port, mode: 'tell' }));
  await serve(node, apps.pythonEcho({ port, mode: 'tell' }));
  for (const kind of socketKinds) {
    const pairs = [
      { from: plainPod, to: kind.of(outside), server: outside },
      { from: node, to: kind.of(outside), server: outside },
      { from: plainPod, to: kind.name === 'IPv6' ? node.ipv6 : node.ipv4, server: node },
    ];
    for (const { from, to, server } of pairs) {
      const what = `${kind.name}, ${from.name} to ${server.name}`;
      const wire = await lab.capture(server === node ? plainPod : outside);
      const inside = await lab.capture(from, 'lo');
      const secret = `${from.name} speaks to ${to}`;
      let talk: Conversation = {};
      const counts = await counted(agent, async () => {
        talk = await converse(from, apps.pythonConnect({ to, port, send: secret, ...kind.options }));
      });
      t.deepEqual(counts, nothing, what);
      t.is(talk.server?.peer, talk.local, what);
      const direct = (await wire.stop()).between(talk.local ?? '', talk.peer ?? '');
      t.true(direct.contains(secret), `${what}: its own packets carry its bytes`);
      t.false((await inside.stop()).contains(secret), `${what}: nothing goes through its loopback`);
    }
  }
  // What would be seen if it were led: the same of a pod that is.
  const inside = await lab.capture(client, 'lo');
  const wire = await lab.capture(outside);
  const talk = await converse(client, apps.pythonConnect({ to: outside.ipv4, port, send: 'led' }));
  t.not(talk.server?.peer, talk.local);
  t.true((await inside.stop()).contains('led'));
  t.is((await wire.stop()).between(talk.local ?? '', talk.peer ?? '').packets.length, 0);
  await target.kill();
});

/** A UDP server that answers each datagram with its sender; a client that shows what it sees, connected or not. */
const udpServer = `
import json, socket, sys
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print(json.dumps({"event": "listening"}), flush=True)
while True:
    data, sender = server.recvfrom(2048)
    server.sendto(json.dumps([sender[0], sender[1], data.decode()]).encode(), sender)
`;
const udpClient = `
import json, socket, sys
to, port, connected, bind = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "connected", sys.argv[4]
client = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.bind((bind, 0))
if connected:
    client.connect((to, port))
    client.send(b"datagram")
else:
    client.sendto(b"datagram", (to, port))
data, sender = client.recvfrom(2048)
peer = client.getpeername()[:2] if connected else sender[:2]
print(json.dumps({"seen": json.loads(data), "own": client.getsockname()[:2], "sender": sender[:2], "peer": peer}))
`;

test.serial('UDP is untouched, both ways, connected or not, on the ports of the agent too', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, outside } = stage;
  for (const { name, of } of families)
    for (const [from, to] of [
      [client, outside],
      [outside, client],
    ] as const)
      for (const udpPort of [5353, 15_001, 15_006, 15_008]) {
        const app = await serve(to, [python, '-c', udpServer, of(to), `${udpPort}`]);
        for (const mode of ['connected', 'unconnected']) {
          const what = `${name}, ${from.name} to ${to.name}, port ${udpPort}, ${mode}`;
          let stdout = '';
          const counts = await counted(agent, async () => {
            ({ stdout } = await from.exec([python, '-c', udpClient, of(to), `${udpPort}`, mode, of(from)]));
          });
          const { seen, own, sender, peer } = JSON.parse(stdout || '{}') as Record<string, unknown[]>;
          t.deepEqual(seen, [...(own ?? []), 'datagram'], what);
          const asked: unknown[] = [of(to), udpPort];
          t.deepEqual([sender, peer], [asked, asked], what);
          t.deepEqual(counts, nothing, what);
        }
        await app.kill();
      }
});

test.serial('a pod that calls its own address, by whatever name, is not captured', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client } = stage;
  await serve(client, apps.pythonEcho({ port, mode: 'tell' }));
  const { ipv4, ipv6 } = client;
  const calls = [
    { to: ipv4 },
    { to: ipv4, mapped: true },
    { to: ipv6 },
    { to: '127.0.0.1' },
    { to: '127.0.0.1', mapped: true },
    { to: '127.3.2.1' },
    { to: '::1' },
    { to: '0.0.0.0' },
    { to: '::' },
    { to: ipv4, bind: ipv4 },
    { to: ipv6, bind: ipv6 },
    { to: ipv4, bind: '127.0.0.1' },
    { to: '127.0.0.1', bind: ipv4 },
    { to: ipv4, bindPort: 7001 },
    { to: ipv6, bindPort: 7002 },
    { to: '127.0.0.1', device: 'lo' },
  ];
  for (const call of calls) {
    const what = JSON.stringify(call);
    let talk: Conversation = {};
    const counts = await counted(agent, async () => {
      talk = await converse(client, apps.pythonConnect({ port, ...call }));
    });
    t.is(talk.error, undefined, what);
    t.is(talk.server?.peer, talk.local, what);
    t.is(talk.server?.local, talk.peer, what);
    t.deepEqual(counts, nothing, what);
  }
  const counts = await counted(agent, async () => {
    const talk = await converse(client, apps.connect({ to: 'localhost', port }));
    t.is(talk.server?.peer, talk.local);
  });
  t.deepEqual(counts, nothing, 'localhost');
});

test.serial('a server that speaks first is heard by a client that waits for it', async (t) => {
  await using stage = await scene(t.title);
  const { client, server, outside } = stage;
  for (const pod of [server, outside]) {
    await serve(pod, apps.echo({ port, mode: 'greet' }));
    await serve(pod, apps.pythonEcho({ port: 8081, mode: 'greet' }));
  }
  for (const [from, to] of [
    [client, server],
    [client, outside],
    [outside, server],
  ] as const)
    for (const kind of socketKinds)
      for (const greeter of [port, 8081])
        for (const nonblocking of [false, true]) {
          const what = `${kind.name} from ${from.name} to ${to.name}:${greeter}`;
          const argv = apps.pythonConnect({
            to: kind.of(to),
            port: greeter,
            listenFirst: true,
            nonblocking,
            ...kind.options,
          });
          const talk = await converse(from, argv);
          t.is(talk.error, undefined, what);
          t.is(addressOf(talk.server?.peer), kind.of(from), what);
        }
});
