import type { Clock } from './ports.ts';

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
