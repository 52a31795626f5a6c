import type { Buffer } from 'node:buffer';
import { CELLS_OF_A_SLOT, SERIES_CELL } from '../telemetry/index.ts';
import { type EndReason, failure, reasonOfLeg, textOfLeg } from './errors.ts';

/** Who is told what comes out of a leg. The calls are those of hbone's StreamSink. */
export interface LegSink {
  /** Bytes from the peer, valid only during the call. */
  data(chunk: Buffer): void;
  /** `isFull` has become false again. */
  drained(): void;
  /** The peer has said that it will send no more. */
  ended(): void;
  /** Nothing of the leg is left; the last call. Without an error: it was not cut. */
  closed(error: Error | undefined): void;
}

/** One end of a relayed connection: a SocketLeg, or a stream of the tunnel, which has this shape (src/hbone/stream.ts). */
export interface Leg {
  /** Says who is told, and begins. */
  attach(sink: LegSink): void;
  /** Takes the bytes, but not the buffer; after the end it does nothing. */
  write(chunk: Buffer): void;
  /** Enough is held: give no more until `drained`. */
  readonly isFull: boolean;
  /** An end for the peer, after everything that was written. */
  end(): void;
  /** A reset for the peer; what is held is thrown away. `closed` follows. */
  reset(): void;
  pause(): void;
  resume(): void;
  /** Finds out whether it has been reset, where nothing else would tell. */
  probe?(): void;
}

/** What is left of a relayed connection. */
export interface RelayRecord {
  readonly ended: EndReason;
  /** What there is to say of its end beside that. */
  readonly text: string | undefined;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  /** When the first byte came from the server (`performance.now`); undefined: none has. */
  readonly firstByteAt: number | undefined;
}

/** Where bytes are counted as they pass: a slot of a series table. */
export interface ByteCounts {
  readonly cells: Float64Array;
  readonly slot: number;
}

/** For those who count nothing. */
const NOWHERE: ByteCounts = { cells: new Float64Array(CELLS_OF_A_SLOT), slot: 0 };

/**
 * Joins two legs until both are closed.
 *
 * What holds:
 * - An end on one leg becomes an end on the other, in each direction by itself; a reset or any other failure of one leg
 *   becomes a reset of the other. An unclean end never becomes a clean one.
 * - Per direction, no more is held than what the writing leg calls full, one chunk above it, and what the reading leg has
 *   read ahead: a slow reader slows the writer. There is no idle time-out.
 * - A stream may be stopped by its peer after everything was sent (RST_STREAM after END_STREAM). That is like a TCP
 *   socket that its app has closed: the other leg lives on until its client sends something more, which resets it.
 */
export class Relay {
  readonly over: Promise<RelayRecord>;

  readonly #client: Side;
  readonly #server: Side;
  #reason: EndReason | undefined;
  #text: string | undefined;
  #resolve: (record: RelayRecord) => void = () => {};

  /** @param counts default: nowhere */
  constructor(client: Leg, server: Leg, { cells, slot }: ByteCounts = NOWHERE) {
    this.over = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    const at = slot * CELLS_OF_A_SLOT;
    this.#client = new Side(this, 'client', client, server, cells, at + SERIES_CELL.received);
    this.#server = new Side(this, 'server', server, client, cells, at + SERIES_CELL.sent);
    this.#client.join(this.#server);
    this.#server.join(this.#client);
    client.attach(this.#client);
    server.attach(this.#server);
  }

  get bytesFromClient(): number {
    return this.#client.bytes;
  }

  get bytesFromServer(): number {
    return this.#server.bytes;
  }

  /** Resets both legs. The first reason counts. */
  reset(reason: EndReason): void {
    if (this.#reason === undefined) {
      this.#reason = reason;
      const { text } = failure(reason);
      if (text !== reason) this.#text = text;
    }
    this.#client.leg.reset();
    this.#server.leg.reset();
  }

  /** Finds resets of legs that are not being read. Cheap when there are none such. */
  probe(): void {
    this.#client.leg.probe?.();
    this.#server.leg.probe?.();
  }

  /** A side's own report: its leg is closed. */
  closed(side: Side, error: Error | undefined): void {
    if (error !== undefined) {
      if (this.#reason === undefined) {
        this.#reason = reasonOfLeg(side.name, error);
        this.#text = textOfLeg(side.name, error);
      }
      side.to.reset();
    } else if (!side.other.hasEnded) {
      side.other.release();
    }
    if (!side.other.isClosed) return;
    this.#resolve({
      ended: this.#reason ?? 'clean',
      text: this.#text,
      bytesFromClient: this.#client.bytes,
      bytesFromServer: this.#server.bytes,
      firstByteAt: this.#server.bytes === 0 ? undefined : this.#server.firstByteAt,
    });
  }
}

/** One leg of the two, as the one to read from. */
class Side implements LegSink {
  readonly relay: Relay;
  readonly name: 'client' | 'server';
  readonly leg: Leg;
  readonly to: Leg;
  /** Its bytes are counted here, too. */
  readonly cells: Float64Array;
  readonly cell: number;
  other: Side = this;
  bytes = 0;
  firstByteAt = 0;
  /** Not read, because the other leg has not taken what it was given. */
  isHeld = false;
  hasEnded = false;
  isClosed = false;

  constructor(relay: Relay, name: 'client' | 'server', leg: Leg, to: Leg, cells: Float64Array, cell: number) {
    this.cells = cells;
    this.cell = cell;
    this.relay = relay;
    this.name = name;
    this.leg = leg;
    this.to = to;
  }

  join(other: Side): void {
    this.other = other;
  }

  data(chunk: Buffer): void {
    if (this.other.isClosed) {
      this.relay.reset(`reset-by-${this.other.name}`);
      return;
    }
    if (this.bytes === 0) this.firstByteAt = performance.now();
    this.bytes += chunk.length;
    this.cells[this.cell] = (this.cells[this.cell] ?? 0) + chunk.length;
    this.to.write(chunk);
    if (this.to.isFull && !this.isHeld) {
      this.isHeld = true;
      this.leg.pause();
    }
  }

  drained(): void {
    this.other.release();
  }

  ended(): void {
    this.hasEnded = true;
    this.to.end();
  }

  closed(error: Error | undefined): void {
    this.isClosed = true;
    this.relay.closed(this, error);
  }

  release(): void {
    if (!this.isHeld) return;
    this.isHeld = false;
    this.leg.resume();
  }
}
