import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Address, type Endpoint, parseAddress, parseSpiffeId, type SpiffeId } from '../mesh/index.ts';
import { HboneError } from './errors.ts';
import { threadFrames } from './frames/index.ts';
import { ownCertificate } from './own-certificate.ts';
import type { Certificates } from './ports.ts';
import type { IncomingRequest, ServerSession, SessionOptions } from './session.ts';
import { serverHandshake } from './tls/handshake.ts';

/** Who is at the other end of a session. */
export interface TunnelPeer {
  /** Proven by the certificate. */
  readonly identity: SpiffeId;
  readonly endpoint: Endpoint;
  /** Where it connected to: the pod's address. */
  readonly local: Endpoint;
}

/** A connection that became no session. */
export interface PeerRefusal {
  /** Undefined: it was gone before it could be asked for. */
  readonly endpoint: Endpoint | undefined;
  readonly error: HboneError;
}

export interface TunnelServerDeps {
  readonly certificates: Certificates;
  onRequest(request: IncomingRequest, peer: TunnelPeer): void;
  onRefused(refusal: PeerRefusal): void;
}

export interface TunnelServerOptions {
  /** Who this server is; peers must be of its trust domain. */
  readonly identity: SpiffeId;
  /** From the accept to the end of the handshake, the wait for the own certificate included. Default 10,000 ms. */
  readonly handshakeTimeoutMs?: number;
  /**
   * Sessions at a time. One more takes the place of the one that has had no stream for the longest time; it is refused
   * (EXCESS) when all have streams. Default 10,000.
   */
  readonly maxSessions?: number;
  /** The same for the sessions of one address. Default: a quarter of `maxSessions`. */
  readonly maxSessionsPerAddress?: number;
  /** A session without a stream for this long is ended; at most a twentieth of it later. Default 3,600,000 ms. */
  readonly idleMs?: number;
  /** Handshakes at a time. One more takes the place of the oldest, which then is most likely not a real one. Default 256. */
  readonly maxHandshakes?: number;
  readonly session?: SessionOptions;
}

/** How often idle sessions are looked for, in relation to how long they may be idle. */
const SWEEPS_PER_IDLE = 20;

type ServerState = 'open' | 'draining' | 'closed';

/** A connection whose peer has not proven itself yet. */
interface Handshake {
  readonly socket: Socket;
  readonly endpoint: Endpoint | undefined;
  readonly local: Endpoint | undefined;
  /** Aborted with the HboneError that it ends with. */
  readonly abort: AbortController;
}

/** The HBONE port of one pod: takes accepted TCP connections, gives requests of proven peers. */
export class TunnelServer {
  readonly #deps: TunnelServerDeps;
  readonly #options: TunnelServerOptions;
  readonly #trustDomain: string;
  readonly #handshakeTimeoutMs: number;
  readonly #maxSessions: number;
  readonly #maxSessionsPerAddress: number;
  readonly #idleMs: number;
  readonly #maxHandshakes: number;
  /** Oldest first. */
  readonly #handshakes = new Set<Handshake>();
  /** With the address of their peer. */
  readonly #sessions = new Map<ServerSession, Address>();
  readonly #byAddress = new Map<Address, Set<ServerSession>>();
  #sweep: NodeJS.Timeout | undefined;
  #state: ServerState = 'open';
  #waiting: Array<() => void> = [];

