import { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { Duplex, duplexPair } from 'node:stream';
import test from 'ava';
import { createFrames, HELD_PRESSURE_BYTES, MemoryBudget, maxHeldBytes } from '../../../../src/hbone/frames/index.ts';
import { MAX_WRITE_BYTES } from '../../../../src/hbone/frames/outbox.ts';
import * as wire from '../../../../src/hbone/frames/wire.ts';
import { HboneError, type TunnelStream } from '../../../../src/hbone/index.ts';
import type { IncomingRequest } from '../../../../src/hbone/session.ts';
import { RecordingSink } from '../../../contract/sink.ts';
import { tlsPair } from '../../../contract/tls-pair.ts';
import {
  block,
  connectFrame,
  data,
  frame,
  goaway,
  NEVER,
  OK,
  PREFACE,
  type RawFrame,
  type RawPeer,
  rawClient,
  rawServer,
  reset,
  SETTINGS_ACK,
  settings,
  u32,
  windowUpdate,
} from './raw-peer.ts';

const MIB = 2 ** 20;
const WIDE = [settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 2 ** 30]), windowUpdate(0, 2 ** 30)];

// The sessions' own timers keep no process alive.
const alive = setInterval(() => undefined, 60_000);
test.after.always(() => clearInterval(alive));

function pairs({ payload }: RawFrame): Array<[id: number, value: number]> {
  const all: Array<[number, number]> = [];
  for (let at = 0; at < payload.length; at += 6) all.push([payload.readUInt16BE(at), payload.readUInt32BE(at + 2)]);
  return all;
}

function errorOf(promise: Promise<unknown>): Promise<HboneError> {
  return promise.then(
    () => new HboneError('CLOSED', 'it did not fail'),
    (error: HboneError) => error,
  );
}

/** Stream 1 of a client made of bytes, accepted. */
async function accepted(world: ReturnType<typeof rawClient>, ...first: Buffer[]): Promise<TunnelStream> {
  world.greet();
  world.peer.send(...first, connectFrame(1));
  await world.peer.roundTrip();
  const request = world.requests[0];
  if (request === undefined) throw new Error('no request');
  return request.accept([]);
}

/** Stream 1 of a server made of bytes, answered. */
async function answered(world: ReturnType<typeof rawServer>): Promise<TunnelStream> {
  world.greet();
  const answer = world.client.connect('a:1', [], NEVER);
  world.peer.send(frame(wire.HEADERS, wire.END_HEADERS, 1, OK));
  return (await answer).stream;
}

test('a client greets as the wire contract says, and sends CONNECT without waiting', async (t) => {
  const { client, peer } = rawServer();
  client.connect('10.0.0.7:8080', [], NEVER).catch(() => undefined);
  await peer.next(wire.HEADERS);
  t.deepEqual(
    peer.frames.map(({ type, id }) => [type, id]),
    [
      [wire.SETTINGS, 0],
      [wire.WINDOW_UPDATE, 0],
      [wire.HEADERS, 1],
    ],
  );
  const [greeting, window] = peer.frames;
  t.deepEqual(greeting && pairs(greeting), [
    [wire.SETTINGS_ENABLE_PUSH, 0],
    [wire.SETTINGS_INITIAL_WINDOW_SIZE, 4 * MIB],
    [wire.SETTINGS_MAX_FRAME_SIZE, MIB],
    [wire.SETTINGS_MAX_HEADER_LIST_SIZE, 16 * 1024],
  ]);
  t.is(window?.payload.readUInt32BE(0), 16 * MIB - 65_535);
  client.close();
});

test('a server greets as the wire contract says', async (t) => {
  const { server, peer, greet } = rawClient();
  greet();
  await peer.next(wire.SETTINGS, ({ flags }) => flags === wire.ACK);
  const [greeting, window] = peer.frames;
  t.deepEqual(greeting && pairs(greeting), [
    [wire.SETTINGS_MAX_CONCURRENT_STREAMS, 200],
    [wire.SETTINGS_INITIAL_WINDOW_SIZE, 4 * MIB],
    [wire.SETTINGS_MAX_FRAME_SIZE, MIB],
    [wire.SETTINGS_MAX_HEADER_LIST_SIZE, 64 * 1024],
  ]);
  t.is(window?.payload.readUInt32BE(0), 16 * MIB - 65_535);
  server.close();
});

