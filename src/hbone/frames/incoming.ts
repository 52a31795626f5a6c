import type { Buffer } from 'node:buffer';
import { Allowance, COST_IDLE, COST_SETTINGS } from './allowance.ts';
import { Breach, excess } from './breach.ts';
import type { MemoryBudget } from './budget.ts';
import { type FrameHandler, FrameReader } from './frame-reader.ts';
import { HeaderDecoder, type HeaderList } from './header-decoder.ts';
import { u16, u31, u32 } from './octets.ts';
import type { Outbox } from './outbox.ts';
import type { ReceiveWindows } from './receive-windows.ts';
import { breakStream, type FrameStream } from './stream.ts';
import * as wire from './wire.ts';

/** The session, as what comes from the peer sees it. Any call may throw a Breach. */
export interface IncomingHost {
  readonly outbox: Outbox;
  readonly windows: ReceiveWindows;
  readonly streams: ReadonlyMap<number, FrameStream>;
  /** The highest id of a stream that the client has opened. */
  readonly lastId: number;
  /** Whether DATA may come already. */
  mayCarryData(stream: FrameStream): boolean;
  receiveHeaders(id: number, ends: boolean, list: HeaderList): void;
  receiveReset(stream: FrameStream, code: number): void;
  receiveGoaway(lastId: number, code: number, debug: string): void;
  receiveMaxStreams(count: number): void;
  receivePong(bytes: Buffer, start: number): void;
}

/**
 * Bytes of frames other than DATA that a peer may leave unread: our answers, resets and window updates. An honest one has a
 * request open for every answer, so it stays far below.
 */
export const MAX_CONTROL_BYTES = 256 * 1024;
/** What a frame for a stream that is gone counts at least. */
const STRAY_FRAME_BYTES = 64;

/** What the peer sends, frame by frame: checked, counted, and given to whom it concerns. */
export class Incoming implements FrameHandler {
  readonly allowance = new Allowance();
  /** What the peer allows for a new stream. */
  peerWindow = wire.DEFAULT_WINDOW_BYTES;
  readonly #host: IncomingHost;
  readonly #reader: FrameReader;
  readonly #decoder: HeaderDecoder;
  /** The stream that the DATA being read belongs to; undefined: nobody wants it. */
  #receiver: FrameStream | undefined;
  /** Length of that DATA frame. */
  #dataBytes = 0;
  /** Bytes that may still come for streams that we have reset, before the peer has read of it. */
  #strayBytes = 0;
  #reading = false;
  /** Chunks that came while one was being read: possible only with sockets in memory. */
  readonly #unread: Buffer[] = [];

  /** @param fromClient whether the peer is a client */
  constructor(host: IncomingHost, budget: MemoryBudget, fromClient: boolean, maxHeaderListBytes: number) {
    this.#host = host;
    this.#reader = new FrameReader(this, budget, fromClient, maxHeaderListBytes);
    this.#decoder = new HeaderDecoder(maxHeaderListBytes);
  }

  /** Bytes of frames and header blocks of which not all has come. */
  get heldBytes(): number {
    return this.#reader.heldBytes;
  }

