import { Buffer } from 'node:buffer';
import { Breach, excess } from './breach.ts';
import type { MemoryBudget } from './budget.ts';
import { u8, u24, u31 } from './octets.ts';
import * as wire from './wire.ts';

/** Who is told what a connection's bytes mean. Any call may throw a Breach. */
export interface FrameHandler {
  /** DATA begins. @param length counts against the windows, padding included */
  onDataBegin(id: number, length: number): void;
  /** A piece of its payload, as it came; not copied. */
  onData(piece: Buffer): void;
  /** All of it has come. @param unseen the part of `length` that was no payload */
  onDataEnd(unseen: number, endStream: boolean): void;
  /** A whole header block, from HEADERS and its CONTINUATIONs. */
  onHeaders(id: number, endStream: boolean, block: Buffer, start: number, end: number): void;
  /** Another frame that we know, its length checked; GOAWAY's debug data may be cut. The bytes are valid only now. */
  onControl(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void;
  /** A frame that says nothing: PRIORITY, or a type that nobody has told us of. */
  onIdle(type: number): void;
}

/** What the next byte belongs to. Numbers, because it is asked for with every piece. */
const IN_PREFACE = 0;
const IN_HEAD = 1;
/** A payload that is wanted whole. */
const IN_PAYLOAD = 2;
/** The byte that says how much of DATA is padding. */
const IN_PAD_LENGTH = 3;
const IN_DATA = 4;
/** What nobody wants: padding, unknown frames, the end of a long GOAWAY. */
const IN_SKIPPED = 5;

const PREFACE = Buffer.from(wire.PREFACE, 'latin1');
/** No peer has that many settings to tell. */
const MAX_SETTINGS_BYTES = 1024;
const MAX_GOAWAY_BYTES = 1024;
/** Padding and priority, which a HEADERS frame may have besides its fragment. */
const MAX_HEADERS_EXTRA = 1 + 255 + 5;
/** Frames of one header block. */
const MAX_FRAGMENTS = 128;

/**
 * Cuts a connection's bytes into frames. DATA is handed on as it comes, everything else whole.
 *
 * Bound: one frame of at most `maxBlockBytes` and a little more, and one header block of as much, are held. They count in
 * the budget.
 */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #budget: MemoryBudget;
  readonly #maxBlockBytes: number;
  readonly #head = Buffer.alloc(wire.FRAME_HEAD_BYTES);
  #state: number;
  /** Bytes of the preface or of a frame head that have come. */
  #begun = 0;
  #stopped = false;
  #sawSettings = false;
  #type = 0;
  #flags = 0;
  #id = 0;
  /** Bytes still to come in this state. */
  #need = 0;
  #padding = 0;
  #unseen = 0;
  /** A payload that spans chunks. */
  #partial: Buffer | undefined;
  /** A header block that spans frames, and whose it is. */
  #block: Buffer | undefined;
  #blockBytes = 0;
  #blockId = 0;
  #blockEnds = false;
  #fragments = 0;
  /** Of the two buffers. */
  #heldBytes = 0;

  /**
   * @param preface whether the peer is a client
   * @param maxBlockBytes of a header block, before decompression
   */
  constructor(handler: FrameHandler, budget: MemoryBudget, preface: boolean, maxBlockBytes: number) {
    this.#handler = handler;
    this.#budget = budget;
    this.#maxBlockBytes = maxBlockBytes;
    this.#state = preface ? IN_PREFACE : IN_HEAD;
  }

  /** Bytes of a frame and of a header block of which not all has come. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#stopped = true;
    this.#partial = undefined;
    this.#block = undefined;
    this.#release(this.#heldBytes);
  }

  /** @throws Breach */
  read(chunk: Buffer): void {
    const end = chunk.length;
    let at = 0;
    while (at < end && !this.#stopped) {
      switch (this.#state) {
        case IN_HEAD:
          at = this.#readHead(chunk, at, end);
          break;
        case IN_DATA:
          at = this.#readData(chunk, at, end);
          break;
        case IN_PAYLOAD:
          at = this.#readPayload(chunk, at, end);
          break;
        case IN_PAD_LENGTH:
          this.#beginPadded(u8(chunk, at));
          at += 1;
          break;
        case IN_SKIPPED:
          at = this.#skip(at, end);
          break;
        default:
          at = this.#readPreface(chunk, at, end);
      }
    }
  }