test("a client heeds the server's number of streams, which is at most 100", async (t) => {
  const { client, peer } = rawServer();
  t.is(client.maxStreams, 100);
  peer.send(settings([wire.SETTINGS_MAX_CONCURRENT_STREAMS, 1]));
  await peer.roundTrip();
  t.is(client.maxStreams, 1);
  client.connect('a:1', [], NEVER).catch(() => undefined);
  t.is((await errorOf(client.connect('a:1', [], NEVER))).code, 'STREAM_REFUSED');
  peer.send(settings([wire.SETTINGS_MAX_CONCURRENT_STREAMS, 1000]));
  await peer.roundTrip();
  t.is(client.maxStreams, 100);
  client.close();
});

/** What a reset before the answer means. */
for (const [code, expected] of [
  [wire.REFUSED_STREAM, 'STREAM_REFUSED'],
  [wire.CANCEL, 'STREAM_RESET'],
  [wire.NO_ERROR, 'STREAM_RESET'],
  [wire.CONNECT_ERROR, 'STREAM_RESET'],
] as const) {
  test(`a CONNECT that is reset with ${wire.errorName(code)} fails with ${expected}`, async (t) => {
    const { client, peer, greet } = rawServer();
    greet();
    const answer = client.connect('a:1', [], NEVER);
    peer.send(reset(1, code));
    t.is((await errorOf(answer)).code, expected);
    t.is(client.openStreams, 0);
    client.close();
  });
}

test('sends CONNECT_ERROR for a reset, CANCEL for a caller that gave up', async (t) => {
  const { client, peer, greet } = rawServer();
  greet();
  const abort = new AbortController();
  const first = client.connect('a:1', [], NEVER);
  const second = client.connect('a:1', [], abort.signal);
  peer.send(frame(wire.HEADERS, wire.END_HEADERS, 1, OK));
  (await first).stream.reset();
  abort.abort();
  t.is((await errorOf(second)).code, 'CLOSED');
  t.is((await peer.next(wire.RST_STREAM, ({ id }) => id === 1)).payload.readUInt32BE(0), wire.CONNECT_ERROR);
  t.is((await peer.next(wire.RST_STREAM, ({ id }) => id === 3)).payload.readUInt32BE(0), wire.CANCEL);
  client.close();
});

for (const code of [wire.NO_ERROR, wire.CANCEL]) {
  const name = wire.errorName(code);

  test(`reads a reset with ${name} as an end; what is written after it is lost, and said to be so`, async (t) => {
    const world = rawServer();
    const stream = await answered(world);
    const sink = new RecordingSink(stream);
    world.peer.send(data(1, Buffer.from('abc')), reset(1, code));
    await sink.whenEnded();
    t.is(sink.text, 'abc');
    t.is(world.client.openStreams, 0);
    sink.silently(() => stream.write(Buffer.from('x')));
    t.is((await sink.whenClosed())?.code, 'STREAM_RESET');
    t.is(sink.outOfTurn, 0);
    world.client.close();
  });

  test(`closes without an error when a reset with ${name} is answered by an end`, async (t) => {
    const world = rawServer();
    const stream = await answered(world);
    const sink = new RecordingSink(stream);
    world.peer.send(reset(1, code));
    await sink.whenEnded();
    stream.end();
    t.is(await sink.whenClosed(), undefined);
    t.deepEqual(sink.events, ['ended', 'closed']);
    world.client.close();
  });

  test(`closes without an error when ${name} comes after END_STREAM`, async (t) => {
    const world = rawServer();
    const stream = await answered(world);
    const sink = new RecordingSink(stream);
    world.peer.send(data(1, Buffer.from('abc'), wire.END_STREAM), reset(1, code));
    t.is(await sink.whenClosed(), undefined);
    t.deepEqual(sink.events, ['ended', 'closed']);
    t.is(sink.text, 'abc');
    world.client.close();
  });

  test(`delivers what came before a reset with ${name} to a reader that was paused`, async (t) => {
    const world = rawServer();
    const stream = await answered(world);
    const sink = new RecordingSink(stream);
    stream.pause();
    world.peer.send(data(1, Buffer.from('abc')), reset(1, code));
    await world.peer.roundTrip();
    t.deepEqual(sink.events, []);
    stream.end();
    stream.resume();
    t.is(await sink.whenClosed(), undefined);
    t.is(sink.text, 'abc');
    t.is(world.client.heldBytes, 0);
    world.client.close();
  });

  test(`says that bytes were lost which ${name} left unsent`, async (t) => {
    const world = rawServer();
    const stream = await answered(world);
    const sink = new RecordingSink(stream);
    stream.write(Buffer.alloc(100_000));
    stream.end();
    await world.peer.next(wire.DATA);
    world.peer.send(reset(1, code));
    t.is((await sink.whenClosed())?.code, 'STREAM_RESET');
    t.deepEqual(sink.events, ['ended', 'closed']);
    world.client.close();
  });
}

