import type { Socket } from 'node:net';
import type { TunnelConnection, TunnelStream } from '../hbone/index.ts';
import type { Endpoint, SpiffeId } from '../mesh/index.ts';
import type { Decision } from '../policy/index.ts';
import type { Client } from './client.ts';
import {
  type EndReason,
  errnoOf,
  type Failure,
  failure,
  failureOfDial,
  failureOfTunnel,
  reasonOfLeg,
} from './errors.ts';
import type { Facts } from './facts.ts';
import type { FlowSubject } from './flow-log.ts';
import { type Leg, Relay } from './relay.ts';
import { resetSocket, SocketLeg } from './socket-leg.ts';

/** Source ports that are tried for one connection. */
const MOST_SOURCES = 64;

type State =
  | { readonly name: 'accepted' }
  /** Something must be known first. */
  | { readonly name: 'routing'; readonly settle: () => void }
  | { readonly name: 'dialling'; readonly server: Socket; readonly settle: (failure: Failure) => void }
  | { readonly name: 'tunnelling'; readonly attempt: AbortController }
  | { readonly name: 'connected'; readonly by: 'socket'; readonly server: Socket }
  | { readonly name: 'connected'; readonly by: 'stream'; readonly server: TunnelStream; readonly peer: SpiffeId }
  | { readonly name: 'relaying'; readonly relay: Relay; readonly by: 'socket' | 'stream' }
  | { readonly name: 'over'; readonly reason: EndReason };

export interface Refusal {
  readonly text: string;
  readonly facts: Facts;
}

/** What is left of a connection. */
export interface ConnectionRecord {
  readonly ended: EndReason;
  /** What there is to say of a connection that could not be. */
  readonly refusal: Refusal | undefined;
  /** What there is to say of one that was relayed; undefined: nobody wants to know. */
  readonly facts: Facts | undefined;
  /** What it was; undefined: it is not known, or nobody wants to know. */
  readonly subject: FlowSubject | undefined;
  /** What policy said last; undefined: it was not asked. */
  readonly decision: Decision | undefined;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  readonly durationMs: number;
}

/** Whoever ends a connection when policy forbids it. */
export interface Watch {
  /** What policy said last; undefined: it was not asked. */
  readonly decision: Decision | undefined;
  /** The connection is over. Again: nothing happens. */
  leave(): void;
}

interface OpenConnectionDeps {
  /** A leg's socket has been flushed and its end is next. */
  beforeEnd(socket: Socket): void;
  /** It may hold so many descriptors more, or fewer, from now on. */
  holds(descriptors: number): void;
}

interface DialOptions {
  /** A further socket in place of one whose source port another connection has already. */
  readonly another?: () => Socket | Failure;
  /** How long the server may take. Default: as long as the pod's kernel tries, as it would without the mesh. */
  readonly timeoutMs?: number;
}

/**
 * One connection from its accept to its end: what outbound and inbound have in common. Either end is a socket or a stream
 * of the tunnel.
 *
 * `over` resolves once, when nothing of it is open any more. Whatever ends it from outside (its client, `reset`) also ends
 * what is under way, at once; the step that was waiting then returns, and every further step does nothing.
 */
export class OpenConnection {
  readonly over: Promise<ConnectionRecord>;
  /** What its record shall say that it was. */
  subject: FlowSubject | undefined;

  readonly #client: Client;
  readonly #deps: OpenConnectionDeps;
  readonly #since = performance.now();
  #state: State = { name: 'accepted' };
  #descriptors = 0;
  #guard: Watch | undefined;
  #finish: (record: ConnectionRecord) => void = () => {};

