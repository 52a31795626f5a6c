import { watch } from 'node:fs';
import type { Log } from '../telemetry/index.ts';
import type { Clock, DirectoryWatch } from './ports.ts';

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => Date.now(),
  every(ms, run) {
    const timer = setInterval(run, ms);
    timer.unref();
    return { stop: () => clearInterval(timer) };
  },
};

/** inotify, where the directory allows it (procfs does not); without it the periodic check is all there is. */
export function systemDirectories(log: Log): DirectoryWatch {
  return {
    watch(directory, changed) {
      try {
        const watcher = watch(directory, { persistent: false }, (_event, name) => changed(name ?? undefined));
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