for (const code of [wire.STREAM_CLOSED, wire.CONNECT_ERROR, 0x1234]) {
  test(`reads a reset with ${wire.errorName(code)} as a reset`, async (t) => {
    const world = rawServer();
    const sink = new RecordingSink(await answered(world));
    world.peer.send(reset(1, code));
    const error = await sink.whenClosed();
    t.is(error?.code, 'STREAM_RESET');
    t.true(error?.message.includes(wire.errorName(code)));
    t.deepEqual(sink.events, ['closed']);
    world.client.close();
  });
}

test('GOAWAY refuses what is above its last stream, and lets the others finish', async (t) => {
  const { client, peer, greet, closed } = rawServer();
  greet();
  const first = client.connect('a:1', [], NEVER);
  const second = client.connect('a:2', [], NEVER);
  peer.send(frame(wire.HEADERS, wire.END_HEADERS, 1, OK), goaway(1, wire.NO_ERROR));
  const sink = new RecordingSink((await first).stream);
  t.is((await errorOf(second)).code, 'STREAM_REFUSED');
  t.is(client.state().name, 'draining');
  t.is((await errorOf(client.connect('a:3', [], NEVER))).code, 'STREAM_REFUSED');
  peer.send(data(1, Buffer.from('still here'), wire.END_STREAM));
  await sink.whenEnded();
  sink.stream.end();
  t.is(await sink.whenClosed(), undefined);
  // The peer leaves by itself, and is asked nothing more.
  await peer.whenEnded();
  t.is(client.state().name, 'ending');
  peer.socket.end();
  t.is(await closed, undefined);
  t.deepEqual(peer.of(wire.PING), []);
});

test('says which error a GOAWAY named', async (t) => {
  const { client, peer, greet, closed } = rawServer();
  greet();
  const first = client.connect('a:1', [], NEVER);
  peer.send(goaway(0, wire.ENHANCE_YOUR_CALM, 'too many\npings'));
  t.is((await errorOf(first)).code, 'STREAM_REFUSED');
  const error = await closed;
  t.is(error?.code, 'SESSION_LOST');
  t.true(error?.message.endsWith('ENHANCE_YOUR_CALM, "too many?pings"'));
});

test('a server that drains takes what the client had opened before it knew, then says the last stream', async (t) => {
  const { server, peer, requests, greet, closed } = rawClient();
  greet();
  await peer.roundTrip();
  server.drain();
  const warning = await peer.next(wire.GOAWAY);
  t.is(warning.payload.readUInt32BE(0), 0x7fffffff);
  const ping = await peer.next(wire.PING, ({ flags }) => flags === 0);
  peer.send(connectFrame(1), frame(wire.PING, wire.ACK, 0, ping.payload), connectFrame(3));
  const refused = await peer.next(wire.RST_STREAM);
  t.deepEqual([refused.id, refused.payload.readUInt32BE(0)], [3, wire.REFUSED_STREAM]);
  t.is(peer.of(wire.GOAWAY)[1]?.payload.readUInt32BE(0), 1);
  const stream = requests[0]?.accept([]);
  if (stream === undefined) return t.fail();
  const sink = new RecordingSink(stream);
  peer.send(data(1, 1, wire.END_STREAM));
  await sink.whenEnded();
  stream.end();
  await peer.confirm();
  t.is(await closed, undefined);
  await peer.whenEnded();
});

test('a server that drains does not wait for ever for a client that says nothing', async (t) => {
  const { server, peer, greet, closed } = rawClient({ pingIntervalMs: 5, pingTimeoutMs: 20 });
  greet();
  server.drain();
  t.is((await closed)?.code, 'PEER_SILENT');
  await peer.whenEnded();
});

test('a server that drains does not wait long for a client that answers only some PINGs', async (t) => {
  const { server, peer, greet, closed } = rawClient();
  greet();
  await peer.roundTrip();
  server.drain();
  await peer.confirm();
  t.is(await closed, undefined);
});

test('a client that drains says GOAWAY only when its last stream has ended', async (t) => {
  const world = rawServer();
  const { client, peer, closed } = world;
  const sink = new RecordingSink(await answered(world));
  client.drain();
  await peer.roundTrip();
  t.is(client.state().name, 'draining');
  t.is((await errorOf(client.connect('a:2', [], NEVER))).code, 'STREAM_REFUSED');
  t.deepEqual(peer.of(wire.GOAWAY), []);
  peer.send(data(1, Buffer.from('still here'), wire.END_STREAM));
  await sink.whenEnded();
  t.is(sink.text, 'still here');
  sink.stream.end();
  await peer.confirm();
  await peer.whenEnded();
  t.is(peer.of(wire.GOAWAY).length, 1);
  t.is(await closed, undefined);
});

