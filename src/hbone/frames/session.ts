import { Buffer } from 'node:buffer';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { HboneError } from '../errors.ts';
import type { SessionOptions, SessionState } from '../session.ts';
import { readShared } from '../shared-read.ts';
import { Breach, excess } from './breach.ts';
import type { BudgetMember, MemoryBudget } from './budget.ts';
import type { GatherPool } from './gather.ts';
import type { HeaderList } from './header-decoder.ts';
import { HeaderEncoder } from './header-encoder.ts';
import { Incoming, type IncomingHost } from './incoming.ts';
import { Keepalive, type KeepaliveHost } from './keepalive.ts';
import { brokenBy, lost } from './lost.ts';
import { areTrailers } from './message.ts';
import { Outbox, type OutboxHost } from './outbox.ts';
import { ReceiveWindows, type WindowHost } from './receive-windows.ts';
import { breakStream, type FrameStream, type StreamHost } from './stream.ts';
import * as wire from './wire.ts';

/** What sessions of a worker share. */
export interface SessionDeps {
  readonly pool: GatherPool;
  readonly budget: MemoryBudget;
}

/** What the two ends differ in. */
export interface EndOptions {
  readonly client: boolean;
  readonly maxHeaderListBytes: number;
  /** Streams at a time. */
  readonly maxStreams: number;
}

/** What is over lingers for so long: a peer that still sends would lose, by a reset, what it has not read yet. */
const LINGER_MS = 1000;
/** The most that a peer may take to read the last bytes, and say so. One that says nothing at all is given up sooner. */
const ENDING_MS = 300_000;
const MAX_DEBUG_CHARACTERS = 200;
const KEEPALIVE_PING = Buffer.from('culvert\0', 'latin1');
/** Its answer says that the peer has read everything. */
const LAST_PING = Buffer.from('the end\0', 'latin1');

/**
 * What both ends of a session are: a socket, its streams, and how all that ends.
 *
 * Readers of streams are told things at the end of a turn of the event loop, or when something has come from the peer, or
 * when a write is over: never from within a call to a stream.
 */
