import type { Buffer } from 'node:buffer';
import type { HboneError } from './errors.ts';

/** Who is told what comes out of a stream. Calls are never made from within a call to the stream, but for `data`. */
export interface StreamSink {
  /** Bytes from the peer. They are valid only during the call: a sink that keeps them copies them. */
  data(chunk: Buffer): void;
  /** `isFull` has become false again. */
  drained(): void;
  /** The peer has said that it will send no more; the other direction goes on. Once, and never after `closed` with an error. */
  ended(): void;
  /**
   * Nothing of the stream is left; the last call. Without an error: both directions have ended, or the peer has stopped a
   * stream of which it had sent everything.
   */
  closed(error: HboneError | undefined): void;
}

/**
 * One tunnelled connection: a CONNECT stream after its 200 (wire contract, section 2). Flow control crosses it in both
 * directions: what is not taken stops the peer, what the peer does not take fills the stream.
 */
export interface TunnelStream {
  readonly id: number;
  /** Says who is told. Until then nothing is delivered: what comes is held, within the stream's window. Once. */
  attach(sink: StreamSink): void;
  /** Takes the bytes; the buffer is the caller's again afterwards. May be called in any state; after the end it does nothing. */
  write(chunk: Buffer): void;
  /** Enough is held for the peer: give no more until `drained`. Nothing is lost if more is given. */
  readonly isFull: boolean;
  /** END_STREAM, after everything that was written. Idempotent. */
  end(): void;
  /** RST_STREAM CONNECT_ERROR (RFC 9113, section 8.5): what is held is thrown away. `closed` follows. Idempotent. */
  reset(): void;
  /** No further `data` until `resume`; what comes is held within the stream's window, which is not opened again meanwhile. */
  pause(): void;
  resume(): void;
}