test('a session whose streams have ended stays until the peer has read everything', async (t) => {
  const world = rawClient();
  const { server, peer, closed } = world;
  const stream = await accepted(world, ...WIDE);
  const sink = new RecordingSink(stream);
  server.drain();
  stream.write(Buffer.alloc(MIB));
  stream.end();
  peer.send(data(1, 0, wire.END_STREAM));
  t.is(await sink.whenClosed(), undefined);
  const drained = await peer.next(wire.PING, ({ payload }) => payload.toString().startsWith('drained'));
  peer.send(frame(wire.PING, wire.ACK, 0, drained.payload));
  // What a peer sends that is still reading.
  peer.send(windowUpdate(0, MIB), windowUpdate(1, MIB));
  await peer.roundTrip();
  t.is(server.state().name, 'ending');
  peer.send(connectFrame(3));
  t.is((await peer.next(wire.RST_STREAM)).payload.readUInt32BE(0), wire.REFUSED_STREAM);
  t.false(peer.ended);
  await peer.confirm();
  t.is(await closed, undefined);
  await peer.whenEnded();
  t.is(sum(peer), MIB);
});

test('a session that waits for its peer to read everything can be closed', async (t) => {
  const { server, peer, greet, closed } = rawClient();
  greet();
  await peer.roundTrip();
  server.drain();
  await peer.next(wire.PING, ({ payload }) => payload.toString().startsWith('the end'));
  server.close();
  t.is(server.state().name, 'closed');
  await closed;
  await peer.whenEnded();
});

/** Whether the kernel takes what was written, or is full. */
async function isFlushed(socket: Duplex): Promise<boolean> {
  await new Promise((resolve) => setImmediate(resolve));
  const until = performance.now() + 200;
  while (socket.writableLength > 0 && performance.now() < until) await new Promise((resolve) => setImmediate(resolve));
  return socket.writableLength === 0;
}

for (const first of ['server', 'peer'] as const) {
  test(`a slow reader gets every byte of a session that the ${first} ends, over a real connection`, async (t) => {
    const sockets = await tlsPair();
    const world = rawClient({}, undefined, [sockets.client, sockets.server]);
    const { server, peer, closed } = world;
    const stream = await accepted(world, ...WIDE);
    const sink = new RecordingSink(stream);
    sockets.client.pause();
    peer.send(data(1, 0, wire.END_STREAM));
    await sink.whenEnded();
    // As much as the kernel takes, and a little more.
    let bytes = 0;
    do {
      stream.write(Buffer.alloc(65_536));
      bytes += 65_536;
    } while (await isFlushed(sockets.server));
    stream.end();
    if (first === 'server') server.drain();
    else peer.socket.end();
    // Longer than a failed session lingers. Its socket must not close meanwhile.
    const nothing = new Promise((resolve) => setTimeout(resolve, 1300, 'nothing'));
    t.is(await Promise.race([nothing, once(sockets.server, 'close')]), 'nothing');
    if (first === 'server') peer.send(windowUpdate(0, 1), windowUpdate(1, 1));
    sockets.client.resume();
    t.is(await sink.whenClosed(), undefined);
    if (first === 'server') {
      await peer.confirm();
      t.is(await closed, undefined);
    }
    await peer.whenEnded();
    t.is(sum(peer), bytes);
    sockets.client.destroy();
  });
}

test('answers a PING with what it held', async (t) => {
  const { peer, server, greet } = rawClient();
  greet();
  peer.send(frame(wire.PING, 0, 0, Buffer.from('12345678')));
  t.is((await peer.next(wire.PING)).payload.toString(), '12345678');
  server.close();
});

test('asks after silence, and takes anything for an answer', async (t) => {
  const { peer, server, greet } = rawClient({ pingIntervalMs: 5, pingTimeoutMs: 10_000 });
  greet();
  for (let each = 1; each <= 3; each += 1) {
    await peer.until(() => peer.of(wire.PING).length === each);
    peer.send(frame(0x77, 0, 0));
  }
  t.is(server.state().name, 'open');
  server.close();
});

test('gives up a peer that does not answer, and everything of it', async (t) => {
  const world = rawClient({ pingIntervalMs: 5, pingTimeoutMs: 20 });
  const sink = new RecordingSink(await accepted(world));
  t.is((await sink.whenClosed())?.code, 'PEER_SILENT');
  t.is((await world.closed)?.code, 'PEER_SILENT');
  await world.peer.whenEnded();
});

