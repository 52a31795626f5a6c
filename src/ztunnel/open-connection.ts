import type { Socket } from 'node:net';
import type { Endpoint } from '../mesh/index.ts';
import { type EndReason, errnoOf, reasonOfDial, reasonOfLeg } from './errors.ts';
import type { PodSockets } from './ports.ts';
import { probeSocket, Relay, resetSocket } from './relay.ts';

/** Nothing sent for this long: the kernel asks whether the other end still lives. */
export const KEEP_ALIVE_MS = 180_000;
/** Source ports that are tried for one connection. */
const MOST_SOURCES = 64;

type State =
  | { readonly name: 'accepted' }
  | { readonly name: 'dialling'; readonly server: Socket; readonly settle: (reason: EndReason | undefined) => void }
  | { readonly name: 'connected'; readonly server: Socket }
  | { readonly name: 'relaying'; readonly relay: Relay }
  | { readonly name: 'over'; readonly reason: EndReason };

/** What is left of a connection. */
export interface ConnectionRecord {
  readonly ended: EndReason;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  readonly durationMs: number;
}

/**
 * One captured connection from its accept to its end: what outbound and inbound have in common.
 *
 * The accepted socket is paused (pauseOnConnect) until the server answers: what the client sends early waits in the
 * kernel. `over` resolves once, when nothing of it is open any more.
 */
export class OpenConnection {
  readonly client: Socket;
  readonly over: Promise<ConnectionRecord>;

  #state: State = { name: 'accepted' };
  readonly #sockets: Pick<PodSockets, 'setResetOnDeath'>;
  readonly #since = performance.now();
  #finish: (record: ConnectionRecord) => void = () => {};
  readonly #onClientError = (error: Error): void => this.#clientFailed(error);

  constructor(client: Socket, sockets: Pick<PodSockets, 'setResetOnDeath'>) {
    this.client = client;
    this.#sockets = sockets;
    sockets.setResetOnDeath(client, true);
    this.over = new Promise((resolve) => {
      this.#finish = resolve;
    });
    client.on('error', this.#onClientError);
  }

  get state(): State['name'] {
    return this.#state.name;
  }

  /** The client's app learns of a connection that cannot be: by a reset. */
  refuse(reason: EndReason): void {
    if (this.#state.name === 'over') return;
    this.#set({ name: 'over', reason });
    resetSocket(this.client);
    this.#finish({
      ended: reason,
      bytesFromClient: 0,
      bytesFromServer: 0,
      durationMs: performance.now() - this.#since,
    });
  }

  /**
   * Connects the other leg; the kernel's own time-out decides how long that may take, as it would without the mesh.
   *
   * @param another a further socket in place of one whose source port another connection has already
   * @returns whether the server answered; if not, the client has been reset
   */
  async dial(server: Socket, destination: Endpoint, another?: () => Socket | EndReason): Promise<boolean> {
    for (let attempt = 1; this.#state.name === 'accepted'; attempt += 1) {
      const failure = await this.#connect(server, destination);
      if (failure === undefined) return true;
      const next = failure === 'source-taken' && attempt < MOST_SOURCES ? another?.() : failure;
      if (next === undefined || typeof next === 'string') {
        this.refuse(next === undefined || next === 'source-taken' ? 'dial-failed' : next);
        return false;
      }
      server = next;
      this.#set({ name: 'accepted' });
    }
    server.destroy();
    return false;
  }

  async #connect(server: Socket, destination: Endpoint): Promise<EndReason | 'source-taken' | undefined> {
    const { promise, resolve } = Promise.withResolvers<EndReason | 'source-taken' | undefined>();
    const onConnect = (): void => resolve(undefined);
    const onError = (error: Error): void =>
      resolve(errnoOf(error) === 'EADDRNOTAVAIL' ? 'source-taken' : reasonOfDial(error));
    this.#set({ name: 'dialling', server, settle: resolve });
    server.on('connect', onConnect);
    server.on('error', onError);
    server.setNoDelay(true);
    server.setKeepAlive(true, KEEP_ALIVE_MS);
    server.connect({ host: destination.address, port: destination.port });
    const failure = await promise;
    server.off('connect', onConnect);
    if (failure !== undefined) {
      server.destroy();
      return failure;
    }
    server.off('error', onError);
    this.#set({ name: 'connected', server });
    return undefined;
  }

  /** Whether there is a connected server, and it passes a test. */
  isServer(test: (server: Socket) => boolean): boolean {
    return this.#state.name === 'connected' && test(this.#state.server);
  }

  /** Joins the two legs after `dial`, until both are closed. */
  async relay(): Promise<void> {
    if (this.#state.name !== 'connected') return;
    const relay = new Relay(this.client, this.#state.server, (leg) => this.#sockets.setResetOnDeath(leg, false));
    this.client.off('error', this.#onClientError);
    this.#set({ name: 'relaying', relay });
    const record = await relay.over;
    this.#set({ name: 'over', reason: record.ended });
    this.#finish({ ...record, durationMs: performance.now() - this.#since });
  }

  /** Ends it from outside, in whatever state it is. */
  reset(reason: EndReason): void {
    switch (this.#state.name) {
      case 'accepted':
        this.refuse(reason);
        break;
      case 'dialling':
        this.#state.settle(reason);
        break;
      case 'connected':
        resetSocket(this.#state.server);
        this.refuse(reason);
        break;
      case 'relaying':
        this.#state.relay.reset(reason);
        break;
      case 'over':
        break;
    }
  }

  /** Finds out about resets that nothing else would tell of; called now and then. */
  probe(): void {
    if (this.#state.name === 'relaying') this.#state.relay.probe();
    else if (this.#state.name === 'dialling') probeSocket(this.client);
  }

  #clientFailed(error: Error): void {
    if (this.#state.name === 'dialling') this.#state.settle('client-gone');
    else if (this.#state.name !== 'relaying') this.reset(reasonOfLeg('client', error));
  }

  #set(state: State): void {
    this.#state = state;
  }
}
