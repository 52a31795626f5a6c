import type { Socket } from 'node:net';
import { type Certificate, formatEndpoint, type SpiffeId } from '../mesh/index.ts';
import { dial } from './dial.ts';
import { HboneError } from './errors.ts';
import { threadFrames } from './frames/index.ts';
import { ownCertificate } from './own-certificate.ts';
import type { Certificates, OpenSocket, TunnelTarget } from './ports.ts';
import type { ClientSession, HeaderFields, SessionOptions } from './session.ts';
import type { TunnelStream } from './stream.ts';
import { alertOf } from './tls/errors.ts';
import { clientHandshake, type SecuredSocket } from './tls/handshake.ts';

/** An answered CONNECT. */
export interface TunnelConnection {
  readonly stream: TunnelStream;
  /** Of the answer. */
  readonly headers: HeaderFields;
  /** Who the peer has proven to be. */
  readonly peer: SpiffeId;
}

export interface TunnelDeps {
  readonly certificates: Certificates;
  readonly open: OpenSocket;
  /** It takes no more requests: its place in the pool is free. Before `closed`. */
  left(tunnel: Tunnel): void;
  /** Nothing of it is left. */
  closed(tunnel: Tunnel): void;
}

export interface TunnelOptions {
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  readonly answerTimeoutMs: number;
  readonly session: SessionOptions;
}

/** A request that waits for the session. */
interface Waiting {
  readonly authority: string;
  readonly headers: HeaderFields;
  readonly signal: AbortSignal;
  readonly settle: (answer: Promise<TunnelConnection> | undefined) => void;
  readonly fail: (error: HboneError) => void;
}

type TunnelState =
  /** `next`: what becomes of it when the session is there and the waiting requests are sent. */
  | {
      readonly name: 'connecting';
      readonly abort: AbortController;
      readonly waiting: Set<Waiting>;
      readonly next: 'open' | 'draining';
    }
  /** `idleSince`: when the sweep first saw it without a stream. */
  | {
      readonly name: 'open';
      readonly session: ClientSession;
      readonly peer: SpiffeId;
      readonly idleSince: number | undefined;
    }
  /** It takes no more requests; those under way finish. */
  | { readonly name: 'draining'; readonly session: ClientSession }
  | { readonly name: 'closed'; readonly error: HboneError | undefined };

/** One pooled session to a peer, from before it exists to after its end. */
export class Tunnel {
  readonly key: string;
  readonly #target: TunnelTarget;
  readonly #deps: TunnelDeps;
  readonly #options: TunnelOptions;
  #state: TunnelState;
  /** Whether the peer ever answered a request: only then has it surely accepted our certificate. */
  #answered = false;

  constructor(key: string, target: TunnelTarget, deps: TunnelDeps, options: TunnelOptions) {
    this.key = key;
    this.#target = target;
    this.#deps = deps;
    this.#options = options;
    const abort = new AbortController();
    this.#state = { name: 'connecting', abort, waiting: new Set(), next: 'open' };
    void this.#establish(abort);
  }

  state(): TunnelState['name'] {
    return this.#state.name;
  }

