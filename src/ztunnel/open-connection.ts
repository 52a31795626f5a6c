import type { Socket } from 'node:net';
import { newTraceparent, type TunnelConnection, type TunnelStream, traceIdOf } from '../hbone/index.ts';
import { type Endpoint, type FlowId, responseFlagsOf } from '../mesh/index.ts';
import type { Decision } from '../policy/index.ts';
import type { FlowEnd, SeriesTable } from '../telemetry/index.ts';
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
import { flowDecisionOf } from './flow-decision.ts';
import type { Subject } from './flow-subjects.ts';
import type { SocketMeasure, SocketMeter } from './ports.ts';
import { type ByteCounts, type Leg, Relay, type RelayRecord } from './relay.ts';
import { resetSocket, SocketLeg } from './socket-leg.ts';

/** Source ports that are tried for one connection. */
const MOST_SOURCES = 64;
/** It is not known yet where it goes. */
const NO_SLOT = -1;
const NO_DRY_RUN: Decision['dryRun'] = [];

type State =
  | { readonly name: 'accepted' }
  /** Something must be known first. */
  | { readonly name: 'routing'; readonly settle: () => void }
  | { readonly name: 'dialling'; readonly server: Socket; readonly settle: (failure: Failure) => void }
  | { readonly name: 'tunnelling'; readonly attempt: AbortController }
  | { readonly name: 'connected'; readonly by: 'socket'; readonly server: Socket }
  | { readonly name: 'connected'; readonly by: 'stream'; readonly server: TunnelStream }
  | { readonly name: 'relaying'; readonly relay: Relay; readonly by: 'socket' | 'stream' }
  | { readonly name: 'over'; readonly reason: EndReason };

/** What is left of a connection. */
export interface ConnectionRecord extends FlowEnd {
  readonly ended: EndReason;
  /** What it was; undefined: nothing at all is known of it. */
  readonly subject: Subject | undefined;
}

/** Whoever ends a connection when policy forbids it. */
export interface Watch {
  /** What policy said last; undefined: it was not asked. */
  readonly decision: Decision | undefined;
  /** The connection is over. Again: nothing happens. */
  leave(): void;
}

export interface OpenConnectionDeps {
  /** Where it is counted. */
  readonly series: SeriesTable;
  readonly meter: SocketMeter;
  /** A leg's socket has been flushed and its end is next. */
  beforeEnd(socket: Socket): void;
  /** It is known where it goes, for the first time. Undefined: nobody wants to know. */
  readonly addressed?: ((subject: Subject, id: FlowId) => void) | undefined;
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

  readonly #client: Client;
  readonly #deps: OpenConnectionDeps;
  readonly #since = performance.now();
  #state: State = { name: 'accepted' };
  #descriptors = 0;
  #guard: Watch | undefined;
  #traceparent: string | undefined;
  #subject: Subject | undefined;
  /** Where it has been counted as open. */
  #slot = NO_SLOT;
  /** Servers, or peers, that were tried. */
  #attempts = 0;
  #connectedAt: number | undefined;
  #measure: SocketMeasure | undefined;
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

  /** What is known of it so far. */
  get subject(): Subject | undefined {
    return this.#subject;
  }

  /** By what its other end shall know it. */
  get traceparent(): string {
    this.#traceparent ??= newTraceparent();
    return this.#traceparent;
  }

  /** By what its peer knows it; undefined, or nothing of the kind: the peer does not say. */
  knownBy(traceparent: string | undefined): void {
    if (traceparent !== undefined && traceIdOf(traceparent) !== undefined) this.#traceparent = traceparent;
  }

