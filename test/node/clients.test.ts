import test from 'ava';
import type { Scene } from './conversation.ts';
import {
  addAddresses,
  addressOf,
  apps,
  type Conversation,
  converse,
  counted,
  families,
  nothing,
  parseConversation,
  parseSeen,
  plain,
  portOf,
  scene,
  serve,
  socketKinds,
} from './conversation.ts';

const tellPort = 8080;
const httpPort = 8081;
const echoPort = 8082;

async function serveAll({ server, outside }: Scene): Promise<void> {
  for (const pod of [server, outside]) {
    await serve(pod, apps.echo({ port: tellPort, mode: 'tell' }));
    await serve(pod, apps.echo({ port: httpPort, mode: 'http' }));
    await serve(pod, apps.echo({ port: echoPort }));
  }
}

/** Every conversation's addresses are what they would be without the mesh, but for the port that the server sees. */
function expectTrueAddresses(
  t: { is: (actual: unknown, expected: unknown, message?: string) => void },
  what: string,
  talk: Conversation,
  expected: { from: string; to: string; port: number },
): void {
  t.is(talk.error, undefined, `${what}: ${JSON.stringify(talk)}`);
  const asked = apps.endpoint(expected.to, expected.port);
  t.is(talk.peer, asked, `${what}: getpeername of the client`);
  t.is(addressOf(talk.local), expected.from, `${what}: getsockname of the client`);
  t.is(talk.server?.local, asked, `${what}: getsockname of the server`);
  t.is(addressOf(talk.server?.peer), expected.from, `${what}: getpeername of the server`);
}

test.serial(
  'Python clients, blocking and not, and Node clients go through the agent and see true addresses',
  async (t) => {
    await using stage = await scene(t.title);
    const { agent, client, server, outside } = stage;
    await serveAll(stage);
    for (const target of [server, outside]) {
      for (const kind of socketKinds) {
        const to = kind.of(target);
        const clients = {
          blocking: apps.pythonConnect({ to, port: tellPort, ...kind.options }),
          'non-blocking': apps.pythonConnect({ to, port: tellPort, nonblocking: true, ...kind.options }),
          'event loop': apps.connect({ to: kind.name === 'v4-mapped' ? `::ffff:${to}` : to, port: tellPort }),
        };
        for (const [name, argv] of Object.entries(clients)) {
          const what = `${name}, ${kind.name}, to ${target.name}`;
          let talk: Conversation = {};
          const counts = await counted(agent, async () => {
            talk = await converse(client, argv);
          });
          expectTrueAddresses(t, what, talk, { from: kind.of(client), to, port: tellPort });
          const inbound = target === server ? 1 : 0;
          t.deepEqual(
            counts,
            { ...nothing, accepted: 1 + inbound, captured_outbound: 1, captured_inbound: inbound },
            what,
          );
        }
      }
    }
  },
);

