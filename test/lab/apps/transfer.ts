/**
 * Random transfers, both ways at once, hashed at both ends.
 *
 *   node transfer.ts --port N                                  serves
 *   node transfer.ts --port N --to ADDR[,ADDR...] --seed N     makes --count transfers, --at-once of them at a time
 *     [--count N] [--at-once N] [--most-bytes N] [--largest N] [--stall up|down] [--bytes N]
 *
 * A transfer is one connection: a line with its plan, then bytes of a pseudo-random stream in each direction. The plan comes
 * from the seed and the transfer's number: sizes (each magnitude up to --most-bytes as likely as any other, and the sizes
 * around which buffers turn), sizes of the pieces written, pauses of the readers, and which end closes its direction first:
 * in `up-first` the server begins when the client has ended, in `down-first` the client when the server has, in `together`
 * nobody waits. The first --largest transfers are of 64 MiB each way.
 *
 * Both ends print {"event":"transfer",id,order,sent:{bytes,hash},received:{bytes,hash}} or {...,error} of each; the client
 * prints {"event":"done",transfers,bytes,seconds} at last.
 *
 * --stall, for one transfer of --bytes in that direction: its reader prints {"event":"stalled"} and does not read before it
 * finds `read` on its standard input; its writer answers `state` by {"event":"state",taken}: bytes the kernel has taken.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setImmediate as turn } from 'node:timers/promises';
import { parseArgs } from 'node:util';

type Order = 'up-first' | 'down-first' | 'together';

/** One direction of a transfer. */
interface Stream {
  readonly seed: number;
  readonly bytes: number;
  /** Largest piece written at once. */
  readonly mostPiece: number;
  /** How often its reader stops for a while, at most. */
  readonly pauses: number;
}

interface Plan {
  readonly id: number;
  readonly order: Order;
  readonly up: Stream;
  readonly down: Stream;
  readonly stall?: 'up' | 'down';
}

interface Sum {
  readonly bytes: number;
  readonly hash: string;
}

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    to: { type: 'string' },
    seed: { type: 'string', default: '1' },
    count: { type: 'string', default: '1' },
    'at-once': { type: 'string', default: '16' },
    'most-bytes': { type: 'string', default: '65536' },
    largest: { type: 'string', default: '0' },
    stall: { type: 'string' },
    bytes: { type: 'string', default: '0' },
  },
});
const port = Number(values.port);
const largestBytes = 64 * 1024 * 1024;
/** Where buffers of sockets, streams and the relay turn. */
const edges = [0, 1, 2, 1447, 1448, 1449, 16_383, 16_384, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 262_145];
const mostPieces = 1000;
const longestPauseMs = 15;

const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);

/** Numbers from 0 to 1 that a seed decides. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const below = (random: () => number, limit: number): number => Math.floor(random() * limit);

function planOf(id: number): Plan {
  const random = randomOf(Number(values.seed) * 1_000_003 + id);
  const largest = id < Number(values.largest);
  const mostBytes = Number(values['most-bytes']);
  const size = (): number => {
    if (largest) return largestBytes;
    if (random() < 0.2) return Math.min(edges[below(random, edges.length)] ?? 0, mostBytes);
    return Math.floor(2 ** (random() * Math.log2(mostBytes)));
  };
  const stream = (bytes: number): Stream => ({
    seed: below(random, 2 ** 31),
    bytes,
    mostPiece: Math.max(Math.ceil(2 ** (random() * 18)), Math.ceil(bytes / mostPieces)),
    pauses: random() < 0.3 ? below(random, 20) : 0,
  });
  const order = (['up-first', 'down-first', 'together'] as const)[below(random, 3)] ?? 'together';
  const { stall } = values;
  if (stall !== 'up' && stall !== 'down') return { id, order, up: stream(size()), down: stream(size()) };
  const [full, none] = [{ ...stream(Number(values.bytes)), mostPiece: 65_536, pauses: 0 }, stream(0)];
  return { id, order: 'together', stall, up: stall === 'up' ? full : none, down: stall === 'down' ? full : none };
}

const onRead: Array<() => void> = [];
let writer: Socket | undefined;
createInterface({ input: process.stdin })
  .on('line', (line) => {
    if (line === 'read') for (const read of onRead.splice(0)) read();
    if (line === 'state') say({ event: 'state', taken: (writer?.bytesWritten ?? 0) - (writer?.writableLength ?? 0) });
  })
  .on('close', () => process.exit());

async function send(socket: Socket, { seed, bytes, mostPiece }: Stream, signal: AbortSignal): Promise<Sum> {
  const random = randomOf(seed);
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  const keystream = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  const hash = createHash('sha256');
  for (let left = bytes; left > 0; ) {
    const piece = keystream.update(Buffer.alloc(Math.min(left, 1 + below(random, mostPiece))));
    left -= piece.length;
    hash.update(piece);
    if (!socket.write(piece)) await once(socket, 'drain', { signal });
    else if (random() < 0.1) await turn();
  }
  signal.throwIfAborted();
  socket.end();
  return { bytes, hash: hash.digest('hex') };
}

/** Hashes what comes until the end, without the bytes that were for somebody else. */
class Receiver {
  readonly #socket: Socket;
  readonly #hash = createHash('sha256');
  readonly #ended = Promise.withResolvers<Sum>();
  #bytes = 0;
  #pauses = 0;
  #random = randomOf(0);

