import type { Log } from '../telemetry/index.ts';
import type { Clock, KernelUpkeep } from './ports.ts';

interface UpkeepDeps {
  readonly kernel: KernelUpkeep;
  readonly clock: Clock;
  readonly log: Log;
}

interface UpkeepOptions {
  /** Default: 1,000 ms. */
  readonly intervalMs?: number;
  /** Events logged per interval; the rest is only counted. Default: 20. */
  readonly maxLoggedEvents?: number;
}

/** Looks after the node's kernel side: programs that were detached, what was lost half-way, events for the log. */
export function startUpkeep(deps: UpkeepDeps, options: UpkeepOptions = {}): { stop(): void } {
  const { kernel, clock, log } = deps;
  const maxLoggedEvents = options.maxLoggedEvents ?? 20;
  const guarded = (task: string, run: () => void): void => {
    try {
      run();
    } catch (error) {
      log.error({ error, task }, 'upkeep of the kernel side failed; trying again');
    }
  };
  const mend = (): void => {
    const faults = kernel.faults();
    if (faults.length === 0) return;
    log.error({ faults }, 'programs or pins of ours were taken away; restoring them');
    kernel.mend();
  };
  const report = (): void => {
    const events = kernel.events();
    for (const { cookie, reason, client, server } of events.slice(0, maxLoggedEvents))
      log.warn({ netns_cookie: String(cookie), reason, client, server }, 'kernel event');
    const untold = events.length - maxLoggedEvents;
    if (untold > 0) log.warn({ untold }, 'further kernel events, only counted');
  };
  return clock.every(options.intervalMs ?? 1_000, () => {
    guarded('mend', mend);
    guarded('sweep', () => kernel.sweep());
    guarded('events', report);
  });
}

/** The kernel's counters, summed over pods. */
export function countsByReason(kernel: Pick<KernelUpkeep, 'counts'>): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { reason, count } of kernel.counts()) sums[reason] = (sums[reason] ?? 0) + count;
  return sums;
}

/** The kernel's counters by pod and reason. */
export function countsByPod(kernel: Pick<KernelUpkeep, 'counts'>): Map<bigint, Record<string, number>> {
  const pods = new Map<bigint, Record<string, number>>();
  for (const { cookie, reason, count } of kernel.counts()) {
    const counts = pods.get(cookie) ?? {};
    counts[reason] = count;
    pods.set(cookie, counts);
  }
  return pods;
}
