import { Buffer } from 'node:buffer';
import type { Socket } from 'node:net';
import { GATHER_BYTES, type Gather, type GatherOwner, GatherPool, readShared } from '../hbone/index.ts';
import type { Leg, LegSink } from './relay.ts';

interface SocketLegOptions {
  /**
   * Whether what one turn of the loop brings is written by one system call. For a leg that is given many small chunks at
   * a time, as a tunnel's stream gives them. A small chunk that comes alone is written at once nevertheless. Default: false.
   */
  readonly gathers?: boolean;
  /** Called with the socket before its end or its reset, while it can still be asked. Default: nothing. */
  readonly leaving?: ((socket: Socket) => void) | undefined;
}

/**
 * A connected socket as a leg. It must allow half-open, and nobody else may have read from it.
 *
 * A socket that is not being read (its peer is slow, or it has ended) would not tell of its reset: nothing waits on its
 * descriptor. `probe`, called now and then, finds out.
 */
export class SocketLeg implements Leg {
  readonly socket: Socket;
  sink: LegSink = NOBODY;
  /** Not to be read now. */
  isPaused = false;
  /** The peer has said that it will send no more. */
  hasEnded = false;
  error: Error | undefined;

  readonly #beforeEnd: (socket: Socket) => void;
  readonly #gathers: boolean;
  readonly #leaving: ((socket: Socket) => void) | undefined;
  #isEnding = false;
  /** What this turn of the loop has brought, and how much of it there is. */
  #gather: Gather | undefined;
  #gathered = 0;
  /** The turn of the loop in which it was last written to. */
  #turn = -1;
  #isListed = false;

  /** @param beforeEnd called with the socket when everything it was given has been flushed and its end is next */
  constructor(socket: Socket, beforeEnd: (socket: Socket) => void = () => {}, options: SocketLegOptions = {}) {
    this.socket = socket;
    this.#beforeEnd = beforeEnd;
    this.#gathers = options.gathers ?? false;
    this.#leaving = options.leaving;
  }

  attach(sink: LegSink): void {
    this.sink = sink;
    const socket = Object.assign(this.socket, { [LEG]: this });
    readShared(socket, takeChunk);
    socket.on('drain', onDrain);
    socket.on('end', onEnd);
    socket.on('error', onError);
    socket.on('close', onClose);
    if (!this.isPaused) socket.resume();
  }

