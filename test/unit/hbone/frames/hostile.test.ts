import { Buffer } from 'node:buffer';
import test from 'ava';
import { Allowance, COST_ABANDONED, COST_IDLE } from '../../../../src/hbone/frames/allowance.ts';
import { Breach } from '../../../../src/hbone/frames/breach.ts';
import { MAX_CONTROL_BYTES } from '../../../../src/hbone/frames/incoming.ts';
import { MemoryBudget } from '../../../../src/hbone/frames/index.ts';
import * as wire from '../../../../src/hbone/frames/wire.ts';
import { RecordingSink } from '../../../contract/sink.ts';
import {
  block,
  CONNECT,
  connectFrame,
  data,
  frame,
  goaway,
  NEVER,
  OK,
  PREFACE,
  RawPeer,
  rawClient,
  rawServer,
  reset,
  SETTINGS_ACK,
  settings,
  u32,
  windowUpdate,
} from './raw-peer.ts';

const { PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM } =
  wire;

function times(count: number, make: (index: number) => Buffer): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));
}

function padded(id: number, padding: number, bytes: Buffer, flags = 0): Buffer {
  return frame(wire.DATA, flags | wire.PADDED, id, Buffer.concat([Buffer.of(padding), bytes]));
}

/** What ends a session, by what the client sends after its greeting, and with which code. */
const ENDS: Record<string, [bytes: () => Buffer, code: number]> = {
  'a frame beyond the announced size': [() => Buffer.from([0x10, 0x00, 0x01, 0, 0, 0, 0, 0, 1]), FRAME_SIZE_ERROR],
  'SETTINGS of a stream': [() => frame(wire.SETTINGS, 0, 1), PROTOCOL_ERROR],
  'SETTINGS of a wrong length': [() => frame(wire.SETTINGS, 0, 0, Buffer.alloc(5)), FRAME_SIZE_ERROR],
  'SETTINGS that acknowledge and set': [() => frame(wire.SETTINGS, wire.ACK, 0, Buffer.alloc(6)), FRAME_SIZE_ERROR],
  'an initial window beyond 2^31-1': [
    () => settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 0x80000000]),
    FLOW_CONTROL_ERROR,
  ],
  'a frame size below the least': [() => settings([wire.SETTINGS_MAX_FRAME_SIZE, 16_383]), PROTOCOL_ERROR],
  'a frame size above the most': [() => settings([wire.SETTINGS_MAX_FRAME_SIZE, 2 ** 24]), PROTOCOL_ERROR],
  'ENABLE_PUSH of 2': [() => settings([wire.SETTINGS_ENABLE_PUSH, 2]), PROTOCOL_ERROR],
  'a thousand settings': [() => settings(...Array.from({ length: 1000 }, () => [99, 1] as const)), ENHANCE_YOUR_CALM],
  'PING of a stream': [() => frame(wire.PING, 0, 1, Buffer.alloc(8)), PROTOCOL_ERROR],
  'PING of seven bytes': [() => frame(wire.PING, 0, 0, Buffer.alloc(7)), FRAME_SIZE_ERROR],
  'RST_STREAM of three bytes': [() => frame(wire.RST_STREAM, 0, 1, Buffer.alloc(3)), FRAME_SIZE_ERROR],
  'RST_STREAM of no stream': [() => reset(0, 0), PROTOCOL_ERROR],
  'RST_STREAM of a stream that never was': [() => reset(1, 0), PROTOCOL_ERROR],
  'GOAWAY of a stream': [() => frame(wire.GOAWAY, 0, 1, Buffer.alloc(8)), PROTOCOL_ERROR],
  'GOAWAY of seven bytes': [() => frame(wire.GOAWAY, 0, 0, Buffer.alloc(7)), FRAME_SIZE_ERROR],
  'PRIORITY of four bytes': [() => frame(wire.PRIORITY, 0, 1, Buffer.alloc(4)), FRAME_SIZE_ERROR],
  'WINDOW_UPDATE of five bytes': [() => frame(wire.WINDOW_UPDATE, 0, 0, Buffer.alloc(5)), FRAME_SIZE_ERROR],
  'WINDOW_UPDATE of nothing': [() => windowUpdate(0, 0), PROTOCOL_ERROR],
  'WINDOW_UPDATE of a stream that never was': [() => windowUpdate(1, 1), PROTOCOL_ERROR],
  "a connection's window beyond 2^31-1": [() => windowUpdate(0, 0x7fffffff), FLOW_CONTROL_ERROR],
  "a stream's window beyond 2^31-1, by SETTINGS": [
    () =>
      Buffer.concat([
        connectFrame(1),
        windowUpdate(1, 0x7fff0000 - 65_535),
        settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 0x7fffffff]),
      ]),
    FLOW_CONTROL_ERROR,
  ],
  PUSH_PROMISE: [() => frame(wire.PUSH_PROMISE, wire.END_HEADERS, 1, Buffer.alloc(4)), PROTOCOL_ERROR],
  'HEADERS of no stream': [() => connectFrame(0), PROTOCOL_ERROR],
  'HEADERS of an even stream': [() => connectFrame(2), PROTOCOL_ERROR],
  'DATA of no stream': [() => data(0, 1), PROTOCOL_ERROR],
  'DATA of a stream that never was': [() => data(1, 1), PROTOCOL_ERROR],
  'a stream below one that was opened': [() => Buffer.concat([connectFrame(5), connectFrame(3)]), STREAM_CLOSED],
  'CONTINUATION of nothing': [() => frame(wire.CONTINUATION, wire.END_HEADERS, 1, CONNECT), PROTOCOL_ERROR],
  'CONTINUATION of another stream': [
    () => Buffer.concat([connectFrame(1, 0), frame(wire.CONTINUATION, wire.END_HEADERS, 3)]),
    PROTOCOL_ERROR,
  ],
  'a frame within a header block': [
    () => Buffer.concat([connectFrame(1, 0), frame(wire.PING, 0, 0, Buffer.alloc(8))]),
    PROTOCOL_ERROR,
  ],
  'an unknown frame within a header block': [
    () => Buffer.concat([connectFrame(1, 0), frame(0x77, 0, 1)]),
    PROTOCOL_ERROR,
  ],
  'a flood of CONTINUATION': [
    () => Buffer.concat([connectFrame(1, 0), times(1000, () => frame(wire.CONTINUATION, 0, 1, Buffer.alloc(1)))]),
    ENHANCE_YOUR_CALM,
  ],
  'a flood of empty CONTINUATION': [
    () => Buffer.concat([connectFrame(1, 0), times(1000, () => frame(wire.CONTINUATION, 0, 1))]),
    ENHANCE_YOUR_CALM,
  ],
  'a header block that is too long': [
    () => frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.alloc(70_000)),
    ENHANCE_YOUR_CALM,
  ],
  'a header block that cannot be decoded': [() => frame(wire.HEADERS, wire.END_HEADERS, 1, [0x80]), COMPRESSION_ERROR],
  'HEADERS with more padding than there is': [
    () => frame(wire.HEADERS, wire.END_HEADERS | wire.PADDED, 1, Buffer.concat([Buffer.of(200), CONNECT])),
    PROTOCOL_ERROR,
  ],
  'padded HEADERS without a byte': [() => frame(wire.HEADERS, wire.END_HEADERS | wire.PADDED, 1), FRAME_SIZE_ERROR],
  'HEADERS too short for their priority': [
    () => frame(wire.HEADERS, wire.END_HEADERS | wire.PRIORITIZED, 1, Buffer.alloc(4)),
    PROTOCOL_ERROR,
  ],
  'DATA with more padding than there is': [
    () => Buffer.concat([connectFrame(1), padded(1, 5, Buffer.alloc(4))]),
    PROTOCOL_ERROR,
  ],
  'padded DATA without a byte': [
    () => Buffer.concat([connectFrame(1), frame(wire.DATA, wire.PADDED, 1)]),
    FRAME_SIZE_ERROR,
  ],
  'a flood of PING': [() => times(10_000, () => frame(wire.PING, 0, 0, Buffer.alloc(8))), ENHANCE_YOUR_CALM],
  'a flood of answers to PING': [
    () => times(10_000, () => frame(wire.PING, wire.ACK, 0, Buffer.alloc(8))),
    ENHANCE_YOUR_CALM,
  ],
  'a flood of SETTINGS': [() => times(10_000, () => settings()), ENHANCE_YOUR_CALM],
  'a flood of acknowledged SETTINGS': [() => times(10_000, () => SETTINGS_ACK), ENHANCE_YOUR_CALM],
  'a flood of PRIORITY': [() => times(10_000, () => frame(wire.PRIORITY, 0, 1, Buffer.alloc(5))), ENHANCE_YOUR_CALM],
  'a flood of unknown frames': [() => times(10_000, () => frame(0x77, 0, 9)), ENHANCE_YOUR_CALM],
  'a flood of WINDOW_UPDATE': [() => times(10_000, () => windowUpdate(0, 1)), ENHANCE_YOUR_CALM],
  'a flood of GOAWAY': [
    () => Buffer.concat([connectFrame(1), times(10_000, () => goaway(0, wire.NO_ERROR))]),
    ENHANCE_YOUR_CALM,
  ],
  'a flood of empty DATA': [() => Buffer.concat([connectFrame(1), times(10_000, () => data(1))]), ENHANCE_YOUR_CALM],
  'a flood of padding alone': [
    () => Buffer.concat([connectFrame(1), times(10_000, () => padded(1, 0, Buffer.alloc(0)))]),
    ENHANCE_YOUR_CALM,
  ],
  'a flood of RST_STREAM': [
    () => Buffer.concat([connectFrame(1), times(10_000, () => reset(1, wire.CANCEL))]),
    ENHANCE_YOUR_CALM,
  ],
  '10,000 streams opened and reset': [
    () => times(10_000, (index) => Buffer.concat([connectFrame(2 * index + 1), reset(2 * index + 1, wire.CANCEL)])),
    ENHANCE_YOUR_CALM,
  ],
  '10,000 malformed requests': [
    () =>
      times(10_000, (index) =>
        frame(wire.HEADERS, wire.END_HEADERS, 2 * index + 1, block([':method', 'CONNECT'], ['A', 'b'])),
      ),
    ENHANCE_YOUR_CALM,
  ],
  '10,000 streams at once': [() => times(10_000, (index) => connectFrame(2 * index + 1)), ENHANCE_YOUR_CALM],
};

