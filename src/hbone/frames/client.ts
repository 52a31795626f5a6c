import type { Duplex } from 'node:stream';
import { HboneError, statusError } from '../errors.ts';
import type { ClientSession, ConnectAnswer, HeaderFields, SessionOptions } from '../session.ts';
import { COST_IDLE, EARNED_BY_ANSWER } from './allowance.ts';
import type { HeaderList } from './header-decoder.ts';
import { readAnswer } from './message.ts';
import { FrameSession, type SessionDeps } from './session.ts';
import { breakStream, FrameStream, resetError } from './stream.ts';
import * as wire from './wire.ts';

/** A CONNECT that waits for its answer. */
interface Question {
  readonly resolve: (answer: ConnectAnswer) => void;
  readonly reject: (error: HboneError) => void;
  readonly signal: AbortSignal;
  readonly onAbort: () => void;
}

/** The client's end of a session. */
export class FrameClient extends FrameSession implements ClientSession {
  protected readonly lastPeerId = 0;
  readonly #questions = new Map<number, Question>();
  readonly #ownMaxStreams: number;
  #maxStreams: number;

  constructor(socket: Duplex, deps: SessionDeps, options: SessionOptions = {}) {
    const maxStreams = Math.min(wire.CLIENT_MAX_STREAMS, options.maxStreams ?? wire.CLIENT_MAX_STREAMS);
    super(socket, deps, { client: true, maxHeaderListBytes: wire.CLIENT_HEADER_LIST_BYTES, maxStreams }, options);
    this.#ownMaxStreams = maxStreams;
    this.#maxStreams = maxStreams;
  }

  get maxStreams(): number {
    return this.#maxStreams;
  }

  connect(authority: string, headers: HeaderFields, signal: AbortSignal): Promise<ConnectAnswer> {
    const refusal = this.#refusal(signal);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.lastId += this.lastId === 0 ? 1 : 2;
    const stream = new FrameStream(this, this.lastId, this.incoming.peerWindow);
    this.streams.set(stream.id, stream);
    this.encoder.request(this.outbox.control, stream.id, authority, headers, this.outbox.maxFrame);
    this.outbox.touch();
    const { promise, resolve, reject } = Promise.withResolvers<ConnectAnswer>();
    const onAbort = (): void => stream.abort(wire.CANCEL, givenUp(signal));
    signal.addEventListener('abort', onAbort);
    this.#questions.set(stream.id, { resolve, reject, signal, onAbort });
    return promise;
  }

  drain(): void {
    if (this.state().name !== 'open') return;
    this.becomeDraining();
    if (this.streams.size === 0) this.complete();
  }

  /** A stream that ends before its answer is one that was not answered. */
  override forget(stream: FrameStream): void {
    this.#settleQuestion(stream)?.reject(stream.failure ?? resetError(wire.CANCEL));
    super.forget(stream);
  }

  mayCarryData(stream: FrameStream): boolean {
    return this.#questions.size === 0 || !this.#questions.has(stream.id);
  }

  receiveHeaders(id: number, ends: boolean, list: HeaderList): void {
    const stream = this.streams.get(id);
    if (stream === undefined) this.incoming.strayHeaders(id);
    else if (this.#questions.has(id)) this.#receiveAnswer(stream, ends, list);
    else this.receiveTrailers(stream, ends, list);
  }

  receiveReset(stream: FrameStream, code: number): void {
    if (this.#questions.has(stream.id)) stream.close(resetError(code));
    else stream.receiveReset(code);
  }

  receiveMaxStreams(count: number): void {
    this.#maxStreams = Math.min(this.#ownMaxStreams, count);
  }

  protected override refuseBeyond(lastId: number, cause: HboneError | undefined): void {
    for (const stream of this.streams.values()) if (stream.id > lastId) stream.close(notBegun(cause));
  }

  protected emptied(): void {
    if (this.state().name === 'draining') this.complete();
  }

  #refusal(signal: AbortSignal): HboneError | undefined {
    const state = this.state();
    if (state.name === 'closed') return state.error ?? new HboneError('CLOSED', 'the session is closed');
    if (signal.aborted) return givenUp(signal);
    if (state.name !== 'open') return new HboneError('STREAM_REFUSED', 'the session takes no more streams');
    if (this.streams.size >= this.#maxStreams) return new HboneError('STREAM_REFUSED', 'the session is full');
    if (this.lastId === wire.MAX_INT31) return new HboneError('STREAM_REFUSED', 'the session has no stream ids left');
    return undefined;
  }

  #receiveAnswer(stream: FrameStream, ends: boolean, list: HeaderList): void {
    const head = list.tooLong ? undefined : readAnswer(list.fields);
    if (list.tooLong) stream.abort(wire.ENHANCE_YOUR_CALM, new HboneError('EXCESS', 'the answer has too many headers'));
    else if (head === undefined) breakStream(stream, wire.PROTOCOL_ERROR, 'a malformed answer');
    else if (head.status < 200) this.#receiveInformation(stream, ends);
    else if (head.status !== 200) stream.abort(wire.CANCEL, statusError(head.status));
    else {
      this.incoming.allowance.earn(EARNED_BY_ANSWER);
      this.#settleQuestion(stream)?.resolve({ stream, headers: head.fields });
      if (ends) stream.receiveEnd();
    }
  }

  #receiveInformation(stream: FrameStream, ends: boolean): void {
    this.incoming.allowance.spend(COST_IDLE, 'informational answers');
    if (ends) breakStream(stream, wire.PROTOCOL_ERROR, 'an informational answer that ends the stream');
  }

  /** The answer is there, or will never be. */
  #settleQuestion(stream: FrameStream): Question | undefined {
    const question = this.#questions.get(stream.id);
    if (question === undefined) return undefined;
    this.#questions.delete(stream.id);
    question.signal.removeEventListener('abort', question.onAbort);
    return question;
  }
}

function givenUp(signal: AbortSignal): HboneError {
  const reason: unknown = signal.reason;
  return reason instanceof HboneError ? reason : new HboneError('CLOSED', 'the caller gave up', { cause: reason });
}

function notBegun(cause: HboneError | undefined): HboneError {
  return new HboneError('STREAM_REFUSED', 'the peer leaves, and has not begun with the stream', { cause });
}
