import { basename, dirname } from 'node:path';
import type { CertificateAuthority, SignedCertificate, SigningRequest } from '../identity/index.ts';
import type { MeshUpdate } from '../mesh/index.ts';
import { KnownMesh } from './known-mesh.ts';
import { Link, type LinkDeps, type LinkOptions, unreachable } from './link.ts';
import { LinkCounts, type LinkTraffic } from './link-counts.ts';
import type { FromControl } from './wire.ts';

export interface ControlClientDeps extends LinkDeps {
  /** Says when the control process's socket may have come back, so that nobody waits longer than need be. */
  readonly directories?: {
    watch(directory: string, changed: (name: string | undefined) => void): { close(): void };
  };
  /** 0 up to 1. Default: Math.random. */
  random?(): number;
}

export interface ControlClientOptions extends LinkOptions {
  /** First and longest pause between attempts to connect, each with 20 % of jitter. Default: 100 and 5,000 ms. */
  readonly firstPauseMs?: number;
  readonly longestPauseMs?: number;
}

/** Who is told of the mesh. */
export interface ControlListener {
  /** The first is complete. After the control process was away: only what has changed meanwhile. */
  updated(update: MeshUpdate): void;
  /** PEM, every root that is to be trusted. Called before the first update. */
  trusted(roots: readonly string[]): void;
}

export type ControlStatus =
  | { readonly connected: true; readonly since: number }
  | { readonly connected: false; readonly since: number; readonly reason: string };

type State =
  | { readonly kind: 'idle' }
  | {
      readonly kind: 'waiting';
      readonly lost: Lost;
      readonly retry: { cancel(): void };
      readonly watch: { close(): void };
    }
  /** Until the control process has said something. */
  | { readonly kind: 'connecting'; readonly lost: Lost; readonly link: Link }
  | { readonly kind: 'connected'; readonly since: number; readonly link: Link }
  | { readonly kind: 'closed'; readonly since: number };

/** Since when there has been no connection, and why. */
interface Lost {
  readonly since: number;
  readonly reason: string;
}

const JITTER = 0.2;
const LOST = 'no connection to the control process';
const HINT = 'is the control process running, and is this its --run/NODE.sock?';

/**
 * The agent's connection to the control process. It comes back by itself; while it is away, what was known stays in force
 * and nobody is told anything.
 */
export class ControlClient implements CertificateAuthority {
  readonly #deps: ControlClientDeps;
  readonly #options: ControlClientOptions;
  readonly #known = new KnownMesh();
  readonly #counts = new LinkCounts();
  readonly #startedAt: number;
  #state: State = { kind: 'idle' };
  #listener: ControlListener | undefined;
  #attempts = 0;
  #roots = '';

  constructor(deps: ControlClientDeps, options: ControlClientOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#startedAt = deps.clock.now();
  }

  /** Connects, and tells what it learns from now on. Once. */
  follow(listener: ControlListener): void {
    if (this.#state.kind !== 'idle') return;
    this.#listener = listener;
    this.#connect({ since: this.#startedAt, reason: 'not connected yet' });
  }

  status(): ControlStatus {
    const state = this.#state;
    switch (state.kind) {
      case 'connected':
        return { connected: true, since: state.since };
      case 'waiting':
      case 'connecting':
        return { connected: false, ...state.lost };
      case 'idle':
        return { connected: false, since: this.#startedAt, reason: 'not connected yet' };
      case 'closed':
        return { connected: false, since: state.since, reason: 'closed' };
    }
  }

  /** What has come over the connections, and how they ended. */
  traffic(): LinkTraffic {
    return this.#counts.traffic();
  }

  /** @throws IdentityError CA_UNREACHABLE at once while there is no connection, and at the deadline; REFUSED, BAD_CSR */
  sign(request: SigningRequest): Promise<SignedCertificate> {
    if (this.#state.kind === 'connected') return this.#state.link.sign(request);
    const status = this.status();
    const reason = status.connected ? '' : status.reason;
    return Promise.reject(unreachable(`the control process at ${this.#options.path} is not there: ${reason}`));
  }

  /** For good. */
  close(): void {
    if (this.#state.kind === 'closed') return;
    const before = this.#state;
    this.#setState({ kind: 'closed', since: this.#deps.clock.now() });
    this.#leave(before, 'the agent stops');
  }

  #connect(lost: Lost): void {
    const link: Link = new Link(this.#deps, this.#options, {
      heard: (message) => this.#heard(link, message),
      counted: (message, bytes) => this.#counts.heard(message, bytes),
      ended: (reason, clean) => this.#lost(link, reason, clean),
    });
    this.#enter({ kind: 'connecting', lost, link });
  }

  #heard(link: Link, message: FromControl): void {
    if (this.#state.kind === 'connecting' && this.#state.link === link) {
      this.#setState({ kind: 'connected', since: this.#deps.clock.now(), link });
      this.#deps.log.info({ path: this.#options.path }, 'connected to the control process');
    }
    if (message.kind === 'update') this.#updated(message.update);
    else if (message.kind === 'roots') this.#trusted(message.roots);
  }

  #updated(update: MeshUpdate): void {
    this.#attempts = 0;
    const news = this.#known.take(update);
    if (news === undefined) return;
    try {
      this.#listener?.updated(news);
    } catch (error) {
      // What part of it has arrived is not known, so all of it must come again.
      this.#known.forget();
      throw error;
    }
  }

  #trusted(roots: readonly string[]): void {
    const text = roots.join('\n');
    if (text === this.#roots) return;
    this.#roots = text;
    this.#listener?.trusted(roots);
  }

  #lost(link: Link, reason: string, clean: boolean): void {
    const state = this.#state;
    if (!('link' in state) || state.link !== link) return;
    const wasConnected = state.kind === 'connected';
    this.#counts.ended(wasConnected ? (clean ? 'Complete' : 'Error') : 'ConnectionError');
    const lost = wasConnected ? { since: this.#deps.clock.now(), reason } : { ...state.lost, reason };
    const pauseMs = this.#pauseMs();
    this.#attempts += 1;
    const fields = { path: this.#options.path, reason, pause_ms: pauseMs };
    if (wasConnected) this.#deps.log.warn(fields, LOST);
    else if (this.#attempts === 1) this.#deps.log.warn({ ...fields, hint: HINT }, LOST);
    else this.#deps.log.debug(fields, LOST);
    this.#enter({
      kind: 'waiting',
      lost,
      retry: this.#deps.clock.after(pauseMs, () => this.#retry()),
      watch: this.#watch(),
    });
  }

  #retry(): void {
    if (this.#state.kind === 'waiting') this.#connect(this.#state.lost);
  }

  #watch(): { close(): void } {
    const { path } = this.#options;
    const watch = this.#deps.directories?.watch(dirname(path), (name) => {
      if (name === undefined || name === basename(path)) this.#retry();
    });
    return watch ?? { close: () => undefined };
  }

  #pauseMs(): number {
    const { firstPauseMs = 100, longestPauseMs = 5_000 } = this.#options;
    const pauseMs = Math.min(firstPauseMs * 2 ** Math.min(this.#attempts, 30), longestPauseMs);
    return Math.round(pauseMs * (1 - JITTER + 2 * JITTER * (this.#deps.random ?? Math.random)()));
  }

  #enter(state: State): void {
    const before = this.#state;
    this.#setState(state);
    this.#leave(before, 'replaced');
  }

  #leave(before: State, why: string): void {
    if (before.kind === 'waiting') {
      before.retry.cancel();
      before.watch.close();
    } else if ('link' in before) before.link.close(why);
  }

  #setState(state: State): void {
    this.#state = state;
  }
}