  constructor(socket: Socket, signal: AbortSignal) {
    this.#socket = socket;
    this.#ended.promise.catch(() => undefined);
    signal.addEventListener('abort', () => this.#ended.reject(signal.reason));
    socket.on('end', () => this.#ended.resolve({ bytes: this.#bytes, hash: this.#hash.digest('hex') }));
  }

  begin({ seed, pauses }: Stream): void {
    this.#pauses = pauses;
    this.#random = randomOf(seed + 1);
  }

  take(chunk: Buffer): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
    if (this.#pauses === 0 || this.#random() > 0.2) return;
    this.#pauses -= 1;
    this.#socket.pause();
    setTimeout(() => this.#socket.resume(), below(this.#random, longestPauseMs));
  }

  stall(): void {
    this.#socket.pause();
    onRead.push(() => this.#socket.resume());
    say({ event: 'stalled' });
  }

  get ended(): Promise<Sum> {
    return this.#ended.promise;
  }
}

/** Aborted with the socket's error, or when it closes before its end was seen. */
function failureOf(socket: Socket): AbortSignal {
  const controller = new AbortController();
  socket.on('error', (error) => controller.abort(error));
  socket.on('close', () => controller.abort(new Error('closed')));
  return controller.signal;
}

async function report(plan: Plan, work: Promise<[sent: Sum, received: Sum]>): Promise<number> {
  const { id, order } = plan;
  try {
    const [sent, received] = await work;
    say({ event: 'transfer', id, order, sent, received });
    return sent.bytes + received.bytes;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    say({ event: 'transfer', id, order, error: code ?? message });
    return 0;
  }
}

/** Sends one stream and receives the other, in the plan's order. */
async function exchange(
  socket: Socket,
  receiver: Receiver,
  signal: AbortSignal,
  { stream, waits }: { stream: Stream; waits: boolean },
): Promise<[Sum, Sum]> {
  if (!waits) return await Promise.all([send(socket, stream, signal), receiver.ended]);
  const received = await receiver.ended;
  return [await send(socket, stream, signal), received];
}

async function ask(plan: Plan, host: string): Promise<number> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  writer = socket;
  const signal = failureOf(socket);
  const receiver = new Receiver(socket, signal);
  receiver.begin(plan.down);
  socket.on('data', (chunk: Buffer) => receiver.take(chunk));
  if (plan.stall === 'down') receiver.stall();
  socket.write(`${JSON.stringify(plan)}\n`);
  const closed = once(socket, 'close').catch(() => undefined);
  const bytes = await report(
    plan,
    exchange(socket, receiver, signal, { stream: plan.up, waits: plan.order === 'down-first' }),
  );
  await closed;
  return bytes;
}

function answer(socket: Socket): void {
  const signal = failureOf(socket);
  const receiver = new Receiver(socket, signal);
  let head = Buffer.alloc(0);
  const onEndOfHead = (): void => void socket.destroy(); // the client died before it had said what it wants
  const onHead = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\n');
    if (end < 0) return;
    const plan = JSON.parse(head.subarray(0, end).toString()) as Plan;
    const rest = head.subarray(end + 1);
    socket.off('data', onHead).off('end', onEndOfHead);
    writer = socket;
    receiver.begin(plan.up);
    socket.on('data', (more: Buffer) => receiver.take(more));
    if (rest.length > 0) receiver.take(rest);
    if (plan.stall === 'up') receiver.stall();
    void report(plan, exchange(socket, receiver, signal, { stream: plan.down, waits: plan.order === 'up-first' }));
  };
  socket.on('data', onHead).on('end', onEndOfHead);
}

async function askAll(hosts: readonly string[]): Promise<void> {
  const count = Number(values.count);
  const began = performance.now();
  let next = 0;
  let bytes = 0;
  const work = async (): Promise<void> => {
    while (next < count) {
      const id = next;
      next += 1;
      const passed = await ask(planOf(id), hosts[id % hosts.length] ?? '');
      bytes += passed;
    }
  };
  await Promise.all(Array.from({ length: Number(values['at-once']) }, work));
  say({ event: 'done', transfers: count, bytes, seconds: (performance.now() - began) / 1000 });
}

if (values.to === undefined)
  createServer({ allowHalfOpen: true, noDelay: true }, answer).listen(port, '::', () => say({ event: 'listening' }));
else void askAll(values.to.split(','));
