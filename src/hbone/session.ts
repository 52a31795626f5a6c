import type { HboneError } from './errors.ts';
import type { TunnelStream } from './stream.ts';

/** Header fields as they stand on the wire, names in lower case; the pseudo header fields are not among them. */
export type HeaderFields = ReadonlyArray<readonly [name: string, value: string]>;

/** Bounds and times of a session. Defaults: wire contract, section 2.7. */
export interface SessionOptions {
  /** A PING after this much silence. Default 10,000 ms. */
  readonly pingIntervalMs?: number;
  /** No answer to it within this: the session is lost (PEER_SILENT). Default 20,000 ms. */
  readonly pingTimeoutMs?: number;
  /** Streams that the peer may have open. Server: 200 is announced. */
  readonly maxStreams?: number;
}

/** What both ends of a session are; one is created over a connected TLS socket that has passed its peer's test. */
export type SessionState =
  /** Streams may be opened. */
  | { readonly name: 'open' }
  /** No new streams, the open ones finish: one of both ends leaves. */
  | { readonly name: 'draining' }
  /** The last stream has ended: the peer has yet to read everything. */
  | { readonly name: 'ending' }
  | { readonly name: 'closed'; readonly error: HboneError | undefined };

/** Answer to a CONNECT: 200. Any other is an HboneError STATUS. */
export interface ConnectAnswer {
  readonly stream: TunnelStream;
  readonly headers: HeaderFields;
}

/** The client's end. */
export interface ClientSession {
  state(): SessionState;
  readonly openStreams: number;
  /** min(own limit of 100, the peer's SETTINGS_MAX_CONCURRENT_STREAMS). */
  readonly maxStreams: number;
  /**
   * Sends CONNECT and waits for its answer. Nothing of the app's may be written before.
   *
   * @param signal aborts: the stream is reset (CANCEL)
   * @throws HboneError STATUS, STREAM_RESET, STREAM_REFUSED, SESSION_LOST, PEER_SILENT, CLOSED
   */
  connect(authority: string, headers: HeaderFields, signal: AbortSignal): Promise<ConnectAnswer>;
  /**
   * Takes no new streams, and ends with the last one. GOAWAY is sent only then: servers built on older versions of the h2
   * crate take the one of a client for the end of every stream (hyperium/h2, issue 885). Idempotent.
   */
  drain(): void;
  /** Ends it at once, and every stream of it. Idempotent. */
  close(error?: HboneError): void;
  /** Called once, when it is closed. */
  onClose(listener: (error: HboneError | undefined) => void): void;
}

/** A CONNECT that has arrived (or something else that is none: then `method` says so). Answered exactly once. */
export interface IncomingRequest {
  readonly method: string;
  /** As it was sent; undefined if it was not. */
  readonly authority: string | undefined;
  readonly headers: HeaderFields;
  /** 200. */
  accept(headers: HeaderFields): TunnelStream;
  /** That status, with END_STREAM and no body. */
  refuse(status: number): void;
  /** Called when the client takes it back before it has been answered. */
  onCancel(listener: (error: HboneError) => void): void;
}

/** The server's end. */
export interface ServerSession {
  state(): SessionState;
  readonly openStreams: number;
  /** When its last stream left, or it began, by `performance.now()`; undefined: it has streams. */
  readonly idleSince: number | undefined;
  /** GOAWAY; open streams finish. Idempotent. */
  drain(): void;
  close(error?: HboneError): void;
  onClose(listener: (error: HboneError | undefined) => void): void;
}