export abstract class FrameSession
  implements IncomingHost, OutboxHost, WindowHost, StreamHost, KeepaliveHost, BudgetMember
{
  readonly outbox: Outbox;
  readonly windows: ReceiveWindows;
  readonly streams = new Map<number, FrameStream>();
  lastId = 0;
  protected readonly incoming: Incoming;
  protected readonly encoder = new HeaderEncoder();
  readonly #socket: Duplex;
  readonly #keepalive: Keepalive;
  readonly #budget: MemoryBudget;
  #state: SessionState = { name: 'open' };
  /** What the peer's GOAWAY said, if it was an error. */
  #farewell: HboneError | undefined;
  /** Whether it has said GOAWAY: then it ends by itself, and may answer nothing any more. */
  #peerLeaves = false;
  readonly #closeListeners: Array<(error: HboneError | undefined) => void> = [];
  /** Streams whose readers are to be told something. */
  #deferred: FrameStream[] = [];
  #scheduled = false;
  #endingTimer: NodeJS.Timeout | undefined;

  constructor(socket: Duplex, deps: SessionDeps, end: EndOptions, options: SessionOptions) {
    this.#socket = socket;
    this.#budget = deps.budget;
    this.outbox = new Outbox(socket, deps.pool, this);
    this.windows = new ReceiveWindows(this, deps.budget, end.maxStreams);
    this.incoming = new Incoming(this, deps.budget, !end.client, end.maxHeaderListBytes);
    this.#keepalive = new Keepalive(this, {
      intervalMs: options.pingIntervalMs ?? 10_000,
      timeoutMs: options.pingTimeoutMs ?? 20_000,
    });
    deps.budget.join(this);
    this.#greet(end);
    this.#listen(socket);
  }

  abstract mayCarryData(stream: FrameStream): boolean;
  abstract receiveHeaders(id: number, ends: boolean, list: HeaderList): void;
  abstract receiveReset(stream: FrameStream, code: number): void;
  abstract receiveMaxStreams(count: number): void;
  /** The last stream of the peer's that a GOAWAY speaks of. */
  protected abstract readonly lastPeerId: number;
  /** The last stream has left. */
  protected abstract emptied(): void;

  state(): SessionState {
    return this.#state;
  }

  get openStreams(): number {
    return this.streams.size;
  }

  /** Bytes received that wait for their readers, at most `maxHeldBytes`, and frames of which not all has come. */
  get heldBytes(): number {
    return this.windows.heldBytes + this.incoming.heldBytes;
  }

  close(error?: HboneError): void {
    const reason = error ?? new HboneError('CLOSED', 'the session was closed on this side');
    for (const stream of this.streams.values()) stream.close(reason);
    this.#finish(error, reason);
  }

  onClose(listener: (error: HboneError | undefined) => void): void {
    this.#closeListeners.push(listener);
    if (this.#state.name === 'closed') this.schedule();
  }

  receiveGoaway(lastId: number, code: number, debug: string): void {
    const text = debug.slice(0, MAX_DEBUG_CHARACTERS).replace(/[^\x20-\x7e]/g, '?');
    if (code !== wire.NO_ERROR)
      this.#farewell = lost(`the peer ended the session: ${wire.errorName(code)}${text && `, "${text}"`}`);
    this.#peerLeaves = true;
    this.becomeDraining();
    if (this.#state.name === 'ending') this.#sendEnd();
    this.refuseBeyond(lastId, this.#farewell);
    if (this.streams.size === 0) this.emptied();
  }

  receivePong(bytes: Buffer, start: number): void {
    if (this.#state.name === 'ending' && LAST_PING.equals(bytes.subarray(start, start + LAST_PING.length)))
      this.#finish(undefined, lost('the session ended'));
  }

  /** Whether its last stream has ended, or it is closed. */
  protected get isOver(): boolean {
    return this.#state.name === 'ending' || this.#state.name === 'closed';
  }

  /** The peer will do nothing about streams above it. */
  protected refuseBeyond(_lastId: number, _cause: HboneError | undefined): void {}

  protected becomeDraining(): void {
    if (this.#state.name === 'open') this.#setState({ name: 'draining' });
  }

  protected sendGoaway(lastId: number): void {
    this.outbox.control.goaway(lastId, wire.NO_ERROR, '');
    this.outbox.touch();
  }

  protected sendPing(payload: Buffer): void {
    this.outbox.control.ping(0, payload, 0);
    this.outbox.touch();
  }

  protected receiveTrailers(stream: FrameStream, ends: boolean, list: HeaderList): void {
    if (stream.hasEnded) breakStream(stream, wire.STREAM_CLOSED, 'HEADERS after END_STREAM');
    else if (!ends || !areTrailers(list.fields)) breakStream(stream, wire.PROTOCOL_ERROR, 'malformed trailers');
    else stream.receiveEnd();
  }

  /** RST_STREAM for a stream that never was one of ours. */
  protected resetUnknown(id: number, code: number): void {
    this.outbox.control.resetStream(id, code);
    this.outbox.touch();
    this.incoming.expectStray(this.windows.allowed);
  }

  /**
   * It has come to its end as it should. The last bytes may still be here, or in the kernel, which throws them away when
   * something comes for a closed socket: so it is closed only when the peer says that it has read them, or ends as well.
   */
  protected complete(): void {
    if (this.isOver) return;
    if (this.#farewell !== undefined) {
      this.#finish(this.#farewell, this.#farewell);
      return;
    }
    this.#beginEnding();
    if (this.#peerLeaves) this.#sendEnd();
    else this.sendPing(LAST_PING);
  }

  // What a stream asks for.

  sendReset(stream: FrameStream, code: number): void {
    this.outbox.control.resetStream(stream.id, code);
    this.outbox.touch();
    if (!stream.hasEnded) this.incoming.expectStray(Math.max(0, stream.receiveWindow));
  }

  forget(stream: FrameStream): void {
    this.streams.delete(stream.id);
    if (this.streams.size > 0) return;
    if (this.#state.name === 'closed') this.#budget.leave(this);
    else this.emptied();
  }

  defer(stream: FrameStream): void {
    if (stream.deferred) return;
    stream.deferred = true;
    this.#deferred.push(stream);
    this.schedule();
  }

  // What the outbox asks for.

  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(takeTurn, this);
  }

  wrote(): void {
    this.#settle();
  }

  sent(bytes: number): void {
    // A peer gives back what it has got in as many WINDOW_UPDATEs as it likes.
    this.incoming.allowance.earn(2 + (bytes >> 10));
  }

  /** The end of a turn of the event loop. */
  turn(): void {
    this.#scheduled = false;
    this.outbox.flush();
    this.#settle();
  }

  // What the windows ask for.

  giveBack(bytes: number): void {
    this.outbox.control.windowUpdate(0, bytes);
    this.outbox.touch();
  }

  announce(streamWindow: number): void {
    this.outbox.control.settings([[wire.SETTINGS_INITIAL_WINDOW_SIZE, streamWindow]]);
    this.outbox.touch();
    for (const stream of this.streams.values()) stream.credit();
  }

  shift(bytes: number): void {
    for (const stream of this.streams.values()) stream.receiveWindow += bytes;
  }

  // What the budget asks for.

  press(pressed: boolean): void {
    if (this.#state.name === 'closed') return;
    if (pressed) this.windows.shrink();
    else this.windows.relax(performance.now());
  }

  evict(): void {
    this.#fail(excess('the worker holds too much, and the session with this peer the most'));
    // A session that was closed before may still have had readers.
    for (const stream of this.streams.values()) stream.close(lost('too much was held'));
  }

  // What the keepalive asks for.

  probe(): void {
    this.sendPing(KEEPALIVE_PING);
  }

  silent(): void {
    const error = new HboneError('PEER_SILENT', 'the peer does not answer: it, or the way to it, is gone');
    this.#finish(error, error);
    this.#socket.destroy();
  }

  #greet(end: EndOptions): void {
    const { control } = this.outbox;
    if (end.client) {
      const at = control.reserve(wire.PREFACE.length);
      control.bytes.write(wire.PREFACE, at, 'latin1');
    }
    control.settings([
      end.client ? [wire.SETTINGS_ENABLE_PUSH, 0] : [wire.SETTINGS_MAX_CONCURRENT_STREAMS, end.maxStreams],
      [wire.SETTINGS_INITIAL_WINDOW_SIZE, this.windows.announced],
      [wire.SETTINGS_MAX_FRAME_SIZE, wire.MAX_FRAME_BYTES],
      [wire.SETTINGS_MAX_HEADER_LIST_SIZE, end.maxHeaderListBytes],
    ]);
    control.windowUpdate(0, wire.CONNECTION_WINDOW_BYTES - wire.DEFAULT_WINDOW_BYTES);
    this.schedule();
  }

  #listen(socket: Duplex): void {
    socket.on('error', (cause) => this.#broke(cause));
    socket.on('close', () => this.#broke(undefined));
    socket.on('end', () => this.#ended());
    const take = (_: Duplex, chunk: Buffer): void => this.#read(chunk);
    if (socket instanceof Socket) readShared(socket, take);
    else socket.on('data', (chunk: Buffer) => this.#read(chunk));
    if (socket.destroyed) this.#broke(socket.errored);
  }

  #read(chunk: Buffer): void {
    const now = performance.now();
    this.#keepalive.heard(now);
    try {
      this.incoming.read(chunk);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      this.#fail(error);
    }
    if (this.#state.name !== 'closed') this.windows.relax(now);
  }

  /** The peer's FIN. */
  #ended(): void {
    if (this.streams.values().some((stream) => !stream.isComplete)) {
      const error = this.#farewell ?? lost('the peer ended the connection');
      this.#finish(error, error);
      return;
    }
    // It may still read. The socket closes when it has been given everything.
    if (!this.isOver) this.#beginEnding();
    this.#sendEnd();
  }

  /** The socket is no more. */
  #broke(cause: unknown): void {
    const reason = this.#farewell ?? brokenBy(cause);
    const clean = this.#state.name === 'ending' && !(cause instanceof Error);
    this.outbox.abandon();
    this.#finish(clean ? this.#farewell : reason, reason);
  }

  #beginEnding(): void {
    this.#setState({ name: 'ending' });
    this.#endingTimer = setTimeout(giveUp, ENDING_MS, this).unref();
  }

  /** The last that the peer gets: GOAWAY, and the end of the connection. */
  #sendEnd(breach?: Breach): void {
    if (!this.outbox.isOpen) return;
    this.outbox.control.goaway(this.lastPeerId, breach?.h2Code ?? wire.NO_ERROR, breach?.message ?? '');
    this.outbox.end();
  }

  #fail(breach: Breach): void {
    const code = breach.h2Code === wire.ENHANCE_YOUR_CALM ? 'EXCESS' : 'PROTOCOL';
    const error = new HboneError(code, breach.toString());
    this.#finish(error, error, breach);
  }

  /** @param error why, for whoever holds the session; @param reason the same for its streams, which always need one */
  #finish(error: HboneError | undefined, reason: HboneError, breach?: Breach): void {
    if (this.#state.name === 'closed') return;
    this.#setState({ name: 'closed', error });
    this.incoming.stop();
    this.#keepalive.stop();
    clearTimeout(this.#endingTimer);
    for (const stream of this.streams.values()) stream.lose(reason);
    if (this.streams.size === 0) this.#budget.leave(this);
    this.#sendEnd(breach);
    if (!this.#socket.destroyed) setTimeout(destroy, LINGER_MS, this.#socket).unref();
    this.schedule();
  }

  #settle(): void {
    while (this.#deferred.length > 0) {
      const due = this.#deferred;
      this.#deferred = [];
      for (const stream of due) stream.settle();
    }
    if (this.#state.name !== 'closed' || this.#closeListeners.length === 0) return;
    const { error } = this.#state;
    for (const listener of this.#closeListeners.splice(0)) listener(error);
  }

  #setState(state: SessionState): void {
    this.#state = state;
  }
}

function takeTurn(session: FrameSession): void {
  session.turn();
}

function giveUp(session: FrameSession): void {
  session.silent();
}

function destroy(socket: Duplex): void {
  socket.destroy();
}
