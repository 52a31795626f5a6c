import { closeSync } from 'node:fs';
import * as addon from '../../native/addon/index.js';
import type { NetnsCookie } from '../mesh/index.ts';
import { readU64 } from './bytes.ts';
import { SO_NETNS_COOKIE, SOL_SOCKET } from './constants.ts';

/**
 * Cookie of a network namespace (SO_NETNS_COOKIE, kernel 5.14).
 *
 * @param netnsFd open descriptor of the namespace; undefined: the process's own
 * @throws NativeError EINVAL when the descriptor is not a network namespace
 */
export function netnsCookie(netnsFd?: number): NetnsCookie {
  const fd = addon.socketOpen(netnsFd === undefined ? { family: 4 } : { family: 4, netnsFd });
  try {
    return readU64(addon.socketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8)) as NetnsCookie;
  } finally {
    closeSync(fd);
  }
}
