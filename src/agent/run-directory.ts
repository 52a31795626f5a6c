import { chmodSync, lstatSync, mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from './errors.ts';
import { takeLock } from './lock.ts';

/** Longest path that fits a unix socket's address, its final zero not counted. */
const MAX_SOCKET_PATH_BYTES = 107;
const WRITABLE_BY_OTHERS = 0o022;

/** What lies in the agent's run directory. */
export interface RunDirectory {
  readonly path: string;
  readonly socket: string;
  readonly lock: string;
  readonly state: string;
}

/** The names, without looking at the disk. */
export function runDirectory(path: string): RunDirectory {
  return {
    path,
    socket: join(path, 'agent.sock'),
    lock: join(path, 'agent.lock'),
    state: join(path, 'state.json'),
  };
}

/** A run directory that this process has to itself. */
export interface ClaimedRunDirectory extends RunDirectory {
  /** Gives it up. Idempotent. */
  release(): void;
  /** Gives it up and deletes what is the agent's own; the directory too, if nothing else is in it. */
  remove(): void;
}

/**
 * Makes the directory if need be and takes its lock. To be done before anything of the kernel's side is touched: an
 * agent that is one too many must learn of it first.
 *
 * @param uid the agent's own user
 * @throws AgentError RUN_UNUSABLE, ALREADY_RUNNING
 */
export function claimRunDirectory(path: string, uid: number): ClaimedRunDirectory {
  const names = makeRunDirectory(path, uid);
  const lock = takeLock(names.lock);
  return {
    ...names,
    release: lock.release,
    remove() {
      for (const own of [names.socket, names.state, `${names.state}.new`, `${names.state}.corrupt`, names.lock])
        rmSync(own, { force: true });
      lock.release();
      try {
        rmdirSync(path);
      } catch {
        // Somebody else's files are in it, or it is a mount point.
      }
    },
  };
}

/**
 * Makes the directory (0700) if there is none, and checks that nobody else can put things into it.
 *
 * @throws AgentError RUN_UNUSABLE
 */
function makeRunDirectory(path: string, uid: number): RunDirectory {
  const names = runDirectory(path);
  if (Buffer.byteLength(names.socket) > MAX_SOCKET_PATH_BYTES) {
    throw new AgentError(
      'RUN_UNUSABLE',
      `${names.socket} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a unix socket allows; choose a shorter --run`,
    );
  }
  try {
    if (mkdirSync(path, { recursive: true, mode: 0o700 }) !== undefined) chmodSync(path, 0o700);
    const found = lstatSync(path);
    if (!found.isDirectory()) throw new AgentError('RUN_UNUSABLE', `${path} is not a directory; choose another --run`);
    if (found.uid !== uid || (found.mode & WRITABLE_BY_OTHERS) !== 0) {
      throw new AgentError(
        'RUN_UNUSABLE',
        `${path} can be written by others than user ${uid}; make it that user's own, mode 0700`,
      );
    }
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    throw new AgentError('RUN_UNUSABLE', `cannot use ${path} as run directory`, { cause });
  }
  return names;
}
