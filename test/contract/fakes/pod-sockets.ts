import { Socket, type SocketConstructorOpts } from 'node:net';
import * as addon from '../../../native/addon/index.js';
import { type Address, type Endpoint, encodeAddress, familyOf } from '../../../src/mesh/index.ts';
import type { PodSockets, SocketMeter } from '../../../src/ztunnel/index.ts';

export interface FakePodSocketsOptions {
  /** Where the clients of a listener wanted to go, by the listener's port. Clients of any other were led by nobody. */
  readonly destinations: Readonly<Record<number, Endpoint>>;
  /** What the kernel has drawn for the clients of a listener, by the listener's port. */
  readonly picks?: Readonly<Record<number, Endpoint>>;
  /** Listeners whose clients had bound their source address. */
  readonly boundSources?: readonly number[];
}

const SOL_SOCKET = 1;
const SO_LINGER = 13;

/**
 * Pod sockets whose pods are this process's own loopback, with no program of ours in the kernel: a client for whom an
 * inbound connection is made must be on the loopback too, with a port that is free.
 */
export function fakePodSockets(options: FakePodSocketsOptions): PodSockets & SocketMeter {
  return {
    originalDestination: (socket) => {
      const port = socket.localPort ?? 0;
      const endpoint = options.destinations[port];
      if (endpoint === undefined) return undefined;
      const boundSource = options.boundSources?.includes(port) ?? false;
      return { endpoint, picked: options.picks?.[port], boundSource, timeouts: undefined };
    },
    openOutbound: (_netnsFd, destination, source, { resetOnDeath = true } = {}) =>
      open(destination, source === undefined ? undefined : { address: source, port: 0 }, resetOnDeath),
    openInbound: (_netnsFd, destination, client) => open(destination, client, true),
    // Bound to the client's own address, so the app sees it.
    isSpokenFor: () => true,
    setResetOnDeath: (socket, on) => setLinger(descriptorOf(socket), on),
    measure: (socket) => (socket.destroyed ? undefined : { roundTripUs: 1, retransmits: 0 }),
  };
}

function open(
  destination: Endpoint,
  source: { address: Address; port: number } | undefined,
  resetOnDeath: boolean,
): Socket {
  const bind = source === undefined ? {} : { bind: { address: encodeAddress(source.address), port: source.port } };
  const fd = addon.socketOpen({ family: familyOf(destination.address), ...bind });
  setLinger(fd, resetOnDeath);
  // Node honours it for an adopted descriptor, but does not declare it.
  const adopt: SocketConstructorOpts & { pauseOnCreate: boolean } = { fd, allowHalfOpen: true, pauseOnCreate: true };
  return new Socket(adopt);
}

/** struct linger { l_onoff = 1, l_linger = 0 }: closing resets. */
function setLinger(fd: number, on: boolean): void {
  addon.socketOption(fd, SOL_SOCKET, SO_LINGER, Uint8Array.of(on ? 1 : 0, 0, 0, 0, 0, 0, 0, 0));
}

function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  return Number(typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : -1);
}
