import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ControlBuffer } from './control-buffer.ts';
import { GATHER_BYTES, type Gather, type GatherOwner, type GatherPool } from './gather.ts';
import { putFrameHead } from './octets.ts';
import type { FrameStream } from './stream.ts';
import { DATA, DEFAULT_FRAME_BYTES, DEFAULT_WINDOW_BYTES, END_STREAM, FRAME_HEAD_BYTES, MAX_INT31 } from './wire.ts';

/** Enough to write without waiting for the end of the turn. */
const FLUSH_BYTES = 64 * 1024;
/** DATA frames are no longer, whatever the peer allows: another stream's turn comes between. */
const MAX_DATA_BYTES = 64 * 1024;
/** A frame that is cut short for want of room in the buffer is at least this long. */
const MIN_CUT_BYTES = 4096;
/** A stream that holds this much for the peer is full; when half of it is gone, it takes more. */
const STREAM_QUEUE_BYTES = 256 * 1024;
/** The same while the whole session holds a lot. */
const PRESSED_QUEUE_BYTES = 64 * 1024;
const QUEUE_PRESSURE_BYTES = 8 * 2 ** 20;

/** What the outbox asks of its session. */
export interface OutboxHost {
  /** `turn` is to be called at the end of this turn of the event loop. */
  schedule(): void;
  /** A write is over: what became due meanwhile can be told. */
  wrote(): void;
  /** A DATA frame of so many bytes is on its way. */
  sent(bytes: number): void;
}

/** A queue of streams with something to send. One that has nothing any more stays in it until its turn. */
class StreamList {
  first: FrameStream | undefined;
  #last: FrameStream | undefined;

  push(stream: FrameStream): void {
    stream.listed = true;
    if (this.#last === undefined) this.first = stream;
    else this.#last.next = stream;
    this.#last = stream;
  }

  shift(): FrameStream | undefined {
    const stream = this.first;
    if (stream === undefined) return undefined;
    this.first = stream.next;
    if (this.first === undefined) this.#last = undefined;
    stream.next = undefined;
    stream.listed = false;
    return stream;
  }
}

/**
 * Everything that goes to the peer. What one turn of the event loop brings is gathered and written once; while a write is
 * under way, everything waits in its stream. So at most one buffer (128 KiB) stands before a new message, besides the
 * kernel's own queue. Control frames go first; then each stream that had nothing to send before gets one frame; then the
 * others get theirs, one frame each, round robin.
 */
export class Outbox implements GatherOwner {
  readonly control = new ControlBuffer();
  /** The connection's window. */
  sendWindow = DEFAULT_WINDOW_BYTES;
  /** Bytes that wait in all streams. */
  queuedBytes = 0;
  /** Of buffers for what is written, and for what waits in streams. */
  readonly pool: GatherPool;
  readonly #socket: Duplex;
  readonly #host: OutboxHost;
  /** A real socket has given the bytes to the kernel when a write is over; another stream may hand them on as they are. */
  readonly #reuses: boolean;
  #maxFrame = DEFAULT_FRAME_BYTES;
  #maxData = DEFAULT_FRAME_BYTES;
  readonly #fresh = new StreamList();
  readonly #waiting = new StreamList();
  #writing = false;
  /** `ending`: nothing but control frames is sent any more, then the socket ends. */
  #state: 'open' | 'ending' | 'ended' = 'open';

  constructor(socket: Duplex, pool: GatherPool, host: OutboxHost) {
    this.#socket = socket;
    this.#reuses = socket instanceof Socket;
    this.pool = pool;
    this.#host = host;
  }

  /** Whether what is written now can still be sent. */
  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  get maxFrame(): number {
    return this.#maxFrame;
  }

  set maxFrame(bytes: number) {
    this.#maxFrame = bytes;
    this.#maxData = Math.min(bytes, MAX_DATA_BYTES);
  }

  /** A stream that holds so much is full. */
  get streamLimit(): number {
    return this.queuedBytes > QUEUE_PRESSURE_BYTES ? PRESSED_QUEUE_BYTES : STREAM_QUEUE_BYTES;
  }

