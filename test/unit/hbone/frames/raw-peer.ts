import { Buffer } from 'node:buffer';
import { type Duplex, duplexPair } from 'node:stream';
import { createFrames, type FrameFactory, type MemoryBudget } from '../../../../src/hbone/frames/index.ts';
import * as wire from '../../../../src/hbone/frames/wire.ts';
import type { HboneError, SessionOptions } from '../../../../src/hbone/index.ts';
import type { IncomingRequest } from '../../../../src/hbone/session.ts';

/** A frame as it stands on the wire. */
export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, id: number, payload: Buffer | readonly number[] = []): Buffer {
  const body = Buffer.from(payload);
  const head = Buffer.alloc(9);
  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, body]);
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

export function settings(...pairs: Array<readonly [id: number, value: number]>): Buffer {
  return frame(wire.SETTINGS, 0, 0, Buffer.concat(pairs.map(([id, value]) => Buffer.concat([u16(id), u32(value)]))));
}

function u16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff);
}

/** A header block of literals without indexing. */
export function block(...fields: Array<readonly [name: string, value: string]>): Buffer {
  return Buffer.concat(fields.map(([name, value]) => Buffer.concat([Buffer.of(0), text(name), text(value)])));
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  if (bytes.length < 127) return Buffer.concat([Buffer.of(bytes.length), bytes]);
  const size = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) size.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...size, rest]), bytes]);
}

const LAST_PING = Buffer.from('the end\0', 'latin1');
export const PREFACE = Buffer.from(wire.PREFACE, 'latin1');
export const SETTINGS_ACK = frame(wire.SETTINGS, wire.ACK, 0);
export const CONNECT = block([':method', 'CONNECT'], [':authority', '10.0.0.7:8080']);
/** :status 200, from the static table. */
export const OK = Buffer.of(0x88);
/** Of calls that nobody takes back. */
export const NEVER = new AbortController().signal;

export function connectFrame(id: number, flags = wire.END_HEADERS): Buffer {
  return frame(wire.HEADERS, flags, id, CONNECT);
}

export function reset(id: number, code: number): Buffer {
  return frame(wire.RST_STREAM, 0, id, u32(code));
}

export function data(id: number, bytes: Buffer | number = 0, flags = 0): Buffer {
  return frame(wire.DATA, flags, id, typeof bytes === 'number' ? Buffer.alloc(bytes) : bytes);
}

export function windowUpdate(id: number, increment: number): Buffer {
  return frame(wire.WINDOW_UPDATE, 0, id, u32(increment));
}

export function goaway(lastId: number, code: number, debug = ''): Buffer {
  return frame(wire.GOAWAY, 0, 0, Buffer.concat([u32(lastId, code), Buffer.from(debug)]));
}

/** The end of a connection that writes bytes as it likes and reads frames. */
export class RawPeer {
  readonly socket: Duplex;
  readonly frames: RawFrame[] = [];
  ended = false;
  #bytes: Buffer = Buffer.alloc(0);
  #skip: number;
  #waiting: Array<() => void> = [];

  constructor(socket: Duplex, prefaceBytes: number) {
    this.socket = socket;
    this.#skip = prefaceBytes;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('end', () => this.#finish());
    socket.on('close', () => this.#finish());
    socket.on('error', () => this.#finish());
  }

  send(...parts: Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  of(type: number): RawFrame[] {
    return this.frames.filter((each) => each.type === type);
  }

  /** Resolves when it is true, which is looked at with each frame, and at the end. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.ended) throw new Error('the connection ended before');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** The first frame that fits. */
  async next(type: number, fits: (frame: RawFrame) => boolean = () => true): Promise<RawFrame> {
    const found = (): RawFrame | undefined => this.frames.find((each) => each.type === type && fits(each));
    await this.until(() => found() !== undefined);
    const frame_ = found();
    if (frame_ === undefined) throw new Error('unreachable');
    return frame_;
  }

  /** A PING there and back: everything sent before has been read. */
  async roundTrip(): Promise<void> {
    const before = this.#answers();
    this.send(frame(wire.PING, 0, 0, Buffer.alloc(8)));
    await this.until(() => this.#answers() > before);
  }

  /** Answers the PING by which the session asks whether everything was read. */
  async confirm(): Promise<void> {
    const { payload } = await this.next(wire.PING, (each) => each.flags === 0 && each.payload.equals(LAST_PING));
    this.send(frame(wire.PING, wire.ACK, 0, payload));
  }

  async whenEnded(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Code and text of the GOAWAY that is an error. */
  async farewell(): Promise<{ code: number; text: string; lastId: number }> {
    const { payload } = await this.next(wire.GOAWAY, ({ payload: bytes }) => bytes.readUInt32BE(4) !== wire.NO_ERROR);
    return { lastId: payload.readUInt32BE(0), code: payload.readUInt32BE(4), text: payload.toString('latin1', 8) };
  }

  #answers(): number {
    return this.frames.filter(({ type, flags }) => type === wire.PING && flags === wire.ACK).length;
  }

  #read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (this.#skip > 0) {
      if (this.#bytes.length < this.#skip) return;
      this.#bytes = this.#bytes.subarray(this.#skip);
      this.#skip = 0;
    }
    while (this.#bytes.length >= 9) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < 9 + length) break;
      this.frames.push({
        type: this.#bytes[3] ?? 0,
        flags: this.#bytes[4] ?? 0,
        id: this.#bytes.readUInt32BE(5),
        payload: Buffer.from(this.#bytes.subarray(9, 9 + length)),
      });
      this.#bytes = this.#bytes.subarray(9 + length);
    }
    this.#wake();
  }

  #finish(): void {
    this.ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const each of this.#waiting.splice(0)) each();
  }
}

/** A server session, and a client made of bytes. Without sockets, all that happens may happen in one turn of the loop. */
export function rawClient(
  options: SessionOptions = {},
  budget?: MemoryBudget,
  [near, far]: readonly [near: Duplex, far: Duplex] = duplexPair(),
) {
  const requests: IncomingRequest[] = [];
  const frames: FrameFactory = createFrames(budget);
  const server = frames.server(far, (request) => requests.push(request), options);
  const closed = new Promise<HboneError | undefined>((resolve) => server.onClose(resolve));
  const peer = new RawPeer(near, 0);
  return { server, peer, requests, closed, greet: () => peer.send(PREFACE, settings()) };
}

/** A client session, and a server made of bytes. */
export function rawServer(options: SessionOptions = {}, budget?: MemoryBudget) {
  const [near, far] = duplexPair();
  const client = createFrames(budget).client(near, options);
  const closed = new Promise<HboneError | undefined>((resolve) => client.onClose(resolve));
  const peer = new RawPeer(far, PREFACE.length);
  return { client, peer, closed, greet: () => peer.send(settings()) };
}
