import { Buffer } from 'node:buffer';
import type { Duplex } from 'node:stream';
import { HboneError } from '../errors.ts';
import type { HeaderFields, IncomingRequest, ServerSession, SessionOptions } from '../session.ts';
import type { TunnelStream } from '../stream.ts';
import { COST_ABANDONED, EARNED_BY_ANSWER } from './allowance.ts';
import type { HeaderList } from './header-decoder.ts';
import { type RequestHead, readRequest } from './message.ts';
import { FrameSession, type SessionDeps } from './session.ts';
import { FrameStream, resetError } from './stream.ts';
import * as wire from './wire.ts';

/** Its answer says that the peer has read the GOAWAY before it. */
const DRAIN_PING = Buffer.from('drained\0', 'latin1');
/** How long that may take. */
const DRAIN_PING_MS = 1000;

/** Whether new streams are taken: `warned` while such may come as the peer opened before it read the GOAWAY. */
type Admission = 'open' | 'warned' | 'closed';

/** The server's end of a session. */
export class FrameServer extends FrameSession implements ServerSession {
  readonly #onRequest: (request: IncomingRequest) => void;
  readonly #maxStreams: number;
  /** Not answered yet. */
  readonly #requests = new Map<number, FrameRequest>();
  #admission: Admission = 'open';
  #idleSince = performance.now();

  constructor(
    socket: Duplex,
    onRequest: (request: IncomingRequest) => void,
    deps: SessionDeps,
    options: SessionOptions = {},
  ) {
    const maxStreams = options.maxStreams ?? wire.SERVER_MAX_STREAMS;
    super(socket, deps, { client: false, maxHeaderListBytes: wire.SERVER_HEADER_LIST_BYTES, maxStreams }, options);
    this.#onRequest = onRequest;
    this.#maxStreams = maxStreams;
  }

  get idleSince(): number | undefined {
    return this.streams.size === 0 ? this.#idleSince : undefined;
  }

  drain(): void {
    if (this.isOver || this.#admission !== 'open') return;
    this.becomeDraining();
    this.#admission = 'warned';
    this.sendGoaway(wire.MAX_INT31);
    this.sendPing(DRAIN_PING);
    setTimeout(closeAdmission, DRAIN_PING_MS, this).unref();
  }

  /** Nothing that the peer opens from here on is taken. */
  closeAdmission(): void {
    if (this.#admission !== 'warned' || this.isOver) return;
    this.#admission = 'closed';
    if (this.streams.size === 0) this.complete();
    else this.sendGoaway(this.lastPeerId);
  }

  /** A request's own: it is answered with 200. */
  accept(stream: FrameStream, headers: HeaderFields): void {
    if (!this.#requests.delete(stream.id)) return;
    this.#answer(stream, 200, headers, false);
    this.incoming.allowance.earn(EARNED_BY_ANSWER);
  }

  /** A request's own: it is answered with something else. */
  refuse(stream: FrameStream, status: number): void {
    if (!this.#requests.delete(stream.id)) return;
    this.#answer(stream, status, [], true);
    const error = new HboneError('CLOSED', `answered with ${status}`);
    // The client has nothing more to say either.
    if (stream.hasEnded) stream.close(error);
    else stream.abort(wire.NO_ERROR, error);
  }

  /** A stream that ends before its answer is a request that was taken back. */
  override forget(stream: FrameStream): void {
    const request = this.#requests.get(stream.id);
    this.#requests.delete(stream.id);
    request?.cancel(stream.failure ?? resetError(wire.CANCEL));
    super.forget(stream);
    if (this.streams.size === 0) this.#idleSince = performance.now();
  }

  mayCarryData(): boolean {
    return true;
  }

  receiveHeaders(id: number, ends: boolean, list: HeaderList): void {
    const stream = this.streams.get(id);
    if (stream !== undefined) this.receiveTrailers(stream, ends, list);
    else if (id <= this.lastId || id % 2 === 0) this.incoming.strayHeaders(id);
    else this.#receiveRequest(id, ends, list);
  }

  receiveReset(stream: FrameStream, code: number): void {
    if (this.#requests.has(stream.id)) stream.close(resetError(code));
    else stream.receiveReset(code);
  }

  receiveMaxStreams(): void {}

  override receivePong(bytes: Buffer, start: number): void {
    super.receivePong(bytes, start);
    if (DRAIN_PING.equals(bytes.subarray(start, start + DRAIN_PING.length))) this.closeAdmission();
  }

  protected get lastPeerId(): number {
    return this.lastId;
  }

  protected emptied(): void {
    // While it is warned, streams may be on their way.
    if (this.state().name === 'draining' && this.#admission !== 'warned') this.complete();
  }

  #receiveRequest(id: number, ends: boolean, list: HeaderList): void {
    this.lastId = id;
    this.incoming.allowance.spend(COST_ABANDONED, 'requests that came to nothing');
    const head = list.tooLong ? undefined : readRequest(list.fields);
    if (this.#admission === 'closed' || this.isOver || this.streams.size >= this.#maxStreams)
      this.resetUnknown(id, wire.REFUSED_STREAM);
    else if (head !== undefined) this.#open(id, ends, head);
    else this.resetUnknown(id, list.tooLong ? wire.ENHANCE_YOUR_CALM : wire.PROTOCOL_ERROR);
  }

  #open(id: number, ends: boolean, head: RequestHead): void {
    const stream = new FrameStream(this, id, this.incoming.peerWindow);
    const request = new FrameRequest(this, stream, head);
    this.streams.set(id, stream);
    this.#requests.set(id, request);
    if (ends) stream.receiveEnd();
    this.#onRequest(request);
  }

  #answer(stream: FrameStream, status: number, headers: HeaderFields, ends: boolean): void {
    this.encoder.response(this.outbox.control, stream.id, status, headers, ends, this.outbox.maxFrame);
    this.outbox.touch();
  }
}

/** A request on a stream, until it is answered. */
class FrameRequest implements IncomingRequest {
  readonly method: string;
  readonly authority: string | undefined;
  readonly headers: HeaderFields;
  readonly #session: FrameServer;
  readonly #stream: FrameStream;
  #onCancel: ((error: HboneError) => void) | undefined;
  #cancelled: HboneError | undefined;

  constructor(session: FrameServer, stream: FrameStream, head: RequestHead) {
    this.#session = session;
    this.#stream = stream;
    this.method = head.method;
    this.authority = head.authority;
    this.headers = head.fields;
  }

  accept(headers: HeaderFields): TunnelStream {
    this.#session.accept(this.#stream, headers);
    return this.#stream;
  }

  refuse(status: number): void {
    this.#session.refuse(this.#stream, status);
  }

  onCancel(listener: (error: HboneError) => void): void {
    this.#onCancel = listener;
    if (this.#cancelled !== undefined) setImmediate(listener, this.#cancelled);
  }

  /** The session's own: the client has taken it back, or is gone. */
  cancel(error: HboneError): void {
    this.#cancelled = error;
    this.#onCancel?.(error);
  }
}

function closeAdmission(session: FrameServer): void {
  session.closeAdmission();
}
