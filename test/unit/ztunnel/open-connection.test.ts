import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { type AddressInfo, connect, createServer, Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { type Address, type Endpoint, encodeAddress, parseAddress } from '../../../src/mesh/index.ts';
import { OpenConnection } from '../../../src/ztunnel/open-connection.ts';
import { ending, listening, pair } from './loopback.ts';

const LOOPBACK = parseAddress('127.0.0.1') as Address;

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

test('gives up dialling when the client resets', async (t) => {
  const [client, accepted] = await pair();
  const destination = await silent(t);
  const connection = new OpenConnection(accepted, { setResetOnDeath: () => undefined });
  const server = new Socket({ allowHalfOpen: true });
  const dialled = connection.dial(server, destination);
  client.write('early');
  client.resetAndDestroy();
  const timer = setInterval(() => connection.probe(), 5);
  t.false(await dialled);
  clearInterval(timer);
  t.is((await connection.over).ended, 'client-gone');
  t.true(server.destroyed);
});

test('dials on when the client half-closes', async (t) => {
  const [client, accepted] = await pair();
  const destination = await silent(t);
  const connection = new OpenConnection(accepted, { setResetOnDeath: () => undefined });
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
  const connection = new OpenConnection(accepted, { setResetOnDeath: () => undefined });
  destination.open();
  t.false(await connection.dial(new Socket({ allowHalfOpen: true }), destination));
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
  const connection = new OpenConnection(accepted, { setResetOnDeath: () => undefined });
  const dialled = connection.dial(from(taken), destination, () => {
    t.false(turned);
    asked += 1;
    return from(asked < 3 ? taken : 0);
  });
  t.true(await dialled);
  t.is(asked, 3);
  const clientEnding = ending(client);
  connection.reset('internal');
  t.is((await clientEnding).how, 'ECONNRESET');
  first.destroy();
  server.server.close();
});