  /** Whether a request may be tried here. One that is found unusable leaves the pool. */
  isUsable(): boolean {
    if (this.#state.name === 'connecting') return this.#state.next === 'open';
    if (this.#state.name !== 'open') return false;
    const { session } = this.#state;
    if (session.state().name === 'open' && session.openStreams < session.maxStreams) return true;
    this.retire();
    return false;
  }

  /**
   * Sends a CONNECT, as soon as there is a session.
   *
   * @returns undefined: the session had no room left when it was this request's turn; nothing was sent
   * @throws HboneError; STREAM_REFUSED: the peer has done nothing about it
   */
  request(authority: string, headers: HeaderFields, signal: AbortSignal): Promise<TunnelConnection | undefined> {
    if (this.#state.name === 'connecting') return this.#wait(this.#state, authority, headers, signal);
    return this.#send(authority, headers, signal) ?? Promise.resolve(undefined);
  }

  /** Takes no more requests; finishes those under way, the waiting ones included. Idempotent. */
  retire(): void {
    const state = this.#state;
    if (state.name === 'connecting' && state.next === 'open') {
      this.#set({ ...state, next: 'draining' });
    } else if (state.name === 'open') {
      this.#set({ name: 'draining', session: state.session });
      state.session.drain();
    }
  }

  /** Ends it at once. Idempotent. */
  close(error: HboneError): void {
    const state = this.#state;
    if (state.name === 'connecting') {
      this.#fail(error);
      state.abort.abort();
    } else if (state.name !== 'closed') state.session.close(error);
  }

  /** Retires it when it has had no stream for that long. Called now and then. */
  sweep(now: number, idleMs: number): void {
    const state = this.#state;
    if (state.name !== 'open') return;
    if (state.session.openStreams > 0) this.#set({ ...state, idleSince: undefined });
    else if (state.idleSince === undefined) this.#set({ ...state, idleSince: now });
    else if (now - state.idleSince >= idleMs) this.retire();
  }

  async #establish(abort: AbortController): Promise<void> {
    const { nextHop } = this.#target;
    const { connectTimeoutMs, session } = this.#options;
    const { signal } = abort;
    try {
      const certificate = await ownCertificate(this.#deps.certificates, this.#target.sourceIdentity);
      if (signal.aborted) return;
      const socket = this.#open();
      await dial(socket, nextHop, connectTimeoutMs, signal);
      const secured = await this.#handshake(socket, certificate, abort);
      if (signal.aborted) secured.socket.destroy();
      else this.#established(threadFrames.client(secured.socket, session), secured.peer);
    } catch (error) {
      this.#fail(errorOf(error));
    }
  }

  async #handshake(socket: Socket, certificate: Certificate, abort: AbortController): Promise<SecuredSocket> {
    const ms = this.#options.handshakeTimeoutMs;
    const late = (): void =>
      abort.abort(new HboneError('CONNECT_TIMED_OUT', `TLS handshake failed: it took longer than ${ms} ms`));
    const deadline = setTimeout(late, ms).unref();
    try {
      return await clientHandshake(socket, certificate, this.#target.acceptable, { signal: abort.signal });
    } finally {
      clearTimeout(deadline);
    }
  }

  #open(): Socket {
    const { nextHop } = this.#target;
    try {
      return this.#deps.open(nextHop);
    } catch (cause) {
      throw new HboneError('CONNECT_FAILED', `no socket could be opened to ${formatEndpoint(nextHop)}`, { cause });
    }
  }

  #established(session: ClientSession, peer: SpiffeId): void {
    const state = this.#state;
    if (state.name !== 'connecting') return;
    this.#set({ name: 'open', session, peer, idleSince: undefined });
    session.onClose((error) => this.#set({ name: 'closed', error }));
    for (const each of state.waiting) each.settle(this.#send(each.authority, each.headers, each.signal));
    if (state.next === 'draining') this.retire();
  }

  #fail(error: HboneError): void {
    const state = this.#state;
    if (state.name !== 'connecting') return;
    this.#set({ name: 'closed', error });
    for (const each of state.waiting) each.fail(error);
  }

  /** The caller that gives up last ends the attempt: nobody wants the session any more. */
  #wait(
    state: TunnelState & { name: 'connecting' },
    authority: string,
    headers: HeaderFields,
    signal: AbortSignal,
  ): Promise<TunnelConnection | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<TunnelConnection | undefined>();
    const { waiting } = state;
    const giveUp = (): void => {
      waiting.delete(each);
      reject(givenUp(signal));
      if (waiting.size === 0) this.close(new HboneError('CLOSED', 'nobody waits for the session any more'));
    };
    const each: Waiting = {
      authority,
      headers,
      signal,
      settle: (answer) => {
        signal.removeEventListener('abort', giveUp);
        resolve(answer);
      },
      fail: (error) => {
        signal.removeEventListener('abort', giveUp);
        reject(error);
      },
    };
    waiting.add(each);
    signal.addEventListener('abort', giveUp);
    return promise;
  }

