import { HboneError } from './errors.ts';
import type { Certificates, OpenSocket, TunnelTarget } from './ports.ts';
import type { HeaderFields, SessionOptions } from './session.ts';
import { Tunnel, type TunnelConnection, type TunnelDeps, type TunnelOptions } from './tunnel.ts';

export interface TunnelPoolDeps {
  readonly certificates: Certificates;
  readonly open: OpenSocket;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
}

/** Defaults: wire contract, section 2.8, where it has one. */
export interface TunnelPoolOptions {
  /** A session without a stream for this long is released; at most a tenth of it later. Default 300,000 ms. */
  readonly idleMs?: number;
  /** Keys whose session is kept for further requests; the one used longest ago gives way. Default 500. */
  readonly maxSessions?: number;
  /** TCP to the peer. Default 10,000 ms. */
  readonly connectTimeoutMs?: number;
  /** TLS with the peer. Default 10,000 ms. */
  readonly handshakeTimeoutMs?: number;
  /** From a CONNECT to its answer. Default 20,000 ms. */
  readonly answerTimeoutMs?: number;
  readonly session?: SessionOptions;
}

type PoolState = 'open' | 'draining' | 'closed';

/** How often idle sessions are looked for, in relation to how long they may be idle. */
const SWEEPS_PER_IDLE = 20;

/** A request that the peer has not begun with is tried on one more session. */
const MAX_TRIES = 2;

/**
 * The sessions of one pod to its peers, each shared by all connections with the same source identity, acceptable identities
 * and next hop (wire contract, section 2.8). There is at most one session for a key that takes requests; it is made by the
 * first who asks, for all who ask meanwhile. One that is full leaves the pool for good.
 */
export class TunnelPool {
  readonly #deps: TunnelPoolDeps;
  readonly #idleMs: number;
  readonly #maxSessions: number;
  readonly #tunnelDeps: TunnelDeps;
  readonly #tunnelOptions: TunnelOptions;
  /** Those that take requests, the one used longest ago first. */
  readonly #pooled = new Map<string, Tunnel>();
  /** These, and those that only finish what they have. */
  readonly #all = new Set<Tunnel>();
  #state: PoolState = 'open';
  #sweep: NodeJS.Timeout | undefined;

  constructor(deps: TunnelPoolDeps, options: TunnelPoolOptions = {}) {
    this.#deps = deps;
    this.#idleMs = options.idleMs ?? 300_000;
    this.#maxSessions = options.maxSessions ?? 500;
    this.#tunnelDeps = {
      certificates: deps.certificates,
      open: deps.open,
      left: (tunnel) => this.#left(tunnel),
      closed: (tunnel) => this.#closed(tunnel),
    };
    this.#tunnelOptions = {
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      handshakeTimeoutMs: options.handshakeTimeoutMs ?? 10_000,
      answerTimeoutMs: options.answerTimeoutMs ?? 20_000,
      session: options.session ?? {},
    };
  }

  /** Sessions that are open or being opened, full and draining ones included. */
  get sessions(): number {
    return this.#all.size;
  }

  /**
   * A tunnelled connection to what `authority` names, by way of the target.
   *
   * @param signal gives up: CLOSED. A session that others wait for, or use, is not touched by it
   * @throws HboneError of any code but EXCESS and PEER_TRUST_DOMAIN
   */
  async connect(
    target: TunnelTarget,
    authority: string,
    headers: HeaderFields,
    signal: AbortSignal,
  ): Promise<TunnelConnection> {
    const key = keyOf(target);
    let tries = 0;
    for (;;) {
      if (signal.aborted) throw new HboneError('CLOSED', 'the caller gave up', { cause: signal.reason });
      try {
        const connection = await this.#checkOut(key, target).request(authority, headers, signal);
        if (connection !== undefined) return connection;
      } catch (error) {
        tries += 1;
        if (!(error instanceof HboneError) || error.code !== 'STREAM_REFUSED' || tries === MAX_TRIES) throw error;
      }
    }
  }

  /** Takes no more requests; every session ends when its last stream has. Idempotent. */
  drain(): void {
    if (this.#state !== 'open') return;
    this.#state = 'draining';
    for (const tunnel of [...this.#all]) tunnel.retire();
  }

  /** Ends every session, its streams and the requests that wait, at once. Idempotent. */
  close(): void {
    this.#state = 'closed';
    for (const tunnel of [...this.#all]) tunnel.close(new HboneError('CLOSED', 'the tunnel was closed'));
  }

  #checkOut(key: string, target: TunnelTarget): Tunnel {
    if (this.#state !== 'open') throw new HboneError('CLOSED', 'the pool takes no more connections');
    const known = this.#pooled.get(key);
    const tunnel = known?.isUsable() ? known : new Tunnel(key, target, this.#tunnelDeps, this.#tunnelOptions);
    // Put in again, so that the map is in order of use.
    this.#pooled.delete(key);
    this.#pooled.set(key, tunnel);
    this.#all.add(tunnel);
    if (this.#pooled.size > this.#maxSessions) this.#oldest()?.retire();
    this.#sweep ??= setInterval(() => this.#sweepIdle(), Math.max(1, this.#idleMs / SWEEPS_PER_IDLE)).unref();
    return tunnel;
  }

  #oldest(): Tunnel | undefined {
    for (const tunnel of this.#pooled.values()) return tunnel;
    return undefined;
  }

  #sweepIdle(): void {
    const now = this.#deps.now();
    for (const tunnel of [...this.#pooled.values()]) tunnel.sweep(now, this.#idleMs);
  }

  #left(tunnel: Tunnel): void {
    if (this.#pooled.get(tunnel.key) === tunnel) this.#pooled.delete(tunnel.key);
  }

  #closed(tunnel: Tunnel): void {
    this.#all.delete(tunnel);
    if (this.#all.size > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }
}

/** No identity has a space in it. */
function keyOf({ sourceIdentity, acceptable, nextHop }: TunnelTarget): string {
  return `${nextHop.address} ${nextHop.port} ${sourceIdentity} ${acceptable.join(' ')}`;
}
