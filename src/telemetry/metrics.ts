import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { Exposition, type ExpositionFormat, type FamilyHead, type TextFamily } from './exposition.ts';
import { registerFamilies, workerDelay } from './metric-families.ts';
import type { MetricSources } from './metric-sources.ts';

/** All metrics of a node agent. Every label has a bounded set of values. */
export interface Metrics {
  readonly enrolments: Counter<'result'>;
  readonly withdrawals: Counter<'result'>;
  readonly listenersReopened: Counter;
  readonly requests: Counter<'method' | 'result'>;
  /** Replaces what was given before, source by source. */
  observe(sources: MetricSources): void;
  /** Exposes families that write themselves. */
  add(families: readonly TextFamily[]): void;
  /** Every family, whether or not there is a sample of it. */
  families(): readonly FamilyHead[];
  /** What is exposed, in pieces; see `Exposition`. */
  render(format: ExpositionFormat): Promise<readonly Buffer[]>;
  /** The same in Prometheus' text format. */
  text(): Promise<string>;
}

export interface MetricsOptions {
  /** Adds the process's own metrics (memory, event loop, descriptors). Default: true. */
  readonly process?: boolean;
  /** Of this build, for `istio_build`. Default: `unknown`. */
  readonly version?: string;
}

/** Gauges of prom-client that are named as if they were counters; each has a twin that says the same by kind. */
const MISNAMED = ['nodejs_active_resources_total', 'nodejs_active_handles_total', 'nodejs_active_requests_total'];

export function openMetrics(options: MetricsOptions = {}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const exposition = new Exposition(registry);
  let sources: MetricSources = {};

  if (options.process ?? true) {
    collectDefaultMetrics({ register: registry });
    for (const name of MISNAMED) registry.removeSingleMetric(name);
  }
  new Gauge({
    name: 'istio_build',
    help: 'Version of what serves this node',
    labelNames: ['component', 'tag'],
    registers,
  }).set({ component: 'ztunnel', tag: options.version ?? 'unknown' }, 1);
  new Counter({
    name: 'culvert_metric_families_left_out_total',
    help: 'Families that a fault kept out of an exposition',
    registers,
    collect() {
      this.reset();
      this.inc(exposition.leftOut);
    },
  });
  registerFamilies(registry, () => sources);
  exposition.add([workerDelay(() => sources)]);

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
    add: (families) => exposition.add(families),
    families: () => exposition.families(),
    render: (format) => exposition.render(format),
    text: async () => Buffer.concat(await exposition.render('plain')).toString(),
  };
}