  write(chunk: Buffer): void {
    if (this.#isEnding || this.socket.destroyed) return;
    // Copied, because the bytes are the reader's again after this call, and the kernel may not take them all at once.
    for (let at = 0; at < chunk.length; ) {
      this.#gather ??= buffers.take(this.#gathers ? GATHER_BYTES : chunk.length - at);
      const { buffer } = this.#gather;
      const size = chunk.copy(buffer, this.#gathered, at);
      at += size;
      this.#gathered += size;
      if (this.#gathered === buffer.length) this.#flush();
    }
    if (this.#gathered > 0 && !this.#waits(chunk.length)) this.#flush();
  }

  // Not write()'s own answer: that is false for a big chunk even when the kernel took all of it at once. `drain` is sure
  // to follow, because at this length it was false too.
  get isFull(): boolean {
    return this.socket.writableLength >= this.socket.writableHighWaterMark;
  }

  end(): void {
    if (this.#isEnding) return;
    this.#flush();
    this.#isEnding = true;
    if (this.socket.writableLength === 0) this.#endNow();
    else this.socket.write(NOTHING, (error) => error ?? this.#endNow());
  }

  reset(): void {
    if (!this.socket.destroyed) this.#leaving?.(this.socket);
    resetSocket(this.socket);
  }

  pause(): void {
    this.isPaused = true;
    this.socket.pause();
  }

  resume(): void {
    this.isPaused = false;
    this.socket.resume();
  }

  probe(): void {
    if (this.isPaused || this.hasEnded) probeSocket(this.socket);
  }

  /** The turn of the loop in which it gathered is over. */
  endTurn(): void {
    this.#isListed = false;
    this.#flush();
  }

  /** Whether what is gathered is written at the end of the turn: more has come in it, or probably comes. */
  #waits(bytes: number): boolean {
    if (!this.#gathers) return false;
    if (!isTurnWatched) watchTurn();
    const isAlone = this.#turn !== turn && bytes < MANY_BYTES;
    this.#turn = turn;
    if (isAlone) return false;
    if (!this.#isListed) gathering.push(this);
    this.#isListed = true;
    return true;
  }

  #flush(): void {
    const gather = this.#gather;
    if (gather === undefined) return;
    const { socket } = this;
    const bytes = gather.buffer.subarray(0, this.#gathered);
    this.#gather = undefined;
    this.#gathered = 0;
    if (socket.writableLength > 0) {
      gather.owner = WRITTEN;
      socket.write(bytes, gather.written);
      return;
    }
    if (!socket.destroyed) socket.write(bytes);
    // Most times the kernel has taken all of it. Otherwise the buffer is left to the collector.
    if (socket.writableLength === 0) buffers.giveBack(gather);
  }

  /** Its socket is no more. */
  forget(): void {
    if (this.#gather !== undefined) buffers.giveBack(this.#gather);
    this.#gather = undefined;
    this.#gathered = 0;
  }

  #endNow(): void {
    if (this.socket.destroyed) return;
    this.#leaving?.(this.socket);
    this.#beforeEnd(this.socket);
    this.socket.end();
  }
}

/**
 * Closes a socket so that its peer sees a reset, at once and whatever it still had to send.
 *
 * libuv refuses to reset a socket whose shutdown is under way (and Node then leaks it). Nobody here calls `end` before
 * everything is flushed, so that window is one turn of the loop.
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) socket.destroy();
  else if (socket.writableEnded && !socket.writableFinished) socket.once('finish', resetAfterShutdown);
  else socket.resetAndDestroy();
}

/**
 * Lets a socket that is not being read tell of its reset: a write of nothing fails if the connection is gone and sends
 * no segment if it is not. A socket with something to write is watched by libuv anyway.
 */
export function probeSocket(socket: Socket): void {
  if (socket.writable && socket.writableLength === 0) socket.write(NOTHING);
}

const NOTHING = Buffer.alloc(0);
const LEG = Symbol('leg');
const NOBODY: LegSink = { data() {}, drained() {}, ended() {}, closed() {} };

/** As large as a record of TLS nearly is: where such a chunk comes, more follow. */
const MANY_BYTES = 8 * 1024;

const buffers = new GatherPool();
const WRITTEN: GatherOwner = {
  written(gather, error) {
    if (error === undefined || error === null) buffers.giveBack(gather);
  },
};

/** One for all legs of the thread, so that a turn costs one immediate, however many legs are written to. */
let turn = 0;
let isTurnWatched = false;
let gathering: SocketLeg[] = [];

function watchTurn(): void {
  isTurnWatched = true;
  setImmediate(endTurn);
}

function endTurn(): void {
  isTurnWatched = false;
  turn += 1;
  if (gathering.length === 0) return;
  const legs = gathering;
  gathering = [];
  for (const leg of legs) leg.endTurn();
}

/** The listeners are shared functions and find the leg through the socket. */
interface LegSocket extends Socket {
  [LEG]: SocketLeg;
}

function takeChunk(socket: Socket, chunk: Buffer): void {
  (socket as LegSocket)[LEG].sink.data(chunk);
}

function onDrain(this: LegSocket): void {
  this[LEG].sink.drained();
}

function onEnd(this: LegSocket): void {
  this[LEG].hasEnded = true;
  this[LEG].sink.ended();
}

function onError(this: LegSocket, error: Error): void {
  this[LEG].error = error;
}

function onClose(this: LegSocket): void {
  const leg = this[LEG];
  leg.forget();
  const isClean = leg.hasEnded && this.writableFinished;
  leg.sink.closed(leg.error ?? (isClean ? undefined : new Error('the socket was closed before both ends')));
}

function resetAfterShutdown(this: Socket): void {
  if (!this.destroyed) this.resetAndDestroy();
}
