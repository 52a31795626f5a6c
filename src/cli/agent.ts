import { type ExitCode, exitCode } from './exit.ts';

/** As much of the agent as the command needs. */
interface RunningAgent {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Where the signals come from: the process. */
export interface Signals {
  on(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
  off(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
}

/**
 * `culvert agent`: serves until SIGTERM or SIGINT, then drains. A second signal ends it at once: its promise does not
 * wait for the drain.
 */
export async function agent(running: RunningAgent, signals: Signals): Promise<ExitCode> {
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
  try {
    await Promise.race([running.start(), second.promise]);
    await first.promise;
    const end = await Promise.race([running.stop(), second.promise]);
    return end === 'at once' ? exitCode.failed : exitCode.ok;
  } finally {
    signals.off('SIGTERM', onSignal);
    signals.off('SIGINT', onSignal);
  }
}
