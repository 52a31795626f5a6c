import { chmodSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { AgentError } from './errors.ts';

const SQLITE_BUSY = 5;

/**
 * Takes the lock of a run directory; the kernel releases it when the process ends, however it ends.
 *
 * An open transaction of SQLite on an otherwise empty file, because that is the one file lock Node offers. A file with a
 * process id would not do: agents in two containers do not see each other's processes. Nor would an abstract socket:
 * each network namespace has its own, and any process on the host may take the name.
 *
 * @param owner who else would hold it, for the message
 * @throws AgentError ALREADY_RUNNING, RUN_UNUSABLE
 */
export function takeLock(path: string, owner: string): { /** Idempotent. */ release(): void } {
  let file: DatabaseSync | undefined;
  try {
    file = new DatabaseSync(path, { timeout: 0 });
    chmodSync(path, 0o600);
    // Nothing is ever written, so no journal need lie beside the file.
    file.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
  } catch (cause) {
    file?.close();
    if (isBusy(cause)) {
      throw new AgentError(
        'ALREADY_RUNNING',
        `another ${owner} holds ${path}; stop it first, or give this one a --run directory of its own`,
        { cause },
      );
    }
    throw new AgentError('RUN_UNUSABLE', `cannot lock ${path}: remove what is there if it is not a lock file`, {
      cause,
    });
  }
  const held = file;
  return {
    release: () => {
      if (held.isOpen) held.close();
    },
  };
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY;
}
