/** Lets the metrics ask for what the agent knows of its node, its certificates and its control process. */
import type { MetricSources, Metrics } from '../telemetry/index.ts';
import type { TunnelCosts } from './costs.ts';
import type { CertificateStatus, Clock, KernelInventory } from './ports.ts';
import type { StatusReply } from './protocol.ts';
import { UncapturedTotals } from './uncaptured.ts';

type ObservedStatus = Pick<StatusReply, 'pods' | 'unclaimed' | 'workers' | 'mesh'>;

export interface NodeObserverDeps {
  readonly metrics: Pick<Metrics, 'observe'>;
  readonly clock: Pick<Clock, 'every' | 'now'>;
  /** Of the agent itself. */
  status(): ObservedStatus;
  /** How often serving a pod was begun and ended. */
  served(): { readonly started: number; readonly stopped: number };
  readonly kernel: KernelInventory;
  /** Of the tunnel's workers, beside what status tells. */
  tunnel(): {
    /** Accepted and open: on 15001 (`source`), on 15006 and 15008 (`destination`). */
    readonly socketsOpen: { readonly source: number; readonly destination: number };
    readonly ejectedEndpoints: number;
    /** Of connections that have ended, since the agent started. */
    readonly recordsLost: number;
  };
  readonly costs: Pick<TunnelCosts, 'take' | 'costs'>;
  /** Undefined: the agent follows no control process. */
  readonly control: ObservedControl | undefined;
}

export interface ObservedControl {
  certificates(): readonly CertificateStatus[];
  /** What has come over the link; `ControlClient` fits. */
  traffic(): {
    readonly ends: Readonly<Record<string, number>>;
    readonly messages: Readonly<Record<string, { readonly messages: number; readonly bytes: number }>>;
  };
}

/** Sums that would lose something if they were only made when somebody asks. */
const INTERVAL_MS = 5_000;
/** One reading of the metrics asks for the status many times. */
const STATUS_MS = 200;

/** Starts and stops with the agent. */
export class NodeObserver {
  readonly #deps: NodeObserverDeps;
  readonly #uncaptured = new UncapturedTotals();
  #ticker: { stop(): void } | undefined;
  #last: { readonly at: number; readonly status: ObservedStatus } | undefined;

  constructor(deps: NodeObserverDeps) {
    this.#deps = deps;
  }

  async start(): Promise<void> {
    const { metrics, clock, control } = this.#deps;
    this.#ticker = clock.every(INTERVAL_MS, () => {
      this.#deps.costs.take();
      this.#uncaptured.take(this.#status().pods);
    });
    metrics.observe({ ...this.#ofPods(), ...this.#ofKernel(), ...this.#ofTunnel() });
    if (control !== undefined) metrics.observe(this.#ofControl(control));
  }

  async close(): Promise<void> {
    this.#ticker?.stop();
  }

  #ofPods(): MetricSources {
    const { served } = this.#deps;
    const count = (...paths: readonly StatusReply['pods'][number]['path'][]): number =>
      this.#status().pods.filter(({ path }) => paths.includes(path)).length;
    return {
      podsNotServed: () => count('failed') + this.#status().unclaimed.length,
      proxies: () => ({ active: count('enrolled'), pending: count('enrolling', 'failed'), ...served() }),
      workerDelay: () =>
        this.#status().workers.map(({ slot, eventLoopDelayMs: { p50, p99, max } }) => ({
          worker: slot,
          quantiles: { '0.5': p50 / 1000, '0.99': p99 / 1000, '1': max / 1000 },
        })),
      uncaptured: () => {
        this.#uncaptured.take(this.#status().pods);
        return this.#uncaptured.totals();
      },
      connectionsBeforeEnrolment: () => this.#earlierConnections(),
    };
  }

  #ofKernel(): MetricSources {
    const { kernel } = this.#deps;
    return {
      maps: () => kernel.maps(),
      programs: () => {
        const states = Map.groupBy(kernel.programs(), ({ state }) => state);
        return Object.fromEntries(Array.from(states, ([state, programs]) => [state, programs.length]));
      },
      kernelRecordsLost: () => {
        const { flows, events, alarms } = kernel.lostRecords();
        return { flows, events: events + alarms };
      },
    };
  }

  #ofTunnel(): MetricSources {
    const { costs, tunnel } = this.#deps;
    return {
      socketsOpen: () => tunnel().socketsOpen,
      endpointsEjected: () => tunnel().ejectedEndpoints,
      workerRecordsLost: () => tunnel().recordsLost,
      tunnelCosts: () => {
        costs.take();
        return costs.costs();
      },
    };
  }

  #ofControl(control: ObservedControl): MetricSources {
    return {
      controlTerminations: () => control.traffic().ends,
      controlMessages: () => control.traffic().messages,
      control: () => {
        const mesh = this.#status().mesh;
        const lastUpdate = mesh?.lastUpdate;
        return {
          connected: mesh?.connected ?? false,
          lastUpdateAt: lastUpdate === undefined ? undefined : Date.parse(lastUpdate),
        };
      },
      certificates: () =>
        control.certificates().map(({ identity, state, notAfter }) => ({ identity, state, expiresAt: notAfter })),
    };
  }

  #status(): ObservedStatus {
    const at = this.#deps.clock.now();
    if (this.#last === undefined || Math.abs(at - this.#last.at) >= STATUS_MS)
      this.#last = { at, status: this.#deps.status() };
    return this.#last.status;
  }

  #earlierConnections(): Record<string, number> {
    const counts = this.#deps.kernel.earlierConnections();
    const sums: Record<string, number> = {};
    for (const { namespace, netnsCookie } of this.#status().pods) {
      if (netnsCookie === undefined) continue;
      sums[namespace] = (sums[namespace] ?? 0) + (counts.get(BigInt(netnsCookie)) ?? 0);
    }
    return sums;
  }
}
