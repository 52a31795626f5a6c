import type { SocketOption } from '../../native/addon/index.js';
import { u32 } from './bytes.ts';
import {
  IPPROTO_TCP,
  SO_KEEPALIVE,
  SO_LINGER,
  SOL_SOCKET,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
} from './constants.ts';

/** What an app has set on its socket about silence. A number of 0: it has left that to the system. */
export interface Timeouts {
  /** TCP_USER_TIMEOUT, milliseconds. */
  readonly userMs: number;
  /** SO_KEEPALIVE is on. Without it the three below are 0. */
  readonly keepAlive: boolean;
  /** TCP_KEEPIDLE, seconds. */
  readonly idleSeconds: number;
  /** TCP_KEEPINTVL, seconds. */
  readonly intervalSeconds: number;
  /** TCP_KEEPCNT. */
  readonly probes: number;
}

/** Keepalive of the agent's own (wire contract, section 1.2). */
const KEEP_ALIVE_IDLE_SECONDS = 180;
const KEEP_ALIVE_INTERVAL_SECONDS = 180;
const KEEP_ALIVE_PROBES = 9;

export const noDelay: SocketOption = { level: IPPROTO_TCP, option: TCP_NODELAY, value: u32(1) };

/** struct linger: l_onoff, l_linger. Closing resets, so the peer of a killed process is reset. */
export const lingerReset: SocketOption = {
  level: SOL_SOCKET,
  option: SO_LINGER,
  value: Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0),
};
export const lingerNone: SocketOption = { ...lingerReset, value: new Uint8Array(8) };

function keepAlive(idleSeconds: number, intervalSeconds: number, probes: number): SocketOption[] {
  return [
    { level: SOL_SOCKET, option: SO_KEEPALIVE, value: u32(1) },
    { level: IPPROTO_TCP, option: TCP_KEEPIDLE, value: u32(idleSeconds) },
    { level: IPPROTO_TCP, option: TCP_KEEPINTVL, value: u32(intervalSeconds) },
    { level: IPPROTO_TCP, option: TCP_KEEPCNT, value: u32(probes) },
  ];
}

const ownKeepAlive = keepAlive(KEEP_ALIVE_IDLE_SECONDS, KEEP_ALIVE_INTERVAL_SECONDS, KEEP_ALIVE_PROBES);

/** Listeners of relayed connections: every accepted socket inherits these, without a call of its own. */
export const relayListenerOptions: readonly SocketOption[] = [noDelay, lingerReset, ...ownKeepAlive];
/** The listener of tunnels: their sessions have a PING of their own, and end their TLS before they close. */
export const tunnelListenerOptions: readonly SocketOption[] = [noDelay];
/** A leg of a connection whose app has asked for nothing. */
const plainLegOptions: readonly SocketOption[] = [noDelay, ...ownKeepAlive];

/**
 * The time-outs of a leg whose other end is far from the app: what the app has set, and the agent's own where it has set
 * nothing. Everything each time, so that it also takes back what was set before.
 */
export function timeoutOptions(timeouts: Timeouts | undefined): SocketOption[] {
  const user = { level: IPPROTO_TCP, option: TCP_USER_TIMEOUT, value: u32(timeouts?.userMs ?? 0) };
  return [
    ...keepAlive(
      timeouts?.idleSeconds || KEEP_ALIVE_IDLE_SECONDS,
      timeouts?.intervalSeconds || KEEP_ALIVE_INTERVAL_SECONDS,
      timeouts?.probes || KEEP_ALIVE_PROBES,
    ),
    user,
  ];
}

/** All options of a dialled leg, to be set before it connects. */
export function legOptions(timeouts: Timeouts | undefined, resetOnDeath: boolean): readonly SocketOption[] {
  const options = timeouts === undefined ? plainLegOptions : [noDelay, ...timeoutOptions(timeouts)];
  return resetOnDeath ? [...options, lingerReset] : options;
}
