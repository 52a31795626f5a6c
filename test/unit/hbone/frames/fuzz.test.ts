/**
 * Mutated inputs, through sessions of both ends. A run is repeated with the seed that it prints:
 * `CULVERT_FUZZ_SEED=... CULVERT_FUZZ_INPUTS=... ./dev test test/unit/hbone/frames/fuzz.test.ts`
 */
import { Buffer } from 'node:buffer';
import { randomInt } from 'node:crypto';
import { Duplex } from 'node:stream';
import test from 'ava';
import { createFrames, maxHeldBytes } from '../../../../src/hbone/frames/index.ts';
import type { FrameSession } from '../../../../src/hbone/frames/session.ts';
import * as wire from '../../../../src/hbone/frames/wire.ts';
import type { StreamSink, TunnelStream } from '../../../../src/hbone/index.ts';
import type { IncomingRequest } from '../../../../src/hbone/session.ts';
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
  reset,
  SETTINGS_ACK,
  settings,
  u32,
  windowUpdate,
} from './raw-peer.ts';

const SOAK = process.env.CULVERT_SOAK === '1';
const INPUTS = Number(process.env.CULVERT_FUZZ_INPUTS ?? (SOAK ? 5_000_000 : 110_000));
const SEED = Number(process.env.CULVERT_FUZZ_SEED ?? randomInt(2 ** 31));
/** Sessions at a time. */
const BATCH = 100;

/** Numbers that look random and are the same for the same seed (xorshift). */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) | 1;
  }

  /** 0 to sides - 1. */
  roll(sides: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % sides;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.roll(from.length)] as T;
  }
}

const HUFFMAN = Buffer.from('8286418cf1e3c2e5f23a6ba0ab90f4ff', 'hex');
const INSERTED = Buffer.from('400a637573746f6d2d6b65790d637573746f6d2d686561646572be3e2120', 'hex');
const SIZES = [0, 1, 9, 100, 5000];
const VALUES = [0, 1, 100, 16_384, 65_535, 65_536, 2 ** 20, 2 ** 24, 0x7fffffff, 0xffffffff];

/** A frame of a well-behaved peer, most times. */
function goodFrame(dice: Dice, id: number): Buffer {
  switch (dice.roll(8)) {
    case 0:
      return windowUpdate(id, 1000);
    case 1:
      return Buffer.concat([settings([wire.SETTINGS_INITIAL_WINDOW_SIZE, dice.roll(100_000)]), SETTINGS_ACK]);
    case 2:
      return dice.pick([reset(id, wire.CANCEL), reset(id, wire.CONNECT_ERROR), data(id, 10, wire.END_STREAM)]);
    case 3:
      return frame(wire.DATA, wire.PADDED, id, Buffer.concat([Buffer.of(dice.roll(14)), Buffer.alloc(15)]));
    case 4:
      return frame(wire.PING, 0, 0, Buffer.alloc(8));
    default:
      return data(id, dice.pick(SIZES));
  }
}

/** A frame such as may come, from either side. */
function anyFrame(dice: Dice, id: number): Buffer {
  const flags = dice.pick([0, 0, wire.END_STREAM, wire.END_HEADERS, wire.PADDED, 0xff]);
  switch (dice.roll(16)) {
    case 0:
    case 1:
    case 2:
      return data(id, dice.pick(SIZES), flags & ~wire.PADDED);
    case 3:
      return frame(wire.DATA, wire.PADDED | flags, id, Buffer.concat([Buffer.of(dice.roll(20)), Buffer.alloc(15)]));
    case 4:
      return connectFrame(id, wire.END_HEADERS | flags);
    case 5:
      return frame(wire.HEADERS, wire.END_HEADERS | flags, id, dice.pick([OK, HUFFMAN, INSERTED, CONNECT]));
    case 6:
      return Buffer.concat([
        frame(wire.HEADERS, 0, id, CONNECT.subarray(0, 9)),
        frame(wire.CONTINUATION, wire.END_HEADERS, id, CONNECT.subarray(9)),
      ]);
    case 7:
      return reset(id, dice.roll(16));
    case 8:
      return windowUpdate(dice.pick([0, id]), dice.pick(VALUES));
    case 9:
      return settings([dice.roll(8), dice.pick(VALUES)]);
    case 10:
      return SETTINGS_ACK;
    case 11:
      return frame(wire.PING, dice.roll(2), 0, Buffer.alloc(8));
    case 12:
      return goaway(dice.pick([0, id, 0x7fffffff]), dice.roll(14), 'bye');
    case 13:
      return frame(wire.PRIORITY, 0, id, Buffer.concat([u32(0), Buffer.of(1)]));
    case 14:
      return frame(dice.roll(256), dice.roll(256), dice.roll(5), Buffer.alloc(dice.roll(40), dice.roll(256)));
    default:
      return frame(wire.HEADERS, wire.END_HEADERS, id, block(['a', 'b'], [':status', '200'], ['Bad', 'x\n']));
  }
}

/** A conversation that begins well. */
function conversation(dice: Dice, client: boolean): Buffer[] {
  const frames = client ? [PREFACE, settings()] : [settings()];
  const streams = 1 + dice.roll(4);
  for (let each = 0; each < streams; each += 1) {
    const id = 2 * each + 1;
    frames.push(client ? connectFrame(id) : frame(wire.HEADERS, wire.END_HEADERS, id, OK));
  }
  const strange = dice.roll(3) === 0 ? 3 : 30;
  for (let each = dice.roll(20); each > 0; each -= 1) {
    const id = 2 * dice.roll(streams) + 1;
    frames.push(dice.roll(strange) === 0 ? anyFrame(dice, id + 2 * dice.roll(2)) : goodFrame(dice, id));
  }
  return frames;
}

