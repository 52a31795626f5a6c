import type { IncomingMessage, ServerResponse } from 'node:http';
import { messageOf } from '../mesh/index.ts';
import type { DashboardSource, Log } from '../telemetry/index.ts';
import { answerApi } from './api.ts';
import { Gate } from './gate.ts';
import { type LiveCounts, LiveFeed, type LiveOptions } from './live.ts';
import { PAGE_HEADERS, type Pages } from './pages.ts';

export interface DashboardDeps {
  readonly source: DashboardSource;
  readonly pages: Pages;
  readonly log: Log;
}

export interface DashboardOptions {
  readonly live?: LiveOptions;
}

/** Takes a request if it is for the dashboard, and then answers it. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => boolean;

const JSON_HEADERS: Readonly<Record<string, string>> = {
  ...PAGE_HEADERS,
  'content-type': 'application/json; charset=utf-8',
  'cache-control': 'no-store',
};
const TEXT_HEADERS: Readonly<Record<string, string>> = {
  ...PAGE_HEADERS,
  'content-type': 'text/plain; charset=utf-8',
  'cache-control': 'no-store',
};

/** The pages and what they ask, for any number of listeners. Reads only: there is no request that changes anything. */
export class Dashboard {
  readonly #deps: DashboardDeps;
  readonly #live: LiveFeed;

  constructor(deps: DashboardDeps, options: DashboardOptions = {}) {
    this.#deps = deps;
    this.#live = new LiveFeed({ overview: () => newestOnly(deps.source), log: deps.log }, options.live);
  }

  /**
   * For a listener that may have other things to answer: false if the request is none of the dashboard's.
   *
   * @param token needed for everything; undefined: only processes of this host reach the listener
   */
  handler(token: string | undefined): Handler {
    const gate = new Gate({ token });
    return (request, response) => this.#handle(gate, request, response);
  }

  live(): LiveCounts {
    return this.#live.counts();
  }

  /** Ends what is still open. */
  close(): void {
    this.#live.close();
  }

  #handle(gate: Gate, request: IncomingMessage, response: ServerResponse): boolean {
    if (response.socket === null) {
      // An answer before it has not gone out yet. No browser asks so, and thousands of requests fit into one packet.
      request.socket.destroy();
      return true;
    }
    const url = URL.parse(request.url ?? '/', 'http://localhost');
    if (url === null) return false;
    const admission = gate.admit(request, url.searchParams);
    switch (admission.kind) {
      case 'refused':
        refuse(response, admission.status, admission.text);
        return true;
      case 'welcome':
        url.searchParams.delete('token');
        response.writeHead(303, {
          ...TEXT_HEADERS,
          'set-cookie': admission.cookie,
          // The path alone: `//elsewhere` would lead there.
          location: `${url.pathname.replace(/^\/+/, '/')}${url.search}`,
        });
        response.end();
        return true;
      case 'admitted':
        return this.#answer(url, request, response);
    }
  }

  #answer(url: URL, request: IncomingMessage, response: ServerResponse): boolean {
    const path = url.pathname;
    const isApi = path.startsWith('/api/');
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      if (!isApi && path !== '/') return false;
      refuse(response, 405, 'this can only be read');
      return true;
    }
    if (!isApi) return this.#deps.pages.handle(path, request, response) || this.#withoutPages(path, response);
    this.#answerApi(url, request, response);
    return true;
  }

  #answerApi(url: URL, request: IncomingMessage, response: ServerResponse): void {
    try {
      if (url.pathname === '/api/live' && request.method === 'GET') {
        this.#live.add(response, PAGE_HEADERS);
        return;
      }
      const answer = answerApi(this.#deps.source, url.pathname, url.searchParams);
      const body = JSON.stringify(answer?.body ?? { error: 'there is no such question' });
      response.writeHead(answer?.status ?? 404, JSON_HEADERS).end(request.method === 'HEAD' ? undefined : body);
    } catch (error) {
      this.#deps.log.error({ error, path: url.pathname }, 'the dashboard cannot answer');
      response.writeHead(500, JSON_HEADERS).end(JSON.stringify({ error: messageOf(error) }));
    }
  }

  #withoutPages(path: string, response: ServerResponse): boolean {
    if (path !== '/' || this.#deps.pages.count > 0) return false;
    refuse(response, 404, 'this agent was built without the pages of the dashboard: ./dev setup builds them');
    return true;
  }
}

function refuse(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { ...TEXT_HEADERS, ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}) });
  response.end(`culvert: ${text}\n`);
}

/** An event need not repeat an hour of samples. */
function newestOnly(source: DashboardSource) {
  const overview = source.overview();
  return { ...overview, samples: overview.samples.slice(-1) };
}