  #readPreface(chunk: Buffer, from: number, end: number): number {
    let at = from;
    for (; at < end && this.#begun < PREFACE.length; at += 1, this.#begun += 1) {
      if (chunk[at] !== PREFACE[this.#begun]) throw protocol('no client of HTTP/2: the preface is missing');
    }
    if (this.#begun === PREFACE.length) {
      this.#begun = 0;
      this.#state = IN_HEAD;
    }
    return at;
  }

  #readHead(chunk: Buffer, from: number, end: number): number {
    if (this.#begun === 0 && end - from >= wire.FRAME_HEAD_BYTES) {
      this.#begin(chunk, from);
      return from + wire.FRAME_HEAD_BYTES;
    }
    const size = Math.min(wire.FRAME_HEAD_BYTES - this.#begun, end - from);
    chunk.copy(this.#head, this.#begun, from, from + size);
    this.#begun += size;
    if (this.#begun === wire.FRAME_HEAD_BYTES) {
      this.#begun = 0;
      this.#begin(this.#head, 0);
    }
    return from + size;
  }

  #begin(head: Buffer, at: number): void {
    const length = u24(head, at);
    this.#type = u8(head, at + 3);
    this.#flags = u8(head, at + 4);
    this.#id = u31(head, at + 5);
    this.#need = length;
    if (length > wire.MAX_FRAME_BYTES) throw badSize(`a frame of ${length} bytes`);
    if (!this.#sawSettings) this.#expectSettings();
    if (this.#blockId !== 0 && (this.#type !== wire.CONTINUATION || this.#id !== this.#blockId))
      throw protocol('a header block is interrupted');
    if (this.#type === wire.DATA) this.#beginData(length);
    else this.#beginOther(length);
  }

  /** The first frame is SETTINGS, from either side (RFC 9113, section 3.4). */
  #expectSettings(): void {
    if (this.#type !== wire.SETTINGS || this.#flags & wire.ACK) throw protocol('the first frame is not SETTINGS');
    this.#sawSettings = true;
  }

  #beginData(length: number): void {
    if (this.#id === 0) throw protocol('DATA without a stream');
    const padded = (this.#flags & wire.PADDED) !== 0;
    if (padded && length === 0) throw badSize('padded DATA without a pad length');
    this.#padding = 0;
    this.#unseen = 0;
    this.#state = padded ? IN_PAD_LENGTH : IN_DATA;
    this.#handler.onDataBegin(this.#id, length);
    if (length === 0) this.#endData();
  }

  #beginPadded(padding: number): void {
    this.#need -= 1;
    if (padding > this.#need) throw protocol('DATA of which more is padding than there is');
    this.#unseen = 1 + padding;
    this.#padding = padding;
    this.#need -= padding;
    this.#state = IN_DATA;
    if (this.#need === 0) this.#endData();
  }

  #readData(chunk: Buffer, at: number, end: number): number {
    const size = Math.min(this.#need, end - at);
    this.#need -= size;
    this.#handler.onData(at === 0 && size === end ? chunk : chunk.subarray(at, at + size));
    if (this.#need === 0) this.#endData();
    return at + size;
  }

  #endData(): void {
    this.#need = this.#padding;
    this.#state = this.#need > 0 ? IN_SKIPPED : IN_HEAD;
    this.#handler.onDataEnd(this.#unseen, this.#endsStream());
  }

  #beginOther(length: number): void {
    const type = this.#type;
    const wanted = this.#wantedBytes(type, length);
    if (type === wire.PRIORITY || type > wire.CONTINUATION) this.#handler.onIdle(type);
    this.#state = IN_PAYLOAD;
    if (wanted === 0) {
      this.#need = length;
      this.#state = length > 0 ? IN_SKIPPED : IN_HEAD;
      return;
    }
    // A GOAWAY that is cut: what is left is skipped.
    this.#need = wanted;
    this.#padding = length - wanted;
    if (wanted < 0) this.#payload(EMPTY, 0, 0);
  }

  /** Bytes of a payload that must be read whole; -1: all of its none; 0: nobody wants it. */
  #wantedBytes(type: number, length: number): number {
    switch (type) {
      case wire.HEADERS:
      case wire.CONTINUATION:
        if (this.#id === 0) throw protocol('a header block without a stream');
        if (type === wire.CONTINUATION && this.#blockId === 0) throw protocol('CONTINUATION of nothing');
        if (length > this.#maxBlockBytes + MAX_HEADERS_EXTRA) throw excess('a header block that is too long');
        break;
      case wire.PRIORITY:
        if (length !== 5) throw badSize('PRIORITY');
        return 0;
      case wire.RST_STREAM:
      case wire.WINDOW_UPDATE:
        if (length !== 4) throw badSize(type === wire.RST_STREAM ? 'RST_STREAM' : 'WINDOW_UPDATE');
        break;
      case wire.SETTINGS:
        if (this.#id !== 0) throw protocol('SETTINGS of a stream');
        if (length % 6 !== 0 || (this.#flags & wire.ACK && length > 0)) throw badSize('SETTINGS');
        if (length > MAX_SETTINGS_BYTES) throw excess('more settings than there are');
        break;
      case wire.PUSH_PROMISE:
        throw protocol('PUSH_PROMISE, although push is off');
      case wire.PING:
        if (this.#id !== 0) throw protocol('PING of a stream');
        if (length !== 8) throw badSize('PING');
        break;
      case wire.GOAWAY:
        if (this.#id !== 0) throw protocol('GOAWAY of a stream');
        if (length < 8) throw badSize('GOAWAY');
        return Math.min(length, MAX_GOAWAY_BYTES);
      default:
        return 0;
    }
    return length === 0 ? -1 : length;
  }

  #readPayload(chunk: Buffer, at: number, end: number): number {
    const size = Math.min(this.#need, end - at);
    const next = at + size;
    if (this.#partial === undefined && size === this.#need) {
      this.#payload(chunk, at, next);
      return next;
    }
    const partial = this.#partial ?? this.#allocate(this.#need);
    // To make room in the budget, this very session may have been ended.
    if (this.#stopped) return end;
    this.#partial = partial;
    chunk.copy(partial, partial.length - this.#need, at, next);
    this.#need -= size;
    if (this.#need === 0) {
      this.#partial = undefined;
      this.#release(partial.length);
      this.#payload(partial, 0, partial.length);
    }
    return next;
  }

  #payload(bytes: Buffer, start: number, end: number): void {
    this.#need = this.#type === wire.GOAWAY ? this.#padding : 0;
    this.#state = this.#need > 0 ? IN_SKIPPED : IN_HEAD;
    if (this.#type === wire.HEADERS) this.#headers(bytes, start, end);
    else if (this.#type === wire.CONTINUATION) this.#fragment(bytes, start, end);
    else this.#handler.onControl(this.#type, this.#flags, this.#id, bytes, start, end);
  }

  #headers(bytes: Buffer, from: number, to: number): void {
    let start = from;
    let end = to;
    if (this.#flags & wire.PADDED) {
      if (start === end) throw badSize('padded HEADERS without a pad length');
      end -= u8(bytes, start);
      start += 1;
    }
    if (this.#flags & wire.PRIORITIZED) start += 5;
    if (start > end) throw protocol('HEADERS of which more is padding than there is');
    if (this.#flags & wire.END_HEADERS) this.#handler.onHeaders(this.#id, this.#endsStream(), bytes, start, end);
    else {
      this.#blockId = this.#id;
      this.#blockEnds = this.#endsStream();
      this.#blockBytes = 0;
      this.#fragments = 0;
      this.#fragment(bytes, start, end);
    }
  }

  /** Bounded in bytes and, because a fragment may be empty, in number. */
  #fragment(bytes: Buffer, start: number, end: number): void {
    const length = this.#blockBytes + end - start;
    this.#fragments += 1;
    if (length > this.#maxBlockBytes || this.#fragments > MAX_FRAGMENTS)
      throw excess('a header block that is too long');
    const block = this.#blockFor(length);
    if (this.#stopped) return;
    bytes.copy(block, this.#blockBytes, start, end);
    this.#blockBytes = length;
    if (!(this.#flags & wire.END_HEADERS)) return;
    const id = this.#blockId;
    this.#block = undefined;
    this.#blockId = 0;
    this.#release(block.length);
    this.#handler.onHeaders(id, this.#blockEnds, block, 0, length);
  }

  /** The header block's buffer, with room for so much. */
  #blockFor(length: number): Buffer {
    const block = this.#block;
    if (block !== undefined && block.length >= length) return block;
    const grown = this.#allocate(Math.max(length, Math.min(2 * this.#blockBytes, this.#maxBlockBytes)));
    if (this.#stopped) return grown;
    block?.copy(grown, 0, 0, this.#blockBytes);
    this.#block = grown;
    this.#release(block?.length ?? 0);
    return grown;
  }

  #allocate(size: number): Buffer {
    this.#heldBytes += size;
    this.#budget.hold(size);
    return Buffer.allocUnsafeSlow(size);
  }

  #release(size: number): void {
    this.#heldBytes -= size;
    this.#budget.release(size);
  }

  #skip(at: number, end: number): number {
    const size = Math.min(this.#need, end - at);
    this.#need -= size;
    if (this.#need === 0) this.#state = IN_HEAD;
    return at + size;
  }

  #endsStream(): boolean {
    return (this.#flags & wire.END_STREAM) !== 0;
  }
}

const EMPTY = Buffer.alloc(0);

function protocol(message: string): Breach {
  return new Breach(wire.PROTOCOL_ERROR, message);
}

function badSize(what: string): Breach {
  return new Breach(wire.FRAME_SIZE_ERROR, `${what}: its length is wrong`);
}