test.serial('curl, nc and io_uring clients go through the agent and see true addresses', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, server, outside } = stage;
  await serveAll(stage);
  for (const target of [server, outside])
    for (const kind of socketKinds) {
      const [from, to] = [kind.of(client), kind.of(target)];
      const literal = kind.name === 'v4-mapped' ? `::ffff:${to}` : to;
      const inbound = target === server ? 1 : 0;
      const through = { ...nothing, accepted: 1 + inbound, captured_outbound: 1, captured_inbound: inbound };
      const tried = async (name: string, argv: string[], check: (stdout: string) => void, stdin?: string) => {
        let stdout = '';
        const counts = await counted(agent, async () => {
          const outcome = await client.exec(argv, stdin === undefined ? {} : { stdin });
          t.is(outcome.code, 0, `${name}, ${kind.name}, to ${target.name}: ${outcome.stdout}${outcome.stderr}`);
          ({ stdout } = outcome);
        });
        check(stdout);
        t.deepEqual(counts, through, `${name}, ${kind.name}, to ${target.name}`);
      };
      const url = `http://${apps.endpoint(literal, httpPort)}/`;
      const format = '{"peer":"%{remote_ip}","local":"%{local_ip}"}';
      await tried('curl', ['curl', '--silent', '--show-error', '--write-out', format, url], (stdout) => {
        const [body = '', own = ''] = stdout.split('\n');
        t.deepEqual(
          Object.values(JSON.parse(own) as Record<string, string>).map((address) => address.replace('::ffff:', '')),
          [to, from],
        );
        t.is(parseSeen(body).local, apps.endpoint(to, httpPort));
        t.is(addressOf(parseSeen(body).peer), from);
      });
      await tried(
        'nc',
        ['nc', '-N', literal, `${tellPort}`],
        (stdout) => {
          t.is(parseSeen(stdout).local, apps.endpoint(to, tellPort));
          t.is(addressOf(parseSeen(stdout).peer), from);
        },
        'hello\n',
      );
      if (kind.name !== 'v4-mapped')
        await tried('io_uring', await apps.uringConnect({ to, port: echoPort }), (stdout) =>
          t.like(JSON.parse(stdout), { reply: 'hello' }),
        );
    }
});

test.serial(
  'a client that has bound its port, address or device keeps what it has bound, and is captured',
  async (t) => {
    await using stage = await scene(t.title);
    const { agent, client, outside } = stage;
    await serveAll(stage);
    let port = 5000;
    for (const kind of socketKinds) {
      const [from, to] = [kind.of(client), kind.of(outside)];
      const bindings = {
        'port only': { bindPort: true },
        'address only': { bind: from },
        'address, its port left to connect': { bind: from, noPort: true },
        'address and port': { bind: from, bindPort: true },
        device: { device: 'eth0' },
        'device and port': { device: 'eth0', bindPort: true },
        'device and address': { device: 'eth0', bind: from },
        'shared port': { bindPort: true, reuse: true },
        'shared address and port': { bind: from, bindPort: true, reuse: true },
      };
      for (const [name, { bindPort, ...binding }] of Object.entries<Record<string, string | boolean>>(bindings)) {
        port += 1;
        const own = bindPort === true ? { bindPort: port } : {};
        let talk: Conversation = {};
        const counts = await counted(agent, async () => {
          talk = await converse(
            client,
            apps.pythonConnect({ to, port: tellPort, ...kind.options, ...binding, ...own }),
          );
        });
        expectTrueAddresses(t, `${name}, ${kind.name}`, talk, { from, to, port: tellPort });
        if (bindPort === true) t.is(portOf(talk.local), port, `${name}, ${kind.name}: the port`);
        t.deepEqual(counts, { ...nothing, accepted: 1, captured_outbound: 1 }, `${name}, ${kind.name}`);
      }
    }
  },
);

test.serial('a Node client that binds its source keeps it', async (t) => {
  await using stage = await scene(t.title);
  const { client, outside } = stage;
  await serveAll(stage);
  for (const { name, of } of families) {
    const [from, to] = [of(client), of(outside)];
    const talk = await converse(client, apps.connect({ to, port: tellPort, bind: from, bindPort: 6001 }));
    expectTrueAddresses(t, name, talk, { from, to, port: tellPort });
    t.is(portOf(talk.local), 6001);
  }
});

test.serial('of several pod addresses the one that the client has bound is the one that the server sees', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, server, outside } = stage;
  await serveAll(stage);
  const second = ['10.11.77.7', 'fd00:c:1::77'];
  await addAddresses(client, second);
  t.like(await agent.enrol(client, { addresses: [...client.addresses, ...second] }), { result: 'updated' });
  for (const target of [server, outside])
    for (const from of second) {
      const to = from.includes(':') ? target.ipv6 : target.ipv4;
      const talk = await converse(client, apps.pythonConnect({ to, port: tellPort, bind: from }));
      expectTrueAddresses(t, `${from} to ${target.name}`, talk, { from, to, port: tellPort });
    }
});

