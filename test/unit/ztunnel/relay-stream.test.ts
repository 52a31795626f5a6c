import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { HboneError, type HboneErrorCode } from '../../../src/hbone/index.ts';
import type { EndReason } from '../../../src/ztunnel/errors.ts';
import { Relay } from '../../../src/ztunnel/relay.ts';
import { SocketLeg } from '../../../src/ztunnel/socket-leg.ts';
import { FakeStream } from './fake-stream.ts';
import { ending, pair } from './loopback.ts';

interface Relayed {
  /** The app at the socket's end. */
  readonly app: Socket;
  readonly stream: FakeStream;
  readonly relay: Relay;
  /** The relay's own socket. */
  readonly leg: Socket;
}

/** @param place of the stream */
async function relayed(place: 'client' | 'server'): Promise<Relayed> {
  const [app, leg] = await pair();
  app.on('error', () => {});
  const stream = new FakeStream();
  const socketLeg = new SocketLeg(leg, () => {}, { gathers: true });
  const relay = place === 'client' ? new Relay(stream, socketLeg) : new Relay(socketLeg, stream);
  return { app, stream, relay, leg };
}

for (const place of ['client', 'server'] as const) {
  const other = place === 'client' ? 'server' : 'client';

  test(`passes bytes and ends on, both ways, with a stream as ${place}`, async (t) => {
    const { app, stream, relay } = await relayed(place);
    const appEnding = ending(app);
    app.end('asked');
    await stream.until(() => stream.ends === 1);
    t.is(stream.text, 'asked');
    stream.peer.data(Buffer.from('answered'));
    stream.peer.ended();
    t.deepEqual(await appEnding, { bytes: Buffer.from('answered'), how: 'end' });
    stream.close();
    const record = await relay.over;
    t.is(record.ended, 'clean');
    t.is(place === 'client' ? record.bytesFromClient : record.bytesFromServer, 8);
    t.is(place === 'client' ? record.bytesFromServer : record.bytesFromClient, 5);
    t.is(stream.resets, 0);
  });

  test(`an end with a stream as ${place} leaves the other direction open`, async (t) => {
    const { app, stream, relay } = await relayed(place);
    const appEnding = ending(app);
    stream.peer.data(Buffer.from('all'));
    stream.peer.ended();
    t.deepEqual(await appEnding, { bytes: Buffer.from('all'), how: 'end' });
    t.is(stream.ends, 0);
    app.write('late');
    await stream.until(() => stream.text === 'late');
    app.end();
    await stream.until(() => stream.ends === 1);
    stream.close();
    t.is((await relay.over).ended, 'clean');
  });

  test(`passes a socket's reset on to a stream as ${place}`, async (t) => {
    const { app, stream, relay } = await relayed(place);
    app.write('x');
    await stream.until(() => stream.text === 'x');
    app.resetAndDestroy();
    await stream.until(() => stream.resets === 1);
    stream.close(new HboneError('CLOSED', 'reset by us'));
    t.is((await relay.over).ended, `reset-by-${other}`);
    t.is(stream.ends, 0);
  });

  const broken: ReadonlyArray<readonly [code: HboneErrorCode, reason: EndReason]> = [
    ['STREAM_RESET', `reset-by-${place}`],
    ['SESSION_LOST', 'tunnel-lost'],
    ['PROTOCOL', 'tunnel-lost'],
    ['PEER_SILENT', 'peer-silent'],
  ];
  for (const [code, reason] of broken)
    test(`a stream as ${place} that breaks with ${code} resets the socket: ${reason}`, async (t) => {
      const { app, stream, relay } = await relayed(place);
      const appEnding = ending(app);
      stream.peer.data(Buffer.from('part'));
      stream.close(new HboneError(code, 'broken'));
      t.is((await appEnding).how, 'ECONNRESET');
      t.is((await relay.over).ended, reason);
    });

  test(`a full stream as ${place} stops its writer`, async (t) => {
    const { app, stream, relay, leg } = await relayed(place);
    stream.isFull = true;
    app.write('one');
    await stream.until(() => stream.text === 'one');
    t.true(leg.isPaused());
    app.write('two');
    for (let at = 0; at < 20; at += 1) await turn();
    t.is(stream.text, 'one');
    stream.isFull = false;
    stream.peer.drained();
    await stream.until(() => stream.text === 'onetwo');
    relay.reset('pod-dropped');
    stream.close(new HboneError('CLOSED', 'reset by us'));
    t.is((await relay.over).ended, 'pod-dropped');
  });

  test(`a slow reader stops a stream as ${place}, and what is held stays bounded`, async (t) => {
    const { app, stream, relay, leg } = await relayed(place);
    app.pause();
    const chunk = Buffer.alloc(16_384, 7);
    let sent = 0;
    for (let still = 0; still < 50; still = stream.isPaused ? still + 1 : 0) {
      if (!stream.isPaused) {
        stream.peer.data(chunk);
        sent += chunk.length;
      }
      await turn();
    }
    t.true(leg.writableLength <= leg.writableHighWaterMark + chunk.length);
    let received = 0;
    app.on('data', (some: Buffer) => {
      received += some.length;
    });
    app.resume();
    await stream.until(() => !stream.isPaused);
    stream.peer.ended();
    await once(app, 'end');
    t.is(received, sent);
    app.end();
    await stream.until(() => stream.ends === 1);
    stream.close();
    t.is((await relay.over).ended, 'clean');
  });

  test(`a stream as ${place} that its peer stops after its end leaves the app what it was given, and resets what it still sends`, async (t) => {
    const { app, stream, relay } = await relayed(place);
    const appEnding = ending(app);
    stream.peer.data(Buffer.from('whole'));
    stream.peer.ended();
    stream.close();
    t.deepEqual(await appEnding, { bytes: Buffer.from('whole'), how: 'end' });
    app.write('too late');
    t.is((await relay.over).ended, `reset-by-${place}`);
    // A socket that has ended learns of a reset when it writes.
    const reset = once(app, 'error');
    app.write('again');
    await t.throwsAsync(reset.then(([error]) => Promise.reject(error)));
  });

  test(`a stream as ${place} that its peer stops after its end is over when the app has ended too`, async (t) => {
    const { app, stream, relay } = await relayed(place);
    stream.isFull = true;
    app.write('held');
    await stream.until(() => stream.isFull && stream.text === 'held');
    stream.peer.ended();
    stream.close();
    app.resume();
    app.end();
    t.is((await relay.over).ended, 'clean');
  });
}

