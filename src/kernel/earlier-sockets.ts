import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { decodeEarlierSocket, EARLIER_SOCKET_BYTES, encodeEarlierSocket } from '../gen/layout.ts';
import { type Address, decodeAddress, familyOf, type NetnsCookie } from '../mesh/index.ts';
import { readU64 } from './bytes.ts';
import { errnoOf } from './errors.ts';
import { listingOf, records, tryPut } from './map-entries.ts';

/** As the addon lists sockets: both ends, then the cookie. */
const socketBytes = 48;
const remoteAt = 20;
const cookieAt = 40;
/** They are asked after so often: they only grow fewer. */
const intervalNs = 10_000_000_000n;
/** Of net/tcp_states.h. */
const TIME_WAIT = 6;
const present = Uint8Array.of(1);

interface Earlier {
  readonly netnsFd: number;
  sockets: readonly Uint8Array[];
}

/**
 * Connections that a pod had open before it was enrolled. They are left open, nobody has decided about them, and they stay
 * in the clear: so they are counted until the last one has ended. Which they are stands in a map, for the next agent.
 */
export class EarlierSockets {
  readonly #map: BpfMap;
  readonly #pods = new Map<NetnsCookie, Earlier>();
  /** What an earlier agent has left, of pods that nobody has resumed yet. */
  readonly #left = new Map<NetnsCookie, Set<bigint>>();
  #askedNs = 0n;

  constructor(map: BpfMap) {
    this.#map = map;
    for (const key of records(listingOf(map).keys, EARLIER_SOCKET_BYTES)) {
      const { netns, socket } = decodeEarlierSocket(key);
      const cookie = netns as NetnsCookie;
      this.#left.set(cookie, (this.#left.get(cookie) ?? new Set()).add(socket));
    }
  }

  /**
   * Before anything of the pod is captured: what is connected now leads past the mesh.
   *
   * @returns how many they are
   */
  note(cookie: NetnsCookie, netnsFd: number, addresses: readonly Address[]): number {
    // An attempt to capture it may have failed half-way.
    this.forget(cookie);
    const sockets = connected(netnsFd).filter((one) => leadsOut(one, addresses));
    for (const socket of sockets) tryPut(this.#map, keyOf(cookie, cookieOf(socket)), present);
    if (sockets.length > 0) this.#pods.set(cookie, { netnsFd, sockets });
    return sockets.length;
  }

  /** Of a pod that an earlier agent has enrolled. */
  resume(cookie: NetnsCookie, netnsFd: number): void {
    const left = this.#left.get(cookie);
    if (left === undefined) return;
    this.#left.delete(cookie);
    const sockets = connected(netnsFd).filter((one) => left.has(cookieOf(one)));
    if (sockets.length > 0) this.#pods.set(cookie, { netnsFd, sockets });
    const open = new Set(sockets.map(cookieOf));
    for (const socket of left) if (!open.has(socket)) addon.mapDelete(this.#map, keyOf(cookie, socket));
  }

  /** Before the namespace's descriptor is closed. */
  forget(cookie: NetnsCookie): void {
    for (const socket of this.#pods.get(cookie)?.sockets.map(cookieOf) ?? this.#left.get(cookie) ?? [])
      addon.mapDelete(this.#map, keyOf(cookie, socket));
    this.#pods.delete(cookie);
    this.#left.delete(cookie);
  }

  /** How many of them are still open, by pod; pods that have none are left out. At most 10 s old. */
  counts(nowNs = process.hrtime.bigint()): ReadonlyMap<NetnsCookie, number> {
    if (nowNs - this.#askedNs >= intervalNs) {
      this.#askedNs = nowNs;
      for (const [cookie, earlier] of this.#pods) this.#look(cookie, earlier);
    }
    return new Map([...this.#pods].map(([cookie, { sockets }]) => [cookie, sockets.length]));
  }

  #look(cookie: NetnsCookie, earlier: Earlier): void {
    const states = ask(earlier.netnsFd, 'find', Buffer.concat(earlier.sockets));
    if (states === undefined) return;
    const isOpen = (_: Uint8Array, index: number): boolean => states[index] !== 0 && states[index] !== TIME_WAIT;
    const open = earlier.sockets.filter(isOpen);
    if (open.length === earlier.sockets.length) return;
    for (const [index, socket] of earlier.sockets.entries())
      if (!isOpen(socket, index)) addon.mapDelete(this.#map, keyOf(cookie, cookieOf(socket)));
    earlier.sockets = open;
    if (open.length === 0) this.#pods.delete(cookie);
  }
}

/** None when the kernel cannot tell, or not at present. */
function connected(netnsFd: number): Uint8Array[] {
  return [...records(ask(netnsFd, 'list', new Uint8Array(0)) ?? new Uint8Array(0), socketBytes)];
}

function ask(netnsFd: number, verb: 'list' | 'find', sockets: Uint8Array): Uint8Array | undefined {
  try {
    return addon.sockDiag(netnsFd, verb, sockets);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}

/** What a pod says to itself is no business of the mesh. */
function leadsOut(socket: Uint8Array, own: readonly Address[]): boolean {
  const remote = decodeAddress(socket.subarray(remoteAt, remoteAt + 16));
  const isLoopback = familyOf(remote) === 4 ? remote.startsWith('127.') : remote === '::1';
  return !isLoopback && !own.includes(remote);
}

function cookieOf(socket: Uint8Array): bigint {
  return readU64(socket, cookieAt);
}

function keyOf(netns: NetnsCookie, socket: bigint): Uint8Array {
  return encodeEarlierSocket({ netns, socket });
}
