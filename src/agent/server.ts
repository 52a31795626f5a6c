/**
 * The agent's unix socket. Every client is bounded: in number, in the size of a request, in the time to send it and to
 * take the reply. Requests of one client are answered in order; clients do not wait for each other.
 */

import { chmodSync, renameSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { messageOf } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { AgentError } from './errors.ts';
import type { PeerCredentials } from './ports.ts';
import { encodeError, MAX_REQUEST_BYTES, parseRequest, type Request, tooLarge } from './protocol.ts';

const NEWLINE = 0x0a;
const ROOT = 0;

export interface AgentServerDeps {
  readonly credentials: PeerCredentials;
  readonly log: Log;
  /** Carries out a request; resolves with the reply line. */
  answer(request: Request): Promise<string>;
  /** Called once per reply, for the counters. `method`: `unknown` when the request was not understood. */
  counted?(method: Request['method'] | 'unknown', error: AgentError | undefined): void;
}

export interface AgentServerOptions {
  /** Path of the socket. */
  readonly path: string;
  /** The agent's own user, served beside root. */
  readonly uid: number;
  /** Time to send a whole request, and to take the reply. Default: 5,000 ms. */
  readonly requestDeadlineMs?: number;
  /** Clients served at a time. Default: 64. */
  readonly maxClients?: number;
}

export class AgentServer {
  readonly #deps: AgentServerDeps;
  readonly #path: string;
  readonly #uid: number;
  readonly #requestDeadlineMs: number;
  readonly #maxClients: number;
  readonly #clients = new Set<Client>();
  /** Sockets of callers that are turned away and have not closed yet. */
  readonly #refused = new Set<Socket>();
  readonly #server: Server;
  #listening = false;

  constructor(deps: AgentServerDeps, options: AgentServerOptions) {
    this.#deps = deps;
    this.#path = options.path;
    this.#uid = options.uid;
    this.#requestDeadlineMs = options.requestDeadlineMs ?? 5_000;
    this.#maxClients = options.maxClients ?? 64;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /**
   * Begins to listen. A socket that a dead agent left behind is replaced.
   *
   * @throws AgentError ALREADY_RUNNING if somebody answers there, SOCKET_UNUSABLE
   */
  async listen(): Promise<void> {
    if (await answers(this.#path)) {
      throw new AgentError(
        'ALREADY_RUNNING',
        `another agent answers at ${this.#path}; stop it first, or give this one a --run directory of its own`,
      );
    }
    // Made under another name and moved into place, so that nobody ever finds it with a wider mode.
    const fresh = join(dirname(this.#path), 'agent.new');
    try {
      rmSync(fresh, { force: true });
      const listening = Promise.withResolvers<void>();
      this.#server.once('error', listening.reject);
      this.#server.listen(fresh, listening.resolve);
      await listening.promise;
      this.#server.off('error', listening.reject);
      chmodSync(fresh, 0o600);
      renameSync(fresh, this.#path);
      this.#listening = true;
    } catch (cause) {
      this.#server.close();
      throw new AgentError('SOCKET_UNUSABLE', `cannot listen at ${this.#path}: ${messageOf(cause)}`, { cause });
    }
    this.#server.on('error', (error) => this.#deps.log.error({ error }, 'the agent socket failed'));
  }

  /** Removes the socket, takes no further request, and resolves when those under way are answered. */
  async close(): Promise<void> {
    if (!this.#listening) return;
    this.#listening = false;
    rmSync(this.#path, { force: true });
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    for (const client of this.#clients) client.finish();
    for (const socket of this.#refused) socket.destroy();
    await closed.promise;
  }

  #accept(socket: Socket): void {
    const refusal = this.#refusal(socket);
    if (refusal !== undefined) {
      this.#deps.counted?.('unknown', refusal);
      this.#deps.log.warn({ error: refusal }, 'caller turned away');
      this.#turnAway(socket, refusal);
      return;
    }
    const client = new Client(socket, this.#deps, this.#requestDeadlineMs);
    this.#clients.add(client);
    socket.once('close', () => this.#clients.delete(client));
  }

  #refusal(socket: Socket): AgentError | undefined {
    let uid: number;
    try {
      uid = this.#deps.credentials.peerUid(socket);
    } catch (cause) {
      return new AgentError('FORBIDDEN', 'the credentials of the calling process cannot be read', { cause });
    }
    if (uid !== ROOT && uid !== this.#uid) {
      return new AgentError('FORBIDDEN', `user ${uid} may not use this socket; call as root or as user ${this.#uid}`);
    }
    if (this.#clients.size >= this.#maxClients) {
      return new AgentError(
        'TOO_MANY_CLIENTS',
        `${this.#maxClients} clients are being served; try again when some have closed`,
      );
    }
    return undefined;
  }

  #turnAway(socket: Socket, refusal: AgentError): void {
    // Nobody may pile up by being refused: beyond as many as are served, they are cut off without a word.
    if (this.#refused.size >= this.#maxClients) {
      socket.destroy();
      return;
    }
    this.#refused.add(socket);
    socket.once('close', () => this.#refused.delete(socket));
    socket.on('error', () => undefined);
    sayLast(socket, refusal, this.#requestDeadlineMs);
  }
}

/** One caller: reads a request, has it carried out, replies, reads the next. */
class Client {
  readonly #socket: Socket;
  readonly #deps: AgentServerDeps;
  readonly #deadlineMs: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #deadline: NodeJS.Timeout | undefined;
  #phase: 'reading' | 'answering' | 'finished' = 'reading';
  #ended = false;
  #finishing = false;

  constructor(socket: Socket, deps: AgentServerDeps, deadlineMs: number) {
    this.#socket = socket;
    this.#deps = deps;
    this.#deadlineMs = deadlineMs;
    socket.on('error', () => undefined);
    socket.once('close', () => {
      this.#phase = 'finished';
      clearTimeout(this.#deadline);
    });
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.once('end', () => {
      this.#ended = true;
      if (this.#phase === 'reading') this.#endOfInput();
    });
    this.#startDeadline();
    socket.resume();
  }

  /** Closes now, or after the reply that is being made. */
  finish(): void {
    this.#finishing = true;
    if (this.#phase === 'reading') this.#hangUp();
  }

  #take(chunk: Buffer): void {
    if (this.#phase === 'finished') return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#phase === 'reading') this.#next(chunk.includes(NEWLINE));
  }

  #next(hasLine: boolean): void {
    if (!hasLine) {
      if (this.#bytes > MAX_REQUEST_BYTES) this.#refuse(tooLarge());
      return;
    }
    const held = this.#chunks.length === 1 ? (this.#chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#chunks);
    const end = held.indexOf(NEWLINE);
    const rest = held.subarray(end + 1);
    this.#chunks = rest.byteLength === 0 ? [] : [rest];
    this.#bytes = rest.byteLength;
    if (end > MAX_REQUEST_BYTES) this.#refuse(tooLarge());
    else void this.#answer(held.subarray(0, end));
  }

  async #answer(line: Uint8Array): Promise<void> {
    this.#phase = 'answering';
    clearTimeout(this.#deadline);
    this.#socket.pause();
    const reply = await this.#carryOut(line);
    if (this.#phase !== 'answering') return;
    this.#startDeadline();
    this.#socket.write(reply, () => {
      if (this.#phase !== 'answering') return;
      this.#phase = 'reading';
      this.#startDeadline();
      if (this.#finishing) {
        this.#hangUp();
        return;
      }
      if (this.#chunks.some((chunk) => chunk.includes(NEWLINE))) {
        this.#next(true);
        return;
      }
      if (this.#ended) this.#endOfInput();
      else this.#socket.resume();
    });
  }

  /** Never throws. */
  async #carryOut(line: Uint8Array): Promise<string> {
    let method: Request['method'] | 'unknown' = 'unknown';
    try {
      const request = parseRequest(line);
      method = request.method;
      const reply = await this.#deps.answer(request);
      this.#deps.counted?.(method, undefined);
      return reply;
    } catch (error) {
      const known =
        error instanceof AgentError ? error : new AgentError('INTERNAL', messageOf(error), { cause: error });
      if (known.code === 'INTERNAL') this.#deps.log.error({ error, method }, 'a request failed in a way not foreseen');
      this.#deps.counted?.(method, known);
      return encodeError(known);
    }
  }

  #endOfInput(): void {
    if (this.#bytes === 0) this.#hangUp();
    else this.#refuse(new AgentError('INCOMPLETE', 'the connection ended within a request; end each with a newline'));
  }

  #startDeadline(): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => {
      if (this.#phase === 'answering') this.#socket.destroy();
      else this.#refuse(new AgentError('TOO_SLOW', `no whole request came within ${this.#deadlineMs} ms`));
    }, this.#deadlineMs);
    this.#deadline.unref();
  }

  #refuse(error: AgentError): void {
    if (this.#phase === 'finished') return;
    this.#deps.counted?.('unknown', error);
    this.#leave();
    sayLast(this.#socket, error, this.#deadlineMs);
  }

  #hangUp(): void {
    this.#leave();
    this.#socket.end(() => this.#socket.destroy());
  }

  #leave(): void {
    this.#phase = 'finished';
    this.#chunks = [];
    this.#bytes = 0;
    clearTimeout(this.#deadline);
  }
}

/**
 * Replies with an error and closes. What the caller still sends is thrown away for a while, because closing over unread
 * bytes would cost it the reply.
 */
function sayLast(socket: Socket, error: AgentError, deadlineMs: number): void {
  const patience = setTimeout(() => socket.destroy(), deadlineMs);
  patience.unref();
  socket.once('close', () => clearTimeout(patience));
  if (socket.readableEnded) {
    socket.end(encodeError(error), () => socket.destroy());
    return;
  }
  socket.once('end', () => socket.destroySoon());
  socket.end(encodeError(error));
  socket.removeAllListeners('data');
  socket.resume();
}

/** Whether a process listens at a unix socket's path. */
async function answers(path: string): Promise<boolean> {
  const answered = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.once('connect', () => answered.resolve(true));
  // EAGAIN: its backlog is full, so somebody does listen.
  socket.once('error', (error) => answered.resolve('code' in error && error.code === 'EAGAIN'));
  try {
    return await answered.promise;
  } finally {
    socket.destroy();
  }
}