test('a single chunk goes out at once; what else one turn brings goes out together when the turn is over', async (t) => {
  const { app, stream, leg, relay } = await relayed('client');
  const appEnding = ending(app);
  await turn();
  stream.peer.data(Buffer.from('1'));
  t.is(leg.bytesWritten, 1);
  stream.peer.data(Buffer.from('2'));
  stream.peer.data(Buffer.from('3'));
  t.is(leg.bytesWritten, 1);
  await turn();
  t.is(leg.bytesWritten, 3);
  stream.peer.data(Buffer.from('4'));
  t.is(leg.bytesWritten, 4);
  stream.peer.data(Buffer.from('5'));
  // The end waits for what is held.
  stream.peer.ended();
  t.deepEqual(await appEnding, { bytes: Buffer.from('12345'), how: 'end' });
  app.end();
  await stream.until(() => stream.ends === 1);
  stream.close();
  t.is((await relay.over).ended, 'clean');
});

test('says that a socket is about to end only when it has been flushed', async (t) => {
  const [app, leg] = await pair();
  const stream = new FakeStream();
  const held: number[] = [];
  const relay = new Relay(stream, new SocketLeg(leg, (socket) => held.push(socket.writableLength), { gathers: true }));
  app.pause();
  const chunk = Buffer.alloc(65_536);
  while (!stream.isPaused) {
    stream.peer.data(chunk);
    await turn();
  }
  stream.peer.ended();
  t.deepEqual(held, []);
  const appEnding = ending(app);
  t.is((await appEnding).how, 'end');
  t.deepEqual(held, [0]);
  relay.reset('internal');
  stream.close(new HboneError('CLOSED', 'reset by us'));
  await relay.over;
});
