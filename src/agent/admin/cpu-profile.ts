/** A profile of what the main thread does. */
import { Session } from 'node:inspector/promises';

export interface ProfileOptions {
  readonly seconds: number;
  /** Samples a second. */
  readonly frequency: number;
  /** Ends it early; what has been sampled is thrown away. */
  readonly signal: AbortSignal;
}

/** In V8's own form, which Chrome's developer tools and speedscope read. @returns undefined: ended early */
export async function cpuProfile({ seconds, frequency, signal }: ProfileOptions): Promise<string | undefined> {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: Math.round(1_000_000 / frequency) });
    await session.post('Profiler.start');
    await over(seconds, signal);
    const { profile } = await session.post('Profiler.stop');
    return signal.aborted ? undefined : JSON.stringify(profile);
  } finally {
    session.disconnect();
  }
}

async function over(seconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, seconds * 1000);
  timer.unref();
  if (signal.aborted) resolve();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}