test('a connection that the kernel gives up counts as silent', async (t) => {
  const [near] = duplexPair();
  const client = createFrames().client(near);
  const closed = new Promise<HboneError | undefined>((resolve) => client.onClose(resolve));
  near.destroy(Object.assign(new Error('read ETIMEDOUT'), { code: 'ETIMEDOUT' }));
  t.is((await closed)?.code, 'PEER_SILENT');
});

test('a session on a socket that is gone is closed', async (t) => {
  const [near] = duplexPair();
  near.destroy();
  const client = createFrames().client(near);
  t.is((await new Promise<HboneError | undefined>((resolve) => client.onClose(resolve)))?.code, 'SESSION_LOST');
  t.is((await errorOf(client.connect('a:1', [], NEVER))).code, 'SESSION_LOST');
});

test('an idle connection that the peer ends is closed without an error', async (t) => {
  const { peer, closed, greet } = rawClient();
  greet();
  await peer.roundTrip();
  peer.socket.end();
  t.is(await closed, undefined);
});

test('writes what one turn brings at once: the answer, and every small message', async (t) => {
  const world = rawClient();
  const stream = await accepted(world);
  let writes = 0;
  world.peer.socket.on('data', () => {
    writes += 1;
  });
  for (let each = 0; each < 100; each += 1) stream.write(Buffer.from('x'));
  await world.peer.next(wire.DATA);
  t.is(writes, 1);
  t.is(world.peer.of(wire.DATA).length, 1);
  t.is(world.peer.of(wire.DATA)[0]?.payload.length, 100);
  world.server.close();
});

test("keeps to the peer's frame size", async (t) => {
  const world = rawClient();
  const stream = await accepted(world, ...WIDE);
  stream.write(Buffer.alloc(50_000));
  await world.peer.until(() => sum(world.peer) === 50_000);
  t.deepEqual(
    world.peer.of(wire.DATA).map(({ payload }) => payload.length),
    [16_384, 16_384, 16_384, 848],
  );
  world.peer.send(settings([wire.SETTINGS_MAX_FRAME_SIZE, 2 ** 20]));
  await world.peer.roundTrip();
  stream.write(Buffer.alloc(MIB));
  await world.peer.until(() => sum(world.peer) === MIB + 50_000);
  t.is(Math.max(...world.peer.of(wire.DATA).map(({ payload }) => payload.length)), 65_536);
  world.server.close();
});

function sum(peer: RawPeer, id?: number): number {
  return peer
    .of(wire.DATA)
    .filter((each) => id === undefined || each.id === id)
    .reduce((total, { payload }) => total + payload.length, 0);
}

test("keeps to the stream's window, also when SETTINGS lower it below nothing", async (t) => {
  const world = rawClient();
  const stream = await accepted(world, settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 1000]));
  stream.write(Buffer.alloc(5000));
  stream.end();
  const { peer } = world;
  await peer.until(() => sum(peer) === 1000);
  peer.send(settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 400]), windowUpdate(1, 500));
  await peer.roundTrip();
  t.is(sum(peer), 1000);
  peer.send(windowUpdate(1, 101));
  await peer.until(() => sum(peer) === 1001);
  peer.send(settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 4400]));
  await peer.until(() => peer.of(wire.DATA).at(-1)?.flags === wire.END_STREAM);
  t.is(sum(peer), 5000);
  world.server.close();
});

test("keeps to the connection's window, and ends streams without one", async (t) => {
  const world = rawClient();
  const stream = await accepted(world, settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 2 ** 20]));
  const { peer } = world;
  peer.send(connectFrame(3));
  await peer.roundTrip();
  stream.write(Buffer.alloc(100_000));
  await peer.until(() => sum(peer) === 65_535);
  world.requests[1]?.accept([]).end();
  const end = await peer.next(wire.DATA, ({ id }) => id === 3);
  t.deepEqual([end.flags, end.payload.length], [wire.END_STREAM, 0]);
  t.is(sum(peer), 65_535);
  peer.send(windowUpdate(0, 40_000));
  await peer.until(() => sum(peer) === 100_000);
  world.server.close();
});

/** A socket that takes one write, and the next when told so; `frames` of each. */
function steppedSocket(): {
  socket: Duplex;
  writes: Array<Array<{ id: number; bytes: number }>>;
  step(): Promise<void>;
} {
  const writes: Array<Array<{ id: number; bytes: number }>> = [];
  let finish: () => void = () => undefined;
  const socket = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, callback) {
      const frames: Array<{ id: number; bytes: number }> = [];
      for (let at = 0; at < chunk.length; ) {
        const length = chunk.readUIntBE(at, 3);
        if (chunk[at + 3] === wire.DATA) frames.push({ id: chunk.readUInt32BE(at + 5), bytes: length });
        at += 9 + length;
      }
      writes.push(frames);
      finish = callback;
    },
  });
  const step = async (): Promise<void> => {
    finish();
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { socket, writes, step };
}