test.serial(
  'servers bound to 0.0.0.0, to [::] or only to their pod address are reached, each in its families',
  async (t) => {
    await using stage = await scene(t.title);
    const { agent, client, server, outside } = stage;
    const bindings = [
      { name: '0.0.0.0', bind: '0.0.0.0', answers: ['IPv4', 'v4-mapped'] },
      { name: '[::], dual stack', bind: '::', answers: ['IPv4', 'IPv6', 'v4-mapped'] },
      { name: '[::], IPv6 only', bind: '::', v6only: true, answers: ['IPv6'] },
      { name: 'its IPv4 address', bind: server.ipv4, answers: ['IPv4', 'v4-mapped'] },
      { name: 'its v4-mapped address', bind: `::ffff:${server.ipv4}`, answers: ['IPv4', 'v4-mapped'] },
      { name: 'its IPv6 address', bind: server.ipv6, answers: ['IPv6'] },
    ];
    for (const [index, { name, answers, ...binding }] of bindings.entries()) {
      const port = 9000 + index;
      const app = await serve(server, apps.pythonEcho({ ...binding, port, mode: 'tell' }));
      for (const caller of [client, outside])
        for (const kind of socketKinds) {
          const what = `a server on ${name}, called by ${caller.name} with ${kind.name}`;
          let talk: Conversation = {};
          const { captured_inbound } = await counted(agent, async () => {
            talk = await converse(caller, apps.pythonConnect({ to: kind.of(server), port, ...kind.options }));
          });
          t.is(captured_inbound, 1, what);
          if (!answers.includes(kind.name)) {
            t.is(talk.error, 'ECONNRESET', what);
            continue;
          }
          expectTrueAddresses(t, what, talk, { from: kind.of(caller), to: kind.of(server), port });
          const seen = await app.json({ event: 'accepted' });
          t.is(seen.accepted, seen.peer, `${what}: accept says the same as getpeername`);
          if (caller === outside) t.is(plain(`${seen.peer}`), talk.local ?? '', `${what}: the exact port`);
        }
    }
  },
);

test.serial('a server bound only to the loopback answers in its pod and stays unreachable from outside', async (t) => {
  await using stage = await scene(t.title);
  const { client, server, outside } = stage;
  for (const [index, { name, of, loopback }] of families.entries()) {
    const port = 9100 + index;
    const app = await serve(server, apps.pythonEcho({ bind: loopback, port, mode: 'tell' }));
    for (const caller of [client, outside]) {
      const talk = await converse(caller, apps.pythonConnect({ to: of(server), port }));
      t.is(talk.error, 'ECONNRESET', `${name} from ${caller.name}`);
    }
    const inside = await converse(server, apps.pythonConnect({ to: loopback, port }));
    t.is(inside.server?.peer, inside.local);
    await app.kill();
    t.is(
      app.lines.filter((line) => line.includes('accepted')).length,
      1,
      `${name}: only the pod's own call was accepted`,
    );
  }
});

test.serial('clients of all kinds at once, both ways, each get their own answer', async (t) => {
  await using stage = await scene(t.title);
  const { client, server, outside } = stage;
  await serveAll(stage);
  await serve(client, apps.echo({ port: tellPort, mode: 'tell' }));
  const pairs = [
    [client, server],
    [client, outside],
    [server, client],
    [outside, client],
  ] as const;
  const talks = pairs.flatMap(([from, to], pair) =>
    socketKinds.flatMap((kind) =>
      [false, true].map(async (nonblocking) => {
        const send = `${pair} ${kind.name} ${nonblocking}`;
        const argv = apps.pythonConnect({ to: kind.of(to), port: tellPort, ...kind.options, nonblocking, send });
        const talk = parseConversation(await from.exec(argv));
        t.is(talk.error, undefined, send);
        t.is((JSON.parse(talk.reply ?? '{}') as { got?: string }).got, send);
        t.is(addressOf(talk.server?.peer), kind.of(from), send);
      }),
    ),
  );
  await Promise.all(talks);
});
