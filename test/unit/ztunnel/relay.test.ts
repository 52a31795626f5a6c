import { createHash, randomInt } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { CELLS_OF_A_SLOT, SERIES_CELL } from '../../../src/telemetry/index.ts';
import { type ByteCounts, Relay } from '../../../src/ztunnel/relay.ts';
import { SocketLeg } from '../../../src/ztunnel/socket-leg.ts';
import { ending, pair } from './loopback.ts';

interface Relayed {
  readonly client: Socket;
  readonly server: Socket;
  readonly relay: Relay;
  /** The relay's own two sockets. */
  readonly legs: readonly [Socket, Socket];
  readonly counts: ByteCounts;
}

async function relayed(): Promise<Relayed> {
  const [[client, clientLeg], [serverLeg, server]] = await Promise.all([pair(), pair()]);
  const counts: ByteCounts = { cells: new Float64Array(4 * CELLS_OF_A_SLOT), slot: 2 };
  return {
    client,
    server,
    relay: new Relay(new SocketLeg(clientLeg), new SocketLeg(serverLeg), counts),
    legs: [clientLeg, serverLeg],
    counts,
  };
}

/** From the client, and from the server. */
function countedBytes({ cells, slot }: ByteCounts): Array<number | undefined> {
  const at = slot * CELLS_OF_A_SLOT;
  return [cells[at + SERIES_CELL.received], cells[at + SERIES_CELL.sent]];
}

/** Probes as the worker's timer does, until the relay is over. */
async function probed(relay: Relay): Promise<Awaited<Relay['over']>> {
  const timer = setInterval(() => relay.probe(), 5);
  const record = await relay.over;
  clearInterval(timer);
  return record;
}

/** Writes to a socket until neither it nor anybody on the way takes more. */
async function fill(socket: Socket, leg: Socket): Promise<number> {
  const chunk = Buffer.alloc(65_536, 7);
  let sent = 0;
  let read = -1;
  for (let still = 0; still < 50; ) {
    while (socket.writableLength < chunk.length) {
      socket.write(chunk);
      sent += chunk.length;
    }
    await turn();
    still = leg.bytesRead === read ? still + 1 : 0;
    read = leg.bytesRead;
  }
  return sent;
}

for (const first of ['client', 'server'] as const) {
  test(`passes a half-close on when the ${first} ends first, and the other direction goes on`, async (t) => {
    const { client, server, relay } = await relayed();
    const [early, late] = first === 'client' ? [client, server] : [server, client];
    const lateEnding = ending(late);
    const earlyEnding = ending(early);
    early.end('first');
    t.deepEqual(await lateEnding, { bytes: Buffer.from('first'), how: 'end' });
    for (let at = 0; at < 10; at += 1) {
      late.write(`${at}`);
      await turn();
    }
    late.end('done');
    t.deepEqual(await earlyEnding, { bytes: Buffer.from('0123456789done'), how: 'end' });
    const record = await relay.over;
    t.is(record.ended, 'clean');
    t.is(first === 'client' ? record.bytesFromClient : record.bytesFromServer, 5);
    t.is(first === 'client' ? record.bytesFromServer : record.bytesFromClient, 14);
  });

  test(`passes a reset by the ${first} on as a reset`, async (t) => {
    const { client, server, relay } = await relayed();
    const [breaker, other] = first === 'client' ? [client, server] : [server, client];
    const otherEnding = ending(other);
    breaker.write('x');
    await once(other, 'data');
    breaker.resetAndDestroy();
    t.deepEqual(await otherEnding, { bytes: Buffer.from('x'), how: 'ECONNRESET' });
    t.is((await relay.over).ended, `reset-by-${first}`);
  });

  test(`passes a reset by the ${first} on while its leg is paused behind a slow reader`, async (t) => {
    const { client, server, relay, legs } = await relayed();
    const [breaker, other] = first === 'client' ? [client, server] : [server, client];
    breaker.on('error', () => {});
    other.pause();
    await fill(breaker, first === 'client' ? legs[0] : legs[1]);
    const otherEnding = ending(other);
    other.pause();
    breaker.resetAndDestroy();
    const record = await probed(relay);
    t.is(record.ended, `reset-by-${first}`);
    other.resume();
    t.is((await otherEnding).how, 'ECONNRESET');
  });

  test(`passes a reset on that the ${first} sends after its half-close`, async (t) => {
    const { client, server, relay } = await relayed();
    const [breaker, other] = first === 'client' ? [client, server] : [server, client];
    breaker.end('asked');
    other.resume();
    await once(other, 'end');
    const broken = once(other, 'error');
    other.on('error', () => {});
    breaker.resetAndDestroy();
    t.is((await probed(relay)).ended, `reset-by-${first}`);
    other.write('x');
    await broken.catch(() => {});
    t.true(other.destroyed);
  });
}

test('passes a reset on when the other leg still has bytes and an end to send', async (t) => {
  const { client, server, relay, legs } = await relayed();
  client.on('error', () => {});
  server.pause();
  await fill(client, legs[0]);
  client.end();
  client.resetAndDestroy();
  t.is((await probed(relay)).ended, 'reset-by-client');
  const serverEnding = ending(server);
  t.is((await serverEnding).how, 'ECONNRESET');
  t.true(legs[0].destroyed && legs[1].destroyed);
});

test('a server may speak first', async (t) => {
  const { client, server } = await relayed();
  const greeting = once(client, 'data');
  server.write('220 hello');
  t.deepEqual(await greeting, [Buffer.from('220 hello')]);
  client.destroy();
  server.destroy();
});

