import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { type AddressInfo, connect, createServer, Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { HboneError, type TunnelConnection } from '../../../src/hbone/index.ts';
import { type Address, type Endpoint, encodeAddress, parseAddress, type SpiffeId } from '../../../src/mesh/index.ts';
import { SocketClient } from '../../../src/ztunnel/client.ts';
import { OpenConnection } from '../../../src/ztunnel/open-connection.ts';
import { FakeSeries } from '../../contract/fakes/series.ts';
import { FakeStream } from './fake-stream.ts';
import { ending, listening, pair } from './loopback.ts';

const LOOPBACK = parseAddress('127.0.0.1') as Address;
const PEER = 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId;

/** A destination that answers nobody: its queue of unaccepted connections is full, so the kernel drops further SYNs. */
async function silent(t: { teardown(run: () => void): void }): Promise<Endpoint & { readonly open: () => void }> {
  const fd = addon.socketOpen({ family: 4, bind: { address: encodeAddress(LOOPBACK), port: 0 }, backlog: 0 });
  const server = createServer().listen({ fd: addon.duplicate(fd), backlog: 1 });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  const fillers: Socket[] = [];
  for (let full = false; !full; ) {
    const filler = connect({ host: LOOPBACK, port }).on('error', () => {});
    fillers.push(filler);
    // On loopback an accepted handshake is done within a turn or two of the loop.
    for (let at = 0; at < 200 && filler.connecting; at += 1) await turn();
    full = filler.connecting;
  }
  let isOpen = true;
  const open = (): void => {
    if (isOpen) closeSync(fd);
    isOpen = false;
  };
  t.teardown(() => {
    for (const filler of fillers) filler.destroy();
    open();
  });
  return { address: LOOPBACK, port, open };
}

function open(accepted: Socket, holds: (descriptors: number) => void = () => undefined): OpenConnection {
  return new OpenConnection(new SocketClient(accepted, () => undefined), {
    series: new FakeSeries().table(),
    meter: { measure: () => undefined },
    beforeEnd: () => undefined,
    holds,
  });
}

test('gives up dialling when the client resets', async (t) => {
  const [client, accepted] = await pair();
  const destination = await silent(t);
  const connection = open(accepted);
  const server = new Socket({ allowHalfOpen: true });
  const dialled = connection.dial(server, destination);
  client.write('early');
  client.resetAndDestroy();
  const timer = setInterval(() => connection.probe(), 5);
  t.is((await dialled)?.reason, 'client-gone');
  clearInterval(timer);
  t.is((await connection.over).ended, 'client-gone');
  t.true(server.destroyed);
});

test('dials on when the client half-closes', async (t) => {
  const [client, accepted] = await pair();
  const destination = await silent(t);
  const connection = open(accepted);
  const server = new Socket({ allowHalfOpen: true });
  void connection.dial(server, destination);
  client.end('all of it');
  for (let at = 0; at < 100; at += 1) {
    await turn();
    connection.probe();
  }
  t.is(connection.state, 'dialling');
  connection.reset('drain-deadline');
  t.is((await ending(client)).how, 'ECONNRESET');
  t.is((await connection.over).ended, 'drain-deadline');
});

test('a refused dial resets the client', async (t) => {
  const [client, accepted] = await pair();
  const destination = await silent(t);
  const clientEnding = ending(client);
  const connection = open(accepted);
  destination.open();
  const failed = await connection.dial(new Socket({ allowHalfOpen: true }), destination);
  t.is(failed?.reason, 'dial-refused');
  t.true(failed?.isWorthAnother);
  t.is(connection.state, 'accepted');
  if (failed !== undefined) connection.refuse(failed);
  t.is((await clientEnding).how, 'ECONNRESET');
  t.is((await connection.over).ended, 'dial-refused');
});

test('takes another source port where one is taken, all in the turn of the loop that it began in', async (t) => {
  const [client, accepted] = await pair();
  const server = await listening();
  const destination = { address: LOOPBACK, port: server.port };
  const from = (port: number): Socket =>
    new Socket({
      fd: addon.socketOpen({ family: 4, bind: { address: encodeAddress(LOOPBACK), port }, reusePort: true }),
    });
  const first = from(0);
  first.connect({ host: LOOPBACK, port: server.port });
  await once(first, 'connect');
  const taken = first.localPort ?? 0;
  let turned = false;
  let asked = 0;
  // Who stops accepting for a pod counts on this: its network namespace is closed next.
  setImmediate(() => {
    turned = true;
  });
  const connection = open(accepted);
  const dialled = connection.dial(from(taken), destination, {
    another: () => {
      t.false(turned);
      asked += 1;
      return from(asked < 3 ? taken : 0);
    },
  });
  t.is(await dialled, undefined);
  t.is(asked, 3);
  const clientEnding = ending(client);
  connection.reset('internal');
  t.is((await clientEnding).how, 'ECONNRESET');
  first.destroy();
  server.server.close();
});

/** A connection that counts what it holds. */
async function counted(): Promise<{ client: Socket; connection: OpenConnection; held(): number }> {
  const [client, accepted] = await pair();
  client.on('error', () => {});
  let held = 0;
  const connection = open(accepted, (descriptors) => {
    held += descriptors;
  });
  return { client, connection, held: () => held };
}

test('a server that does not answer in time may be replaced by another', async (t) => {
  const { client, connection, held } = await counted();
  const destination = await silent(t);
  const failed = await connection.dial(new Socket({ allowHalfOpen: true }), destination, { timeoutMs: 20 });
  t.like(failed, { reason: 'dial-timed-out', isWorthAnother: true });
  const server = await listening();
  const next = new Socket({ allowHalfOpen: true });
  t.is(await connection.dial(next, { address: LOOPBACK, port: server.port }), undefined);
  t.is(connection.server, next);
  t.is(held(), 2);
  const clientEnding = ending(client);
  connection.reset('internal');
  t.is((await clientEnding).how, 'ECONNRESET');
  t.is(held(), 0);
  server.server.close();
});

test('waits for an event, and for no longer than it is told to', async (t) => {
  const { connection } = await counted();
  let taken = 0;
  const off = (): void => {
    taken += 1;
  };
  const found = connection.wait<string>((tell) => {
    setImmediate(tell, 'here');
    return off;
  }, 60_000);
  t.is(connection.state, 'routing');
  t.is(await found, 'here');
  t.is(connection.state, 'accepted');
  t.is(await connection.wait<string>(() => off, 1), undefined);
  t.is(taken, 2);
  connection.reset('internal');
});

test('waits no more when it is reset', async (t) => {
  const { connection, held } = await counted();
  let taken = false;
  const found = connection.wait<string>(
    () => () => {
      taken = true;
    },
    60_000,
  );
  connection.reset('pod-dropped');
  t.is(await found, undefined);
  t.true(taken);
  t.is(held(), 0);
  t.is((await connection.over).ended, 'pod-dropped');
  t.is(await connection.wait(() => t.fail() as never, 1), undefined);
});

test('holds one descriptor while it is tunnelled, and two when it is not', async (t) => {
  const { connection, held } = await counted();
  const stream = new FakeStream();
  t.is(held(), 2);
  const answer = Promise.withResolvers<TunnelConnection>();
  const tunnelled = connection.tunnel(() => answer.promise);
  t.is(connection.state, 'tunnelling');
  t.is(held(), 1);
  answer.resolve({ stream, headers: [], peer: PEER });
  t.is(await tunnelled, undefined);
  t.is(connection.state, 'connected');
  t.is(connection.server, undefined);
  const relayed = connection.relay();
  t.is(connection.state, 'relaying');
  t.is(held(), 1);
  connection.reset('pod-dropped');
  t.is(stream.resets, 1);
  stream.close(new HboneError('CLOSED', 'reset by us'));
  await relayed;
  t.is(held(), 0);
});

test('a tunnel that cannot be had leaves the client for another attempt', async (t) => {
  const { connection, held } = await counted();
  const failed = await connection.tunnel(() => Promise.reject(new HboneError('CONNECT_TIMED_OUT', 'no answer')));
  t.like(failed, { reason: 'tunnel-timed-out', text: 'no answer', isWorthAnother: true });
  t.is(connection.state, 'accepted');
  t.is(held(), 2);
  connection.reset('internal');
});

test('a reset takes the attempt to get a tunnel with it, and resets a stream that comes too late', async (t) => {
  const { client, connection, held } = await counted();
  const stream = new FakeStream();
  const answer = Promise.withResolvers<TunnelConnection>();
  let signal: AbortSignal | undefined;
  const tunnelled = connection.tunnel((given) => {
    signal = given;
    return answer.promise;
  });
  const clientEnding = ending(client);
  connection.reset('drain-deadline');
  t.true(signal?.aborted);
  t.is((await clientEnding).how, 'ECONNRESET');
  t.is((await connection.over).ended, 'drain-deadline');
  answer.resolve({ stream, headers: [], peer: PEER });
  t.is((await tunnelled)?.isWorthAnother, false);
  t.is(stream.resets, 1);
  await connection.relay();
  t.is(connection.state, 'over');
  t.is(held(), 0);
});