for (const [what, [bytes, code]] of Object.entries(ENDS)) {
  test(`ends the session of a client that sends ${what}`, async (t) => {
    const { peer, server, closed, greet } = rawClient();
    greet();
    peer.send(bytes());
    t.is((await peer.farewell()).code, code);
    const error = await closed;
    t.is(error?.code, code === ENHANCE_YOUR_CALM ? 'EXCESS' : 'PROTOCOL');
    t.is(server.state().name, 'closed');
    t.is(server.openStreams, 0);
    t.is(server.heldBytes, 0);
    await peer.whenEnded();
  });
}

test('ends a connection that does not speak HTTP/2', async (t) => {
  const { peer, closed } = rawClient();
  peer.send(Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'));
  t.is((await peer.farewell()).code, PROTOCOL_ERROR);
  t.is((await closed)?.code, 'PROTOCOL');
});

test('ends a session that does not begin with SETTINGS', async (t) => {
  for (const first of [frame(wire.PING, 0, 0, Buffer.alloc(8)), SETTINGS_ACK]) {
    const { peer } = rawClient();
    peer.send(PREFACE, first);
    t.is((await peer.farewell()).code, PROTOCOL_ERROR);
  }
});

test('reads a preface and frames that come byte by byte', async (t) => {
  const { peer, requests } = rawClient();
  const bytes = Buffer.concat([
    PREFACE,
    settings(),
    connectFrame(1),
    padded(1, 3, Buffer.from('abc\0\0\0'), wire.END_STREAM),
  ]);
  for (const byte of bytes) peer.send(Buffer.of(byte));
  await peer.roundTrip();
  const stream = requests[0]?.accept([]);
  if (stream === undefined) return t.fail();
  const sink = new RecordingSink(stream);
  await sink.whenEnded();
  t.is(sink.text, 'abc');
});

/** What ends one stream only, by what a client sends after its CONNECT (stream 1), and with which code. */
const RESETS: Record<string, [bytes: () => Buffer, code: number]> = {
  'DATA after END_STREAM': [() => Buffer.concat([data(1, 1, wire.END_STREAM), data(1, 1)]), STREAM_CLOSED],
  'END_STREAM twice': [() => Buffer.concat([data(1, 0, wire.END_STREAM), data(1, 0, wire.END_STREAM)]), STREAM_CLOSED],
  'trailers after END_STREAM': [
    () => Buffer.concat([data(1, 0, wire.END_STREAM), connectFrame(1, wire.END_HEADERS | wire.END_STREAM)]),
    STREAM_CLOSED,
  ],
  'a second HEADERS without END_STREAM': [
    () => frame(wire.HEADERS, wire.END_HEADERS, 1, block(['a', 'b'])),
    PROTOCOL_ERROR,
  ],
  'trailers with a pseudo field': [
    () => frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 1, block([':status', '200'])),
    PROTOCOL_ERROR,
  ],
  'WINDOW_UPDATE of nothing': [() => windowUpdate(1, 0), PROTOCOL_ERROR],
  'a window beyond 2^31-1': [() => windowUpdate(1, 0x7fffffff), FLOW_CONTROL_ERROR],
  'DATA beyond the window': [() => times(5, () => data(1, wire.MAX_FRAME_BYTES)), FLOW_CONTROL_ERROR],
};

