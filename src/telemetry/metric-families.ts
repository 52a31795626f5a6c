import type { Registry } from 'prom-client';
import { labelText, type TextFamily } from './exposition.ts';
import type { MetricSources } from './metric-sources.ts';
import { by, MirroredFamilies, type Sample } from './mirrored-families.ts';
import { NamespaceBound } from './namespace-bound.ts';

/** Of a summary only its quantiles: nobody adds up how late a loop was. prom-client's would measure by itself. */
export function workerDelay(sources: () => MetricSources): TextFamily {
  const name = 'culvert_worker_delay_seconds';
  return {
    name,
    type: 'summary',
    help: 'How late the event loop of a tunnel worker is, in the last second',
    *slices() {
      for (const { worker, quantiles } of sources().workerDelay?.() ?? [])
        for (const [quantile, value] of Object.entries(quantiles))
          yield `${name}${labelText({ worker: `${worker}`, quantile })} ${value}\n`;
    },
  };
}

/** Expiry is told of no more certificates than this, those that expire first. */
const MOST_CERTIFICATES = 500;

/** Registers the families whose numbers others keep: they are asked whenever the metrics are read. */
export function registerFamilies(registry: Registry, sources: () => MetricSources): void {
  const families = new MirroredFamilies(registry, sources);
  nodeFamilies(families);
  tunnelFamilies(families);
  policyFamilies(families);
  kernelFamilies(families);
  controlFamilies(families);
  namespaceFamilies(families);
  telemetryFamilies(families);
}

function nodeFamilies(families: MirroredFamilies): void {
  families.gauge('culvert_enrolled_pods', 'Pods that are enrolled on this node', (of) => of.enrolledPods?.());
  families.gauge('culvert_pods_not_served', 'Pods that should be served, but are not', (of) => of.podsNotServed?.());
  families.gauge('culvert_workers', 'Tunnel workers that serve', (of) => of.workers?.());
  families.gauge('culvert_descriptors_open', 'Descriptors in use', (of) => of.descriptors?.().open);
  families.gauge('culvert_descriptors_limit', 'Descriptors that the process may use', (of) => of.descriptors?.().limit);
  families.counter(
    'culvert_accept_stops_total',
    'Times that a worker stopped accepting for want of descriptors',
    (of) => of.descriptorStops?.(),
  );
  families.gauge(
    'workload_manager_active_proxy_count',
    'Pods that are served at this moment (unstable)',
    (of) => of.proxies?.().active,
  );
  families.gauge(
    'workload_manager_pending_proxy_count',
    'Pods that are to be served, but are not yet (unstable)',
    (of) => of.proxies?.().pending,
  );
  families.counter(
    'workload_manager_proxies_started_total',
    'Times that serving a pod was begun (unstable)',
    (of) => of.proxies?.().started,
  );
  families.counter(
    'workload_manager_proxies_stopped_total',
    'Times that serving a pod was ended (unstable)',
    (of) => of.proxies?.().stopped,
  );
}

function tunnelFamilies(families: MirroredFamilies): void {
  families.gauge('culvert_connections_open', 'Connections relayed at this moment', (of) => of.openConnections?.());
  families.counter('culvert_connections_opened_total', 'Connections accepted', (of) => of.openedConnections?.());
  families.counterBy('reason', 'culvert_connections_ended_total', 'Connections ended, by reason', (of) =>
    of.endedConnections?.(),
  );
  families.counters(
    ['direction', 'path'],
    'culvert_connections_path_total',
    'Connections by direction and path',
    (of) =>
      Object.entries(of.relayedConnections?.() ?? {}).flatMap(([direction, paths]) =>
        Object.entries(paths).map(([path, count]): Sample => [{ direction, path }, count]),
      ),
  );
  families.counterBy(
    'from',
    'culvert_relayed_bytes_total',
    'Bytes of ended connections, by the side that sent them',
    (of) => of.bytes?.(),
  );
  families.gauge('culvert_tunnel_sessions_open', 'Sessions of the tunnel at this moment', (of) => of.sessions?.().open);
  families.counter('culvert_tunnel_sessions_opened_total', 'Sessions of the tunnel', (of) => of.sessions?.().opened);
  families.counter(
    'culvert_tunnel_handshakes_failed_total',
    'Sessions that failed for what one end could not prove',
    (of) => of.sessions?.().handshakesFailed,
  );
  families.gauge(
    'culvert_endpoints_ejected',
    'Endpoints that get no connection for a while because several in a row have failed',
    (of) => of.endpointsEjected?.(),
  );
  families.gauges(
    ['reporter'],
    'istio_tcp_sockets_open',
    'Sockets accepted from apps (source) and for them (destination) that are open (unstable)',
    (of) => by('reporter', of.socketsOpen?.()),
  );
}

