import { Buffer } from 'node:buffer';
import type { Socket } from 'node:net';
import { type EndReason, reasonOfLeg } from './errors.ts';

/**
 * Joins two connected sockets until both are closed.
 *
 * What holds:
 * - An end on one leg becomes an end on the other, in each direction by itself; a reset or any other failure of one leg
 *   becomes a reset of the other. An unclean end never becomes a clean one.
 * - Per direction, at most the writing leg's writableHighWaterMark, one chunk above it and one chunk read ahead (64 KiB
 *   each) are held: a slow reader slows the writer. There is no idle time-out.
 * - A leg that is not being read (its peer is slow, or it has ended) would not tell of its reset: nothing waits on its
 *   descriptor. `probe`, called now and then, finds out.
 *
 * Both sockets must allow half-open, and nobody else may have read from them.
 */
export class Relay {
  readonly over: Promise<RelayRecord>;

  readonly #client: Leg;
  readonly #server: Leg;
  readonly #since = performance.now();
  readonly #beforeEnd: (socket: Socket) => void;
  #reason: EndReason | undefined;
  #closed = 0;
  #resolve: (record: RelayRecord) => void = () => {};

  /** @param beforeEnd called with a leg when everything it is given has been flushed and its end is next */
  constructor(client: Socket, server: Socket, beforeEnd: (socket: Socket) => void = () => {}) {
    this.#beforeEnd = beforeEnd;
    this.over = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#client = new Leg(this, 'client', client, server);
    this.#server = new Leg(this, 'server', server, client);
    join(this.#client);
    join(this.#server);
    client.resume();
    server.resume();
  }

  get bytesFromClient(): number {
    return this.#client.bytes;
  }

  get bytesFromServer(): number {
    return this.#server.bytes;
  }

  /** Resets both legs. The first reason counts. */
  reset(reason: EndReason): void {
    this.#reason ??= reason;
    resetSocket(this.#client.socket);
    resetSocket(this.#server.socket);
  }

  /** Finds resets of legs that are not being read. Cheap when there are none such. */
  probe(): void {
    probeLeg(this.#client);
    probeLeg(this.#server);
  }

  /** A leg's own report: its peer has said that it will send no more, and the other leg has passed on all of it. */
  passedOn(leg: Leg): void {
    if (leg.to.destroyed) return;
    this.#beforeEnd(leg.to);
    leg.to.end();
  }

  /** A leg's own report: it failed. */
  failed(leg: Leg, error: unknown): void {
    this.#reason ??= reasonOfLeg(leg.side, error);
    resetSocket(leg.to);
  }

  /** A leg's own report: it is closed. */
  closed(leg: Leg): void {
    if (!(leg.ended && leg.socket.writableFinished) && this.#reason === undefined) {
      this.#reason = `reset-by-${leg.side}`;
      resetSocket(leg.to);
    }
    this.#closed += 1;
    if (this.#closed < 2) return;
    this.#resolve({
      ended: this.#reason ?? 'clean',
      bytesFromClient: this.#client.bytes,
      bytesFromServer: this.#server.bytes,
      durationMs: performance.now() - this.#since,
    });
  }
}

/** What is left of a relayed connection. */
interface RelayRecord {
  readonly ended: EndReason;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  readonly durationMs: number;
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

/** One socket of the two, as the one to read from. The listeners are shared functions and find it through the socket. */
class Leg {
  readonly relay: Relay;
  readonly side: 'client' | 'server';
  readonly socket: Socket;
  readonly to: Socket;
  bytes = 0;
  /** Not read, because the other leg has not taken what it was given. */
  held = false;
  /** It said that it will send no more. */
  ended = false;

  constructor(relay: Relay, side: 'client' | 'server', socket: Socket, to: Socket) {
    this.relay = relay;
    this.side = side;
    this.socket = socket;
    this.to = to;
  }
}

interface JoinedSocket extends Socket {
  [LEG]: Leg;
}

function join(leg: Leg): void {
  const socket = Object.assign(leg.socket, { [LEG]: leg });
  socket.on('data', onData);
  socket.on('drain', onDrain);
  socket.on('end', onEnd);
  socket.on('error', onError);
  socket.on('close', onClose);
}

function onData(this: JoinedSocket, chunk: Buffer): void {
  const leg = this[LEG];
  const to = leg.to;
  leg.bytes += chunk.length;
  to.write(chunk);
  // Not write()'s own answer: that is false for a big chunk even when the kernel took all of it at once. `drain` is
  // sure to follow, because at this length it was false too.
  if (to.writableLength >= to.writableHighWaterMark) {
    leg.held = true;
    this.pause();
  }
}

function onDrain(this: JoinedSocket): void {
  const from = (this[LEG].to as JoinedSocket)[LEG];
  if (!from.held) return;
  from.held = false;
  from.socket.resume();
}

function onEnd(this: JoinedSocket): void {
  const leg = this[LEG];
  const to = leg.to;
  leg.ended = true;
  if (to.writableLength === 0) leg.relay.passedOn(leg);
  else to.write(NOTHING, (error) => error ?? leg.relay.passedOn(leg));
}

function onError(this: JoinedSocket, error: Error): void {
  this[LEG].relay.failed(this[LEG], error);
}

function onClose(this: JoinedSocket): void {
  this[LEG].relay.closed(this[LEG]);
}

function probeLeg(leg: Leg): void {
  if (leg.held || leg.ended) probeSocket(leg.socket);
}

function resetAfterShutdown(this: Socket): void {
  if (!this.destroyed) this.resetAndDestroy();
}