for (const [what, [bytes, code]] of Object.entries(RESETS)) {
  test(`ends only the stream on which a client sends ${what}`, async (t) => {
    const { peer, requests, server, greet } = rawClient();
    greet();
    peer.send(connectFrame(1));
    await peer.roundTrip();
    const stream = requests[0]?.accept([]);
    if (stream === undefined) return t.fail();
    peer.send(bytes(), connectFrame(3));
    const sent = await peer.next(wire.RST_STREAM, ({ id }) => id === 1);
    t.is(sent.payload.readUInt32BE(0), code);
    const sink = new RecordingSink(stream);
    t.is((await sink.whenClosed())?.code, 'PROTOCOL');
    await peer.roundTrip();
    t.is(requests.length, 2);
    t.is(server.state().name, 'open');
    t.is(server.heldBytes, 0);
  });
}

const MALFORMED: Record<string, Buffer> = {
  'upper case': block([':method', 'CONNECT'], [':authority', 'a:1'], ['Baggage', 'x']),
  'a pseudo field after others': block([':method', 'CONNECT'], ['a', 'b'], [':authority', 'a:1']),
  'a connection-specific field': block([':method', 'CONNECT'], [':authority', 'a:1'], ['connection', 'close']),
  'a path': block([':method', 'CONNECT'], [':authority', 'a:1'], [':path', '/']),
  ':protocol': block([':method', 'CONNECT'], [':protocol', 'websocket'], [':authority', 'a:1']),
};