function policyFamilies(families: MirroredFamilies): void {
  families.counterBy(
    'reason',
    'culvert_policy_decisions_total',
    'What policy answered to new connections, by reason',
    (of) => of.policyDecisions?.(),
  );
  families.counterBy(
    'result',
    'culvert_policy_dry_run_total',
    'What dry-run policies would have done, by result',
    (of) => of.policyDryRun?.(),
  );
  families.counterBy(
    'path',
    'culvert_policy_closed_connections_total',
    'Connections ended because policy changed, by path',
    (of) => of.policyClosed?.(),
  );
  families.gauges(
    ['state'],
    'culvert_policies',
    'Authorization policies: known, among them partial (something of them could not be understood; 100 at most), and unknown (only named by pods of this node)',
    (of) => by('state', of.policies?.()),
  );
}

function kernelFamilies(families: MirroredFamilies): void {
  families.gauge('culvert_kernel_path_on', 'Whether connections may go past the tunnel', (of) => {
    const isOn = of.kernelPath?.().isOn;
    return isOn === undefined ? undefined : Number(isOn);
  });
  families.gauge(
    'culvert_kernel_path_verdicts',
    'Pairs of pod and destination that need no tunnel',
    (of) => of.kernelPath?.().verdicts,
  );
  families.gauge(
    'culvert_kernel_path_services',
    'Ports of services of which the kernel chooses a backend',
    (of) => of.kernelPath?.().services,
  );
  families.gauge(
    'culvert_kernel_path_flows',
    'Connections on the kernel path at this moment',
    (of) => of.kernelPath?.().flows,
  );
  families.counterBy('result', 'culvert_kernel_path_requests_total', 'Verdicts asked for, by what became of it', (of) =>
    of.kernelPathRequests?.(),
  );
  families.counterBy('reason', 'culvert_kernel_events_total', 'What the kernel programs decided, by reason', (of) =>
    of.kernelEvents?.(),
  );
  families.counters(
    ['ring'],
    'culvert_ring_records_lost_total',
    'Records that were not told for want of room in a ring, by ring: kernel-flows, kernel-events, worker-flows',
    (of) => {
      const kernel = of.kernelRecordsLost?.();
      const workers = of.workerRecordsLost?.();
      return [
        ...by('ring', { 'kernel-flows': kernel?.flows, 'kernel-events': kernel?.events, 'worker-flows': workers }),
      ];
    },
  );
  families.gauges(['map'], 'culvert_map_entries', 'Entries of a map of the kernel, as last counted', (of) =>
    (of.maps?.() ?? []).map(({ name, entries }): Sample => [{ map: name }, entries]),
  );
  families.gauges(['map'], 'culvert_map_capacity', 'Entries that a map of the kernel has room for', (of) =>
    (of.maps?.() ?? []).map(({ name, capacity }): Sample => [{ map: name }, capacity]),
  );
  families.gauges(['state'], 'culvert_programs', 'Programs in the kernel, by state', (of) =>
    by('state', of.programs?.()),
  );
}