  constructor(deps: TunnelServerDeps, options: TunnelServerOptions) {
    const identity = parseSpiffeId(options.identity);
    if (identity === undefined) throw new HboneError('IDENTITY_UNAVAILABLE', `${options.identity} is no SPIFFE id`);
    this.#deps = deps;
    this.#options = options;
    this.#trustDomain = identity.trustDomain;
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs ?? 10_000;
    this.#maxSessions = options.maxSessions ?? 10_000;
    this.#maxSessionsPerAddress = options.maxSessionsPerAddress ?? Math.ceil(this.#maxSessions / 4);
    this.#idleMs = options.idleMs ?? 3_600_000;
    this.#maxHandshakes = options.maxHandshakes ?? 256;
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  /** Takes an accepted socket of which nothing has been read. Refused ones are told of by `onRefused`. */
  accept(socket: Socket): void {
    const handshake: Handshake = {
      socket,
      endpoint: endpointOf(socket.remoteAddress, socket.remotePort),
      local: endpointOf(socket.localAddress, socket.localPort),
      abort: new AbortController(),
    };
    socket.on('error', ignore);
    const reason = this.#refusal(handshake.endpoint?.address);
    if (reason !== undefined) {
      this.#refuse(handshake, reason);
      return;
    }
    if (this.#handshakes.size >= this.#maxHandshakes) this.#dropOldest();
    this.#handshakes.add(handshake);
    void this.#serve(handshake);
  }

  /** Accepts no more; GOAWAY to every session, whose streams finish. Idempotent. */
  drain(): void {
    if (this.#state !== 'open') return;
    this.#state = 'draining';
    for (const session of [...this.#sessions.keys()]) session.drain();
  }

  /** Ends everything at once. Idempotent. */
  close(): void {
    this.#state = 'closed';
    const error = new HboneError('CLOSED', 'the HBONE port was closed');
    for (const { abort } of [...this.#handshakes]) abort.abort(error);
    for (const session of [...this.#sessions.keys()]) session.close(error);
  }

  /** When there is neither a session nor a handshake. */
  emptied(): Promise<void> {
    if (this.#handshakes.size + this.#sessions.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Why no connection can be taken now; undefined: it can. */
  #refusal(address: Address | undefined): HboneError | undefined {
    if (this.#state !== 'open') return new HboneError('CLOSED', 'the HBONE port takes no more connections');
    const own = address === undefined ? undefined : this.#byAddress.get(address);
    if (own !== undefined && own.size >= this.#maxSessionsPerAddress && longestIdle(own) === undefined)
      return tooMany(`${own.size} sessions of ${address} are in use`);
    if (this.#sessions.size >= this.#maxSessions && longestIdle(this.#sessions.keys()) === undefined)
      return tooMany(`${this.#sessions.size} sessions are in use`);
    return undefined;
  }

  /** Makes room for a session from there, which is not refused: the longest idle ones give way. */
  #makeRoom(address: Address): void {
    const own = this.#byAddress.get(address);
    if (own !== undefined && own.size >= this.#maxSessionsPerAddress) this.#giveWay(longestIdle(own));
    if (this.#sessions.size >= this.#maxSessions) this.#giveWay(longestIdle(this.#sessions.keys()));
  }

  #giveWay(session: ServerSession | undefined): void {
    if (session === undefined) return;
    this.#forget(session);
    session.close(tooMany('the one that was idle the longest gave way'));
  }

  #sweepIdle(): void {
    const now = performance.now();
    for (const session of [...this.#sessions.keys()])
      if (session.idleSince !== undefined && now - session.idleSince >= this.#idleMs) session.drain();
  }

  #dropOldest(): void {
    for (const { abort } of this.#handshakes) {
      abort.abort(
        new HboneError('EXCESS', `more than ${this.#maxHandshakes} handshakes at a time: the oldest gave way`),
      );
      return;
    }
  }

  async #serve(handshake: Handshake): Promise<void> {
    const { socket, endpoint, local, abort } = handshake;
    const deadline = setTimeout(() => abort.abort(this.#late()), this.#handshakeTimeoutMs).unref();
    try {
      const own = ownCertificate(this.#deps.certificates, this.#options.identity);
      const certificate = await unlessAborted(own, abort.signal);
      if (endpoint === undefined || local === undefined)
        throw new HboneError('TLS_FAILED', 'the peer has gone already');
      const secured = await serverHandshake(socket, certificate, this.#trustDomain, { signal: abort.signal });
      const refusal = this.#state === 'draining' ? undefined : this.#refusal(endpoint.address);
      if (refusal !== undefined) throw refusal;
      this.#open(secured.socket, { identity: secured.peer, endpoint, local });
    } catch (error) {
      this.#refuse(handshake, error);
    } finally {
      clearTimeout(deadline);
      this.#handshakes.delete(handshake);
      this.#tellIfEmpty();
    }
  }

  #open(socket: Duplex, peer: TunnelPeer): void {
    this.#makeRoom(peer.endpoint.address);
    const onRequest = (request: IncomingRequest): void => this.#deps.onRequest(request, peer);
    const session = threadFrames.server(socket, onRequest, this.#options.session);
    this.#keep(session, peer.endpoint.address);
    session.onClose(() => {
      this.#forget(session);
      this.#tellIfEmpty();
    });
    // Its handshake was under way when the drain began: what it asks for it may ask elsewhere.
    if (this.#state === 'draining') session.drain();
  }

  #keep(session: ServerSession, address: Address): void {
    this.#sessions.set(session, address);
    const own = this.#byAddress.get(address);
    if (own === undefined) this.#byAddress.set(address, new Set([session]));
    else own.add(session);
    this.#sweep ??= setInterval(() => this.#sweepIdle(), Math.max(1, this.#idleMs / SWEEPS_PER_IDLE)).unref();
  }

  /** Nothing, if it has been forgotten already. */
  #forget(session: ServerSession): void {
    const address = this.#sessions.get(session);
    if (address === undefined) return;
    this.#sessions.delete(session);
    const own = this.#byAddress.get(address);
    own?.delete(session);
    if (own?.size === 0) this.#byAddress.delete(address);
    if (this.#sessions.size > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }

  #refuse({ socket, endpoint }: Handshake, cause: unknown): void {
    socket.destroy();
    const error = cause instanceof HboneError ? cause : new HboneError('TLS_FAILED', `no session: ${cause}`, { cause });
    this.#deps.onRefused({ endpoint, error });
  }

  #late(): HboneError {
    return new HboneError('TLS_FAILED', `TLS handshake failed: it took longer than ${this.#handshakeTimeoutMs} ms`);
  }

  #tellIfEmpty(): void {
    if (this.#handshakes.size + this.#sessions.size > 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const tell of waiting) tell();
  }
}

/** The one without a stream for the longest time; undefined: all have streams. */
function longestIdle(sessions: Iterable<ServerSession>): ServerSession | undefined {
  let longest: ServerSession | undefined;
  let since = Number.POSITIVE_INFINITY;
  for (const session of sessions) {
    const { idleSince } = session;
    if (idleSince === undefined || idleSince >= since) continue;
    since = idleSince;
    longest = session;
  }
  return longest;
}

function tooMany(what: string): HboneError {
  return new HboneError('EXCESS', `the most sessions are open that are held: ${what}`);
}

/** The promise's outcome, or the signal's reason if that comes first. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function endpointOf(address: string | undefined, port: number | undefined): Endpoint | undefined {
  const parsed = address === undefined ? undefined : parseAddress(address.replace(/%.*$/, ''));
  return parsed === undefined || port === undefined ? undefined : { address: parsed, port };
}

function ignore(): void {}
