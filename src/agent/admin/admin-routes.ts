/** What the admin server answers (wire contract, section 9.5). */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { cpuProfile } from './cpu-profile.ts';
import { refusalOf } from './request-guard.ts';

/** Whoever answers a request, or says that it is not for him. */
export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface AdminRoutesDeps {
  /** Pieces of pretty-printed JSON. */
  configDump(): AsyncIterable<string>;
  readonly levels: LevelControl;
  /** Begins a graceful stop. */
  quit(): void;
  readonly log: Log;
}

/** `LogLevels` fits. */
export interface LevelControl {
  text(): string;
  /** @returns what is wrong; undefined: it has been done */
  set(clauses: string): string | undefined;
  reset(): void;
}

/** Dumps that are made at a time: each holds a share of memory and of the main thread's time. */
const MOST_DUMPS = 4;
/** Longest body that is read, and thrown away: nothing here takes one. */
const MOST_BODY_BYTES = 65_536;
const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json';

const LOGGING_HELP = `usage: POST /logging                          tells the level
       POST /logging?level=LEVEL              sets it
       POST /logging?level=SCOPE=LEVEL,...    sets that of a scope
       POST /logging?reset                    as the agent was started
`;

type Route = (request: IncomingMessage, response: ServerResponse, query: URLSearchParams) => void;

export class AdminRoutes {
  readonly #deps: AdminRoutesDeps;
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #mounted: RequestHandler[] = [];
  #dumps = 0;
  #isProfiling = false;

  constructor(deps: AdminRoutesDeps) {
    this.#deps = deps;
    this.#routes = new Map<string, Route>([
      ['/config_dump', (request, response) => this.#configDump(request, response)],
      ['/logging', (request, response, query) => this.#logging(request, response, query)],
      ['/quitquitquit', (request, response) => this.#quit(request, response)],
      ['/debug/pprof/profile', (request, response, query) => this.#profile(request, response, query)],
      ['/healthz', (_request, response) => reply(response, 200, 'ok\n')],
    ]);
  }

  /** Lets another answer what is not answered here, in the order of these calls. */
  mount(handler: RequestHandler): void {
    this.#mounted.push(handler);
  }

  /** Never throws. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    try {
      this.#handle(request, response);
    } catch (error) {
      this.#deps.log.error({ error }, 'a request to the admin port failed in a way not foreseen');
      if (response.headersSent) response.destroy();
      else reply(response, 500, 'this failed; the log of the agent says why\n');
    }
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader('cache-control', 'no-store');
    response.setHeader('x-content-type-options', 'nosniff');
    const refused = refusalOf(request.headers);
    if (refused !== undefined) {
      request.resume();
      reply(response, refused.status, refused.text, { connection: 'close' });
      return;
    }
    const { path, query } = targetOf(request.url ?? '/');
    const route = this.#routes.get(path);
    if (route !== undefined) {
      throwBodyAway(request, response);
      route(request, response, query);
      return;
    }
    if (this.#mounted.some((handler) => handler(request, response))) return;
    throwBodyAway(request, response);
    reply(response, 404, `nothing is here; there is ${[...this.#routes.keys()].join(', ')}\n`);
  }

  #configDump(request: IncomingMessage, response: ServerResponse): void {
    if (!allows(request, response, ['GET', 'HEAD'])) return;
    if (this.#dumps >= MOST_DUMPS) {
      reply(response, 503, `${MOST_DUMPS} dumps are under way; try again\n`);
      return;
    }
    response.setHeader('content-type', JSON_TYPE);
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    const dump = this.#deps.configDump();
    this.#dumps += 1;
    pipeline(Readable.from(dump), response)
      .catch((error: unknown) => {
        if (!response.destroyed) this.#deps.log.error({ error }, 'a config dump failed');
        response.destroy();
      })
      .finally(() => {
        this.#dumps -= 1;
      });
  }

  #logging(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): void {
    if (!allows(request, response, ['POST'], `Invalid HTTP method\n${LOGGING_HELP}`)) return;
    const { levels, log } = this.#deps;
    const wanted = query.get('level');
    const wrong = wanted === null ? undefined : levels.set(wanted);
    if (wrong !== undefined) {
      reply(response, 400, `Invalid level provided: ${wrong}\n${LOGGING_HELP}`);
      return;
    }
    if (wanted === null && query.has('reset')) levels.reset();
    if (wanted !== null || query.has('reset')) log.info({ level: levels.text() }, 'the log level has been set');
    reply(response, 200, `current log level is ${levels.text()}\n`);
  }

  #quit(request: IncomingMessage, response: ServerResponse): void {
    if (!allows(request, response, ['POST'])) return;
    this.#deps.log.info({}, 'told to stop by the admin port');
    // The stop must not overtake the answer.
    response.once('close', () => this.#deps.quit());
    reply(response, 200, 'shutdown now\n', { connection: 'close' });
  }

  #profile(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): void {
    if (!allows(request, response, ['GET'])) return;
    const seconds = wholeNumber(query.get('seconds'), 10, 300);
    const frequency = wholeNumber(query.get('frequency'), 100, 1000);
    if (seconds === undefined || frequency === undefined) {
      reply(response, 400, 'seconds must be from 1 to 300, frequency from 1 to 1000\n');
      return;
    }
    if (this.#isProfiling) {
      reply(response, 503, 'a profile is being made; try again\n');
      return;
    }
    this.#isProfiling = true;
    // Nothing passes until the profile is there, so the server's time-out must wait as long.
    request.socket.setTimeout(0);
    const given = new AbortController();
    response.once('close', () => given.abort());
    cpuProfile({ seconds, frequency, signal: given.signal })
      .then(
        (profile) => {
          if (profile === undefined) return;
          response.setHeader('content-disposition', 'attachment; filename="agent.cpuprofile"');
          reply(response, 200, profile, { 'content-type': JSON_TYPE });
        },
        (error: unknown) => reply(response, 500, `no profile: ${messageOf(error)}\n`),
      )
      .finally(() => {
        this.#isProfiling = false;
      });
  }
}

/** The path and what stands behind the question mark; what is not understood leads nowhere. */
function targetOf(url: string): { readonly path: string; readonly query: URLSearchParams } {
  const [path = '/', ...rest] = url.split('?');
  return { path, query: new URLSearchParams(rest.join('?')) };
}

/** Answers 405 where the method is another. */
function allows(
  { method = '' }: IncomingMessage,
  response: ServerResponse,
  methods: readonly string[],
  text = 'Invalid HTTP method\n',
): boolean {
  if (methods.includes(method)) return true;
  reply(response, 405, text, { allow: methods.join(', ') });
  return false;
}

function throwBodyAway(request: IncomingMessage, response: ServerResponse): void {
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.byteLength;
    if (bytes <= MOST_BODY_BYTES) return;
    response.destroy();
    request.destroy();
  });
}

function wholeNumber(text: string | null, usual: number, most: number): number | undefined {
  if (text === null) return usual;
  const number = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  return number >= 1 && number <= most ? number : undefined;
}

function reply(response: ServerResponse, status: number, text: string, headers: Record<string, string> = {}): void {
  if (response.destroyed) return;
  response.writeHead(status, { 'content-type': TEXT, ...headers });
  response.end(text);
}