function controlFamilies(families: MirroredFamilies): void {
  families.gauge('culvert_control_connected', 'Whether the control process is connected', (of) => {
    const control = of.control?.();
    return control && Number(control.connected);
  });
  families.gauge(
    'culvert_control_last_update_timestamp_seconds',
    'When the control process last told of a change',
    (of) => seconds(of.control?.().lastUpdateAt),
  );
  families.counterBy(
    'reason',
    'istio_xds_connection_terminations_total',
    'Ends of the link to the control process, by reason (unstable)',
    (of) => of.controlTerminations?.() as Readonly<Record<string, number>> | undefined,
  );
  families.counters(['url'], 'istio_xds_message_total', 'Messages from the control process, by type (unstable)', (of) =>
    Object.entries(of.controlMessages?.() ?? {}).map(([url, { messages }]): Sample => [{ url }, messages]),
  );
  families.counters(
    ['url'],
    'istio_xds_message_bytes_total',
    'Bytes of the messages from the control process, by type (unstable)',
    (of) => Object.entries(of.controlMessages?.() ?? {}).map(([url, { bytes }]): Sample => [{ url }, bytes]),
  );
  families.gauges(
    ['identity'],
    'culvert_certificate_expiry_timestamp_seconds',
    'When the certificate of an identity of this node expires; the 500 that expire first',
    (of) =>
      (of.certificates?.() ?? [])
        .flatMap(({ identity, expiresAt }) => (expiresAt === undefined ? [] : [{ identity, expiresAt }]))
        .sort((a, b) => a.expiresAt - b.expiresAt)
        .slice(0, MOST_CERTIFICATES)
        .map(({ identity, expiresAt }): Sample => [{ identity }, expiresAt / 1000]),
  );
  families.gauges(
    ['state'],
    'culvert_certificates',
    'Identities of this node, by the state of their certificate',
    (of) => {
      const counts: Record<string, number> = {};
      for (const { state } of of.certificates?.() ?? []) counts[state] = (counts[state] ?? 0) + 1;
      return by('state', counts);
    },
  );
}

function namespaceFamilies(families: MirroredFamilies): void {
  const uncaptured = new NamespaceBound();
  families.counters(
    ['namespace', 'reason'],
    'culvert_uncaptured_total',
    'Traffic of enrolled pods that went past the mesh, by reason',
    (of) =>
      uncaptured
        .sum(of.uncaptured?.() ?? {})
        .flatMap(([namespace, counts]) =>
          by('reason', counts).map(([labels, count]): Sample => [{ namespace, ...labels }, count]),
        ),
  );
  const before = new NamespaceBound();
  families.gauges(
    ['namespace'],
    'culvert_connections_before_enrolment',
    'Open connections that were there before their pod was enrolled',
    (of) =>
      before
        .sum(counted(of.connectionsBeforeEnrolment?.()))
        .map(([namespace, { count = 0 }]): Sample => [{ namespace }, count]),
  );
  const costs = new NamespaceBound();
  const costsOf = (of: MetricSources) => costs.sum(of.tunnelCosts?.() ?? {});
  families.counters(
    ['namespace'],
    'culvert_tunnel_cpu_seconds_total',
    "A namespace's share of the CPU time of the tunnel workers, by bytes and connections",
    (of) => costsOf(of).map(([namespace, { cpuSeconds = 0 }]): Sample => [{ namespace }, cpuSeconds]),
  );
  families.gauges(
    ['namespace'],
    'culvert_tunnel_memory_bytes',
    "A namespace's share of the tunnel's memory, by open connections",
    (of) => costsOf(of).map(([namespace, { memoryBytes = 0 }]): Sample => [{ namespace }, memoryBytes]),
  );
}

function telemetryFamilies(families: MirroredFamilies): void {
  families.gauge('culvert_metric_series', 'Series of connections that are exposed', (of) => of.series?.().series);
  families.gauge(
    'culvert_metric_series_budget',
    'Series of connections that may be exposed',
    (of) => of.series?.().budget,
  );
  families.counter(
    'culvert_metric_series_evicted_total',
    'Series of connections that left because nothing was counted for a while',
    (of) => of.series?.().evicted,
  );
  families.counter(
    'culvert_metric_series_overflowed_total',
    'Label sets that were summed into `other` for want of room',
    (of) => of.series?.().overflowed,
  );
  families.counterBy(
    'result',
    'culvert_access_log_lines_total',
    'Lines of the access log, by what became of them: written, sampled-out, rate-limited, dropped (the buffer was full), failed (a write that failed)',
    (of) => of.accessLogLines?.(),
  );
  families.counterBy(
    'result',
    'culvert_scrapes_total',
    'Requests for the metrics over HTTP, by what became of them: answered, cut-off (read too slowly), refused, failed',
    (of) => of.scrapes?.(),
  );
  families.counterBy(
    'result',
    'culvert_dashboard_clients_total',
    'Pages of the dashboard that asked for its live stream, by what became of them: opened, cut-off (did not read), refused (one too many)',
    (of) => of.dashboardClients?.(),
  );
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

function counted(
  counts: Readonly<Record<string, number>> | undefined,
): Readonly<Record<string, Readonly<Record<'count', number>>>> {
  return Object.fromEntries(Object.entries(counts ?? {}).map(([key, count]) => [key, { count }]));
}
