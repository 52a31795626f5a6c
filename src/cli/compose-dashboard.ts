/** Joins the dashboard: what it shows, its pages, and where it is served. */
import { rmSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import {
  type Agent,
  type AgentDeps,
  LiveSeries,
  NodeViews,
  type PortStatus,
  type RequestHandler,
  type RunDirectory,
  systemClock,
  type TunnelCosts,
  type TunnelUse,
} from '../agent/index.ts';
import { Dashboard, DashboardListener, isLoopback, makeToken, Pages, readToken } from '../dashboard/index.ts';
import { type FlowSink, formatEndpoint, identityOf, parseAddress } from '../mesh/index.ts';
import type { Log, Metrics } from '../telemetry/index.ts';
import type { TunnelWorkers } from '../ztunnel/index.ts';
import type { JoinedMesh } from './compose-mesh.ts';
import type { DashboardOptions } from './dashboard-options.ts';
import { alertsOf } from './status-problems.ts';

/** Where `./dev setup` puts the pages. */
const PAGES = fileURLToPath(new URL('../../build/dashboard', import.meta.url));

interface DashboardRooms {
  readonly tunnel: TunnelWorkers;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly live: LiveSeries;
  readonly use: TunnelUse;
  readonly costs: TunnelCosts;
  readonly joined: JoinedMesh | undefined;
  readonly run: RunDirectory;
  /** The agent that this is joined to; asked when it runs. */
  agent(): Agent;
}

export interface JoinedDashboard {
  /** What has ended, for the views. */
  readonly flows: FlowSink;
  readonly services: NonNullable<AgentDeps['services']>;
  /** Of a loopback listener: nobody is asked for a token. */
  readonly handle: RequestHandler;
  ports(): readonly PortStatus[];
}

/** Reads what the writers of series count, on its way to the metrics. */
export function openLiveSeries(): LiveSeries {
  return new LiveSeries({ now: systemClock.now });
}

/** @throws DashboardError TOKEN_UNUSABLE */
export function joinDashboard(
  rooms: DashboardRooms,
  options: DashboardOptions & { readonly node: string },
): JoinedDashboard {
  const { log } = rooms;
  const views = viewsOf(rooms, options.node);
  const dashboard = new Dashboard({ source: views, pages: new Pages(PAGES), log });
  rooms.metrics.observe({ dashboardClients: () => clientsOf(dashboard) });
  const listener = listenerOf(dashboard, rooms, options);
  const service = {
    async start() {
      await listener?.open();
    },
    async close() {
      dashboard.close();
      listener?.close();
    },
  };
  return {
    flows: views,
    services: [views, service],
    handle: dashboard.handler(undefined),
    ports: () => (listener === undefined || options.at === undefined ? [] : [statusOf(listener, options.at)]),
  };
}

function viewsOf({ agent, joined, live, use, costs, tunnel }: DashboardRooms, node: string): NodeViews {
  return new NodeViews(
    {
      status: () => agent().status(),
      alerts: alertsOf,
      explain: (question) => agent().explain(question),
      flows: joined?.flows,
      policies: joined && (() => joined.model.policies()),
      identityOf: (pod) => joined && identityFor(joined, pod),
      series: live,
      costs,
      use: () => use.totals(),
      workers: () => tunnel.status().workers,
      memoryBytes: () => process.memoryUsage.rss(),
      clock: systemClock,
    },
    { node },
  );
}

/** The pod's, if the mesh knows a workload of its name at one of its addresses. */
function identityFor(
  { model }: JoinedMesh,
  {
    namespace,
    name,
    addresses,
  }: { readonly namespace: string; readonly name: string; readonly addresses: readonly string[] },
): string | undefined {
  for (const text of addresses) {
    const address = parseAddress(text);
    const workload = address === undefined ? undefined : model.workloadAt(model.settings.network, address);
    if (workload?.namespace === namespace && workload.name === name) return identityOf(workload);
  }
  return undefined;
}

function listenerOf(
  dashboard: Dashboard,
  { log, run }: DashboardRooms,
  options: DashboardOptions,
): DashboardListener | undefined {
  const { at: address, tokenFile: file } = options;
  if (address === undefined) return undefined;
  rmSync(run.dashboardToken, { force: true });
  const needsToken = !isLoopback(address.address);
  const token = file !== undefined ? readToken(file) : needsToken ? makeToken(run.dashboardToken) : undefined;
  return new DashboardListener({ handle: dashboard.handler(token), log }, { address });
}

function statusOf(listener: DashboardListener, address: NonNullable<DashboardOptions['at']>): PortStatus {
  return { name: 'dashboard', address: formatEndpoint(address), listening: listener.port !== undefined };
}

/** As `culvert_dashboard_clients_total` has them. */
function clientsOf(dashboard: Dashboard): Record<string, number> {
  const { opened, cutOff, turnedAway } = dashboard.live();
  return { opened, 'cut-off': cutOff, refused: turnedAway };
}
