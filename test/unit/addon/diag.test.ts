/** TCP sockets found and destroyed by their endpoints, in another network namespace. */
import { once } from 'node:events';
import { closeSync, readdirSync } from 'node:fs';
import net from 'node:net';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { SocketOptions } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { Fixture, fails, mapped, readU64, v6Loopback } from './fixture.ts';

const solSocket = 1;
const soCookie = 57;
const states = { established: 1, synSent: 2, timeWait: 6, listen: 10 } as const;

let fixture: Fixture;
let netns: { name: string; fd: number };
test.before(() => {
  fixture = Fixture.open();
  netns = fixture.netns();
});
test.after.always(() => fixture?.close());

interface End {
  readonly address: Uint8Array;
  readonly port: number;
}

interface Pair {
  readonly client: net.Socket;
  readonly accepted: net.Socket;
  /** Of the client. */
  readonly local: End;
  readonly remote: End;
}

/** What the addon wants for a socket. */
function socket(local: End, remote: End, cookie = 0n): Uint8Array {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  bytes.set(local.address, 0);
  view.setUint16(16, local.port, true);
  bytes.set(remote.address, 20);
  view.setUint16(36, remote.port, true);
  view.setBigUint64(40, cookie, true);
  return bytes;
}

function fdOf(of: net.Socket): number {
  return Reflect.get(Reflect.get(of, '_handle'), 'fd');
}

function cookieOf(of: net.Socket): bigint {
  return readU64(addon.socketOption(fdOf(of), solSocket, soCookie, 8)) ?? 0n;
}

function open(options: SocketOptions): number {
  return addon.socketOpen({ netnsFd: netns.fd, ...options });
}

/** The way of a socket's end. */
function endOf(of: net.Socket): Promise<string> {
  return new Promise((resolve) => {
    of.once('error', (error) => resolve(String(Reflect.get(error, 'code'))));
    of.once('end', () => resolve('end'));
    of.resume();
  });
}

/** A connection in the namespace: of IPv4, of IPv6, or of AF_INET6 sockets that speak IPv4. */
async function pair(t: ExecutionContext, kind: 'IPv4' | 'IPv6' | 'v4-mapped'): Promise<Pair> {
  const family = kind === 'IPv4' ? 4 : 6;
  const address = kind === 'IPv6' ? v6Loopback : mapped(127, 0, 0, 1);
  const server = net.createServer().listen({ fd: open({ family, bind: { address, port: 0 }, backlog: 16 }) });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const client = new net.Socket({ fd: open({ family }) });
  client.connect({ host: { IPv4: '127.0.0.1', IPv6: '::1', 'v4-mapped': '::ffff:127.0.0.1' }[kind], port });
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[net.Socket], []];
  t.teardown(() => {
    client.destroy();
    accepted.destroy();
    server.close();
  });
  const local = { address, port: client.localPort ?? 0 };
  return { client, accepted, local, remote: { address, port } };
}

for (const kind of ['IPv4', 'IPv6', 'v4-mapped'] as const) {
  test.serial(`both ends of a connection are found and destroyed, ${kind}`, async (t) => {
    const { client, accepted, local, remote } = await pair(t, kind);
    const both = Buffer.concat([socket(local, remote, cookieOf(client)), socket(remote, local, cookieOf(accepted))]);
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', both)], [states.established, states.established]);
    const ends = Promise.all([endOf(client), endOf(accepted)]);
    // The second end has the first one's reset already, or it is destroyed itself.
    t.is(addon.sockDiag(netns.fd, 'destroy', both)[0], 1);
    const [ofClient, ofAccepted] = await ends;
    t.is(ofClient, 'ECONNABORTED');
    t.regex(ofAccepted, /^(ECONNABORTED|ECONNRESET)$/);
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', both)], [0, 0]);
    t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', both)], [0, 0]);
  });

  test.serial(`a connection whose cookie is not known is found by its endpoints alone, ${kind}`, async (t) => {
    const { client, local, remote } = await pair(t, kind);
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', socket(local, remote))], [states.established]);
    const end = endOf(client);
    t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', socket(local, remote))], [1]);
    t.is(await end, 'ECONNABORTED');
  });
}

test.serial('a socket is another one than its cookie says: left alone', async (t) => {
  const { client, local, remote } = await pair(t, 'IPv4');
  const wrong = socket(local, remote, cookieOf(client) + 1n);
  t.deepEqual([...addon.sockDiag(netns.fd, 'find', wrong)], [0]);
  t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', wrong)], [0]);
  t.deepEqual([...addon.sockDiag(netns.fd, 'find', socket(local, remote))], [states.established]);
});

test.serial('a listener is never taken for the connection that would reach it', async (t) => {
  for (const family of [4, 6] as const) {
    const address = family === 4 ? mapped(127, 0, 0, 1) : v6Loopback;
    const fd = open({ family, bind: { address, port: 9090 + family }, backlog: 16 });
    t.teardown(() => closeSync(fd));
    const wanted = socket({ address, port: 9090 + family }, { address, port: 40_000 });
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', wanted)], [0]);
    t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', wanted)], [0]);
    const cookie = readU64(addon.socketOption(fd, solSocket, soCookie, 8)) ?? 0n;
    t.deepEqual(
      [
        ...addon.sockDiag(
          netns.fd,
          'find',
          socket({ address, port: 9090 + family }, { address, port: 40_000 }, cookie),
        ),
      ],
      [states.listen],
    );
  }
});