test('a small message is in the next write, and nobody starves', async (t) => {
  const { socket, writes, step } = steppedSocket();
  const requests: IncomingRequest[] = [];
  createFrames().server(socket, (request) => requests.push(request));
  const ids = Array.from({ length: 20 }, (_, index) => 2 * index + 1);
  socket.push(Buffer.concat([PREFACE, settings([wire.SETTINGS_MAX_FRAME_SIZE, MIB]), ...WIDE]));
  socket.push(Buffer.concat(ids.map((id) => connectFrame(id))));
  await step();
  const [small, ...bulk] = requests.map((request) => request.accept([]));
  for (const stream of bulk) {
    const more = (): void => {
      while (!stream.isFull) stream.write(Buffer.alloc(50_000));
    };
    stream.attach({ data: () => undefined, drained: more, ended: () => undefined, closed: () => undefined });
    more();
  }
  for (let each = 0; each < 100; each += 1) await step();
  for (let each = 0; each < 300; each += 1) {
    const before = writes.length;
    small?.write(Buffer.from('!'));
    await step();
    t.is(writes.length, before + 1);
    t.is(writes[before]?.[0]?.id, 1);
  }
  const totals = new Map<number, number>();
  for (const { id, bytes } of writes.flat()) totals.set(id, (totals.get(id) ?? 0) + bytes);
  const shares = ids.slice(1).map((id) => totals.get(id) ?? 0);
  t.true(Math.min(...shares) * 1.3 > Math.max(...shares), shares.join(' '));
  t.true(Math.max(...writes.map((each) => each.reduce((total, { bytes }) => total + bytes, 0))) <= MAX_WRITE_BYTES);
  socket.destroy();
});

test('many new messages leave room for those who wait', async (t) => {
  const { socket, writes, step } = steppedSocket();
  const requests: IncomingRequest[] = [];
  createFrames().server(socket, (request) => requests.push(request));
  socket.push(Buffer.concat([PREFACE, settings([wire.SETTINGS_MAX_FRAME_SIZE, MIB]), ...WIDE]));
  socket.push(Buffer.concat(Array.from({ length: 100 }, (_, index) => connectFrame(2 * index + 1))));
  await step();
  const [bulk, ...others] = requests.map((request) => request.accept([]));
  for (let each = 0; each < 5; each += 1) bulk?.write(Buffer.alloc(50_000));
  await step();
  const sent = (): number => writes.flat().reduce((total, { id, bytes }) => total + (id === 1 ? bytes : 0), 0);
  for (let each = 0; sent() < 250_000 && each < 50; each += 1) {
    for (const stream of others) stream.write(Buffer.alloc(4000));
    await step();
  }
  t.is(sent(), 250_000);
  socket.destroy();
});

test('gives back windows for what was taken, the padding too', async (t) => {
  const world = rawClient();
  const { peer } = world;
  const sink = new RecordingSink(await accepted(world), false);
  const one = frame(wire.DATA, wire.PADDED, 1, Buffer.concat([Buffer.of(255), Buffer.alloc(MIB - 1)]));
  for (let each = 0; each < 20; each += 1) peer.send(one);
  await peer.roundTrip();
  t.is(sink.bytes, 20 * (MIB - 256));
  const given = (of: number): number =>
    peer
      .of(wire.WINDOW_UPDATE)
      .filter(({ id }) => id === of)
      .reduce((total, { payload }) => total + payload.readUInt32BE(0), 0);
  t.is(given(1), 20 * MIB);
  t.is(given(0), 16 * MIB - 65_535 + 20 * MIB);
  world.server.close();
});

test('does not open the window of a stream whose reader is paused, but that of the connection', async (t) => {
  const world = rawClient();
  const { peer, server } = world;
  const stream = await accepted(world);
  const sink = new RecordingSink(stream, false);
  stream.pause();
  for (let each = 0; each < 4; each += 1) peer.send(data(1, MIB));
  await peer.roundTrip();
  t.is(server.heldBytes, 4 * MIB);
  t.deepEqual(
    peer.of(wire.WINDOW_UPDATE).map(({ id }) => id),
    [0, 0],
  );
  stream.resume();
  t.is(sink.bytes, 4 * MIB);
  t.is(server.heldBytes, 0);
  t.is((await peer.next(wire.WINDOW_UPDATE, ({ id }) => id === 1)).payload.readUInt32BE(0), 4 * MIB);
  server.close();
});

