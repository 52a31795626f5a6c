import { Socket } from 'node:net';
import type { OpenSocket } from '../../../src/hbone/index.ts';

/** Sockets of this process's own network namespace: peers are on the loopback. */
export const openLoopback: OpenSocket = () => new Socket({ allowHalfOpen: true });