test.serial('a connection that nobody has answered yet is destroyed', async (t) => {
  // A queue of nobody and a backlog of nothing: the first takes the only place, the next waits for an answer.
  for (const [family, address, host] of [
    [4, mapped(127, 0, 0, 1), '127.0.0.1'],
    [6, mapped(127, 0, 0, 1), '::ffff:127.0.0.1'],
    [6, v6Loopback, '::1'],
  ] as const) {
    const listener = open({ family, bind: { address, port: 9191 }, backlog: 0 });
    const first = new net.Socket({ fd: open({ family }) });
    first.connect({ host, port: 9191 });
    t.teardown(() => void first.destroy());
    await once(first, 'connect');
    const client = new net.Socket({ fd: open({ family, bind: { address, port: 9192 } }) });
    const end = endOf(client);
    t.teardown(() => void client.destroy());
    client.connect({ host, port: 9191 });
    await setImmediate(); // Node connects in its next turn.
    const wanted = socket({ address, port: 9192 }, { address, port: 9191 }, cookieOf(client));
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', wanted)], [states.synSent], host);
    t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', wanted)], [1]);
    t.is(await end, 'ECONNABORTED');
    first.destroy();
    closeSync(listener);
  }
});

test.serial('what only waits in TIME_WAIT is found, and is no failure', async (t) => {
  for (const kind of ['IPv4', 'IPv6'] as const) {
    const { client, accepted, local, remote } = await pair(t, kind);
    const cookie = cookieOf(client);
    const closed = Promise.all([once(client, 'close'), once(accepted, 'close')]);
    client.end();
    client.resume();
    accepted.resume();
    await closed;
    const other = await pair(t, kind);
    const unknown = socket(local, remote);
    t.deepEqual([...addon.sockDiag(netns.fd, 'find', unknown)], [states.timeWait]);
    const both = Buffer.concat([unknown, socket(other.local, other.remote)]);
    const ends = Promise.all([endOf(other.client), endOf(other.accepted)]);
    t.deepEqual([...addon.sockDiag(netns.fd, 'destroy', both)], [0, 1]);
    t.is((await ends)[0], 'ECONNABORTED');
    // By its cookie: there are kernels that destroy it, and kernels that refuse.
    t.notThrows(() => addon.sockDiag(netns.fd, 'destroy', socket(local, remote, cookie)));
  }
});

test.serial('sockets of other namespaces are not meant', async (t) => {
  const { local, remote } = await pair(t, 'IPv4');
  t.deepEqual([...addon.sockDiag(undefined, 'find', socket(local, remote))], [0]);
  t.deepEqual([...addon.sockDiag(undefined, 'destroy', socket(local, remote))], [0]);
  t.deepEqual([...addon.sockDiag(netns.fd, 'find', socket(local, remote))], [states.established]);
});

test.serial('many are answered in their order', async (t) => {
  const pairs = await Promise.all(Array.from({ length: 150 }, () => pair(t, 'IPv4')));
  const wanted = pairs.flatMap(({ local, remote, client }, index) => [
    socket(local, remote, index % 2 === 0 ? cookieOf(client) : 0n),
    socket({ ...local, port: 1 }, remote),
  ]);
  const found = addon.sockDiag(netns.fd, 'find', Buffer.concat(wanted));
  t.deepEqual(
    [...found],
    pairs.flatMap(() => [states.established, 0]),
  );
  const ends = Promise.all(pairs.map(({ client }) => endOf(client)));
  t.deepEqual(
    [...addon.sockDiag(netns.fd, 'destroy', Buffer.concat(wanted))],
    pairs.flatMap(() => [1, 0]),
  );
  t.deepEqual([...new Set(await ends)], ['ECONNABORTED']);
});

test.serial('nobody asked for is nobody found', (t) => {
  t.is(addon.sockDiag(netns.fd, 'find', new Uint8Array()).length, 0);
  t.is(addon.sockDiag(undefined, 'destroy', new Uint8Array()).length, 0);
});

test.serial('what cannot be asked says why, and leaves no descriptor', (t) => {
  const count = () => readdirSync('/proc/self/fd').length;
  const before = count();
  fails(t, () => addon.sockDiag(999_999, 'find', new Uint8Array()), { code: 'EBADF', syscall: 'setns' });
  t.throws(() => addon.sockDiag(netns.fd, 'kill' as 'find', new Uint8Array()), {
    instanceOf: TypeError,
    message: /^verb:/,
  });
  t.throws(() => addon.sockDiag(netns.fd, 'find', new Uint8Array(47)), {
    instanceOf: TypeError,
    message: /^sockets:/,
  });
  for (let round = 0; round < 50; round += 1) addon.sockDiag(netns.fd, 'destroy', new Uint8Array(48));
  t.is(count(), before);
});
