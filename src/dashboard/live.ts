import type { ServerResponse } from 'node:http';
import type { Log, Overview } from '../telemetry/index.ts';

export interface LiveDeps {
  /** With its newest sample only. */
  overview(): Overview;
  readonly log: Log;
}

export interface LiveOptions {
  /** Default: 2,000 ms. */
  readonly intervalMs?: number;
  /** Default: 32. */
  readonly maxClients?: number;
  /** What one that does not read may leave lying here before it is cut off. Default: 64 KiB. */
  readonly maxBacklogBytes?: number;
  /** How long something may lie here. Default: 30,000 ms. */
  readonly maxBacklogMs?: number;
}

export interface LiveCounts {
  readonly clients: number;
  /** Since the start. */
  readonly opened: number;
  /** Since the start: did not read. */
  readonly cutOff: number;
  /** Since the start: one too many. */
  readonly turnedAway: number;
}

/**
 * Server-sent events: every 2 s one `overview`, the same text for all. There is a timer only while somebody listens, and
 * whoever does not read is cut off before it costs more than its bound.
 */
export class LiveFeed {
  readonly #deps: LiveDeps;
  readonly #intervalMs: number;
  readonly #maxClients: number;
  readonly #maxBacklogBytes: number;
  readonly #maxBacklogMs: number;
  /** When what lies here began to; undefined: nothing does. */
  readonly #clients = new Map<ServerResponse, number | undefined>();
  #timer: NodeJS.Timeout | undefined;
  #opened = 0;
  #cutOff = 0;
  #turnedAway = 0;

  constructor(deps: LiveDeps, options: LiveOptions = {}) {
    this.#deps = deps;
    this.#intervalMs = options.intervalMs ?? 2_000;
    this.#maxClients = options.maxClients ?? 32;
    this.#maxBacklogBytes = options.maxBacklogBytes ?? 65_536;
    this.#maxBacklogMs = options.maxBacklogMs ?? 30_000;
  }

  /** Answers the request with the stream, or that there are too many. */
  add(response: ServerResponse, headers: Readonly<Record<string, string>>): void {
    if (this.#clients.size >= this.#maxClients) {
      this.#turnedAway += 1;
      response.writeHead(503, { ...headers, 'retry-after': '10', 'content-type': 'application/json' });
      response.end('{"error":"too many dashboards are open; close one"}');
      return;
    }
    const event = this.#event();
    response.writeHead(200, {
      ...headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
    });
    this.#opened += 1;
    this.#clients.set(response, undefined);
    response.once('close', () => this.#remove(response));
    response.on('error', () => this.#remove(response));
    response.write(event);
    this.#timer ??= setInterval(() => this.#tick(), this.#intervalMs).unref();
  }

  counts(): LiveCounts {
    return { clients: this.#clients.size, opened: this.#opened, cutOff: this.#cutOff, turnedAway: this.#turnedAway };
  }

  close(): void {
    for (const client of this.#clients.keys()) client.destroy();
    this.#clients.clear();
    this.#stopTimer();
  }

  #tick(): void {
    const event = this.#nextEvent();
    if (event === undefined) return;
    const now = performance.now();
    for (const [client, since] of this.#clients) {
      if (this.#isStuck(client, since, now)) this.#cut(client);
      else {
        client.write(event);
        this.#clients.set(client, client.writableLength > 0 ? (since ?? now) : undefined);
      }
    }
  }

  #isStuck(client: ServerResponse, since: number | undefined, now: number): boolean {
    if (client.writableLength === 0) return false;
    return client.writableLength > this.#maxBacklogBytes || (since !== undefined && now - since > this.#maxBacklogMs);
  }

  #cut(client: ServerResponse): void {
    this.#cutOff += 1;
    this.#deps.log.warn({ backlog_bytes: client.writableLength }, 'a dashboard does not read and is cut off');
    this.#remove(client);
    client.destroy();
  }

  #remove(client: ServerResponse): void {
    this.#clients.delete(client);
    if (this.#clients.size === 0) this.#stopTimer();
  }

  #stopTimer(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Undefined: there is none this time, and the log says why. */
  #nextEvent(): string | undefined {
    try {
      return this.#event();
    } catch (error) {
      this.#deps.log.error({ error }, 'the dashboard cannot be told of the node');
      return undefined;
    }
  }

  /** @throws whatever the overview does */
  #event(): string {
    return `event: overview\ndata: ${JSON.stringify(this.#deps.overview())}\n\n`;
  }
}
