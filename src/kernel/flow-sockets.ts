import * as addon from '../../native/addon/index.js';
import { CONNECTION_BYTES, connectionFields } from '../gen/layout.ts';

/** Descriptor of a network namespace, or the agent's own: the host's. */
export type Namespace = number | 'host';

/** As many bytes as the addon wants for a socket: both ends and the cookie. */
const SOCKET_BYTES = 48;
const REMOTE = 20;
const COOKIE = 40;
/** As many as it tells of one that is measured: state, bytes acknowledged, bytes received. */
const MEASURED_BYTES = 24;
/** Of net/tcp_states.h. The app's socket is gone; what is left only keeps the addresses from being used again. */
const TIME_WAIT = 6;

/** What TCP has counted of a socket; SYN and FIN are among it. */
export interface SocketBytes {
  /** Of net/tcp_states.h; 0: there is no such socket. */
  readonly state: number;
  readonly acked: number;
  readonly received: number;
}

/** Flows' sockets in one network namespace, to be asked after or ended in one go. */
export class SocketList {
  readonly #fd: number | undefined;
  #bytes = new Uint8Array(16 * SOCKET_BYTES);
  #count = 0;

  constructor(namespace: Namespace) {
    this.#fd = namespace === 'host' ? undefined : namespace;
  }

  /**
   * @param key of the flow's entry
   * @param cookie 0: not known
   */
  add(key: Uint8Array, end: 'client' | 'server', cookie: bigint): void {
    const at = this.#count * SOCKET_BYTES;
    if (at === this.#bytes.length) {
      const larger = new Uint8Array(2 * at);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    const client = key.subarray(connectionFields.client.offset, connectionFields.server.offset);
    const server = key.subarray(connectionFields.server.offset, CONNECTION_BYTES);
    this.#bytes.set(end === 'client' ? client : server, at);
    this.#bytes.set(end === 'client' ? server : client, at + REMOTE);
    new DataView(this.#bytes.buffer).setBigUint64(at + COOKIE, cookie, true);
    this.#count += 1;
  }

  /** @returns how many were there */
  destroy(): number {
    return this.#ask('destroy').reduce((sum, one) => sum + one, 0);
  }

  /** Whether each of them, in the order of `add`, still is an app's. */
  areOpen(): boolean[] {
    return Array.from(this.#ask('find'), (state) => state !== 0 && state !== TIME_WAIT);
  }

  /** What each of them has moved, in the order of `add`. */
  measure(): SocketBytes[] {
    const bytes = this.#ask('measure');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: this.#count }, (_, index) => ({
      state: view.getUint8(index * MEASURED_BYTES),
      acked: Number(view.getBigUint64(index * MEASURED_BYTES + 8, true)),
      received: Number(view.getBigUint64(index * MEASURED_BYTES + 16, true)),
    }));
  }

  #ask(verb: 'find' | 'measure' | 'destroy'): Uint8Array {
    return addon.sockDiag(this.#fd, verb, this.#bytes.subarray(0, this.#count * SOCKET_BYTES));
  }
}

/** Lists by namespace. */
export class SocketLists {
  readonly #lists = new Map<Namespace, SocketList>();

  /** @param namespace undefined: it is not known, so the socket is left alone */
  add(namespace: Namespace | undefined, key: Uint8Array, end: 'client' | 'server', cookie: bigint): void {
    if (namespace === undefined) return;
    const list = this.#lists.get(namespace) ?? new SocketList(namespace);
    this.#lists.set(namespace, list);
    list.add(key, end, cookie);
  }

  get namespaces(): Iterable<Namespace> {
    return this.#lists.keys();
  }

  /**
   * @param failures takes what failed: one namespace does not keep the others waiting
   * @returns how many were there
   */
  destroy(failures: Map<Namespace, unknown>): number {
    let destroyed = 0;
    for (const [namespace, list] of this.#lists)
      try {
        destroyed += list.destroy();
      } catch (error) {
        failures.set(namespace, error);
      }
    return destroyed;
  }
}