test('announces small windows while much is held, and the usual ones afterwards', async (t) => {
  const world = rawClient();
  const { peer, server, requests } = world;
  const sinks = [new RecordingSink(await accepted(world), false)];
  peer.send(SETTINGS_ACK, connectFrame(3), connectFrame(5));
  await peer.roundTrip();
  for (const request of requests.slice(1)) sinks.push(new RecordingSink(request.accept([]), false));
  for (const { stream } of sinks) stream.pause();
  for (const id of [1, 3, 5]) for (let each = 0; each < 3; each += 1) peer.send(data(id, MIB));
  const lowered = await peer.next(wire.SETTINGS, (each) => pairs(each).length === 1);
  t.deepEqual(pairs(lowered), [[wire.SETTINGS_INITIAL_WINDOW_SIZE, 65_536]]);
  t.true(server.heldBytes > HELD_PRESSURE_BYTES);
  // It acknowledges; what it sends then must fit into the smaller windows: 64 KiB less than the 3 MiB that are held.
  peer.send(SETTINGS_ACK);
  await peer.roundTrip();
  peer.send(data(1, 1));
  t.is((await peer.next(wire.RST_STREAM)).payload.readUInt32BE(0), wire.FLOW_CONTROL_ERROR);
  for (const { stream } of sinks) stream.resume();
  t.is(server.heldBytes, 0);
  // All of what was taken is given back, so the windows are those of new streams.
  const given = await peer.next(wire.WINDOW_UPDATE, ({ id }) => id === 3);
  t.is(given.payload.readUInt32BE(0), 3 * MIB);
  const raised = (): boolean =>
    peer.of(wire.SETTINGS).some((each) => pairs(each)[0]?.[1] === 4 * MIB && pairs(each).length === 1);
  while (!raised()) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    await peer.roundTrip();
  }
  // In force as soon as it is announced.
  for (let each = 0; each < 4; each += 1) peer.send(data(3, MIB));
  await peer.roundTrip();
  t.is(sinks[1]?.bytes, 7 * MIB);
  server.close();
});

test('a small window is given back in small parts', async (t) => {
  const budget = new MemoryBudget({ pressureBytes: -1 });
  budget.hold(0);
  const world = rawClient({}, budget);
  const sink = new RecordingSink(await accepted(world), false);
  t.deepEqual(pairs(world.peer.frames[0] as RawFrame)[1], [wire.SETTINGS_INITIAL_WINDOW_SIZE, 65_536]);
  world.peer.send(data(1, 16_384));
  await sink.until(() => sink.bytes === 16_384);
  t.is((await world.peer.next(wire.WINDOW_UPDATE, ({ id }) => id === 1)).payload.readUInt32BE(0), 16_384);
  world.server.close();
});

test('holds no more than its bound for a client that heeds no window', async (t) => {
  const { peer, server, requests, greet, closed } = rawClient();
  greet();
  for (let id = 1; id < 400; id += 2) peer.send(connectFrame(id));
  await peer.roundTrip();
  for (const request of requests) request.accept([]);
  let most = 0;
  for (let each = 0; server.state().name === 'open'; each += 1) {
    peer.send(data(2 * (each % 200) + 1, MIB));
    await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, server.heldBytes);
  }
  t.is((await closed)?.code, 'EXCESS');
  t.true(most > HELD_PRESSURE_BYTES);
  t.true(most <= maxHeldBytes(200), `${most} bytes`);
  t.is(server.heldBytes, 0);
});

test('never stops an honest client, however many of its streams stall', async (t) => {
  const sockets = await tlsPair();
  const frames = createFrames();
  const far: TunnelStream[] = [];
  const server = frames.server(sockets.server, (request) => far.push(request.accept([])));
  const client = frames.client(sockets.client);
  const answers = Array.from({ length: 99 }, () => client.connect('a:1', [], NEVER));
  const near = (await Promise.all(answers)).map(({ stream }) => stream);
  let most = 0;
  for (const stream of near) {
    const more = (): void => {
      most = Math.max(most, server.heldBytes);
      for (let each = 0; each < 64 && !stream.isFull; each += 1) stream.write(Buffer.alloc(65_536));
    };
    stream.attach({ data: () => undefined, drained: more, ended: () => undefined, closed: () => undefined });
    more();
  }
  const lively = (await client.connect('a:1', [], NEVER)).stream;
  const sink = new RecordingSink(far.at(-1) as TunnelStream, false);
  const feed = (): void => {
    while (!lively.isFull) lively.write(Buffer.alloc(65_536));
  };
  lively.attach({ data: () => undefined, drained: feed, ended: () => undefined, closed: () => undefined });
  feed();
  await sink.until(() => sink.bytes > 64 * MIB);
  t.true(most <= maxHeldBytes(200), `${most} bytes`);
  t.true(server.heldBytes > HELD_PRESSURE_BYTES);
  t.is(server.state().name, 'open');
  client.close();
  server.close();
});

