/** When to ask the CA again (wire contract, section 3.5). `random` is in [0, 1). */
import type { Clock } from './ports.ts';

const FIRST_WAIT_MS = 1000;
const MAX_WAIT_MS = 150_000;
const WAIT_JITTER = 0.2;
const REFRESH_JITTER = 0.1;
/** How long a jump of the wall's clock, or a machine that slept, may go unnoticed. */
const MAX_SLEEP_MS = 60_000;

/** The wait after the n-th failure in a row: about 1 s, doubled each time, at most 150 s, +-20 %. */
export function backOffMs(failures: number, random: number): number {
  const wait = Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), MAX_WAIT_MS);
  return wait * jittered(WAIT_JITTER, random);
}

/**
 * When to renew: at half of the lifetime, +-10 % of the wait until then, so that certificates issued together are not
 * renewed together. If half of it is over on arrival (a CA that dates far back), at half of what is left.
 */
export function refreshAt(
  { notBefore, notAfter }: { readonly notBefore: number; readonly notAfter: number },
  now: number,
  random: number,
): number {
  const half = notBefore + (notAfter - notBefore) / 2;
  const wait = half > now ? half - now : Math.max((notAfter - now) / 2, FIRST_WAIT_MS);
  return now + wait * jittered(REFRESH_JITTER, random);
}

/** Calls `run` once the clock says `time`, in milliseconds since the epoch, also if the clock is set meanwhile. */
export function runAt(clock: Clock, time: number, run: () => void): { cancel(): void } {
  let timer: { cancel(): void };
  const wait = (): void => {
    const left = time - clock.now();
    timer = clock.after(Math.max(0, Math.min(left, MAX_SLEEP_MS)), () => (clock.now() >= time ? run() : wait()));
  };
  wait();
  return { cancel: () => timer.cancel() };
}

function jittered(share: number, random: number): number {
  return 1 - share + 2 * share * random;
}