  constructor(client: Client, deps: OpenConnectionDeps) {
    this.#client = client;
    this.#deps = deps;
    this.over = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#set({ name: 'accepted' });
    client.onGone((error) => this.#clientGone(error));
  }

  get state(): State['name'] {
    return this.#state.name;
  }

  /** Policy watches it until its end; undefined: not any more. */
  guardedBy(guard: Watch | undefined): void {
    this.#guard?.leave();
    this.#guard = guard;
    if (this.#is('over')) guard?.leave();
  }

  /**
   * The client learns of a connection that cannot be.
   *
   * @param facts what the log shall say of it; undefined: it is only counted
   */
  refuse({ reason, text }: Failure, facts?: Facts): void {
    const before = this.#state;
    if (before.name === 'over' || before.name === 'relaying') return;
    this.#set({ name: 'over', reason });
    leave(before, reason);
    this.#client.refuse(reason);
    this.#end({ ended: reason, bytesFromClient: 0, bytesFromServer: 0 }, { refusal: facts && { text, facts } });
  }

  /**
   * Waits for an event.
   *
   * @param subscribe is given the listener, and returns what takes it off again
   * @returns what the listener was called with; undefined: not in time, or the connection is over
   */
  async wait<T>(subscribe: (found: (value: T) => void) => () => void, timeoutMs: number): Promise<T | undefined> {
    if (this.#state.name !== 'accepted') return undefined;
    const { promise, resolve } = Promise.withResolvers<T | undefined>();
    this.#set({ name: 'routing', settle: () => resolve(undefined) });
    const timer = setTimeout(resolve, timeoutMs, undefined);
    const unsubscribe = subscribe(resolve);
    const found = await promise;
    unsubscribe();
    clearTimeout(timer);
    if (!this.#is('routing')) return undefined;
    this.#set({ name: 'accepted' });
    return found;
  }

  /** Connects the other leg. On failure the client has been told nothing yet, and another server may be dialled. */
  async dial(server: Socket, destination: Endpoint, options: DialOptions = {}): Promise<Failure | undefined> {
    for (let attempt = 1; this.#is('accepted'); attempt += 1) {
      const failed = await this.#connect(server, destination, options.timeoutMs);
      if (failed !== 'source-taken') return failed;
      const next = attempt < MOST_SOURCES ? options.another?.() : undefined;
      if (next === undefined) return failure('dial-failed', 'no source port is left');
      if ('reason' in next) return next;
      server = next;
    }
    server.destroy();
    return failure('client-gone');
  }

  async #connect(
    server: Socket,
    destination: Endpoint,
    timeoutMs: number | undefined,
  ): Promise<Failure | 'source-taken' | undefined> {
    const { promise, resolve } = Promise.withResolvers<Failure | 'source-taken' | undefined>();
    const onConnect = (): void => resolve(undefined);
    const onError = (error: Error): void =>
      resolve(errnoOf(error) === 'EADDRNOTAVAIL' ? 'source-taken' : failureOfDial(error));
    this.#set({ name: 'dialling', server, settle: resolve });
    server.on('connect', onConnect);
    server.on('error', onError);
    server.connect({ host: destination.address, port: destination.port });
    const timer = timeoutMs === undefined ? undefined : setTimeout(resolve, timeoutMs, TIMED_OUT);
    const failed = await promise;
    clearTimeout(timer);
    server.off('connect', onConnect);
    if (!this.#is('dialling')) return failure('client-gone');
    if (failed === undefined) {
      server.off('error', onError);
      this.#set({ name: 'connected', by: 'socket', server });
    } else {
      server.destroy();
      this.#set({ name: 'accepted' });
    }
    return failed;
  }

  /**
   * Gets a stream of the tunnel for the other leg. On failure the client has been told nothing yet.
   *
   * @param connect is given a signal that aborts when the connection ends meanwhile
   */
  async tunnel(connect: (signal: AbortSignal) => Promise<TunnelConnection>): Promise<Failure | undefined> {
    if (!this.#is('accepted')) return failure('client-gone');
    const attempt = new AbortController();
    this.#set({ name: 'tunnelling', attempt });
    try {
      const { stream, peer } = await connect(attempt.signal);
      if (this.#is('tunnelling')) {
        this.#set({ name: 'connected', by: 'stream', server: stream, peer });
        return undefined;
      }
      stream.reset();
      return failure('client-gone');
    } catch (error) {
      if (!this.#is('tunnelling')) return failure('client-gone');
      this.#set({ name: 'accepted' });
      return failureOfTunnel(error);
    }
  }

  /** The connected other leg, if it is a socket. */
  get server(): Socket | undefined {
    return this.#state.name === 'connected' && this.#state.by === 'socket' ? this.#state.server : undefined;
  }

  /** Who the far end of the tunnel has proven to be, if the other leg is a stream that has just been connected. */
  get peer(): SpiffeId | undefined {
    return this.#state.name === 'connected' && this.#state.by === 'stream' ? this.#state.peer : undefined;
  }

  /**
   * Joins the two legs, until both are closed.
   *
   * @param facts what the log shall say of it at its end; undefined: nothing
   */
  async relay(facts?: Facts): Promise<void> {
    const state = this.#state;
    if (state.name !== 'connected') return;
    const server: Leg =
      state.by === 'stream'
        ? state.server
        : new SocketLeg(state.server, this.#deps.beforeEnd, { gathers: this.#client.isStream });
    const relay = new Relay(this.#client.accept(state.by === 'stream'), server);
    this.#set({ name: 'relaying', relay, by: state.by });
    const record = await relay.over;
    this.#set({ name: 'over', reason: record.ended });
    this.#end(record, { facts });
  }

  /** Ends it from outside, in whatever state it is. */
  reset(reason: EndReason): void {
    if (this.#state.name === 'relaying') this.#state.relay.reset(reason);
    else this.refuse(failure(reason));
  }

  /** Finds out about resets that nothing else would tell of; called now and then. */
  probe(): void {
    if (this.#state.name === 'relaying') this.#state.relay.probe();
    else if (this.#state.name !== 'over') this.#client.probe();
  }

  #clientGone(error: Error): void {
    this.reset(this.#is('accepted') ? reasonOfLeg('client', error) : 'client-gone');
  }

  #end(
    {
      ended,
      bytesFromClient,
      bytesFromServer,
    }: Pick<ConnectionRecord, 'ended' | 'bytesFromClient' | 'bytesFromServer'>,
    { refusal, facts }: { readonly refusal?: Refusal | undefined; readonly facts?: Facts | undefined },
  ): void {
    const guard = this.#guard;
    guard?.leave();
    this.#finish({
      ended,
      refusal,
      facts,
      subject: this.subject,
      decision: guard?.decision,
      bytesFromClient,
      bytesFromServer,
      durationMs: performance.now() - this.#since,
    });
  }

  #is(name: State['name']): boolean {
    return this.#state.name === name;
  }

  #set(state: State): void {
    this.#state = state;
    const descriptors = state.name === 'over' ? 0 : this.#client.descriptors + descriptorsOf(state);
    const more = descriptors - this.#descriptors;
    this.#descriptors = descriptors;
    if (more !== 0) this.#deps.holds(more);
  }
}

const TIMED_OUT: Failure = { reason: 'dial-timed-out', text: 'connection failed: timed out', isWorthAnother: true };

/** What the other leg may hold, in a state: a place is kept for it until it turns out to be a stream. */
function descriptorsOf(state: State): 0 | 1 {
  switch (state.name) {
    case 'tunnelling':
      return 0;
    case 'connected':
    case 'relaying':
      return state.by === 'stream' ? 0 : 1;
    default:
      return 1;
  }
}

/** Ends what was under way in a state. */
function leave(state: State, reason: EndReason): void {
  switch (state.name) {
    case 'routing':
      state.settle();
      break;
    case 'dialling':
      state.server.destroy();
      state.settle(failure(reason));
      break;
    case 'tunnelling':
      state.attempt.abort();
      break;
    case 'connected':
      if (state.by === 'socket') resetSocket(state.server);
      else state.server.reset();
      break;
  }
}
