import type { Log, Metrics } from '../telemetry/index.ts';
import { AgentError } from './errors.ts';
import type { KernelPath } from './kernel-path/kernel-path.ts';
import type { NodePolicy } from './node-policy.ts';
import { observeKernelPath } from './observe-kernel-path.ts';
import type { CapturedPods, Clock, DirectoryWatch, KernelUpkeep, PeerCredentials, PodKernel, Tunnel } from './ports.ts';
import {
  encodeReply,
  type KernelPathStatusReply,
  type MeshStatusReply,
  type PodStatusReply,
  type Request,
  type StatusReply,
} from './protocol.ts';
import { type PodRecord, Reconciler } from './reconcile.ts';
import type { ClaimedRunDirectory } from './run-directory.ts';
import { AgentServer } from './server.ts';
import { StateFile } from './state.ts';
import { countsByPod, countsByReason, startUpkeep } from './upkeep.ts';

export interface AgentDeps {
  readonly kernel: PodKernel & PeerCredentials & CapturedPods & KernelUpkeep;
  readonly tunnel: Tunnel;
  /** The node's share of the mesh; `NodeMesh` fits. Undefined: no control process, so the tunnel only relays. */
  readonly mesh?: { start(): void; stop(): void; status(): MeshStatusReply };
  /** Which connections may go past the tunnel. Undefined: no control process, so none. */
  readonly kernelPath?: Pick<KernelPath, 'start' | 'stop' | 'podsKnown' | 'podChanged' | 'status' | 'totals'>;
  /** Answers about policy. Undefined: no control process, so there is none. */
  readonly policy?: Pick<NodePolicy, 'test' | 'recentFlows'>;
  readonly clock: Clock;
  readonly directories: DirectoryWatch;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface AgentOptions {
  /** Socket, lock and state file. The agent gives it up when it stops or fails to start. */
  readonly run: ClaimedRunDirectory;
  /** Of this boot (/proc/sys/kernel/random/boot_id). */
  readonly bootId: string;
  /** Version of this build, for status. */
  readonly version: string;
  /** The agent's own user; besides root the only one that may use the socket. */
  readonly uid: number;
  /** Longest wait for open connections at a stop. Default: 25,000 ms. Beyond 24 days it is 24 days. */
  readonly drainMs?: number;
  /** How often each pod is looked at. Default: 500 ms. */
  readonly checkIntervalMs?: number;
  /** Time to send a whole request. Default: 5,000 ms. */
  readonly requestDeadlineMs?: number;
  /** Clients of the socket served at a time. Default: 64. */
  readonly maxClients?: number;
}

/** Timers end there. */
const MAX_DRAIN_MS = 24 * 86_400_000;

export type AgentState =
  | { readonly kind: 'new' }
  | { readonly kind: 'starting' }
  | { readonly kind: 'serving'; readonly since: number }
  | { readonly kind: 'draining'; readonly since: number }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly error: unknown };

/** One node's keeper. Started once, stopped once. */
export class Agent {
  readonly #deps: AgentDeps;
  readonly #options: AgentOptions;
  readonly #startedAt: number;
  #state: AgentState = { kind: 'new' };
  #reconciler: Reconciler | undefined;
  #server: AgentServer | undefined;
  #upkeep: { stop(): void } | undefined;
  #stopping: Promise<void> | undefined;

  constructor(deps: AgentDeps, options: AgentOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#startedAt = deps.clock.now();
  }

  state(): AgentState {
    return this.#state;
  }