for (const [what, bytes] of Object.entries(MALFORMED)) {
  test(`resets a CONNECT with ${what}`, async (t) => {
    const { peer, requests, greet } = rawClient();
    greet();
    peer.send(frame(wire.HEADERS, wire.END_HEADERS, 1, bytes));
    t.is((await peer.next(wire.RST_STREAM)).payload.readUInt32BE(0), PROTOCOL_ERROR);
    t.is(requests.length, 0);
  });
}

test('resets a request whose headers are too many, and goes on', async (t) => {
  const { peer, requests, greet } = rawClient();
  greet();
  const bomb = block(...Array.from({ length: 1500 }, (_, index) => [`n${index}`, 'v'.repeat(20)] as const));
  peer.send(frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.concat([CONNECT, bomb])), connectFrame(3));
  t.is((await peer.next(wire.RST_STREAM)).payload.readUInt32BE(0), ENHANCE_YOUR_CALM);
  await peer.roundTrip();
  t.deepEqual(
    requests.map(({ authority }) => authority),
    ['10.0.0.7:8080'],
  );
});

test('hands other methods, and requests without pseudo fields, to the server', async (t) => {
  const { peer, requests, greet } = rawClient();
  greet();
  const get = block([':method', 'GET'], [':scheme', 'https'], [':path', '/'], [':authority', 'a:1']);
  peer.send(
    frame(wire.HEADERS, wire.END_HEADERS, 1, get),
    frame(wire.HEADERS, wire.END_HEADERS, 3, block([':method', 'CONNECT'])),
    frame(wire.HEADERS, wire.END_HEADERS, 5),
  );
  await peer.roundTrip();
  t.deepEqual(
    requests.map(({ method, authority }) => [method, authority]),
    [
      ['GET', 'a:1'],
      ['CONNECT', undefined],
      ['', undefined],
    ],
  );
  for (const request of requests) request.refuse(400);
  const answer = await peer.next(wire.HEADERS, ({ id }) => id === 5);
  t.is(answer.flags, wire.END_HEADERS | wire.END_STREAM);
  t.is(answer.payload.at(-1), 0x8c);
  // And nothing more is wanted of the client.
  t.is((await peer.next(wire.RST_STREAM, ({ id }) => id === 5)).payload.readUInt32BE(0), wire.NO_ERROR);
});