test('loses nothing that was sent before the other leg was there', async (t) => {
  const [client, clientLeg] = await pair();
  client.end('early');
  for (let at = 0; at < 20; at += 1) await turn();
  t.is(clientLeg.bytesRead, 0);
  const [serverLeg, server] = await pair();
  const serverEnding = ending(server);
  new Relay(new SocketLeg(clientLeg), new SocketLeg(serverLeg));
  t.deepEqual(await serverEnding, { bytes: Buffer.from('early'), how: 'end' });
  server.end();
  client.resume();
});

test('a slow reader slows the writer, and what is held stays bounded', async (t) => {
  const { client, server, relay, legs } = await relayed();
  client.on('error', () => {});
  server.on('error', () => {});
  server.pause();
  await fill(client, legs[0]);
  const held = legs[1].writableLength + legs[0].readableLength;
  t.true(held <= legs[1].writableHighWaterMark + 3 * 65_536, `${held} bytes are held`);
  t.true(client.writableLength > 0);
  relay.reset('pod-dropped');
  t.is((await relay.over).ended, 'pod-dropped');
});

test('resets both ends when it is reset', async (t) => {
  const { client, server, relay } = await relayed();
  const endings = Promise.all([ending(client), ending(server)]);
  relay.reset('drain-deadline');
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  t.is((await relay.over).ended, 'drain-deadline');
});

test('bytes are counted as they pass, and stay counted when a reset ends it', async (t) => {
  const { client, server, relay, counts } = await relayed();
  t.deepEqual(countedBytes(counts), [0, 0]);
  client.write('ping');
  await once(server.resume(), 'data');
  t.deepEqual(countedBytes(counts), [4, 0]);
  server.write('pong!');
  await once(client, 'data');
  t.deepEqual(countedBytes(counts), [4, 5]);
  client.resetAndDestroy();
  await ending(server);
  const record = await relay.over;
  t.like(record, { ended: 'reset-by-client', text: undefined, bytesFromClient: 4, bytesFromServer: 5 });
  t.deepEqual(countedBytes(counts), [4, 5]);
});

test('it is known when the first byte came from the server, and whether any did', async (t) => {
  const { client, server, relay } = await relayed();
  client.write('ping');
  await once(server.resume(), 'data');
  const before = performance.now();
  server.write('pong');
  await once(client, 'data');
  const after = performance.now();
  client.end();
  server.end();
  const { firstByteAt = 0 } = await relay.over;
  t.true(before <= firstByteAt && firstByteAt <= after);

  const silent = await relayed();
  silent.client.resume().end('ping');
  silent.server.resume().end();
  t.is((await silent.relay.over).firstByteAt, undefined);
});

/** A small generator with a seed, so that a failure can be repeated. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

interface Sent {
  readonly bytes: number;
  readonly hash: string;
}

/** Sends a random number of random bytes in random chunks, then ends, now and then only after the other has ended. */
async function send(
  socket: Socket,
  next: (below: number) => number,
  maxBytes: number,
  after: Promise<unknown>,
): Promise<Sent> {
  const total = next(4) === 0 ? next(8) : Math.floor(maxBytes ** (next(1_000_000) / 1_000_000));
  const hash = createHash('sha256');
  let left = total;
  while (left > 0) {
    const chunk = Buffer.alloc(Math.min(left, 1 + next(next(2) === 0 ? 512 : 200_000)), next(256));
    chunk.writeUInt8(next(256), 0);
    hash.update(chunk);
    left -= chunk.length;
    if (!socket.write(chunk)) await once(socket, 'drain');
    if (next(8) === 0) await turn();
  }
  if (next(3) === 0) await after;
  socket.end();
  return { bytes: total, hash: hash.digest('hex') };
}

/** Reads all of it, now and then slowly. */
async function receive(socket: Socket, next: (below: number) => number): Promise<Sent> {
  const hash = createHash('sha256');
  const slow = next(3) === 0;
  let bytes = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    hash.update(chunk);
    bytes += chunk.length;
    if (slow && next(4) === 0) for (let at = next(5); at > 0; at -= 1) await turn();
  }
  return { bytes, hash: hash.digest('hex') };
}

const TRANSFERS = Number(process.env.CULVERT_TRANSFERS ?? 300);
const MAX_BYTES = Number(process.env.CULVERT_TRANSFER_MAX_BYTES ?? 4_194_304);

test(`every byte of ${TRANSFERS} random transfers arrives, both ways`, async (t) => {
  t.timeout(600_000);
  const seed = Number(process.env.CULVERT_SEED ?? randomInt(2 ** 31));
  t.log(`seed ${seed}`);
  const next = random(seed);
  const transfer = async (): Promise<void> => {
    const { client, server, relay, counts } = await relayed();
    const fromServer = receive(client, next);
    const fromClient = receive(server, next);
    // At most one side waits for the other, or both would for ever.
    const patient = next(2) === 0;
    const [up, down, upSeen, downSeen] = await Promise.all([
      send(client, next, MAX_BYTES, patient ? fromServer : Promise.resolve()),
      send(server, next, MAX_BYTES, patient ? Promise.resolve() : fromClient),
      fromClient,
      fromServer,
    ]);
    const record = await relay.over;
    t.deepEqual([upSeen, downSeen], [up, down]);
    t.is(record.ended, 'clean');
    t.deepEqual([record.bytesFromClient, record.bytesFromServer], [up.bytes, down.bytes]);
    t.deepEqual(countedBytes(counts), [up.bytes, down.bytes]);
    t.is(
      counts.cells.reduce((sum, count) => sum + count, 0),
      up.bytes + down.bytes,
      'nothing else is touched',
    );
  };
  for (let done = 0; done < TRANSFERS; done += 10) await Promise.all(Array.from({ length: 10 }, transfer));
});
