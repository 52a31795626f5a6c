import { createServer, type Server } from 'node:http';
import { codeOf, formatEndpoint, messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import type { Clock } from '../ports.ts';
import type { AdminAddress } from './admin-address.ts';
import type { RequestHandler } from './admin-routes.ts';

export interface AdminServerDeps {
  /** Answers every request. */
  handle(...exchange: Parameters<RequestHandler>): void;
  readonly clock: Pick<Clock, 'every'>;
  readonly log: Log;
}

export interface AdminServerOptions {
  readonly at: AdminAddress;
  /** How long after a failure it is tried again. Default: 5,000 ms. */
  readonly retryMs?: number;
  /** Connections at a time. Default: 64. */
  readonly maxConnections?: number;
  /** Longest silence on a connection. Default: 60,000 ms. */
  readonly silenceMs?: number;
}

type State =
  | { readonly kind: 'new' }
  | { readonly kind: 'opening'; readonly server: Server }
  | { readonly kind: 'listening'; readonly server: Server }
  /** The port is taken, say: tried again. */
  | { readonly kind: 'failed'; readonly reason: string; readonly retry: { stop(): void } }
  | { readonly kind: 'closed' };

/** A request must be whole by then. */
const REQUEST_MS = 10_000;
const HEADERS_MS = 5_000;
const IDLE_MS = 5_000;
/** In the answers that are under way when it closes. */
const CLOSE_MS = 1_000;

/** HTTP on a loopback address. What keeps it from listening never keeps the agent from serving pods. */
export class AdminServer {
  readonly #deps: AdminServerDeps;
  readonly #options: AdminServerOptions;
  #state: State = { kind: 'new' };
  #failures = 0;

  constructor(deps: AdminServerDeps, options: AdminServerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  status(): { readonly at: string; readonly isListening: boolean; readonly reason: string | undefined } {
    const state = this.#state;
    return {
      at: formatEndpoint(this.#options.at),
      isListening: state.kind === 'listening',
      reason: state.kind === 'failed' ? state.reason : undefined,
    };
  }

  /** Resolves when it listens, or has failed for the first time. Never rejects. */
  start(): Promise<void> {
    return this.#state.kind === 'new' ? this.#open() : Promise.resolve();
  }

  /** Takes no further request; answers under way have a second. Idempotent. */
  async close(): Promise<void> {
    const before = this.#state;
    this.#setState({ kind: 'closed' });
    if (before.kind === 'failed') before.retry.stop();
    if (!('server' in before)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const deadline = setTimeout(() => before.server.closeAllConnections(), CLOSE_MS);
    before.server.close(() => resolve());
    before.server.closeIdleConnections();
    await promise;
    clearTimeout(deadline);
  }

  async #open(): Promise<void> {
    const { at, maxConnections = 64, silenceMs = 60_000 } = this.#options;
    const server = createServer(
      {
        headersTimeout: HEADERS_MS,
        requestTimeout: REQUEST_MS,
        keepAliveTimeout: IDLE_MS,
        connectionsCheckingInterval: 1_000,
      },
      (request, response) => this.#deps.handle(request, response),
    );
    server.maxConnections = maxConnections;
    server.maxRequestsPerSocket = 1_000;
    server.timeout = silenceMs;
    this.#setState({ kind: 'opening', server });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.on('error', (error) => {
      this.#failed(server, error);
      resolve();
    });
    server.listen({ host: at.address, port: at.port }, () => {
      this.#opened(server);
      resolve();
    });
    await promise;
  }

  #opened(server: Server): void {
    if (this.#state.kind !== 'opening' || this.#state.server !== server) return;
    this.#setState({ kind: 'listening', server });
    this.#deps.log.info({ address: formatEndpoint(this.#options.at) }, 'the admin port is open');
  }

  #failed(server: Server, error: Error): void {
    if (!('server' in this.#state) || this.#state.server !== server) return;
    server.close();
    const address = formatEndpoint(this.#options.at);
    this.#failures += 1;
    const level = this.#failures === 1 ? 'error' : 'debug';
    this.#deps.log[level]({ address, error, reason: codeOf(error) }, 'the admin port cannot be opened; trying again');
    const retry = this.#deps.clock.every(this.#options.retryMs ?? 5_000, () => {
      retry.stop();
      if (this.#state.kind === 'failed') void this.#open();
    });
    this.#setState({ kind: 'failed', reason: messageOf(error), retry });
  }

  #setState(state: State): void {
    this.#state = state;
  }
}
