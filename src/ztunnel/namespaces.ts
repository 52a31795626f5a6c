import { closeSync } from 'node:fs';
import type { NetnsCookie } from '../mesh/index.ts';
import { ZtunnelError } from './errors.ts';

interface Namespace {
  readonly fd: number;
  /** Slots of the workers that may open sockets in it. */
  readonly users: Set<number>;
  /** Served, or to be served. */
  isWanted: boolean;
}

/**
 * The main thread's duplicates of pods' network namespaces: workers use their numbers, also long after the accept, when a
 * connection has waited for the mesh or a pool needs another session. One is open while its pod is served, and for as long
 * as a worker has connections of it. A worker that ends closes nothing of it, so the main thread is the one who keeps it.
 */
export class Namespaces {
  readonly #duplicate: (fd: number) => number;
  readonly #open = new Map<NetnsCookie, Namespace>();

  constructor(duplicate: (fd: number) => number) {
    this.#duplicate = duplicate;
  }

  /**
   * The duplicate for a pod that is to be served.
   *
   * @throws ZtunnelError NO_DESCRIPTORS
   */
  want(cookie: NetnsCookie, netnsFd: number): number {
    const known = this.#open.get(cookie);
    if (known !== undefined) {
      known.isWanted = true;
      return known.fd;
    }
    try {
      const fd = this.#duplicate(netnsFd);
      this.#open.set(cookie, { fd, users: new Set(), isWanted: true });
      return fd;
    } catch (error) {
      throw new ZtunnelError('NO_DESCRIPTORS', "cannot duplicate a pod's namespace", { cause: error });
    }
  }

  /** It is not served any more. */
  forget(cookie: NetnsCookie): void {
    const known = this.#open.get(cookie);
    if (known === undefined) return;
    known.isWanted = false;
    this.#closeIfUnused(cookie, known);
  }

  use(cookie: NetnsCookie, slot: number): void {
    this.#open.get(cookie)?.users.add(slot);
  }

  leave(cookie: NetnsCookie, slot: number): void {
    const known = this.#open.get(cookie);
    if (known === undefined) return;
    known.users.delete(slot);
    this.#closeIfUnused(cookie, known);
  }

  /** All of them: there are no workers any more. */
  close(): void {
    for (const { fd } of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }

  #closeIfUnused(cookie: NetnsCookie, { fd, users, isWanted }: Namespace): void {
    if (isWanted || users.size > 0) return;
    this.#open.delete(cookie);
    closeSync(fd);
  }
}