test('takes a header block with padding, priority and CONTINUATION', async (t) => {
  const { peer, requests, greet } = rawClient();
  greet();
  const flags = wire.PADDED | wire.PRIORITIZED;
  const first = Buffer.concat([Buffer.of(7), u32(0), Buffer.of(16), CONNECT.subarray(0, 10), Buffer.alloc(7)]);
  peer.send(
    frame(wire.HEADERS, flags, 1, first),
    frame(wire.CONTINUATION, 0, 1),
    frame(wire.CONTINUATION, 0, 1, CONNECT.subarray(10, 20)),
    frame(wire.CONTINUATION, wire.END_HEADERS, 1, CONNECT.subarray(20)),
  );
  await peer.roundTrip();
  t.is(requests[0]?.authority, '10.0.0.7:8080');
});

test('ignores frames and settings that it does not know', async (t) => {
  const { peer, requests, server } = rawClient();
  peer.send(PREFACE, settings([0x99, 7], [0x1, 0], [0x6, 5]), frame(0xfa, 0xff, 77, Buffer.alloc(3000)));
  peer.send(frame(wire.PRIORITY, 0, 1, Buffer.alloc(5)), connectFrame(1));
  await peer.roundTrip();
  t.is(requests.length, 1);
  t.is(server.state().name, 'open');
});

test('takes trailers for an end', async (t) => {
  const { peer, requests, greet } = rawClient();
  greet();
  peer.send(connectFrame(1));
  await peer.roundTrip();
  const stream = requests[0]?.accept([]);
  if (stream === undefined) return t.fail();
  const sink = new RecordingSink(stream);
  peer.send(data(1, Buffer.from('abc')), frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 1, block(['a', 'b'])));
  await sink.whenEnded();
  t.is(sink.text, 'abc');
});

test('bears what crosses with its own reset, and no more', async (t) => {
  const { peer, requests, greet, closed } = rawClient();
  greet();
  peer.send(connectFrame(1));
  await peer.roundTrip();
  requests[0]?.accept([]).reset();
  peer.send(
    times(4, () => data(1, wire.MAX_FRAME_BYTES)),
    reset(1, wire.CANCEL),
    windowUpdate(1, 5),
  );
  await peer.roundTrip();
  peer.send(data(1, 1000));
  t.is((await peer.farewell()).code, STREAM_CLOSED);
  t.is((await closed)?.code, 'PROTOCOL');
});

test('a client that opens more streams than it may is refused them', async (t) => {
  const { peer, requests, greet } = rawClient({ maxStreams: 3 });
  greet();
  peer.send(times(5, (index) => connectFrame(2 * index + 1)));
  await peer.roundTrip();
  t.is(requests.length, 3);
  t.deepEqual(
    peer.of(wire.RST_STREAM).map(({ id, payload }) => [id, payload.readUInt32BE(0)]),
    [
      [7, wire.REFUSED_STREAM],
      [9, wire.REFUSED_STREAM],
    ],
  );
});

test('a busy client may update its windows as often as it likes', async (t) => {
  const { peer, requests, server, greet } = rawClient();
  greet();
  peer.send(settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, 2 ** 30]), windowUpdate(0, 2 ** 30), connectFrame(1));
  await peer.roundTrip();
  const stream = requests[0]?.accept([]);
  if (stream === undefined) return t.fail();
  for (let each = 0; each < 200; each += 1) {
    stream.write(Buffer.alloc(65_536));
    peer.send(times(32, () => Buffer.concat([windowUpdate(0, 2048), windowUpdate(1, 2048)])));
    await peer.until(() => peer.of(wire.DATA).length > 4 * each);
  }
  await peer.roundTrip();
  t.is(server.state().name, 'open');
});

test('a client whose requests are all answered may reset them all', async (t) => {
  const { peer, requests, server, greet } = rawClient();
  greet();
  for (let each = 0; each < 5000; each += 1) {
    const id = 2 * each + 1;
    peer.send(connectFrame(id));
    while (requests.length <= each && server.state().name === 'open')
      await new Promise((resolve) => setImmediate(resolve));
    requests[each]?.accept([]);
    peer.send(reset(id, wire.CANCEL));
  }
  t.is(server.state().name, 'open');
});