/** Mutates some of the frames, or the order of them, or the bytes. */
function mutate(dice: Dice, frames: Buffer[]): Buffer {
  for (let each = dice.roll(2) * dice.roll(4); each > 0; each -= 1) {
    const at = dice.roll(frames.length);
    const other = dice.roll(frames.length);
    const [one, two] = [frames[at] as Buffer, frames[other] as Buffer];
    switch (dice.roll(4)) {
      case 0:
        frames[at] = two;
        frames[other] = one;
        break;
      case 1:
        frames.splice(at, 1);
        if (frames.length === 0) return one;
        break;
      case 2:
        frames.splice(at, 0, ...Array.from({ length: dice.roll(30) }, () => two));
        break;
      default:
        frames[at] = one.subarray(0, dice.roll(one.length + 1));
    }
  }
  const bytes = Buffer.concat(frames);
  for (let each = dice.roll(3); each > 0 && bytes.length > 0; each -= 1) {
    // Rather where it matters: not in the preface, often in a frame's head.
    const at = dice.roll(bytes.length);
    bytes[at] = dice.pick([0, 1, 0xff, dice.roll(256), (bytes[at] ?? 0) ^ (1 << dice.roll(8))]);
  }
  return bytes;
}

/** A connection whose other end is the fuzzer: it reads everything, and keeps nothing. */
function socketFor(): Duplex {
  return new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
}

/** A reader that does as the dice say. */
function attach(dice: Dice, stream: TunnelStream, faults: string[]): void {
  let closed = false;
  let ended = false;
  const act = (): void => {
    if (closed) faults.push('told after closed');
    switch (dice.roll(12)) {
      case 0:
        stream.pause();
        break;
      case 1:
        stream.resume();
        break;
      case 2:
        stream.write(Buffer.alloc(dice.pick(SIZES)));
        break;
      case 3:
        stream.end();
        break;
      case 4:
        stream.reset();
    }
  };
  const sink: StreamSink = {
    data: () => {
      if (ended) faults.push('data after the end');
      act();
    },
    drained: act,
    ended: () => {
      if (ended) faults.push('ended twice');
      ended = true;
      act();
    },
    closed: () => {
      if (closed) faults.push('closed twice');
      closed = true;
    },
  };
  stream.attach(sink);
  act();
}

interface Run {
  readonly session: FrameSession;
  readonly socket: Duplex;
  readonly bytes: Buffer;
}

const frames = createFrames();

function begin(dice: Dice, faults: string[]): Run {
  const socket = socketFor();
  const client = dice.roll(3) > 0;
  const bytes = mutate(dice, conversation(dice, client));
  if (client) {
    const session = frames.server(socket, (request: IncomingRequest) => {
      const answer = dice.roll(6);
      if (answer === 0) request.refuse(503);
      else if (answer < 5) attach(dice, request.accept([]), faults);
    });
    return { session, socket, bytes };
  }
  const session = frames.client(socket);
  for (let each = 1 + dice.roll(3); each > 0; each -= 1)
    session.connect('a:1', [], NEVER).then(
      ({ stream }) => attach(dice, stream, faults),
      () => undefined,
    );
  return { session, socket, bytes };
}

/** Some chunks a turn: sometimes all at once, sometimes byte by byte. */
async function feed(dice: Dice, runs: readonly Run[]): Promise<void> {
  const left = runs.map(({ bytes }) => bytes);
  for (let turn = 0; turn < 4; turn += 1) {
    for (const [index, { socket }] of runs.entries()) {
      const bytes = left[index] as Buffer;
      const size = turn === 3 ? bytes.length : dice.roll(bytes.length + 1);
      left[index] = bytes.subarray(size);
      if (size < 40 && dice.roll(4) === 0) for (const byte of bytes.subarray(0, size)) socket.push(Buffer.of(byte));
      else if (size > 0) socket.push(Buffer.from(bytes.subarray(0, size)));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('nothing that a peer sends crashes a session, hangs it, or makes it hold more than its bound', async (t) => {
  t.log(`seed ${SEED}, ${INPUTS} inputs`);
  const dice = new Dice(SEED);
  const faults: string[] = [];
  const outcomes = new Map<string, number>();
  for (let done = 0; done < INPUTS; done += BATCH) {
    const runs = Array.from({ length: BATCH }, () => begin(dice, faults));
    await feed(dice, runs);
    for (const { session } of runs) {
      const state = session.state();
      const outcome = state.name === 'closed' ? (state.error?.code ?? 'clean') : state.name;
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (session.heldBytes > maxHeldBytes(wire.SERVER_MAX_STREAMS)) faults.push('holds too much');
      session.close();
    }
    await new Promise((resolve) => setImmediate(resolve));
    for (const { session, socket } of runs) {
      if (session.state().name !== 'closed' || session.openStreams > 0 || session.heldBytes !== 0)
        faults.push(`left over: ${session.state().name}, ${session.openStreams} streams, ${session.heldBytes} bytes`);
      socket.destroy();
    }
    if (faults.length > 0) break;
  }
  t.log([...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', '));
  t.deepEqual(faults, [], `seed ${SEED}`);
});
