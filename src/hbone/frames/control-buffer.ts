import { Buffer } from 'node:buffer';
import { putFrameHead, putU16, putU32 } from './octets.ts';
import {
  DATA,
  END_STREAM,
  FRAME_HEAD_BYTES,
  GOAWAY,
  MAX_INT31,
  PING,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './wire.ts';

const FIRST_BYTES = 512;
/** A buffer that has grown beyond it is not kept. */
const KEPT_BYTES = 4096;
const EMPTY = Buffer.alloc(0);

/** Frames other than DATA, written one after the other, until they are sent. */
export class ControlBuffer {
  bytes: Buffer = EMPTY;
  length = 0;

  /** Makes room, counts it as written, and returns where it begins. */
  reserve(size: number): number {
    const at = this.length;
    const needed = at + size;
    if (needed > this.bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.bytes.length * 2, FIRST_BYTES));
      this.bytes.copy(grown, 0, 0, at);
      this.bytes = grown;
    }
    this.length = needed;
    return at;
  }

  /** Forgets what was written. */
  clear(): void {
    this.length = 0;
    if (this.bytes.length > KEPT_BYTES) this.bytes = EMPTY;
  }

  /** Gives everything away. */
  take(): Buffer {
    const taken = this.bytes.subarray(0, this.length);
    this.bytes = EMPTY;
    this.length = 0;
    return taken;
  }

  frame(type: number, flags: number, id: number, payload: number): number {
    const at = this.reserve(FRAME_HEAD_BYTES + payload);
    putFrameHead(this.bytes, at, payload, type, flags, id);
    return at + FRAME_HEAD_BYTES;
  }

  settings(pairs: ReadonlyArray<readonly [id: number, value: number]>): void {
    let at = this.frame(SETTINGS, 0, 0, pairs.length * 6);
    for (const [id, value] of pairs) {
      putU16(this.bytes, at, id);
      putU32(this.bytes, at + 2, value);
      at += 6;
    }
  }

  windowUpdate(id: number, increment: number): void {
    const at = this.frame(WINDOW_UPDATE, 0, id, 4);
    putU32(this.bytes, at, increment);
  }

  resetStream(id: number, code: number): void {
    const at = this.frame(RST_STREAM, 0, id, 4);
    putU32(this.bytes, at, code);
  }

  /** @param from bytes that hold the payload, eight of them */
  ping(flags: number, from: Buffer, start: number): void {
    const at = this.frame(PING, flags, 0, 8);
    from.copy(this.bytes, at, start, start + 8);
  }

  goaway(lastId: number, code: number, text: string): void {
    const debug = Buffer.from(text, 'latin1');
    const at = this.frame(GOAWAY, 0, 0, 8 + debug.length);
    putU32(this.bytes, at, lastId & MAX_INT31);
    putU32(this.bytes, at + 4, code);
    debug.copy(this.bytes, at + 8);
  }

  /** END_STREAM by itself: everything before it has been sent. */
  endStream(id: number): void {
    this.frame(DATA, END_STREAM, id, 0);
  }
}
