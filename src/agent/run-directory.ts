import { chmodSync, existsSync, lstatSync, mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from './errors.ts';
import { takeLock } from './lock.ts';

/** Longest path that fits a unix socket's address, its final zero not counted. */
const MAX_SOCKET_PATH_BYTES = 107;
const WRITABLE_BY_OTHERS = 0o022;
const OPEN_TO_OTHERS = 0o077;

/** Whose run directory it is; its lock and socket are named after it. */
export type RunDirectoryOwner = 'agent' | 'control';

const NAMES: Readonly<Record<RunDirectoryOwner, string>> = { agent: 'agent', control: 'control process' };

/** What lies in a run directory. */
export interface RunDirectory {
  readonly path: string;
  readonly socket: string;
  readonly lock: string;
  readonly state: string;
  /** What the counters of the kernel path stand at. */
  readonly series: string;
  /** What the dashboard asks for, where it has made it itself. */
  readonly dashboardToken: string;
}

/** The names, without looking at the disk. */
export function runDirectory(path: string, owner: RunDirectoryOwner = 'agent'): RunDirectory {
  return {
    path,
    socket: join(path, `${owner}.sock`),
    lock: join(path, `${owner}.lock`),
    state: join(path, 'state.json'),
    series: join(path, 'series.jsonl'),
    dashboardToken: join(path, 'dashboard-token'),
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
 * agent that is one too many must learn of it first. A control process has one of its own.
 *
 * @param uid the process's own user
 * @throws AgentError RUN_UNUSABLE, ALREADY_RUNNING
 */
export function claimRunDirectory(path: string, uid: number, owner: RunDirectoryOwner = 'agent'): ClaimedRunDirectory {
  // Not even others' searching of a control process's: a node's socket is open to whoever may reach it, until its mode is set.
  const forbidden = owner === 'control' ? OPEN_TO_OTHERS : WRITABLE_BY_OTHERS;
  const names = makeRunDirectory(runDirectory(path, owner), uid, forbidden);
  const lock = takeLock(names.lock, NAMES[owner]);
  try {
    requireNoOther(path, owner);
  } catch (error) {
    rmSync(names.lock, { force: true });
    lock.release();
    throw error;
  }
  return {
    ...names,
    release: lock.release,
    remove() {
      const { socket, state, series, dashboardToken } = names;
      for (const own of [
        socket,
        state,
        `${state}.new`,
        `${state}.corrupt`,
        series,
        `${series}.new`,
        dashboardToken,
        names.lock,
      ])
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
 * An agent and a control process have a directory each: a control process removes sockets of dead processes, and has one
 * `<node>.sock` for each node, which may well be called `agent`.
 *
 * @throws AgentError RUN_UNUSABLE
 */
function requireNoOther(path: string, owner: RunDirectoryOwner): void {
  const other = owner === 'agent' ? 'control' : 'agent';
  const { lock } = runDirectory(path, other);
  if (!existsSync(lock)) return;
  throw new AgentError(
    'RUN_UNUSABLE',
    `${path} is the run directory of another kind of process, ${lock} says: give this ${NAMES[owner]} a --run of its own`,
  );
}

/**
 * Makes the directory (0700) if there is none, and checks that others can do nothing in it that they must not.
 *
 * @param forbidden bits of the mode
 * @throws AgentError RUN_UNUSABLE
 */
function makeRunDirectory(names: RunDirectory, uid: number, forbidden: number): RunDirectory {
  const { path } = names;
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
    if (found.uid !== uid || (found.mode & forbidden) !== 0) {
      throw new AgentError(
        'RUN_UNUSABLE',
        `${path} is open to others than user ${uid}; make it that user's own, mode 0700`,
      );
    }
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    throw new AgentError('RUN_UNUSABLE', `cannot use ${path} as run directory`, { cause });
  }
  return names;
}
