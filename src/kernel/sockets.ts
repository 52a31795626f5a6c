import { randomInt } from 'node:crypto';
import net from 'node:net';
import { join } from 'node:path';
import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { decodePeer, encodePeer, ownedRole, peerFlag, peerKind } from '../gen/layout.ts';
import { type Address, decodeAddress, type Endpoint, encodeAddress, familyOf } from '../mesh/index.ts';
import { readU32, u32 } from './bytes.ts';
import {
  IPPROTO_TCP,
  SO_PEERCRED,
  SOL_SOCKET,
  TCP_INFO,
  TCP_INFO_BYTES,
  TCPI_RTT,
  TCPI_TOTAL_RETRANS,
} from './constants.ts';
import { descriptorOf } from './descriptor.ts';
import { errnoOf } from './errors.ts';
import { pinPaths } from './paths.ts';
import { legOptions, lingerNone, lingerReset, type Timeouts } from './socket-options.ts';
import { FollowedTimeouts, Inquiry, noTimeouts } from './timeouts.ts';

/** What a captured client asked for. */
export interface OriginalDestination {
  readonly endpoint: Endpoint;
  /** Where `endpoint` is a service: the backend that the kernel has chosen by the published weights. Undefined: it has not chosen. */
  readonly picked: Endpoint | undefined;
  /** The client had bound its source address itself: the agent's own leg must leave from the same. */
  readonly boundSource: boolean;
  /** What the app had set on its socket when it connected; undefined: nothing. */
  readonly timeouts: Timeouts | undefined;
}

/** How a dialled leg shall be. */
export interface LegOptions {
  /** What the app at the other leg has set. Default: nothing, so the agent's own keepalive. */
  readonly timeouts?: Timeouts | undefined;
  /** See `setResetOnDeath`. Default true. */
  readonly resetOnDeath?: boolean;
  /**
   * To a peer's HBONE port: sockets of different lanes are led to different workers of the peer's, as far as it has so many.
   * Default: whichever they are led to.
   */
  readonly lane?: number;
}

/** The sockets that a tunnel worker opens in pods, and what it reads from those it accepts. */
export interface PodSockets {
  /** Undefined: no connect hook led this connection here. */
  originalDestination(socket: net.Socket): OriginalDestination | undefined;
  /**
   * An unconnected socket in the pod's namespace that is exempt from capture, with all its options set. `source`: bind this
   * address.
   */
  openOutbound(netnsFd: number, destination: Endpoint, source: Address | undefined, options?: LegOptions): net.Socket;
  /**
   * The same for the app's side of an inbound connection; the app will see `client` as its peer. With port 0 it will see
   * the socket's own port, which no two connections of one client's address to one app have at once.
   */
  openInbound(netnsFd: number, destination: Endpoint, client: Endpoint): net.Socket;
  /**
   * Whether the socket's peer is reset when this process dies with it open (SO_LINGER with no time): an app must not take
   * a killed agent for the end of what it was reading. Sockets accepted on 15001 and 15006 begin with it, and opened ones
   * unless asked otherwise; those accepted on 15008 begin without.
   */
  setResetOnDeath(socket: net.Socket, on: boolean): void;
  /** Whether the app that a connected socket of `openInbound` leads to sees the client, not the agent, as its peer. */
  isSpokenFor(socket: net.Socket): boolean;
  /** What the kernel has measured of a connected socket: smoothed round-trip time, segments sent again. Undefined: it is gone. */
  measure(socket: net.Socket): { readonly roundTripUs: number; readonly retransmits: number } | undefined;
  /**
   * From now on, gives `far` what the app that `app` leads to sets on its own socket (keepalive, user time-out), until one
   * of the two is closed.
   *
   * @param timeouts what `far` was opened with
   */
  followTimeouts(app: net.Socket, far: net.Socket, timeouts: Timeouts | undefined): void;
  /** Asks the kernel what apps have set meanwhile. To be called about four times a second. */
  pollTimeouts(): void;
  close(): void;
}

