/** Joins the rooms into a node agent. */
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import process from 'node:process';
import {
  type AdminAddress,
  Agent,
  type AgentDeps,
  claimRunDirectory,
  systemClock,
  systemDirectories,
  type Tunnel,
  TunnelUse,
} from '../agent/index.ts';
import { duplicate, openKernel, peerUid } from '../kernel/index.ts';
import { type MeshUpdate, messageOf } from '../mesh/index.ts';
import { FlowFan, type LogLevel } from '../telemetry/index.ts';
import { TunnelWorkers, type TunnelWorkersOptions } from '../ztunnel/index.ts';
import { joinAdmin, openScopedLog, portStatus, preflightAtStart } from './compose-admin.ts';
import { joinDashboard, openLiveSeries } from './compose-dashboard.ts';
import { joinMesh, type MeshOptions } from './compose-mesh.ts';
import { joinTelemetry } from './compose-telemetry.ts';
import type { DashboardOptions } from './dashboard-options.ts';
import { type ExitCode, exitCode } from './exit.ts';
import { runService } from './service.ts';
import type { TelemetryOptions } from './telemetry-options.ts';
import { version } from './version.ts';

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
  /** Seconds. */
  readonly drain: number;
  /** Undefined: connections are only relayed. */
  readonly mesh: MeshOptions | undefined;
  /** Undefined: no admin port. */
  readonly admin: AdminAddress | undefined;
  readonly telemetry: TelemetryOptions;
  readonly dashboard: DashboardOptions;
}

export async function runAgent(options: AgentCommandOptions): Promise<ExitCode> {
  const scoped = openScopedLog(options.logLevel);
  const { log } = scoped;
  const telemetry = joinTelemetry({ log }, options.telemetry);
  const { metrics } = telemetry;
  try {
    const { cgroup, bpffs, workers } = options;
    const uid = process.geteuid?.() ?? 0;
    const run = claimRunDirectory(options.run, uid);
    const preflight = preflightAtStart({ cgroup, bpffs });
    const kernel = openKernel({ cgroup, bpffs, workers });
    const limit = descriptorLimit();
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    const live = openLiveSeries();
    const use = new TunnelUse(live.reader(telemetry.book, 'tunnel'));
    // What is made later is not there yet when these are.
    const told = new FlowFan({ log }, [telemetry.flows, { add: (records) => dashboard.flows.add(records) }]);
    const flows = new FlowFan({ log }, [{ add: (records) => joined?.flows.add(records) }, told]);
    const tunnel: TunnelWorkers = new TunnelWorkers(
      {
        log: scoped.tunnel,
        duplicate,
        // Workers ask when they are started, so not before `joined` is there.
        meshSnapshot: () => joined?.mesh.snapshot() ?? NO_MESH,
        wantCertificate: (identity) => joined?.mesh.wantCertificate(identity),
        flows,
        ...(options.telemetry.accessLogStart
          ? { flowOpened: (subject, id) => telemetry.accessLog.opened(subject, id) }
          : {}),
        series: use,
        ...(options.mesh?.kernelPath === true
          ? { pathWanted: ({ source, destination }) => joined?.kernelPath.request(source, destination) }
          : {}),
      },
      {
        entry: new URL('./compose-worker.ts', import.meta.url),
        workers,
        descriptorLimit: limit,
        descriptorReserve: descriptorReserve(limit, workers),
        seriesIdleSeconds: options.telemetry.seriesIdle,
        composition: { bpffs },
        ...(options.mesh === undefined ? {} : { mesh: tunnelMesh(options.mesh) }),
      },
    );
    const joined =
      options.mesh &&
      joinMesh(
        { kernel, tunnel, log: scoped.mesh, flows: told, series: live.reader(telemetry.book, 'kernel') },
        options.mesh,
        {
          cgroup,
          journal: { path: run.series, bootId },
          kernelPathAs: options.telemetry.kernelPathSecurity,
          seriesIdleSeconds: options.telemetry.seriesIdle,
        },
      );
    if (joined === undefined) {
      log.warn({}, 'no control process is given: connections are relayed, never encrypted');
      // What an earlier agent has vouched for.
      kernel.clearPaths();
      kernel.setKubelet(undefined);
    }
    const admin = joinAdmin(
      {
        kernel,
        tunnel,
        log,
        levels: scoped.levels,
        metrics,
        use,
        joined,
        series: () => telemetry.book.counts(),
        otherPorts: () => [
          ...(telemetry.server === undefined ? [] : [portStatus('metrics', telemetry.server)]),
          ...dashboard.ports(),
        ],
        agent: () => node,
      },
      { at: options.admin, preflight, config: shownConfig(options) },
    );
    const dashboard = joinDashboard(
      { tunnel, log, metrics, live, use, costs: admin.costs, joined, run, agent: () => node },
      { ...options.dashboard, node: options.mesh?.node ?? hostname() },
    );
    admin.routes?.mount(dashboard.handle);
    const deps: AgentDeps = {
      kernel: {
        prepare: (pod) => kernel.prepare(pod),
        capture: (pod, cookie) => kernel.capture(pod, cookie),
        release: (cookie) => kernel.release(cookie),
        close: (cookie) => kernel.close(cookie),
        check: (pod, cookie) => kernel.check(pod, cookie),
        captured: () => kernel.captured(),
        refuseAll: () => kernel.refuseAll(),
        faults: () => kernel.faults(),
        mend: () => kernel.mend(),
        sweep: () => void kernel.sweep(),
        events: () => joined?.kernelPath.events() ?? kernel.events(),
        counts: () => kernel.counts(),
        peerUid,
      },
      tunnel: tunnel satisfies Tunnel,
      ...(joined && {
        mesh: joined.mesh,
        kernelPath: joined.kernelPath,
        policy: joined.policy,
        flows: joined.flows,
        explain: joined.explain,
      }),
      report: admin.report,
      levels: scoped.levels,
      services: [...telemetry.services, ...admin.services, ...dashboard.services],
      clock: systemClock,
      directories: systemDirectories(log),
      log,
      metrics,
    };
    const node: Agent = new Agent(deps, {
      run,
      bootId,
      version: version(),
      uid,
      drainMs: options.drain * 1000,
    });
    return await runService(node, process, admin.quitAsked);
  } catch (error) {
    log.fatal({ error }, messageOf(error));
    return exitCode.failed;
  }
}

/** A map is nothing in JSON. */
function shownConfig(options: AgentCommandOptions): Readonly<Record<string, unknown>> {
  const { telemetry } = options;
  return {
    ...options,
    telemetry: { ...telemetry, accessLogNamespace: Object.fromEntries(telemetry.accessLogNamespace) },
  };
}

type TunnelMesh = NonNullable<TunnelWorkersOptions['mesh']>;

const NO_MESH: MeshUpdate = {
  complete: false,
  workloads: [],
  services: [],
  removed: [],
  policies: [],
  removedPolicies: [],
  settings: undefined,
};

function tunnelMesh({ node, poolIdle, pingInterval, pingTimeout }: MeshOptions): TunnelMesh {
  return {
    node,
    poolIdleMs: poolIdle * 1000,
    pingIntervalMs: pingInterval * 1000,
    pingTimeoutMs: pingTimeout * 1000,
  };
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
