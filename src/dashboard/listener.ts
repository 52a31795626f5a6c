import { createServer, type Server } from 'node:http';
import { type Endpoint, formatEndpoint } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import type { Handler } from './dashboard.ts';
import { PAGE_HEADERS } from './pages.ts';

export interface DashboardListenerDeps {
  readonly handle: Handler;
  readonly log: Log;
}

export interface DashboardListenerOptions {
  /** Port 0: any that is free. */
  readonly address: Endpoint;
  /** Default: 5,000 ms. */
  readonly retryMs?: number;
}

/** Connections at a time, the live ones among them. */
const MOST_CONNECTIONS = 128;
/** Whoever takes nothing of an answer for so long is cut off. A live connection has something every two seconds. */
const SILENCE_MS = 60_000;

type State =
  | { readonly kind: 'closed' }
  | { readonly kind: 'opening'; readonly server: Server }
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'listening'; readonly server: Server };

/** A listener of the dashboard's own. An address that is taken is tried again, and nothing else waits for it. */
export class DashboardListener {
  readonly #deps: DashboardListenerDeps;
  readonly #options: DashboardListenerOptions;
  #state: State = { kind: 'closed' };

  constructor(deps: DashboardListenerDeps, options: DashboardListenerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Where it listens; undefined: it does not, at present. */
  get port(): number | undefined {
    const address = this.#state.kind === 'listening' ? this.#state.server.address() : null;
    return typeof address === 'object' ? address?.port : undefined;
  }

  /** Resolves when the first attempt has ended, well or not. */
  open(): Promise<void> {
    const { address } = this.#options;
    const tried = Promise.withResolvers<void>();
    const server = createServer({
      headersTimeout: 10_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 15_000,
      connectionsCheckingInterval: 1_000,
    });
    server.maxConnections = MOST_CONNECTIONS;
    server.timeout = SILENCE_MS;
    server.on('request', (request, response) => {
      // Nothing that is asked here has a body.
      request.resume();
      this.#answer(request, response);
    });
    server.on('error', (error) => {
      this.#failed(server, error);
      tried.resolve();
    });
    this.#setState({ kind: 'opening', server });
    server.listen({ host: address.address, port: address.port }, () => {
      if (this.#state.kind !== 'opening' || this.#state.server !== server) return;
      this.#setState({ kind: 'listening', server });
      this.#deps.log.info({ address: formatEndpoint({ ...address, port: this.port ?? 0 }) }, 'dashboard ready');
      tried.resolve();
    });
    return tried.promise;
  }

  close(): void {
    this.#setState({ kind: 'closed' });
  }

  /** Never throws: nobody would catch it. */
  #answer(...exchange: Parameters<Handler>): void {
    const [, response] = exchange;
    try {
      if (!this.#deps.handle(...exchange)) response.writeHead(404, PAGE_HEADERS).end('culvert: not found\n');
    } catch (error) {
      this.#deps.log.error({ error }, 'a request to the dashboard failed in a way not foreseen');
      response.destroy();
    }
  }

  #failed(server: Server, error: Error): void {
    if (this.#state.kind !== 'opening' || this.#state.server !== server) return;
    const { address, retryMs = 5_000 } = this.#options;
    this.#deps.log.error({ error, address: formatEndpoint(address) }, 'the dashboard cannot listen; trying again');
    this.#setState({ kind: 'waiting', timer: setTimeout(() => void this.open(), retryMs).unref() });
  }

  #setState(state: State): void {
    const left = this.#state;
    this.#state = state;
    if (left.kind === 'waiting') clearTimeout(left.timer);
    if (left.kind === 'listening' || (left.kind === 'opening' && state.kind !== 'listening')) {
      left.server.close();
      left.server.closeAllConnections();
    }
  }
}
