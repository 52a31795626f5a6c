import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createBrotliCompress, createGzip, createZstdCompress } from 'node:zlib';
import { type Address, formatEndpoint, messageOf } from '../mesh/index.ts';
import { preferred } from './accept.ts';
import type { ExpositionFormat } from './exposition.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** Where to listen. */
export interface ListenAddress {
  /** Undefined: every address of the node. */
  readonly address: Address | undefined;
  readonly port: number;
}

export interface ScrapeServerDeps {
  readonly metrics: Pick<Metrics, 'render'>;
  readonly log: Log;
}

export interface ScrapeServerOptions {
  readonly listen: ListenAddress;
  /** An answer that is not read by then is cut off. Default: 10,000 ms, Prometheus' own patience. */
  readonly answerMs?: number;
  /** Wait before a port that is taken is tried again. Default: 5,000 ms. */
  readonly retryMs?: number;
}

const ANY_ADDRESS = '::' as Address;
const PATHS: ReadonlySet<string> = new Set(['/metrics', '/stats/prometheus']);
const MOST_CONNECTIONS = 64;
/** Pods reach the port too: one that keeps connections must leave room for others. */
const MOST_OF_AN_ADDRESS = 16;
/** Answers under way; each may hold a text of its own. */
const MOST_ANSWERS = 8;
const HTTP_OPTIONS: ServerOptions = {
  headersTimeout: 5000,
  requestTimeout: 5000,
  // Longer than a minute, the usual time between two scrapes.
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 1000,
  maxHeaderSize: 8192,
};
const PIECE_BYTES = 65_536;

const PLAIN_TYPE = 'text/plain';
const OPENMETRICS_TYPE = 'application/openmetrics-text';
const CONTENT_TYPES: Readonly<Record<ExpositionFormat, string>> = {
  plain: `${PLAIN_TYPE}; version=0.0.4; charset=utf-8`,
  openmetrics: `${OPENMETRICS_TYPE}; version=1.0.0; charset=utf-8`,
};

/** The best first: by time, not by size. */
const ENCODINGS = ['zstd', 'gzip', 'br'] as const;
type Encoding = (typeof ENCODINGS)[number];

type Result = 'answered' | 'cut-off' | 'refused' | 'failed';

type State =
  | { readonly kind: 'new' }
  | { readonly kind: 'serving'; readonly server: Server }
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout; readonly reason: string }
  | { readonly kind: 'closed' };

/** Gives the metrics to whoever asks for them over HTTP: GET /metrics, GET /stats/prometheus. */
export class ScrapeServer {
  readonly #deps: ScrapeServerDeps;
  readonly #options: ScrapeServerOptions;
  readonly #results: Record<Result, number> = { answered: 0, 'cut-off': 0, refused: 0, failed: 0 };
  /** Who waits for the same text, waits for the same compressed one. */
  readonly #compressed = new WeakMap<readonly Buffer[], Map<Encoding, Promise<readonly Buffer[]>>>();
  /** Open ones, by the address that they come from. */
  readonly #connections = new Map<string, number>();
  #answers = 0;
  #state: State = { kind: 'new' };