test('does not keep answers for a client that reads nothing', async (t) => {
  const { server, peer, closed } = rawClient();
  peer.socket.pause();
  peer.send(PREFACE, settings());
  const pings = times(1500, () => frame(wire.PING, 0, 0, Buffer.alloc(8)));
  const connect = times(100, (index) => connectFrame(2 * index + 1));
  peer.send(connect, pings);
  // What it earns by DATA pays for the flood.
  for (let each = 0; each < 4000 && server.state().name === 'open'; each += 1) {
    peer.send(
      data(1, 65_536),
      times(16, () => frame(wire.PING, 0, 0, Buffer.alloc(8))),
    );
    if (each % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  t.truthy(await closed);
});

test('ends the session of a client whose requests are all refused', async (t) => {
  const { server, peer, requests, greet, closed } = rawClient();
  greet();
  for (let each = 0; each < 5000 && server.state().name === 'open'; each += 1) {
    peer.send(connectFrame(2 * each + 1));
    while (requests.length <= each && server.state().name === 'open')
      await new Promise((resolve) => setImmediate(resolve));
    requests[each]?.refuse(503);
  }
  t.is((await closed)?.code, 'EXCESS');
});

test('refused requests may come for ever, at a rate that many honest clients do not reach', (t) => {
  let now = 0;
  const allowance = new Allowance(() => now);
  for (let each = 0; each < 1_000_000; each += 1) {
    now += 1000 / 300;
    allowance.spend(COST_ABANDONED, 'a refused request');
    allowance.spend(COST_IDLE, 'its reset');
  }
  t.throws(
    () => {
      for (let each = 0; each < 3000; each += 1) allowance.spend(COST_ABANDONED, 'a flood');
    },
    { instanceOf: Breach },
  );
});

test('does not keep the answers of requests that a client takes back and does not read of', async (t) => {
  const { server, peer, requests, closed } = rawClient();
  peer.socket.pause();
  peer.send(PREFACE, settings());
  let most = 0;
  for (let each = 0; each < 5000 && server.state().name === 'open'; each += 1) {
    peer.send(connectFrame(2 * each + 1));
    while (requests.length <= each && server.state().name === 'open')
      await new Promise((resolve) => setImmediate(resolve));
    // Each earns more than it costs.
    requests[each]?.accept([['baggage', 'x'.repeat(1000)]]);
    peer.send(reset(2 * each + 1, wire.CANCEL));
    most = Math.max(most, server.outbox.control.length);
  }
  t.is((await closed)?.code, 'EXCESS');
  t.true(most < MAX_CONTROL_BYTES + 100_000, `${most} bytes`);
});

/** Frames that do not end, by what the session holds of them. */
const UNENDED: Record<string, [bytes: Buffer, rest: Buffer]> = {
  'a frame': [
    frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.concat([CONNECT, block(['a', 'b'.repeat(50_000)])])).subarray(
      0,
      10,
    ),
    frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.concat([CONNECT, block(['a', 'b'.repeat(50_000)])])).subarray(10),
  ],
  'a header block': [
    Buffer.concat([connectFrame(1, 0), frame(wire.CONTINUATION, 0, 1, block(['a', 'b'.repeat(50_000)]))]),
    frame(wire.CONTINUATION, wire.END_HEADERS, 1),
  ],
};

for (const [what, [bytes, rest]] of Object.entries(UNENDED)) {
  test(`what is held of ${what} that has not ended counts in the budget`, async (t) => {
    const budget = new MemoryBudget();
    const { server, peer, requests, greet } = rawClient({}, budget);
    greet();
    await peer.roundTrip();
    peer.send(bytes);
    while (server.heldBytes === 0) await new Promise((resolve) => setImmediate(resolve));
    t.true(budget.heldBytes >= 50_000);
    t.is(budget.heldBytes, server.heldBytes);
    peer.send(rest);
    await peer.roundTrip();
    t.is(requests.length, 1);
    t.is(budget.heldBytes, 0);
    peer.send(Buffer.concat([bytes, rest]).subarray(0, 9));
    server.close();
    t.is(budget.heldBytes, 0);
  });

  test(`sessions that hold ${what} are ended when the budget is used up`, async (t) => {
    const budget = new MemoryBudget({ pressureBytes: 100_000, limitBytes: 160_000 });
    const worlds = Array.from({ length: 4 }, () => rawClient({}, budget));
    for (const { peer, greet } of worlds) {
      greet();
      await peer.roundTrip();
    }
    for (const { peer } of worlds) peer.send(bytes);
    const error = await Promise.race(worlds.map(({ closed }) => closed));
    t.is(error?.code, 'EXCESS');
    t.true(budget.heldBytes <= 160_000);
    t.is(worlds.filter(({ server }) => server.state().name === 'open').length, 3);
    for (const { server } of worlds) server.close();
    t.is(budget.heldBytes, 0);
  });
}

