/** Joins what people and tools are told of the agent: its status, the config dump, the admin port, the log's levels. */
import {
  type AdminAddress,
  AdminRoutes,
  AdminServer,
  type Agent,
  type AgentDeps,
  kernelConnections,
  NodeObserver,
  NodeReport,
  type NodeReportDeps,
  type PortStatus,
  systemClock,
  TunnelCosts,
  type TunnelUse,
} from '../agent/index.ts';
import { type Check, type Kernel, surroundings } from '../kernel/index.ts';
import { type LogLevel, LogLevels, type Metrics, type OpenLog, openLog } from '../telemetry/index.ts';
import type { TunnelWorkers } from '../ztunnel/index.ts';
import type { JoinedMesh } from './compose-mesh.ts';
import { version } from './version.ts';

/** An agent's log by scope, and the scopes' levels. */
export interface ScopedLog {
  readonly log: OpenLog;
  /** Of the workers. */
  readonly tunnel: OpenLog;
  /** Of what follows the control process. */
  readonly mesh: OpenLog;
  readonly levels: LogLevels;
}

export function openScopedLog(level: LogLevel): ScopedLog {
  const log = openLog({ level });
  const tunnel = log.child({ scope: 'tunnel' });
  const mesh = log.child({ scope: 'mesh' });
  return { log, tunnel, mesh, levels: new LogLevels({ agent: log, tunnel, mesh }, level) };
}

/** What the kernel and its surroundings offer. To be asked before our programs are loaded. */
export function preflightAtStart(options: { readonly cgroup: string; readonly bpffs: string }): Check[] {
  return surroundings(options);
}

/** Open connections that a config dump names, of each worker and of the kernel path. */
const MOST_CONNECTIONS = 10_000;

interface AdminRooms {
  readonly kernel: Kernel;
  readonly tunnel: TunnelWorkers;
  readonly log: OpenLog;
  readonly levels: LogLevels;
  readonly metrics: Metrics;
  /** What the tunnel's workers do, by namespace. */
  readonly use: TunnelUse;
  /** Undefined: the agent follows no control process. */
  readonly joined: JoinedMesh | undefined;
  /** Undefined: nothing is counted. */
  readonly series: NodeReportDeps['series'];
  /** Ports beside the admin port. */
  otherPorts(): readonly PortStatus[];
  /** The agent that this is joined to; asked when it runs. */
  agent(): Agent;
}

interface AdminOptions {
  /** Undefined: no admin port. */
  readonly at: AdminAddress | undefined;
  readonly preflight: readonly Check[];
  /** The effective settings, in camel case. */
  readonly config: Readonly<Record<string, unknown>>;
}

export interface JoinedAdmin {
  readonly report: NodeReport;
  /** Where the dashboard is mounted; undefined: there is no admin port. */
  readonly routes: AdminRoutes | undefined;
  readonly services: NonNullable<AgentDeps['services']>;
  readonly costs: TunnelCosts;
  /** Kept when somebody asks the admin port for a stop. */
  readonly quitAsked: Promise<void>;
}

export function joinAdmin(rooms: AdminRooms, options: AdminOptions): JoinedAdmin {
  const { kernel, levels, log } = rooms;
  const { promise: quitAsked, resolve: quit } = Promise.withResolvers<void>();
  const routes = new AdminRoutes({
    configDump: () => rooms.agent().configDump(true),
    levels,
    quit: () => quit(),
    log,
  });
  const server =
    options.at &&
    new AdminServer(
      { handle: (request, response) => routes.handle(request, response), clock: systemClock, log },
      { at: options.at },
    );
  const report = new NodeReport(
    {
      preflight: options.preflight,
      kernel,
      levels,
      mesh: reportedMesh(rooms.joined),
      ...(rooms.series === undefined ? {} : { series: rooms.series }),
      ports: () => [...(server === undefined ? [] : [portStatus('admin', server)]), ...rooms.otherPorts()],
      connections: async () => [
        ...(await rooms.tunnel.connections(MOST_CONNECTIONS)),
        ...kernelConnections(kernel.flows(), MOST_CONNECTIONS),
      ],
    },
    { config: options.config, version: version() },
  );
  const costs = costsOf(rooms);
  const observer = observe(rooms, costs);
  return {
    report,
    routes: server && routes,
    costs,
    services: [observer, ...(server === undefined ? [] : [server])],
    quitAsked,
  };
}

/** A port as status tells of it. */
export function portStatus(name: string, server: Pick<AdminServer, 'status'>): PortStatus {
  const { at, isListening, reason } = server.status();
  return { name, address: at, listening: isListening, ...(reason === undefined ? {} : { error: reason }) };
}

function reportedMesh(joined: JoinedMesh | undefined): NodeReportDeps['mesh'] {
  return (
    joined && {
      model: joined.model,
      certificates: () => joined.mesh.certificates(),
      unknownPolicies: () => joined.kernelPath.status().unknownPolicies,
    }
  );
}

function costsOf({ tunnel, use }: AdminRooms): TunnelCosts {
  const workers = () =>
    tunnel.status().workers.map(({ cpuSeconds, heapBytes }) => ({ cpuSeconds, memoryBytes: heapBytes }));
  return new TunnelCosts({ use: () => use.totals(), workers });
}

function observe({ metrics, agent, kernel, tunnel, joined }: AdminRooms, costs: TunnelCosts): NodeObserver {
  return new NodeObserver({
    metrics,
    clock: systemClock,
    status: () => agent().status(),
    served: () => agent().served(),
    kernel,
    tunnel: () => tunnel.status(),
    costs,
    control: joined && {
      certificates: () => joined.certificates.status(),
      traffic: () => joined.source.traffic(),
    },
  });
}