test('a budget that is used up costs the session that holds the most, and only that', async (t) => {
  const budget = new MemoryBudget({ pressureBytes: 2 * MIB, limitBytes: 5 * MIB });
  const large = rawClient({}, budget);
  const small = rawClient({}, budget);
  const streams = [await accepted(large), await accepted(small)];
  small.peer.send(data(1, MIB));
  await small.peer.roundTrip();
  large.peer.send(data(1, MIB), data(1, MIB));
  await large.peer.roundTrip();
  t.true(budget.pressed);
  t.is(budget.heldBytes, 3 * MIB);
  await small.peer.next(wire.SETTINGS, (each) => pairs(each)[0]?.[1] === 65_536);
  large.peer.send(data(1, MIB), data(1, MIB));
  await small.peer.roundTrip();
  small.peer.send(data(1, MIB));
  t.is((await large.closed)?.code, 'EXCESS');
  await small.peer.roundTrip();
  t.is(small.server.state().name, 'open');
  t.is(budget.heldBytes, 2 * MIB);
  const sink = new RecordingSink(streams[1] as TunnelStream, false);
  t.is(sink.bytes, 2 * MIB);
  t.is(budget.heldBytes, 0);
  t.false(budget.pressed);
  small.server.close();
});

test('bytes that came one by one are held as one piece', async (t) => {
  const world = rawClient();
  const stream = await accepted(world);
  for (let each = 0; each < 1000; each += 1) world.peer.send(data(1, Buffer.from('x')));
  await world.peer.roundTrip();
  let pieces = 0;
  let bytes = 0;
  stream.attach({
    data: (chunk) => {
      pieces += 1;
      bytes += chunk.length;
    },
    drained: () => undefined,
    ended: () => undefined,
    closed: () => undefined,
  });
  t.is(bytes, 1000);
  t.true(pieces < 10, `${pieces} pieces`);
  world.server.close();
});

test('what both sides have ended outlives its session until its reader has taken it', async (t) => {
  const world = rawClient();
  const { peer } = world;
  const stream = await accepted(world);
  const sink = new RecordingSink(stream);
  stream.pause();
  stream.end();
  peer.send(data(1, Buffer.from('the last'), wire.END_STREAM));
  await peer.roundTrip();
  peer.socket.end();
  t.is(await world.closed, undefined);
  stream.resume();
  t.is(await sink.whenClosed(), undefined);
  t.is(sink.text, 'the last');
  t.is(world.server.openStreams, 0);
});

test('an unanswered request is taken back when the connection breaks, also if nobody had asked yet', async (t) => {
  const world = rawClient();
  world.greet();
  world.peer.send(connectFrame(1));
  await world.peer.roundTrip();
  world.peer.socket.destroy();
  await world.closed;
  const request = world.requests[0] as IncomingRequest;
  const error = await new Promise<HboneError>((resolve) => request.onCancel(resolve));
  t.is(error.code, 'SESSION_LOST');
  const sink = new RecordingSink(request.accept([]));
  t.is((await sink.whenClosed())?.code, 'SESSION_LOST');
});

test('informational answers are passed over', async (t) => {
  const { client, peer, greet } = rawServer();
  greet();
  const answer = client.connect('a:1', [], NEVER);
  peer.send(
    frame(wire.HEADERS, wire.END_HEADERS, 1, block([':status', '103'], ['link', 'x'])),
    frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 1, Buffer.concat([OK, block(['baggage', 'x'])])),
  );
  const { headers, stream } = await answer;
  t.deepEqual(headers, [['baggage', 'x']]);
  const sink = new RecordingSink(stream);
  await sink.whenEnded();
  client.close();
});

test("tells nobody of more than the peer's frames: a GOAWAY's text is cut", async (t) => {
  const { peer, closed, greet } = rawServer();
  greet();
  peer.send(goaway(0, wire.PROTOCOL_ERROR, 'x'.repeat(100_000)), PREFACE.subarray(0, 0), u32());
  const error = await closed;
  t.true((error?.message.length ?? 0) < 400);
});