  /** Sends a CONNECT at once; undefined: the session is full. The one that fills it is its last. */
  #send(authority: string, headers: HeaderFields, signal: AbortSignal): Promise<TunnelConnection> | undefined {
    const state = this.#state;
    if (state.name === 'draining') return undefined;
    // It broke, or the peer's GOAWAY came, while this request waited for its turn; or the peer allows no stream at all.
    if (state.name !== 'open' || state.session.state().name !== 'open' || state.session.maxStreams === 0)
      return Promise.reject(refused(state.name === 'closed' ? state.error : undefined));
    const { session } = state;
    if (session.openStreams >= session.maxStreams) {
      this.retire();
      return undefined;
    }
    const answer = this.#answer(session, state.peer, authority, headers, signal);
    if (session.openStreams >= session.maxStreams) this.retire();
    else if (state.idleSince !== undefined) this.#set({ ...state, idleSince: undefined });
    return answer;
  }

  async #answer(
    session: ClientSession,
    peer: SpiffeId,
    authority: string,
    headers: HeaderFields,
    signal: AbortSignal,
  ): Promise<TunnelConnection> {
    const { answerTimeoutMs } = this.#options;
    const abort = new AbortController();
    const giveUp = (): void => abort.abort(givenUp(signal));
    const deadline = setTimeout(() => abort.abort(timedOut(authority, answerTimeoutMs)), answerTimeoutMs).unref();
    signal.addEventListener('abort', giveUp);
    try {
      const { stream, headers: answer } = await session.connect(authority, headers, abort.signal);
      this.#answered = true;
      if (abort.signal.aborted) stream.reset();
      abort.signal.throwIfAborted();
      return { stream, headers: answer, peer };
    } catch (error) {
      throw abort.signal.aborted ? abort.signal.reason : this.#refusal(errorOf(error));
    } finally {
      clearTimeout(deadline);
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** What a failed request tells of the session. */
  #refusal(error: HboneError): HboneError {
    // The next try is to be on another session.
    if (error.code === 'STREAM_REFUSED') this.retire();
    if (error.code === 'STATUS') this.#answered = true;
    // A peer that refuses our certificate says so, by an alert or by silence, only after our handshake.
    if (this.#answered || error.code !== 'SESSION_LOST') return error;
    const hint = `${error.message} (the peer never answered a request: it may have refused our certificate)`;
    return alertOf(error) ?? new HboneError('SESSION_LOST', hint, { cause: error });
  }

  #set(state: TunnelState): void {
    const before = this.#state;
    this.#state = state;
    if (takesRequests(before) && !takesRequests(state)) this.#deps.left(this);
    if (state.name === 'closed' && before.name !== 'closed') this.#deps.closed(this);
  }
}

function takesRequests(state: TunnelState): boolean {
  return state.name === 'open' || (state.name === 'connecting' && state.next === 'open');
}

function errorOf(error: unknown): HboneError {
  return error instanceof HboneError
    ? error
    : new HboneError('SESSION_LOST', `the session broke: ${error}`, { cause: error });
}

function givenUp(signal: AbortSignal): HboneError {
  return new HboneError('CLOSED', 'the caller gave up', { cause: signal.reason });
}

function refused(cause: HboneError | undefined): HboneError {
  return new HboneError('STREAM_REFUSED', 'the session ended before the request was sent', { cause });
}

function timedOut(authority: string, ms: number): HboneError {
  return new HboneError('ANSWER_TIMED_OUT', `no answer to CONNECT ${authority} within ${ms} ms`);
}
