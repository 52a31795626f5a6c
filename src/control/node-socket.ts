import { chmodSync, renameSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { messageOf } from '../mesh/index.ts';
import { ControlError } from './errors.ts';
import { Follower, type FollowerDeps, type FollowerOptions } from './follower.ts';

/** Longest path that fits a unix socket's address, its final zero not counted. */
const MAX_SOCKET_PATH_BYTES = 107;

export interface NodeSocketOptions extends FollowerOptions {
  /** Directory that the socket is made in. */
  readonly directory: string;
  /** Clients served at a time; more are turned away. */
  readonly maxClients: number;
}

/** Path of a node's socket in a control process's run directory. */
export function nodeSocketPath(directory: string, node: string): string {
  return join(directory, `${node}.sock`);
}

/** Its path while it is being made. */
function unfinishedPath(directory: string, node: string): string {
  return join(directory, `.${node}`);
}

/** Whose socket has that name in a run directory, finished or being made; empty: none has. */
export function nodeOfSocket(name: string): string {
  return /^\.(.+)$|^(.+)\.sock$/.exec(name)?.slice(1).join('') ?? '';
}

/** The unix socket of one node. Who can open it is that node's agent, so it is for the owner alone. */
export class NodeSocket {
  readonly #deps: FollowerDeps;
  readonly #options: NodeSocketOptions;
  readonly #path: string;
  readonly #server: Server;
  readonly #followers = new Set<Follower>();
  #closed = false;

  constructor(deps: FollowerDeps, options: NodeSocketOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#path = nodeSocketPath(options.directory, options.node);
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** @throws ControlError SOCKET_UNUSABLE */
  async listen(): Promise<void> {
    const { directory, node } = this.#options;
    // Made under another name and moved into place, so that nobody ever finds it with a wider mode.
    const fresh = unfinishedPath(directory, node);
    if (Buffer.byteLength(this.#path) > MAX_SOCKET_PATH_BYTES) {
      throw new ControlError(
        'SOCKET_UNUSABLE',
        `${this.#path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a unix socket allows; choose a shorter --run`,
      );
    }
    try {
      rmSync(fresh, { force: true });
      const listening = Promise.withResolvers<void>();
      this.#server.once('error', listening.reject);
      // A node that is gone already: the server closes without ever having listened.
      this.#server.once('close', listening.resolve);
      this.#server.listen(fresh, listening.resolve);
      await listening.promise;
      this.#server.off('error', listening.reject);
      if (this.#closed) return;
      chmodSync(fresh, 0o600);
      renameSync(fresh, this.#path);
    } catch (cause) {
      this.#server.close();
      throw new ControlError('SOCKET_UNUSABLE', `cannot listen at ${this.#path}: ${messageOf(cause)}`, { cause });
    }
    this.#server.on('error', (error) => this.#deps.log.error({ error, node }, "a node's socket failed"));
  }

  tell(lines: readonly Buffer[]): void {
    for (const follower of this.#followers) follower.tell(lines);
  }

  beat(): void {
    for (const follower of this.#followers) follower.beat();
  }

  /**
   * Removes the socket. Idempotent.
   *
   * @param how `after-reading`: the agents first read what is on its way to them
   */
  close(how: 'now' | 'after-reading'): void {
    if (this.#closed) return;
    this.#closed = true;
    rmSync(this.#path, { force: true });
    this.#server.close();
    for (const follower of this.#followers) {
      if (how === 'now') follower.close();
      else follower.end();
    }
  }

  #accept(socket: Socket): void {
    const { maxClients, node } = this.#options;
    if (this.#closed || this.#followers.size >= maxClients) {
      this.#deps.log.warn({ node }, `${maxClients} clients of a node are served already; one more is turned away`);
      socket.destroy();
      return;
    }
    const follower = new Follower(socket, this.#deps, this.#options);
    this.#followers.add(follower);
    socket.once('close', () => this.#followers.delete(follower));
  }
}
