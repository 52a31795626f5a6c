import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

/** Numbers that others keep; asked for whenever the metrics are read. */
export interface MetricSources {
  enrolledPods?(): number;
  openConnections?(): number;
  workers?(): number;
  /** Times that a worker stopped accepting for want of descriptors. */
  descriptorStops?(): number;
  descriptors?(): { readonly open: number; readonly limit: number };
  /** Connections relayed since the agent started. */
  openedConnections?(): number;
  /** Connections ended since the agent started, by reason. */
  endedConnections?(): Readonly<Record<string, number>>;
  /** Connections relayed since the agent started, by direction and path. */
  relayedConnections?(): Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Of the tunnel; `opened` and `handshakesFailed` since the agent started. */
  sessions?(): { readonly open: number; readonly opened: number; readonly handshakesFailed: number };
  /** Bytes of connections that have ended since the agent started, by the side that sent them. */
  bytes?(): { readonly client: number; readonly server: number };
  /** The kernel's counters summed over pods, by reason. */
  kernelEvents?(): Readonly<Record<string, number>>;
  /** What policy has answered since the agent started, by reason. */
  policyDecisions?(): Readonly<Record<string, number>>;
  /** What dry-run policies would have done since the agent started, by result. */
  policyDryRun?(): Readonly<Record<string, number>>;
  /** Connections ended since the agent started because policy changed, by path. */
  policyClosed?(): Readonly<Record<string, number>>;
  /** Policies, by whether they are known. */
  policies?(): Readonly<Record<string, number>>;
  kernelPath?(): {
    readonly isOn: boolean;
    readonly verdicts: number;
    readonly services: number;
    readonly flows: number;
  };
  /** Verdicts asked for since the agent started, by what became of it. */
  kernelPathRequests?(): Readonly<Record<string, number>>;
}

/** All metrics of a node agent. Every label has a closed set of values, so the number of series is bounded. */
export interface Metrics {
  readonly enrolments: Counter<'result'>;
  readonly withdrawals: Counter<'result'>;
  readonly listenersReopened: Counter;
  readonly requests: Counter<'method' | 'result'>;
  /** Replaces what was given before, source by source. */
  observe(sources: MetricSources): void;
  /** Prometheus text format. */
  text(): Promise<string>;
}

export interface MetricsOptions {
  /** Adds the process's own metrics (memory, event loop, descriptors). Default: true. */
  readonly process?: boolean;
}

