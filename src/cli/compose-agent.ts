/** Joins the rooms into a node agent. */
import { existsSync, readFileSync } from 'node:fs';
import process from 'node:process';
import {
  Agent,
  type AgentDeps,
  claimRunDirectory,
  systemClock,
  systemDirectories,
  type Tunnel,
} from '../agent/index.ts';
import { duplicate, openKernel, peerUid } from '../kernel/index.ts';
import { type LogLevel, openLog, openMetrics } from '../telemetry/index.ts';
import { TunnelWorkers } from '../ztunnel/index.ts';
import { agent } from './agent.ts';
import { type ExitCode, exitCode } from './exit.ts';

/** What the process holds beside pods and connections: programs, maps, logs, the agent socket's clients. */
const OWN_DESCRIPTORS = 256;
/** The kernel's table of pods ends here (layout.h, LIMIT_PODS). */
const MOST_PODS = 1024;

interface AgentCommandOptions {
  readonly cgroup: string;
  readonly bpffs: string;
  readonly run: string;
  readonly workers: number;
  readonly logLevel: LogLevel;
  readonly drainDeadlineMs: number;
}

export async function runAgent(options: AgentCommandOptions): Promise<ExitCode> {
  const log = openLog({ level: options.logLevel });
  const metrics = openMetrics();
  try {
    const { cgroup, bpffs, workers } = options;
    const uid = process.geteuid?.() ?? 0;
    const run = claimRunDirectory(options.run, uid);
    const kernel = openKernel({ cgroup, bpffs, workers });
    const limit = descriptorLimit();
    const tunnel: Tunnel = new TunnelWorkers(
      { log, duplicate },
      {
        entry: new URL('./compose-worker.ts', import.meta.url),
        workers,
        descriptorLimit: limit,
        descriptorReserve: descriptorReserve(limit, workers),
        composition: { bpffs },
      },
    );
    const deps: AgentDeps = {
      kernel: {
        prepare: (pod) => kernel.prepare(pod),
        capture: (pod, cookie) => kernel.capture(pod, cookie),
        release: (cookie) => kernel.release(cookie),
        close: (cookie) => kernel.close(cookie),
        check: (pod, cookie) => kernel.check(pod, cookie),
        captured: () => kernel.captured(),
        faults: () => kernel.faults(),
        mend: () => kernel.mend(),
        sweep: () => void kernel.sweep(),
        events: () => kernel.events(),
        counts: () => kernel.counts(),
        peerUid,
      },
      tunnel,
      clock: systemClock,
      directories: systemDirectories(log),
      log,
      metrics,
    };
    const node = new Agent(deps, {
      run,
      bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      version: version(),
      uid,
      drainDeadlineMs: options.drainDeadlineMs,
    });
    return await agent(node, process);
  } catch (error) {
    log.fatal({ error }, error instanceof Error ? error.message : String(error));
    return exitCode.failed;
  }
}

/**
 * For each pod a namespace, a link and two listeners a worker; but no more than an eighth of what there is, since a low
 * limit is better spent on connections than on pods that may never come. Never more than half for all of it.
 */
function descriptorReserve(limit: number, workers: number): number {
  const forPods = Math.min(MOST_PODS * (2 + 2 * workers), Math.floor(limit / 8));
  return Math.min(OWN_DESCRIPTORS + forPods, Math.floor(limit / 2));
}

/** RLIMIT_NOFILE of this process, the soft one: Node raises it to the hard one as it starts. */
function descriptorLimit(): number {
  const path = '/proc/self/limits';
  const found = existsSync(path) ? /^Max open files\s+(\d+)/m.exec(readFileSync(path, 'utf8'))?.[1] : undefined;
  return found === undefined ? 1024 : Number(found);
}

function version(): string {
  const described: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return typeof described === 'object' && described !== null && 'version' in described
    ? String(described.version)
    : 'unknown';
}