/** User id of the process at the other end of a unix socket (SO_PEERCRED: pid, uid, gid). */
export function peerUid(socket: net.Socket): number {
  return readU32(addon.socketOption(descriptorOf(socket), SOL_SOCKET, SO_PEERCRED, 12), 4);
}

/** A new descriptor of the same socket, close-on-exec. */
export function duplicate(fd: number): number {
  return addon.duplicate(fd);
}

/** The ports that the agent dials from where it has to choose: Linux's default ephemeral range. */
const dialPorts = { first: 32_768, last: 60_999 } as const;
/** A port can be in use by the pod without being shared; so many in a row are not chance. */
const mostBindAttempts = 64;

/**
 * Where the agent dials an IPv4 app from: anywhere in 127.64.0.0/10, so that one app can be dialled far more often than
 * one address has ports; a loopback address, so that TIME_WAIT ports are used again at once.
 *
 * Where the app is shown the socket's own port: one address for each client's, so that the kernel gives no port to two
 * connections of one client to one app.
 */
function dialSource4(client: Endpoint): Uint8Array {
  const low = client.port === 0 ? 1 + (hashOf(client.address) % 0x3ffffe) : randomInt(1, 0x3fffff);
  return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 64 | (low >> 16), (low >> 8) & 0xff, low & 0xff);
}

/** FNV-1a: not a secret, a client can only collide with another. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

/**
 * A socket to dial an IPv6 app from: at the app's own address, with a port bound before connect.
 *
 * Not ::1: a reset that no socket sends (closed port, data after close) would be routed out of the pod's device to ::1 and
 * never come back, because the kernel routes answers to ::1 strictly by the interface of arrival, which for the pod's own
 * address is the pod's (tcp_v6_send_response; Linux 6.18), and the client would wait for ever.
 * Not a port chosen at connect: that would leave each port in TIME_WAIT for a minute. A bound port with SO_REUSEADDR is
 * used again at once. If a connection has the same port and destination, connect says EADDRNOTAVAIL: take another then.
 */
function open6(options: Omit<addon.SocketOptions, 'family' | 'bind'>, destination: Endpoint): number {
  for (let attempt = 1; ; attempt += 1) {
    const port = randomInt(dialPorts.first, dialPorts.last + 1);
    if (port === destination.port) continue; // It would meet itself.
    try {
      const bind = { address: encodeAddress(destination.address), port };
      return addon.socketOpen({ ...options, family: 6, bind, reusePort: true });
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE' || attempt >= mostBindAttempts) throw error;
    }
  }
}

/**
 * The port says the lane: half of it, modulo the peer's workers, is what tells its kernel which one is first
 * (lookup.bpf.c). Lanes are apart for as many workers as divide this.
 */
const lanes = 24;
/** If the pod uses that many in a row itself, the lane is given up. */
const mostLaneAttempts = 8;

const unspecified4 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0);
const unspecified6 = new Uint8Array(16);

/** A socket of a lane. Two connections do not share such a port: it is not free while one is in TIME_WAIT. */
function openLane(options: Omit<addon.SocketOptions, 'bind'>, lane: number): number {
  const address = options.family === 6 ? unspecified6 : unspecified4;
  const first = Math.ceil(dialPorts.first / 2 / lanes);
  const end = Math.floor(dialPorts.last / 2 / lanes);
  for (let attempt = 1; attempt <= mostLaneAttempts; attempt += 1) {
    const port = 2 * (lanes * randomInt(first, end) + (lane % lanes));
    try {
      return addon.socketOpen({ ...options, bind: { address, port } });
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE') throw error;
    }
  }
  return addon.socketOpen(options);
}

/** Duplex options that Node honours for an adopted descriptor but does not declare. */
interface AdoptOptions extends net.SocketConstructorOpts {
  /** Do not read before somebody asks: the socket is not connected yet. */
  pauseOnCreate: boolean;
}

