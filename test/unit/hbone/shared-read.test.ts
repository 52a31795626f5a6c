import { once } from 'node:events';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import test from 'ava';
import { readShared } from '../../../src/hbone/index.ts';

/** Two ends of a connection over loopback. */
async function connected(): Promise<{ near: Socket; far: Socket; close(): void }> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = createConnection({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' });
  const [far] = (await once(server, 'connection')) as [Socket];
  return {
    near,
    far,
    close: () => {
      near.destroy();
      far.destroy();
      server.close();
    },
  };
}

test('with the pinned Node, all sockets of a thread are read into one buffer', async (t) => {
  const pairs = [await connected(), await connected()];
  const seen = await Promise.all(
    pairs.map(async ({ near, far }) => {
      const chunk = Promise.withResolvers<{ text: string; memory: ArrayBufferLike }>();
      readShared(far, (_socket, bytes) => chunk.resolve({ text: bytes.toString(), memory: bytes.buffer }));
      far.resume();
      near.write('hello');
      return await chunk.promise;
    }),
  );
  t.deepEqual(
    seen.map(({ text }) => text),
    ['hello', 'hello'],
  );
  t.is(seen[0]?.memory, seen[1]?.memory);
  for (const { close } of pairs) close();
});

test('nothing is taken while it is paused, and nothing is lost', async (t) => {
  const { near, far, close } = await connected();
  let taken = '';
  let sign = Promise.withResolvers<void>();
  readShared(far, (socket, bytes) => {
    taken += bytes.toString();
    socket.pause();
    sign.resolve();
  });
  far.resume();
  near.write('one');
  await sign.promise;
  near.write('two');
  // What has been written crosses loopback before what is written after it: this end has it by then, and leaves it.
  far.write('sync');
  await once(near, 'data');
  t.is(taken, 'one');
  sign = Promise.withResolvers<void>();
  far.resume();
  await sign.promise;
  t.is(taken, 'onetwo');
  close();
});