  /** @throws Breach */
  read(chunk: Buffer): void {
    if (this.#reading) {
      this.#unread.push(chunk);
      return;
    }
    this.#reading = true;
    try {
      this.#reader.read(chunk);
      for (let next = this.#unread.shift(); next !== undefined; next = this.#unread.shift()) this.#reader.read(next);
    } finally {
      this.#reading = false;
    }
    // Here, and not where they are written: whatever it was, the peer has made us write it.
    if (this.#host.outbox.control.length > MAX_CONTROL_BYTES) throw excess('frames that the peer does not read');
  }

  /** What comes from here on is thrown away. */
  stop(): void {
    this.#reader.stop();
  }

  /** A stream was reset: the peer may send so many bytes before it reads of it. */
  expectStray(bytes: number): void {
    // More cannot be on its way than the connection's window allows.
    this.#strayBytes = Math.min(this.#strayBytes + bytes + STRAY_FRAME_BYTES, wire.CONNECTION_WINDOW_BYTES);
  }

  /** HEADERS of no open stream: they have crossed with our reset, or are out of order. @throws Breach */
  strayHeaders(id: number): void {
    this.#expectKnown(id, 'HEADERS');
    this.allowance.spend(COST_IDLE, 'HEADERS on a closed stream');
    this.#stray('HEADERS', 0);
  }

  onDataBegin(id: number, length: number): void {
    this.#host.windows.received(length);
    this.#dataBytes = length;
    const stream = this.#host.streams.get(id);
    this.#receiver = undefined;
    if (stream === undefined) {
      this.#expectKnown(id, 'DATA');
      this.#stray('DATA', length);
      return;
    }
    stream.receiveWindow -= length;
    if (stream.hasEnded) breakStream(stream, wire.STREAM_CLOSED, 'DATA after END_STREAM');
    else if (stream.receiveWindow < 0) breakStream(stream, wire.FLOW_CONTROL_ERROR, 'DATA beyond the window');
    else if (!this.#host.mayCarryData(stream)) breakStream(stream, wire.PROTOCOL_ERROR, 'DATA before the answer');
    else this.#receiver = stream;
  }

  onData(piece: Buffer): void {
    this.#receiver?.receive(piece);
  }

  onDataEnd(unseen: number, endStream: boolean): void {
    if (unseen < this.#dataBytes) this.allowance.earn(this.#dataBytes >> 12);
    else if (!endStream) this.allowance.spend(COST_IDLE, 'empty DATA');
    const stream = this.#receiver;
    if (stream === undefined) return;
    this.#receiver = undefined;
    if (unseen > 0) stream.receivePadding(unseen);
    if (endStream) stream.receiveEnd();
  }

  onHeaders(id: number, endStream: boolean, block: Buffer, start: number, end: number): void {
    this.#host.receiveHeaders(id, endStream, this.#decoder.decode(block, start, end));
  }

  onControl(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    switch (type) {
      case wire.WINDOW_UPDATE:
        this.#windowUpdate(id, u31(bytes, start));
        break;
      case wire.RST_STREAM:
        this.#reset(id, u32(bytes, start));
        break;
      case wire.PING:
        if (flags & wire.ACK) this.#pong(bytes, start);
        else this.#ping(bytes, start);
        break;
      case wire.SETTINGS:
        if (flags & wire.ACK) this.#settingsAck();
        else this.#settings(bytes, start, end);
        break;
      case wire.GOAWAY:
        this.allowance.spend(COST_SETTINGS, 'GOAWAY');
        this.#host.receiveGoaway(u31(bytes, start), u32(bytes, start + 4), bytes.toString('latin1', start + 8, end));
    }
  }

  onIdle(): void {
    this.allowance.spend(COST_IDLE, 'PRIORITY or unknown');
  }

  #windowUpdate(id: number, increment: number): void {
    this.allowance.spend(COST_IDLE, 'WINDOW_UPDATE');
    if (id === 0) {
      if (increment === 0) throw new Breach(wire.PROTOCOL_ERROR, 'WINDOW_UPDATE of nothing');
      if (!this.#host.outbox.widen(increment)) throw tooWide();
      return;
    }
    const stream = this.#host.streams.get(id);
    if (stream === undefined) this.#expectKnown(id, 'WINDOW_UPDATE');
    else if (increment === 0) breakStream(stream, wire.PROTOCOL_ERROR, 'WINDOW_UPDATE of nothing');
    else if (!stream.widen(increment)) breakStream(stream, wire.FLOW_CONTROL_ERROR, 'a window beyond 2^31-1');
  }

  #reset(id: number, code: number): void {
    this.allowance.spend(COST_IDLE, 'RST_STREAM');
    const stream = this.#host.streams.get(id);
    if (stream === undefined) this.#expectKnown(id, 'RST_STREAM');
    else this.#host.receiveReset(stream, code);
  }

  #ping(bytes: Buffer, start: number): void {
    this.allowance.spend(COST_IDLE, 'PING');
    this.#host.outbox.control.ping(wire.ACK, bytes, start);
    this.#host.outbox.touch();
  }

  #pong(bytes: Buffer, start: number): void {
    this.allowance.spend(COST_IDLE, 'answers to PING');
    this.#host.receivePong(bytes, start);
  }

  #settingsAck(): void {
    if (!this.#host.windows.acknowledge()) this.allowance.spend(COST_SETTINGS, 'SETTINGS that acknowledge nothing');
  }

  #settings(bytes: Buffer, start: number, end: number): void {
    this.allowance.spend(COST_SETTINGS, 'SETTINGS');
    for (let at = start; at < end; at += 6) this.#setting(u16(bytes, at), u32(bytes, at + 2));
    this.#host.outbox.control.frame(wire.SETTINGS, wire.ACK, 0, 0);
    this.#host.outbox.touch();
  }

  /** The table size needs no thought: our encoder uses none. */
  #setting(id: number, value: number): void {
    switch (id) {
      case wire.SETTINGS_ENABLE_PUSH:
        if (value > 1) throw new Breach(wire.PROTOCOL_ERROR, 'ENABLE_PUSH is neither 0 nor 1');
        break;
      case wire.SETTINGS_MAX_CONCURRENT_STREAMS:
        this.#host.receiveMaxStreams(value);
        break;
      case wire.SETTINGS_INITIAL_WINDOW_SIZE:
        this.#setPeerWindow(value);
        break;
      case wire.SETTINGS_MAX_FRAME_SIZE:
        if (value < wire.DEFAULT_FRAME_BYTES || value >= 2 ** 24)
          throw new Breach(wire.PROTOCOL_ERROR, 'MAX_FRAME_SIZE out of range');
        this.#host.outbox.maxFrame = value;
    }
  }

  /** RFC 9113, section 6.9.2: the windows of open streams change by the difference. */
  #setPeerWindow(value: number): void {
    if (value > wire.MAX_INT31) throw tooWide();
    const change = value - this.peerWindow;
    this.peerWindow = value;
    for (const stream of this.#host.streams.values()) if (!stream.widen(change)) throw tooWide();
  }

  /** A stream that is not open has been one, or never was. @throws Breach */
  #expectKnown(id: number, what: string): void {
    if (id > this.#host.lastId || id % 2 === 0)
      throw new Breach(wire.PROTOCOL_ERROR, `${what} of a stream that never was`);
  }

  /** Something came for a closed stream: only what a reset of ours explains. @throws Breach */
  #stray(what: string, bytes: number): void {
    this.#strayBytes -= Math.max(bytes, STRAY_FRAME_BYTES);
    if (this.#strayBytes < 0) throw new Breach(wire.STREAM_CLOSED, `${what} on a closed stream`);
  }
}

function tooWide(): Breach {
  return new Breach(wire.FLOW_CONTROL_ERROR, 'a window beyond 2^31-1');
}