const noEndpoint = { address: { bytes: new Uint8Array(16) }, port: 0 };

function adopt(fd: number): net.Socket {
  const options: AdoptOptions = { fd, allowHalfOpen: true, pauseOnCreate: true };
  return new net.Socket(options);
}

/**
 * Opens the maps that a worker needs. Every thread has its own.
 *
 * @param bpffs mount point of the BPF file system where the main thread has pinned the maps
 */
export function createPodSockets(bpffs: string, pinName?: string): PodSockets {
  const paths = pinPaths(bpffs, pinName);
  const peers: BpfMap = addon.pinOpen(join(paths.maps, 'peers'), 'map');
  const owned: BpfMap = addon.pinOpen(join(paths.maps, 'owned'), 'map');
  const inquiry = new Inquiry();
  const followed = new FollowedTimeouts(inquiry);
  const tag = { map: owned, value: u32(ownedRole.DIALLER) };
  const key = new Uint8Array(4);
  const keyView = new DataView(key.buffer);
  return {
    originalDestination: (socket) => {
      keyView.setInt32(0, descriptorOf(socket), true);
      const value = addon.mapLookup(peers, key);
      if (value === undefined) return undefined;
      const peer = decodePeer(value);
      if (peer.kind !== peerKind.ORIGINAL) return undefined;
      return {
        endpoint: { address: decodeAddress(peer.endpoint.address.bytes), port: peer.endpoint.port },
        picked:
          (peer.flags & peerFlag.PICKED) === 0
            ? undefined
            : { address: decodeAddress(peer.picked.address.bytes), port: peer.picked.port },
        boundSource: (peer.flags & peerFlag.BOUND_ADDRESS) !== 0,
        timeouts: inquiry.decode(peer.timeouts),
      };
    },
    openOutbound: (netnsFd, destination, source, { timeouts, resetOnDeath = true, lane } = {}) => {
      const set = legOptions(timeouts, resetOnDeath);
      const options = { netnsFd, family: familyOf(destination.address), storage: [tag], options: set };
      if (lane !== undefined) return adopt(openLane(options, lane));
      return adopt(
        addon.socketOpen(
          source === undefined ? options : { ...options, bind: { address: encodeAddress(source), port: 0 } },
        ),
      );
    },
    openInbound: (netnsFd, destination, client) => {
      const value = encodePeer({
        kind: peerKind.SPOKEN,
        flags: 0,
        endpoint: { address: { bytes: encodeAddress(client.address) }, port: client.port },
        picked: noEndpoint,
        timeouts: noTimeouts,
      });
      const options = {
        netnsFd,
        storage: [tag, { map: peers, value }],
        options: legOptions(undefined, true),
      };
      return adopt(
        familyOf(destination.address) === 6
          ? open6(options, destination)
          : addon.socketOpen({ ...options, family: 4, bind: { address: dialSource4(client), port: 0 } }),
      );
    },
    setResetOnDeath: (socket, on) => {
      const { level, option, value } = on ? lingerReset : lingerNone;
      addon.socketOption(descriptorOf(socket), level, option, value);
    },
    isSpokenFor: (socket) => {
      keyView.setInt32(0, descriptorOf(socket), true);
      const value = addon.mapLookup(peers, key);
      return value !== undefined && (decodePeer(value).flags & peerFlag.HANDED) !== 0;
    },
    measure: (socket) => {
      if (socket.destroyed) return undefined;
      const info = addon.socketOption(descriptorOf(socket), IPPROTO_TCP, TCP_INFO, TCP_INFO_BYTES);
      return { roundTripUs: readU32(info, TCPI_RTT), retransmits: readU32(info, TCPI_TOTAL_RETRANS) };
    },
    followTimeouts: (app, far, timeouts) => followed.follow(app, far, timeouts),
    pollTimeouts: () => followed.poll(),
    close: () => {
      inquiry.close();
      addon.close(peers);
      addon.close(owned);
    },
  };
}