/** What ends a session of ours with a hostile server. */
const SERVER_ENDS: Record<string, [bytes: () => Buffer, code: number]> = {
  'an answer to a stream that never was': [() => frame(wire.HEADERS, wire.END_HEADERS, 3, OK), PROTOCOL_ERROR],
  'an answer to an even stream': [() => frame(wire.HEADERS, wire.END_HEADERS, 2, OK), PROTOCOL_ERROR],
  PUSH_PROMISE: [() => frame(wire.PUSH_PROMISE, wire.END_HEADERS, 1, Buffer.alloc(4)), PROTOCOL_ERROR],
  'a header block of 17 KiB': [() => frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.alloc(17_000)), ENHANCE_YOUR_CALM],
  'a flood of informational answers': [
    () => times(10_000, () => frame(wire.HEADERS, wire.END_HEADERS, 1, block([':status', '103']))),
    ENHANCE_YOUR_CALM,
  ],
  'a flood of PING': [() => times(10_000, () => frame(wire.PING, 0, 0, Buffer.alloc(8))), ENHANCE_YOUR_CALM],
};

for (const [what, [bytes, code]] of Object.entries(SERVER_ENDS)) {
  test(`ends the session of a server that sends ${what}`, async (t) => {
    const { client, peer, closed, greet } = rawServer();
    greet();
    const answer = client.connect('a:1', [], NEVER);
    peer.send(bytes());
    t.is((await peer.farewell()).code, code);
    const error = await closed;
    t.is(error?.code, code === ENHANCE_YOUR_CALM ? 'EXCESS' : 'PROTOCOL');
    t.is(await answer.catch((each: unknown) => each), error);
    await peer.whenEnded();
  });
}

/** Answers that fail one CONNECT only. */
const BAD_ANSWERS: Record<string, [bytes: Buffer, code: string, reset: number]> = {
  'without a status': [frame(wire.HEADERS, wire.END_HEADERS, 1, block(['a', 'b'])), 'PROTOCOL', PROTOCOL_ERROR],
  'with upper case': [
    frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.concat([OK, block(['A', 'b'])])),
    'PROTOCOL',
    PROTOCOL_ERROR,
  ],
  'that is informational and ends': [
    frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 1, block([':status', '100'])),
    'PROTOCOL',
    PROTOCOL_ERROR,
  ],
  'after DATA': [Buffer.concat([data(1, 5), frame(wire.HEADERS, wire.END_HEADERS, 1, OK)]), 'PROTOCOL', PROTOCOL_ERROR],
  'with too many headers': [
    frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.concat([OK, block(['a', 'b'.repeat(16_380)])])),
    'EXCESS',
    ENHANCE_YOUR_CALM,
  ],
  '302': [frame(wire.HEADERS, wire.END_HEADERS, 1, block([':status', '302'])), 'STATUS', wire.CANCEL],
  '204': [frame(wire.HEADERS, wire.END_HEADERS, 1, Buffer.of(0x89)), 'STATUS', wire.CANCEL],
};

for (const [what, [bytes, code, h2Code]] of Object.entries(BAD_ANSWERS)) {
  test(`fails a CONNECT with an answer ${what}`, async (t) => {
    const { client, peer, greet } = rawServer();
    greet();
    const answer = client.connect('a:1', [], NEVER);
    peer.send(bytes);
    await t.throwsAsync(answer, { code });
    t.is((await peer.next(wire.RST_STREAM)).payload.readUInt32BE(0), h2Code);
    t.is(client.state().name, 'open');
    t.is(client.openStreams, 0);
  });
}

test('reads nothing more from a peer that broke a rule', async (t) => {
  const { peer, requests, server, greet } = rawClient();
  greet();
  peer.send(windowUpdate(0, 0), connectFrame(1));
  await peer.farewell();
  peer.send(connectFrame(3));
  await peer.whenEnded();
  t.is(requests.length, 0);
  t.is(server.openStreams, 0);
  t.true(peer instanceof RawPeer);
});