export function openMetrics(options: MetricsOptions = {}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  let sources: MetricSources = {};

  if (options.process ?? true) collectDefaultMetrics({ register: registry });

  const gauge = (name: string, help: string, read: () => number | undefined): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        const value = read();
        if (value !== undefined) this.set(value);
      },
    });
  };
  gauge('culvert_enrolled_pods', 'Pods that are enrolled on this node', () => sources.enrolledPods?.());
  gauge('culvert_connections_open', 'Connections relayed at this moment', () => sources.openConnections?.());
  gauge('culvert_tunnel_sessions_open', 'Sessions of the tunnel at this moment', () => sources.sessions?.().open);
  gauge('culvert_kernel_path_on', 'Whether connections may go past the tunnel', () => {
    const isOn = sources.kernelPath?.().isOn;
    return isOn === undefined ? undefined : Number(isOn);
  });
  gauge(
    'culvert_kernel_path_verdicts',
    'Pairs of pod and destination that need no tunnel',
    () => sources.kernelPath?.().verdicts,
  );
  gauge(
    'culvert_kernel_path_services',
    'Ports of services of which the kernel chooses a backend',
    () => sources.kernelPath?.().services,
  );
  gauge(
    'culvert_kernel_path_flows',
    'Connections on the kernel path at this moment',
    () => sources.kernelPath?.().flows,
  );
  gauge('culvert_workers', 'Tunnel workers that serve', () => sources.workers?.());
  gauge('culvert_descriptors_open', 'Descriptors in use', () => sources.descriptors?.().open);
  gauge('culvert_descriptors_limit', 'Descriptors that the process may use', () => sources.descriptors?.().limit);

  /** A counter that somebody else keeps: set, not added to, whenever it is read. */
  const mirror = (name: string, help: string, read: () => number | undefined): void => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read() ?? 0);
      },
    });
  };
  mirror('culvert_connections_opened_total', 'Connections accepted', () => sources.openedConnections?.());
  mirror('culvert_tunnel_sessions_opened_total', 'Sessions of the tunnel', () => sources.sessions?.().opened);
  mirror(
    'culvert_tunnel_handshakes_failed_total',
    'Sessions that failed for what one end could not prove',
    () => sources.sessions?.().handshakesFailed,
  );
  mirror('culvert_accept_stops_total', 'Times that a worker stopped accepting for want of descriptors', () =>
    sources.descriptorStops?.(),
  );
  const byLabel = (
    label: string,
    name: string,
    help: string,
    read: () => Readonly<Record<string, number>> | undefined,
  ): void => {
    new Counter({
      name,
      help,
      registers,
      labelNames: [label],
      collect() {
        this.reset();
        for (const [value, count] of Object.entries(read() ?? {})) this.labels(value).inc(count);
      },
    });
  };
  byLabel('reason', 'culvert_connections_ended_total', 'Connections ended, by reason', () =>
    sources.endedConnections?.(),
  );
  byLabel('reason', 'culvert_kernel_events_total', 'What the kernel programs decided, by reason', () =>
    sources.kernelEvents?.(),
  );
  byLabel('from', 'culvert_relayed_bytes_total', 'Bytes of ended connections, by the side that sent them', () =>
    sources.bytes?.(),
  );

  byLabel('reason', 'culvert_policy_decisions_total', 'What policy answered to new connections, by reason', () =>
    sources.policyDecisions?.(),
  );
  byLabel('result', 'culvert_policy_dry_run_total', 'What dry-run policies would have done, by result', () =>
    sources.policyDryRun?.(),
  );
  byLabel('path', 'culvert_policy_closed_connections_total', 'Connections ended because policy changed, by path', () =>
    sources.policyClosed?.(),
  );
  byLabel('result', 'culvert_kernel_path_requests_total', 'Verdicts asked for, by what became of it', () =>
    sources.kernelPathRequests?.(),
  );

  new Gauge({
    name: 'culvert_policies',
    help: 'Authorization policies: known, among them partial (something of them could not be understood; 100 at most), and unknown (only named by pods of this node)',
    registers,
    labelNames: ['state'],
    collect() {
      for (const [state, count] of Object.entries(sources.policies?.() ?? {})) this.labels(state).set(count);
    },
  });
  new Counter({
    name: 'culvert_connections_path_total',
    help: 'Connections by direction and path',
    registers,
    labelNames: ['direction', 'path'],
    collect() {
      this.reset();
      for (const [direction, paths] of Object.entries(sources.relayedConnections?.() ?? {}))
        for (const [path, count] of Object.entries(paths)) this.labels(direction, path).inc(count);
    },
  });

  return {
    enrolments: new Counter({
      name: 'culvert_enrolments_total',
      help: 'Requests to enrol a pod, by result: enrolled, updated, unchanged, failed',
      labelNames: ['result'],
      registers,
    }),
    withdrawals: new Counter({
      name: 'culvert_withdrawals_total',
      help: 'Pods withdrawn, by result: withdrawn, unchanged, gone (its namespace vanished), failed',
      labelNames: ['result'],
      registers,
    }),
    listenersReopened: new Counter({
      name: 'culvert_listeners_reopened_total',
      help: 'Times that a dead listener of a pod was opened again',
      registers,
    }),
    requests: new Counter({
      name: 'culvert_socket_requests_total',
      help: 'Requests on the agent socket, by method and result (ok, or the error code)',
      labelNames: ['method', 'result'],
      registers,
    }),
    observe(more) {
      sources = { ...sources, ...more };
    },
    text: () => registry.metrics(),
  };
}
