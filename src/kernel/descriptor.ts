import type net from 'node:net';
import { KernelError } from './errors.ts';

/** The descriptor of a socket. Node offers it on its handle only. */
export function descriptorOf(socket: net.Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  if (typeof fd !== 'number' || fd < 0) throw new KernelError('NOT_PREPARED', 'the socket is closed already');
  return fd;
}