  constructor(deps: ScrapeServerDeps, options: ScrapeServerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Where it listens, and if it does not, why. */
  status(): { readonly at: string; readonly isListening: boolean; readonly reason: string | undefined } {
    const { address, port } = this.#options.listen;
    const state = this.#state;
    return {
      at: formatEndpoint({ address: address ?? ANY_ADDRESS, port: this.port ?? port }),
      isListening: this.port !== undefined,
      reason: state.kind === 'waiting' ? state.reason : undefined,
    };
  }

  /** Undefined: it does not listen. */
  get port(): number | undefined {
    const bound = this.#state.kind === 'serving' ? this.#state.server.address() : null;
    return bound !== null && typeof bound === 'object' ? bound.port : undefined;
  }

  /** Requests by what became of them. */
  counts(): Readonly<Record<Result, number>> {
    return { ...this.#results };
  }

  /** Resolves when it listens, or could not yet: where the port is taken it goes on trying. */
  start(): Promise<void> {
    const tried = Promise.withResolvers<void>();
    this.#listen(tried.resolve);
    return tried.promise;
  }

  async close(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: 'closed' };
    if (state.kind === 'waiting') clearTimeout(state.timer);
    if (state.kind !== 'serving') return;
    const closed = once(state.server, 'close');
    state.server.close();
    state.server.closeAllConnections();
    await closed;
  }

  #listen(tried: () => void): void {
    if (this.#state.kind === 'closed') return;
    const { address, port } = this.#options.listen;
    const server = createServer(HTTP_OPTIONS, (request, response) => void this.#answer(request, response));
    server.maxConnections = MOST_CONNECTIONS;
    server.on('drop', () => this.#count('refused'));
    server.on('connection', (socket) => this.#admit(socket));
    server.on('error', (error) => {
      this.#retry(server, error);
      tried();
    });
    this.#state = { kind: 'serving', server };
    server.listen({ port, ...(address === undefined ? {} : { host: address }) }, () => {
      this.#deps.log.info({ at: this.status().at }, 'metrics are served');
      tried();
    });
  }

  #admit(socket: Socket): void {
    const { remoteAddress = '' } = socket;
    const open = this.#connections.get(remoteAddress) ?? 0;
    if (open >= MOST_OF_AN_ADDRESS) {
      this.#count('refused');
      socket.destroy();
      return;
    }
    this.#connections.set(remoteAddress, open + 1);
    socket.once('close', () => {
      const left = (this.#connections.get(remoteAddress) ?? 1) - 1;
      if (left > 0) this.#connections.set(remoteAddress, left);
      else this.#connections.delete(remoteAddress);
    });
  }

  #retry(server: Server, error: Error): void {
    server.close();
    if (this.#state.kind === 'closed') return;
    const retryMs = this.#options.retryMs ?? 5000;
    const timer = setTimeout(() => this.#listen(() => undefined), retryMs).unref();
    this.#state = { kind: 'waiting', timer, reason: messageOf(error) };
    this.#deps.log.error({ error, at: this.status().at, retry_ms: retryMs }, 'metrics cannot be served');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split('?', 1)[0] ?? '';
    if (!PATHS.has(path)) return refuse(response, 404, 'not found: see /metrics');
    if (request.method !== 'GET') return refuse(response, 405, 'only GET');
    if (this.#answers >= MOST_ANSWERS) {
      this.#count('refused');
      return refuse(response, 503, 'busy');
    }
    this.#answers += 1;
    let isLate = false;
    const deadline = setTimeout(() => {
      isLate = true;
      response.destroy();
    }, this.#options.answerMs ?? 10_000);
    try {
      await this.#give(request, response);
      this.#count('answered');
    } catch (error) {
      this.#count(isLate ? 'cut-off' : 'failed');
      if (!response.destroyed) this.#deps.log.error({ error }, 'metrics could not be given');
      response.destroy();
    } finally {
      clearTimeout(deadline);
      this.#answers -= 1;
    }
  }

  async #give(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isOpen = preferred(request.headers.accept, [OPENMETRICS_TYPE, PLAIN_TYPE]) === OPENMETRICS_TYPE;
    const format: ExpositionFormat = isOpen ? 'openmetrics' : 'plain';
    const accepted = request.headers['accept-encoding'];
    const encoding = preferred(typeof accepted === 'string' ? accepted : undefined, ENCODINGS);
    const pieces = await this.#deps.metrics.render(format);
    const body = encoding === undefined ? pieces : await this.#compress(pieces, encoding);
    response.writeHead(200, {
      'content-type': CONTENT_TYPES[format],
      'content-length': body.reduce((sum, { length }) => sum + length, 0),
      vary: 'accept, accept-encoding',
      ...(encoding === undefined ? {} : { 'content-encoding': encoding }),
    });
    await pipeline(Readable.from(body, { objectMode: true, highWaterMark: 1 }), response);
  }

  #compress(pieces: readonly Buffer[], encoding: Encoding): Promise<readonly Buffer[]> {
    const known = this.#compressed.get(pieces) ?? new Map<Encoding, Promise<readonly Buffer[]>>();
    this.#compressed.set(pieces, known);
    const made = known.get(encoding) ?? compress(pieces, encoding);
    known.set(encoding, made);
    return made;
  }

  #count(result: Result): void {
    this.#results[result] += 1;
  }
}

function refuse(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': PLAIN_TYPE, connection: 'close' });
  response.end(`${text}\n`);
}

/** Off this thread. */
async function compress(pieces: readonly Buffer[], encoding: Encoding): Promise<readonly Buffer[]> {
  const compressed: Buffer[] = [];
  await pipeline(Readable.from(pieces), compressorOf(encoding), async (chunks) => {
    for await (const chunk of chunks) compressed.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
  });
  return compressed;
}

function compressorOf(encoding: Encoding): NodeJS.ReadWriteStream {
  switch (encoding) {
    case 'zstd':
      return createZstdCompress({ chunkSize: PIECE_BYTES });
    case 'gzip':
      return createGzip({ level: 1, chunkSize: PIECE_BYTES });
    case 'br':
      return createBrotliCompress({ chunkSize: PIECE_BYTES, params: { [constants.BROTLI_PARAM_QUALITY]: 1 } });
  }
}
