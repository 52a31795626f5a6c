import { createServer, type Server, type Socket } from 'node:net';
import { type EndReason, errnoOf, ZtunnelError } from './errors.ts';
import { serveInbound } from './inbound/connection.ts';
import { type ConnectionRecord, KEEP_ALIVE_MS, OpenConnection } from './open-connection.ts';
import { serveOutbound } from './outbound/connection.ts';
import { OUTBOUND_PORT, type PodSockets } from './ports.ts';
import type { HandedListener } from './protocol.ts';

/** What a pod's proxy tells its worker. */
interface PodProxyDeps {
  readonly sockets: PodSockets;
  opened(): void;
  ended(record: ConnectionRecord): void;
  /** The process has no descriptor left, whatever the budget said. */
  outOfDescriptors(): void;
  /** A fault that is not the connection's. */
  failed(error: unknown): void;
}

interface PodProxyOptions {
  /** Backlog of the listeners. */
  readonly backlog: number;
}

/** Held at most per leg before its peer is no longer read. */
const HIGH_WATER_BYTES = 131_072;

/** One pod in one worker: its listeners here and its open connections. */
export class PodProxy {
  readonly #deps: PodProxyDeps;
  readonly #options: PodProxyOptions;
  readonly #open = new Set<OpenConnection>();
  #servers: Server[] = [];
  #onEmpty: Array<() => void> = [];

  constructor(deps: PodProxyDeps, options: PodProxyOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  get openConnections(): number {
    return this.#open.size;
  }

  get isAccepting(): boolean {
    return this.#servers.length > 0;
  }

  /**
   * Adopts listeners in place of those it has. The descriptors are its own from now on.
   *
   * @throws ZtunnelError LISTEN_FAILED: one of them is no listener; none is served then
   */
  async accept(netnsFd: number, listeners: readonly HandedListener[]): Promise<void> {
    const before = this.#servers;
    const servers = listeners.map(({ port }) => this.#createServer(netnsFd, port));
    this.#servers = servers;
    const results = await Promise.allSettled(
      servers.map((server, at) => listen(server, listeners[at], this.#options.backlog)),
    );
    for (const server of before) server.close();
    const failure = results.find((result) => result.status === 'rejected');
    if (failure === undefined) return;
    if (this.#servers === servers) this.#servers = [];
    for (const server of servers) server.close();
    throw new ZtunnelError('LISTEN_FAILED', `cannot take over a listener: ${failure.reason}`, {
      cause: failure.reason,
    });
  }

  /** Closes the duplicates; what is open lives on, and what comes waits in the kernel for whoever adopts the next ones. */
  stopAccepting(): void {
    for (const server of this.#servers) server.close();
    this.#servers = [];
  }

  /** Resets whatever is open. */
  resetAll(reason: EndReason): void {
    for (const connection of this.#open) connection.reset(reason);
  }

  /** Finds out about resets that nothing else would tell of. */
  probeAll(): void {
    for (const connection of this.#open) connection.probe();
  }

  /** Resolves when no connection is open. */
  async emptied(): Promise<void> {
    if (this.#open.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onEmpty.push(resolve);
    });
  }

  #createServer(netnsFd: number, port: number): Server {
    const server = createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
      highWaterMark: HIGH_WATER_BYTES,
    });
    server.on('connection', (client) => this.#accepted(netnsFd, port, client));
    server.on('error', (error) => {
      if (errnoOf(error) === 'EMFILE' || errnoOf(error) === 'ENFILE') this.#deps.outOfDescriptors();
    });
    return server;
  }

  #accepted(netnsFd: number, port: number, client: Socket): void {
    const connection = new OpenConnection(client, this.#deps.sockets);
    this.#open.add(connection);
    this.#deps.opened();
    void connection.over.then((record) => this.#over(connection, record));
    const deps = { sockets: this.#deps.sockets, netnsFd };
    const served = port === OUTBOUND_PORT ? serveOutbound(connection, deps) : serveInbound(connection, deps);
    served.catch((error: unknown) => {
      this.#deps.failed(error);
      connection.reset('internal');
    });
  }

  #over(connection: OpenConnection, record: ConnectionRecord): void {
    this.#open.delete(connection);
    if (record.ended === 'no-descriptors') this.#deps.outOfDescriptors();
    this.#deps.ended(record);
    if (this.#open.size > 0) return;
    for (const resolve of this.#onEmpty.splice(0)) resolve();
  }
}

async function listen(server: Server, listener: HandedListener | undefined, backlog: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // Given as an option, the backlog of a descriptor would be ignored, and listen(2) called with Node's own 511.
    server.listen({ fd: listener?.fd }, backlog, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