  /** A control frame was written. */
  touch(): void {
    if (!this.#writing) this.#host.schedule();
  }

  /** A stream has something that its window allows to send. */
  offer(stream: FrameStream): void {
    if (!stream.listed) this.#fresh.push(stream);
    if (this.#writing) return;
    if (this.queuedBytes >= FLUSH_BYTES) this.flush();
    else this.#host.schedule();
  }

  /** The connection's window has grown; false: beyond what there can be. */
  widen(bytes: number): boolean {
    this.sendWindow += bytes;
    this.touch();
    return this.sendWindow <= MAX_INT31;
  }

  /** Sends what may be sent now, unless a write is under way: then its end will. */
  flush(): void {
    if (this.#writing || this.#state === 'ended') return;
    const blocked = this.#state === 'ending' || this.sendWindow <= 0 || !this.#hasStreams();
    if (this.control.length >= FLUSH_BYTES) this.#writeControl();
    else if (this.control.length > 0 || !blocked) this.#gather(blocked);
    if (this.#state === 'ending') this.#end();
  }

  /** Sends the control frames there are, and ends the socket. */
  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    this.flush();
  }

  /** Nothing can be sent any more. */
  abandon(): void {
    this.#state = 'ended';
  }

  written(gather: Gather, error: unknown): void {
    if (this.#reuses && (error === undefined || error === null)) this.pool.giveBack(gather);
    this.#wrote();
  }

  readonly #wrote = (): void => {
    this.#writing = false;
    this.flush();
    this.#host.wrote();
  };

  #hasStreams(): boolean {
    return this.#fresh.first !== undefined || this.#waiting.first !== undefined;
  }

  /** A lot of control frames: by themselves, as they are. */
  #writeControl(): void {
    this.#writing = true;
    this.#socket.write(this.control.take(), this.#wrote);
  }

  #gather(onlyControl: boolean): void {
    const control = this.control;
    const wanted = onlyControl ? control.length : control.length + this.queuedBytes + MIN_CUT_BYTES;
    const gather = this.pool.take(wanted, this);
    const buffer = gather.buffer;
    control.bytes.copy(buffer, 0, 0, control.length);
    let at = control.length;
    control.clear();
    if (!onlyControl) at = this.#fill(buffer, at);
    if (at > 0) {
      this.#writing = true;
      this.#socket.write(buffer.subarray(0, at), gather.written);
    } else this.pool.giveBack(gather);
  }

  /** Lets streams write their frames until the buffer, the window or the streams are used up. */
  #fill(buffer: Buffer, from: number): number {
    let at = from;
    while (this.sendWindow > 0) {
      // Streams that have waited longer get the end of the buffer, if new ones leave them nothing else.
      const late = this.#fresh.first === undefined || at > buffer.length - this.#maxData;
      const list = late && this.#waiting.first !== undefined ? this.#waiting : this.#fresh;
      const stream = list.first;
      if (stream === undefined) break;
      const room = Math.min(buffer.length - at - FRAME_HEAD_BYTES, this.#maxData, this.sendWindow);
      const size = Math.min(stream.sendable, room);
      if (size < stream.sendable && size < MIN_CUT_BYTES && at > 0 && room < this.sendWindow) break;
      list.shift();
      if (size > 0) at = this.#frame(stream, buffer, at, size);
      if (stream.sendable > 0) this.#waiting.push(stream);
    }
    return at;
  }

  #frame(stream: FrameStream, buffer: Buffer, at: number, size: number): number {
    const payload = at + FRAME_HEAD_BYTES;
    const ends = stream.take(buffer, payload, size);
    putFrameHead(buffer, at, size, DATA, ends ? END_STREAM : 0, stream.id);
    this.sendWindow -= size;
    this.queuedBytes -= size;
    this.#host.sent(size);
    return payload + size;
  }

  #end(): void {
    this.#state = 'ended';
    this.#socket.end();
  }
}

/** The most that stands before a new message in the session itself. */
export const MAX_WRITE_BYTES = GATHER_BYTES;
