import type { Explanation, Log, Metrics } from '../telemetry/index.ts';
import type { LevelControl } from './admin/admin-routes.ts';
import { kernelPathStatus, podStatus, tunnelStatus } from './agent-status.ts';
import type { ShownPod } from './config-dump/config-dump.ts';
import { AgentError } from './errors.ts';
import type { NodeExplain } from './explain/node-explain.ts';
import type { KernelPath } from './kernel-path/kernel-path.ts';
import { NodeFlows } from './node-flows.ts';
import type { NodePolicy } from './node-policy.ts';
import type { NodeReport } from './node-report.ts';
import { observeKernelPath } from './observe-kernel-path.ts';
import type { CapturedPods, Clock, DirectoryWatch, KernelUpkeep, PeerCredentials, PodKernel, Tunnel } from './ports.ts';
import { encodeReply, type MeshStatusReply, type Request, type StatusReply } from './protocol.ts';
import type { RecentFlows } from './recent-flows.ts';
import { type PodRecord, Reconciler } from './reconcile.ts';
import type { ClaimedRunDirectory } from './run-directory.ts';
import { ServedPods } from './served-pods.ts';
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
  /** What there is to tell of the node as such. Undefined: nothing. */
  readonly report?: Pick<NodeReport, 'status' | 'configDump'>;
  /** The log's level while the agent runs. Undefined: it stays as it is. */
  readonly levels?: LevelControl;
  /** What runs beside the agent, from before it is ready until it has stopped: ports for people and tools, say. Must not fail. */
  readonly services?: ReadonlyArray<{ start(): Promise<void>; close(): Promise<void> }>;
  /** Answers about policy. Undefined: no control process, so there is none. */
  readonly policy?: Pick<NodePolicy, 'test' | 'recentFlows'>;
  /** The connections that ended last. Undefined: none are kept. */
  readonly flows?: RecentFlows;
  /** Says what becomes of connections. Undefined: no control process, so nobody can. */
  readonly explain?: Pick<NodeExplain, 'pair' | 'flow'>;
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
  readonly #served: ServedPods;
  readonly #flows: NodeFlows | undefined;
  #state: AgentState = { kind: 'new' };
  #reconciler: Reconciler | undefined;
  #server: AgentServer | undefined;
  #upkeep: { stop(): void } | undefined;
  #stopping: Promise<void> | undefined;

  constructor(deps: AgentDeps, options: AgentOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#startedAt = deps.clock.now();
    this.#served = new ServedPods(deps.kernelPath, deps.flows);
    this.#flows = deps.flows && new NodeFlows({ flows: deps.flows });
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
        { ...this.#deps, follower: this.#served, state },
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
      await Promise.all((this.#deps.services ?? []).map((service) => service.start()));
      // A stop that came meanwhile has the last word.
      if (this.#stopping === undefined) this.#setState({ kind: 'serving', since: clock.now() });
      log.info({ socket: run.socket, pods: reconciler.pods().length }, 'ready');
    } catch (error) {
      this.#deps.mesh?.stop();
      this.#deps.kernelPath?.stop();
      this.#upkeep?.stop();
      await this.#closeServices();
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
      // Who waits for the next flow must not hold up the end.
      this.#flows?.release();
      await Promise.all([this.#reconciler?.close(), this.#server?.close()]);
      const drained = tunnel.shutdown(drainMs);
      // Else what comes meanwhile would wait in the kernel, to be reset in the end.
      kernel.refuseAll();
      await drained;
    } finally {
      await this.#closeServices();
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
        return encodeReply({ ok: true, status: this.status() });
      case 'metrics':
        return encodeReply({ ok: true, metrics: await this.#deps.metrics.text() });
      case 'policy-test':
        return encodeReply({ ok: true, answer: this.#policy().test(request) });
      case 'recent-flows': {
        const record = reconciler.pods().find(({ pod }) => pod.uid === request.uid);
        const cookie = record === undefined || record.kind === 'enrolling' ? undefined : record.cookie;
        return encodeReply({ ok: true, recent: this.#policy().recentFlows(cookie) });
      }
      case 'config-dump': {
        const pieces: string[] = [];
        for await (const piece of this.configDump(false)) pieces.push(piece);
        return `{"ok":true,"dump":${pieces.join('')}}\n`;
      }
      case 'log-level':
        return encodeReply({ ok: true, level: this.#setLevel(request) });
      case 'flows':
        return encodeReply({ ok: true, page: await this.#flowsOrRefuse().page(request) });
      case 'explain':
        return encodeReply({ ok: true, explanation: this.explain(request) });
    }
  }

  #policy(): Pick<NodePolicy, 'test' | 'recentFlows'> {
    if (this.#deps.policy !== undefined) return this.#deps.policy;
    throw new AgentError(
      'NO_MESH',
      'this agent follows no control process, so it knows no policy; start it with --node and --control',
    );
  }

  /**
   * What would become of a connection (`from` and `to`), or what became of one (`flow`).
   *
   * @throws AgentError NO_MESH, BAD_REQUEST: a name means nothing
   */
  explain({
    from,
    to,
    flow,
  }: {
    from?: string | undefined;
    to?: string | undefined;
    flow?: string | undefined;
  }): Explanation {
    const { explain, kernel, clock } = this.#deps;
    if (explain === undefined)
      throw new AgentError(
        'NO_MESH',
        'this agent follows no control process, so it knows nobody; start it with --node and --control',
      );
    if (flow !== undefined && from === undefined && to === undefined) return explain.flow(flow, clock.now());
    if (from === undefined || to === undefined || flow !== undefined)
      throw new AgentError('BAD_REQUEST', 'give either from and to, or flow');
    const counts = countsByPod(kernel);
    return explain.pair(
      { from, to },
      {
        pods: this.#pods(),
        faults: kernel.faults(),
        counts: (cookie) => counts.get(cookie) ?? {},
        now: clock.now(),
      },
    );
  }

  #flowsOrRefuse(): NodeFlows {
    if (this.#flows !== undefined) return this.#flows;
    throw new AgentError('NO_MESH', 'this agent keeps no flows; start it with --node and --control');
  }

  /** @throws AgentError BAD_REQUEST: it is no level */
  #setLevel({ level, reset }: Extract<Request, { method: 'log-level' }>): string {
    const { levels, log } = this.#deps;
    if (levels === undefined) throw new AgentError('INTERNAL', 'the level of this log cannot be changed');
    const wrong = level === undefined ? undefined : levels.set(level);
    if (wrong !== undefined) throw new AgentError('BAD_REQUEST', `level: ${wrong}`);
    if (level === undefined && reset) levels.reset();
    if (level !== undefined || reset) log.info({ level: levels.text() }, 'the log level has been set');
    return levels.text();
  }

  /** JSON text in pieces (wire contract, section 9.5). */
  configDump(pretty: boolean): AsyncIterable<string> {
    const { report } = this.#deps;
    if (report === undefined) throw new AgentError('INTERNAL', 'this agent tells nothing of its node');
    return report.configDump(this.#pods().map(shownPod), pretty);
  }

  #pods(): readonly PodRecord[] {
    return this.#reconciler?.pods() ?? [];
  }

  async #closeServices(): Promise<void> {
    await Promise.all((this.#deps.services ?? []).map((service) => service.close()));
  }

  /** How often serving a pod was begun and ended. */
  served(): { readonly started: number; readonly stopped: number } {
    return this.#served.counts();
  }

  /** As `culvert status` has it. */
  status(): StatusReply {
    const tunnel = this.#deps.tunnel.status();
    const known = {
      openConnections: tunnel.openConnections,
      events: countsByPod(this.#deps.kernel),
    };
    return {
      agent: {
        version: this.#options.version,
        pid: process.pid,
        state: this.#state.kind,
        startedAt: new Date(this.#startedAt).toISOString(),
      },
      pods: this.#pods().map((record) => podStatus(record, known)),
      unclaimed: this.#reconciler === undefined ? [] : this.#unclaimed(this.#reconciler),
      ...tunnelStatus(tunnel),
      mesh: this.#deps.mesh?.status() ?? null,
      kernelPath: kernelPathStatus(this.#deps.kernelPath),
      node: this.#deps.report?.status(this.#deps.clock.now() - this.#startedAt) ?? null,
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

function shownPod(record: PodRecord): ShownPod {
  const cookie = record.kind === 'enrolling' ? undefined : record.cookie;
  return { pod: record.pod, cookie, isServed: record.kind === 'enrolled' };
}

/** The options that were given, so that the rest keep their defaults. */
function given<T extends Record<string, number | undefined>>(options: T): { [K in keyof T]?: number } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: number;
  };
}
