import type { Endpoint, NetnsCookie } from '../mesh/index.ts';
import type { Subject } from './flow-subjects.ts';

/** A connection that is open, for people. */
export interface ListedConnection {
  /** The pod of this node that it is of. */
  readonly pod: NetnsCookie;
  readonly direction: 'inbound' | 'outbound';
  readonly client: Endpoint;
  /** As the pod's app asked for it; undefined: another's app did. */
  readonly asked: Endpoint | undefined;
  /** Where this agent has dialled. */
  readonly actual: Endpoint;
  readonly isTunnelled: boolean;
}

/** Undefined: its client is not known. */
export function listedConnection(pod: NetnsCookie, subject: Subject): ListedConnection | undefined {
  const { direction, client, asked, server, dialled, path } = subject;
  if (client === undefined) return undefined;
  const isOutbound = direction === 'outbound';
  return {
    ...{ pod, direction, client },
    asked: isOutbound ? asked : undefined,
    actual: isOutbound ? dialled : server,
    isTunnelled: path === 'tunnel',
  };
}

/** Questions for a worker's open connections, from their asking to their answer. */
export class ConnectionLists {
  readonly #waiting = new Map<number, (found: readonly ListedConnection[]) => void>();
  readonly #deadlineMs: number;
  #lastId = 0;

  /** @param deadlineMs how long a worker may take; one that has not answered by then has none to tell of. Default: 2,000 */
  constructor(deadlineMs = 2_000) {
    this.#deadlineMs = deadlineMs;
  }

  async ask(send: (id: number) => void): Promise<readonly ListedConnection[]> {
    this.#lastId += 1;
    const id = this.#lastId;
    const { promise, resolve } = Promise.withResolvers<readonly ListedConnection[]>();
    this.#waiting.set(id, resolve);
    const deadline = setTimeout(resolve, this.#deadlineMs, []);
    send(id);
    const found = await promise;
    clearTimeout(deadline);
    this.#waiting.delete(id);
    return found;
  }

  answered(id: number, found: readonly ListedConnection[]): void {
    this.#waiting.get(id)?.(found);
  }

  /** Nobody will answer any more. */
  end(): void {
    for (const resolve of this.#waiting.values()) resolve([]);
  }
}
