import { watch } from 'node:fs';
import type { Log } from '../telemetry/index.ts';
import type { Clock, DirectoryWatch } from './ports.ts';

/** Longest wait that setTimeout takes; it fires at once for more. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, run) {
    let timer: NodeJS.Timeout;
    const wait = (left: number): void => {
      const turn = Math.min(left, MAX_TIMEOUT_MS);
      timer = setTimeout(() => (left > turn ? wait(left - turn) : run()), turn);
      timer.unref();
    };
    wait(Math.max(0, ms));
    return { cancel: () => clearTimeout(timer) };
  },
};

/** inotify, where the file system allows it; without it the periodic look is all there is. */
export function systemDirectories(log: Log): DirectoryWatch {
  return {
    watch(directory, changed) {
      try {
        const watcher = watch(directory, { persistent: false }, () => changed());
        watcher.on('error', (error) => {
          log.debug({ error, directory }, 'watching a directory ended');
          watcher.close();
        });
        return { close: () => watcher.close() };
      } catch (error) {
        log.debug({ error, directory }, 'a directory cannot be watched');
        return { close: () => undefined };
      }
    },
  };
}
