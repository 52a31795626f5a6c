import { type ExitCode, exitCode } from './exit.ts';

/** What runs until it is told to stop: an agent, a control process. */
interface Service {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Where the signals come from: the process. */
export interface Signals {
  on(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
  off(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
}

/** Longest interval there is. */
const EVER_MS = 2 ** 31 - 1;

/**
 * Serves until SIGTERM or SIGINT, then stops in good order. A second signal ends it at once: its promise does not wait
 * for the stop.
 *
 * @param asked when this is kept it stops, too
 */
export async function runService(service: Service, signals: Signals, asked?: Promise<unknown>): Promise<ExitCode> {
  const first = Promise.withResolvers<void>();
  const second = Promise.withResolvers<'at once'>();
  let count = 0;
  const onSignal = (): void => {
    count += 1;
    if (count === 1) first.resolve();
    else second.resolve('at once');
  };
  signals.on('SIGTERM', onSignal);
  signals.on('SIGINT', onSignal);
  // Waiting for a signal does not keep a process alive, nor may the service have anything open.
  const alive = setInterval(() => undefined, EVER_MS);
  try {
    await Promise.race([service.start(), second.promise]);
    await Promise.race(asked === undefined ? [first.promise] : [first.promise, asked]);
    const end = await Promise.race([service.stop(), second.promise]);
    return end === 'at once' ? exitCode.failed : exitCode.ok;
  } finally {
    clearInterval(alive);
    signals.off('SIGTERM', onSignal);
    signals.off('SIGINT', onSignal);
  }
}
