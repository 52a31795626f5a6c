import { closeSync, constants, fstatSync, openSync, statfsSync, statSync } from 'node:fs';
import type { NetnsCookie } from '../mesh/index.ts';
import { netnsCookie } from './cookie.ts';
import { errnoOf, KernelError } from './errors.ts';

/** A network namespace, held open. Whoever opened it closes the descriptor. */
export interface OpenNetns {
  readonly netnsFd: number;
  readonly cookie: NetnsCookie;
  readonly inode: bigint;
}

/** NSFS_MAGIC of linux/magic.h */
const nsFileSystem = 0x6e736673;

/** A path that may have been swapped for a FIFO or a terminal must neither hold us up nor become ours. Node adds O_CLOEXEC. */
const openFlags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/**
 * Opens the network namespace that a path leads to. Anything else at that path is not opened: opening a FIFO would wait
 * for its other end, and opening some devices does something.
 *
 * @throws KernelError NOT_A_NETNS when nothing or something else is there, KERNEL_REFUSED when that cannot be told
 */
export function openNetns(path: string): OpenNetns {
  const netnsFd = asking(path, () => {
    if (statfsSync(path).type !== nsFileSystem) throw notNetns(path);
    return openSync(path, openFlags);
  });
  try {
    return asking(path, () => ({
      netnsFd,
      cookie: netnsCookie(netnsFd),
      inode: fstatSync(netnsFd, { bigint: true }).ino,
    }));
  } catch (error) {
    closeSync(netnsFd);
    throw error;
  }
}

/**
 * nsfs inode of a path, or undefined when nothing is there any more. Opens nothing.
 *
 * @throws KernelError KERNEL_REFUSED when that cannot be told
 */
export function inodeAt(path: string): bigint | undefined {
  try {
    return asking(path, () => statSync(path, { bigint: true }).ino);
  } catch (error) {
    if (error instanceof KernelError && error.code === 'NOT_A_NETNS') return undefined;
    throw error;
  }
}

function notNetns(path: string, cause?: unknown): KernelError {
  return new KernelError(
    'NOT_A_NETNS',
    `${path} is not a network namespace: give the path of the pod's, e.g. /run/netns/NAME`,
    cause,
  );
}

/** Tells the errors that say what is at the path from those that say nothing of it (no descriptor, no memory, no right). */
function asking<T>(path: string, ask: () => T): T {
  try {
    return ask();
  } catch (cause) {
    if (cause instanceof KernelError) throw cause;
    const errno = errnoOf(cause);
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || isOfAnotherKind(cause)) throw notNetns(path, cause);
    throw new KernelError(
      'KERNEL_REFUSED',
      `cannot tell what is at ${path} (${errno ?? 'no errno'}): see the cause, and try again`,
      cause,
    );
  }
}

/** What setns says to a namespace that is not a network's. */
function isOfAnotherKind(error: unknown): boolean {
  return errnoOf(error) === 'EINVAL' && error instanceof Error && 'syscall' in error && error.syscall === 'setns';
}