  /**
   * Serves the pods of an earlier agent again, then opens the socket. Does not wait for the mesh.
   *
   * @throws AgentError STATE_UNREADABLE, ALREADY_RUNNING, SOCKET_UNUSABLE; the agent is then `failed` and holds nothing
   */
  async start(): Promise<void> {
    if (this.#state.kind !== 'new')
      throw new AgentError('INTERNAL', `an agent that is ${this.#state.kind} cannot start`);
    this.#setState({ kind: 'starting' });
    const { log, metrics, clock, kernel } = this.#deps;
    const { run, bootId, uid } = this.#options;
    try {
      // First void what an earlier agent has vouched for.
      this.#deps.kernelPath?.start();
      this.#deps.mesh?.start();
      const state = new StateFile({ log }, { path: run.state, bootId });
      const reconciler = new Reconciler(
        { ...this.#deps, follower: this.#deps.kernelPath, state },
        given({ checkIntervalMs: this.#options.checkIntervalMs }),
      );
      this.#reconciler = reconciler;
      this.#observe(reconciler);
      await reconciler.start(await state.read());
      this.#deps.kernelPath?.podsKnown();
      this.#reportUnclaimed();
      this.#upkeep = startUpkeep({ kernel, clock, log });
      this.#server = new AgentServer(
        {
          credentials: kernel,
          log,
          answer: (request) => this.#answer(request, reconciler),
          counted: (method, error) => metrics.requests.inc({ method, result: error?.code ?? 'ok' }),
        },
        {
          path: run.socket,
          uid,
          ...given({ requestDeadlineMs: this.#options.requestDeadlineMs, maxClients: this.#options.maxClients }),
        },
      );
      await this.#server.listen();
      // A stop that came meanwhile has the last word.
      if (this.#stopping === undefined) this.#setState({ kind: 'serving', since: clock.now() });
      log.info({ socket: run.socket, pods: reconciler.pods().length }, 'ready');
    } catch (error) {
      this.#deps.mesh?.stop();
      this.#deps.kernelPath?.stop();
      this.#upkeep?.stop();
      await this.#reconciler?.close();
      this.#options.run.release();
      this.#setState({ kind: 'failed', error });
      throw error;
    }
  }

  /**
   * Takes no further request and no further connection, drains the tunnel, and leaves what is captured captured: until an agent is back, enrolled
   * pods are refused, never passed in the clear. Calling it again waits for the same end.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const { log, kernel, tunnel, clock } = this.#deps;
    const drainMs = Math.min(this.#options.drainMs ?? 25_000, MAX_DRAIN_MS);
    this.#setState({ kind: 'draining', since: clock.now() });
    log.info({ drain_ms: drainMs }, 'agent stops: draining');
    try {
      await Promise.all([this.#reconciler?.close(), this.#server?.close()]);
      const drained = tunnel.shutdown(drainMs);
      // Else what comes meanwhile would wait in the kernel, to be reset in the end.
      kernel.refuseAll();
      await drained;
    } finally {
      // Not before: connections that are being drained may still need to hear of the mesh.
      this.#deps.mesh?.stop();
      this.#deps.kernelPath?.stop();
      this.#upkeep?.stop();
      this.#options.run.release();
      this.#setState({ kind: 'stopped' });
      log.info({}, 'agent stopped');
    }
  }

  async #answer(request: Request, reconciler: Reconciler): Promise<string> {
    switch (request.method) {
      case 'enrol': {
        const { result, cookie } = await reconciler.enrol(request.pod);
        return encodeReply({ ok: true, result, netnsCookie: String(cookie) });
      }
      case 'withdraw':
        return encodeReply({ ok: true, result: await reconciler.withdraw(request.uid) });
      case 'status':
        return encodeReply({ ok: true, status: this.#status(reconciler) });
      case 'metrics':
        return encodeReply({ ok: true, metrics: await this.#deps.metrics.text() });
      case 'policy-test':
        return encodeReply({ ok: true, answer: this.#policy().test(request) });
      case 'recent-flows': {
        const record = reconciler.pods().find(({ pod }) => pod.uid === request.uid);
        const cookie = record === undefined || record.kind === 'enrolling' ? undefined : record.cookie;
        return encodeReply({ ok: true, recent: this.#policy().recentFlows(cookie) });
      }
    }
  }

  #policy(): Pick<NodePolicy, 'test' | 'recentFlows'> {
    if (this.#deps.policy !== undefined) return this.#deps.policy;
    throw new AgentError(
      'NO_MESH',
      'this agent follows no control process, so it knows no policy; start it with --node and --control',
    );
  }

  #status(reconciler: Reconciler): StatusReply {
    const tunnel = this.#deps.tunnel.status();
    const kernelEvents = countsByPod(this.#deps.kernel);
    return {
      agent: {
        version: this.#options.version,
        pid: process.pid,
        state: this.#state.kind,
        startedAt: new Date(this.#startedAt).toISOString(),
      },
      pods: reconciler.pods().map((record) => podStatus(record, tunnel.openConnections, kernelEvents)),
      unclaimed: this.#unclaimed(reconciler),
      workers: tunnel.workers.map(({ slot, state, openConnections, restarts, descriptorStops, eventLoopDelayMs }) => ({
        slot,
        state,
        openConnections,
        restarts,
        descriptorStops,
        eventLoopDelayMs: { ...eventLoopDelayMs },
      })),
      totals: {
        accepted: tunnel.totals.accepted,
        closed: tunnel.totals.closed,
        failed: tunnel.totals.failed,
        unattributed: tunnel.totals.unattributed,
        bytesFromClients: tunnel.totals.bytesFromClients,
        bytesFromServers: tunnel.totals.bytesFromServers,
      },
      ended: { ...tunnel.ended },
      paths: tunnel.paths,
      sessions: tunnel.sessions,
      descriptors: { open: tunnel.descriptors.open, limit: tunnel.descriptors.limit },
      mesh: this.#deps.mesh?.status() ?? null,
      kernelPath: kernelPathStatus(this.#deps.kernelPath),
    };
  }

  #unclaimed(reconciler: Reconciler): string[] {
    return this.#deps.kernel
      .captured()
      .filter((cookie) => !reconciler.knows(cookie))
      .map(String);
  }

  #reportUnclaimed(): void {
    const unclaimed = this.#reconciler === undefined ? [] : this.#unclaimed(this.#reconciler);
    if (unclaimed.length === 0) return;
    this.#deps.log.warn(
      { netns_cookies: unclaimed },
      'an earlier agent captured pods that are in no state file; their connections are refused until they are enrolled again',
    );
  }

  #observe(reconciler: Reconciler): void {
    const { metrics, tunnel, kernel } = this.#deps;
    metrics.observe({
      enrolledPods: () => reconciler.pods().filter(({ kind }) => kind === 'enrolled').length,
      openConnections: () => tunnel.status().workers.reduce((sum, { openConnections }) => sum + openConnections, 0),
      workers: () => tunnel.status().workers.filter(({ state }) => state === 'serving').length,
      descriptors: () => tunnel.status().descriptors,
      descriptorStops: () => tunnel.status().workers.reduce((sum, { descriptorStops }) => sum + descriptorStops, 0),
      openedConnections: () => tunnel.status().totals.accepted,
      endedConnections: () => tunnel.status().ended,
      sessions: () => tunnel.status().sessions,
      bytes: () => {
        const { bytesFromClients, bytesFromServers } = tunnel.status().totals;
        return { client: bytesFromClients, server: bytesFromServers };
      },
      kernelEvents: () => countsByReason(kernel),
    });
    observeKernelPath(this.#deps);
  }

  #setState(state: AgentState): void {
    this.#state = state;
  }
}

function kernelPathStatus(path: AgentDeps['kernelPath']): KernelPathStatusReply | null {
  if (path === undefined) return null;
  const { state, error, verdicts, services, flows, beats, kubelet } = path.status();
  return {
    ...{ state, verdicts, services, flows, heartbeats: beats, kubelet: kubelet ?? null },
    ...(error === undefined ? {} : { error }),
  };
}

function podStatus(
  record: PodRecord,
  openConnections: ReadonlyMap<bigint, number>,
  kernelEvents: ReadonlyMap<bigint, Record<string, number>>,
): PodStatusReply {
  const { pod } = record;
  const cookie = record.kind === 'enrolling' ? undefined : record.cookie;
  const error = 'error' in record ? record.error : undefined;
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    netns: pod.netns,
    addresses: [...pod.addresses],
    path: record.kind,
    ...(error === undefined ? {} : { error }),
    ...(cookie === undefined ? {} : { netnsCookie: String(cookie) }),
    openConnections: cookie === undefined ? 0 : (openConnections.get(cookie) ?? 0),
    kernelEvents: cookie === undefined ? {} : (kernelEvents.get(cookie) ?? {}),
  };
}

/** The options that were given, so that the rest keep their defaults. */
function given<T extends Record<string, number | undefined>>(options: T): { [K in keyof T]?: number } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: number;
  };
}