  /** As much as is known of it before it is known where it goes: for its record, in case it never is. */
  asks(subject: Subject): void {
    if (this.#slot === NO_SLOT) this.#subject = subject;
  }

  /**
   * It is known where it goes: it is counted from now on. Called again when it is to go elsewhere.
   *
   * @param before why it does not go where it should have gone
   */
  goesTo(subject: Subject, before?: Failure): void {
    if (this.#is('over')) return;
    const { series } = this.#deps;
    const slot = series.slotOf(subject, '-');
    const isFirst = this.#slot === NO_SLOT;
    if (slot !== this.#slot) {
      this.#uncount(before?.reason ?? 'internal');
      series.opened(slot);
    }
    this.#slot = slot;
    this.#subject = subject;
    if (isFirst) this.#deps.addressed?.(subject, traceIdOf(this.traceparent) ?? '');
  }

  /** Policy watches it until its end; undefined: not any more. */
  guardedBy(guard: Watch | undefined): void {
    this.#guard?.leave();
    this.#guard = guard;
    if (this.#is('over')) guard?.leave();
  }

  /** The client learns of a connection that cannot be. */
  refuse({ reason, text }: Failure): void {
    const before = this.#state;
    if (before.name === 'over' || before.name === 'relaying') return;
    this.#set({ name: 'over', reason });
    leave(before, reason);
    this.#client.refuse(reason);
    this.#end(reason, text === reason ? undefined : text, undefined);
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
    this.#attempts += 1;
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
    this.#attempts += 1;
    this.#set({ name: 'tunnelling', attempt });
    try {
      const { stream, peer } = await connect(attempt.signal);
      if (this.#is('tunnelling')) {
        this.#set({ name: 'connected', by: 'stream', server: stream });
        if (this.#subject !== undefined) this.#subject.destinationIdentity = peer;
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

  /** Joins the two legs, until both are closed. */
  async relay(): Promise<void> {
    const state = this.#state;
    if (state.name !== 'connected') return;
    const server: Leg =
      state.by === 'stream'
        ? state.server
        : new SocketLeg(state.server, this.#deps.beforeEnd, {
            gathers: this.#client.isStream,
            leaving: (socket) => {
              this.#measure = this.#deps.meter.measure(socket);
            },
          });
    const relay = new Relay(this.#client.accept(state.by === 'stream'), server, this.#counts());
    this.#set({ name: 'relaying', relay, by: state.by });
    const record = await relay.over;
    this.#set({ name: 'over', reason: record.ended });
    this.#end(record.ended, record.text, record);
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

  #counts(): ByteCounts | undefined {
    return this.#slot === NO_SLOT ? undefined : { cells: this.#deps.series.cells, slot: this.#slot };
  }

  /** @param relayed undefined: it never was */
  #end(ended: EndReason, text: string | undefined, relayed: RelayRecord | undefined): void {
    const guard = this.#guard;
    guard?.leave();
    const stage = relayed !== undefined ? 'connected' : this.#slot === NO_SLOT ? 'early' : 'addressed';
    this.#uncount(ended);
    const decision = guard?.decision;
    const since = this.#since;
    this.#finish({
      id: traceIdOf(this.traceparent) ?? '',
      subject: this.#subject,
      stage,
      ended,
      error: text,
      decision: decision && flowDecisionOf(decision),
      dryRun: decision?.dryRun ?? NO_DRY_RUN,
      attempts: this.#attempts,
      bytesSent: relayed?.bytesFromClient ?? 0,
      bytesReceived: relayed?.bytesFromServer ?? 0,
      durationMs: performance.now() - since,
      connectMs: this.#connectedAt === undefined ? undefined : this.#connectedAt - since,
      firstByteMs: relayed?.firstByteAt === undefined ? undefined : relayed.firstByteAt - since,
      roundTripUs: this.#measure?.roundTripUs,
      retransmits: this.#measure?.retransmits,
      kind: undefined,
    });
  }

  /** Once for each time that it was counted as open. */
  #uncount(ended: EndReason): void {
    if (this.#slot === NO_SLOT || this.#subject === undefined) return;
    this.#deps.series.closed(this.#slot, this.#subject, responseFlagsOf(ended));
    this.#slot = NO_SLOT;
  }

  #is(name: State['name']): boolean {
    return this.#state.name === name;
  }

  #set(state: State): void {
    this.#state = state;
    if (state.name === 'connected') this.#connectedAt = performance.now();
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
