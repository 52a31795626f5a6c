import { once } from 'node:events';
import { closeSync } from 'node:fs';
import net from 'node:net';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { encodeEarlierSocket } from '../../../src/gen/layout.ts';
import { EarlierSockets } from '../../../src/kernel/earlier-sockets.ts';
import { type Address, encodeAddress, type NetnsCookie } from '../../../src/mesh/index.ts';
import { TestMaps } from './maps.ts';

let kernel: TestMaps;
test.before(() => {
  kernel = new TestMaps();
});
test.after.always(() => kernel?.close());

const pod = 7n as NetnsCookie;
const second = 1_000_000_000n;
/** Loopback addresses of one namespace; to the one who counts, those of its own pod are given. */
const [own, other] = ['127.0.0.1', '::1'] as const;

test.serial('what a pod says to itself is not counted', async (t) => {
  const netnsFd = addon.netnsCreate();
  t.teardown(() => closeSync(netnsFd));
  const connect = async (address: string): Promise<net.Socket> => {
    const family = address.includes(':') ? 6 : 4;
    const bind = { address: encodeAddress(address as Address), port: 0 };
    const server = net.createServer((socket) => socket.on('error', () => undefined).resume());
    server.listen({ fd: addon.socketOpen({ netnsFd, family, bind, backlog: 4 }) });
    t.teardown(() => server.close());
    await once(server, 'listening');
    const client = new net.Socket({ fd: addon.socketOpen({ netnsFd, family }) }).on('error', () => undefined).resume();
    t.teardown(() => client.destroy());
    client.connect({ host: address, port: (server.address() as net.AddressInfo).port });
    await once(client, 'connect');
    return client;
  };
  const earlier = new EarlierSockets(kernel.maps.earlier_sockets);
  await connect(own);
  await connect(other);
  t.is(earlier.note(pod, netnsFd, []), 0);
  t.is(earlier.counts(0n).size, 0);
});

test.serial('a namespace without a connection counts nothing', (t) => {
  const netnsFd = addon.netnsCreate();
  t.teardown(() => closeSync(netnsFd));
  const earlier = new EarlierSockets(kernel.maps.earlier_sockets);
  t.is(earlier.note(pod, netnsFd, []), 0);
  t.deepEqual([...earlier.counts(20n * second)], []);
});

test.serial('what an earlier agent has left is forgotten with its pod, though nobody has resumed it', (t) => {
  const map = kernel.maps.earlier_sockets;
  for (const netns of [7n, 8n])
    for (const socket of [1n, 2n]) addon.mapUpdate(map, encodeEarlierSocket({ netns, socket }), Uint8Array.of(1));
  new EarlierSockets(map).forget(pod);
  t.is(kernel.count('earlier_sockets'), 2);
});

test.serial('a pod that is noted again keeps nothing of the first time', (t) => {
  const map = kernel.maps.earlier_sockets;
  const netnsFd = addon.netnsCreate();
  t.teardown(() => closeSync(netnsFd));
  addon.mapUpdate(map, encodeEarlierSocket({ netns: 9n, socket: 1n }), Uint8Array.of(1));
  const before = kernel.count('earlier_sockets');
  new EarlierSockets(map).note(9n as NetnsCookie, netnsFd, []);
  t.is(kernel.count('earlier_sockets'), before - 1);
});
