import { closeSync, fstatSync } from 'node:fs';
import type {
  Certificate,
  CertificateChange,
  FlowId,
  FlowSink,
  FlowSubject,
  MeshUpdate,
  NetnsCookie,
  Pod,
  SpiffeId,
} from '../mesh/index.ts';
import { compileSoon } from './compiling.ts';
import type { ListedConnection } from './connection-lists.ts';
import { ZtunnelError } from './errors.ts';
import { LEDGER_PODS } from './ledger.ts';
import { Namespaces } from './namespaces.ts';
import type { PodName } from './node-view.ts';
import { EndpointCosts } from './outbound/endpoints.ts';
import type { Log } from './ports.ts';
import type { HandedListener, ToWorker, WorkerMesh } from './protocol.ts';
import { type Feed, type PathRequest, Seat, type SeriesSources } from './seat.ts';
import { statusOf, type TunnelWorkersStatus } from './workers-status.ts';

export interface TunnelWorkersDeps {
  readonly log: Log;
  /** A new descriptor of the same socket or namespace, close-on-exec. */
  duplicate(fd: number): number;
  /** All that is known of the mesh, for a new worker. Asked only after a complete update. */
  meshSnapshot(): MeshUpdate;
  /** A connection waits for it; what becomes of it is told by `updateCertificate`. */
  wantCertificate(identity: SpiffeId): void;
  /**
   * A pod's connection has been connected to a pod of this node, or to what takes no tunnel: at most once a second for each
   * destination and worker. Undefined: workers do not ask.
   */
  pathWanted?(request: PathRequest): void;
  /** Is told of every connection of the pods at its end, within some 50 ms. */
  readonly flows: FlowSink;
  /** It has become known where a connection goes. Default: nobody wants to know, since it costs a message each. */
  flowOpened?(subject: FlowSubject, id: FlowId): void;
  /** Reads what workers count of connections, live. */
  readonly series: SeriesSources;
}

export interface TunnelWorkersOptions {
  /** The worker thread's entry: composes PodSockets and calls `runTunnelWorker`. */
  readonly entry: URL;
  readonly workers: number;
  /** Descriptors that the process may have open (RLIMIT_NOFILE). */
  readonly descriptorLimit: number;
  /** Of these, what the main thread keeps for itself and for the pods' own listeners. */
  readonly descriptorReserve: number;
  /** Backlog of the listeners. Default 4096, and the pod's net.core.somaxconn bounds it. */
  readonly backlog?: number;
  /** What was counted of connections that are alike is given up when it has not changed for this long. Default: 600. */
  readonly seriesIdleSeconds?: number;
  /** Undefined: there is no mesh, and every connection is relayed in plain. */
  readonly mesh?: {
    /** This node's name, as workloads have it. */
    readonly node: string;
    /** A session without a stream for this long is closed. Default 300,000 ms (wire contract, section 2.8). */
    readonly poolIdleMs?: number;
    /** A PING after this much silence of a session. Default 10,000 ms (wire contract, section 2.7). */
    readonly pingIntervalMs?: number;
    /** No answer to it within this: the session is lost. Default 20,000 ms (wire contract, section 2.7). */
    readonly pingTimeoutMs?: number;
  };
  /** Given to every worker's entry as `workerData.composition`; structured-clonable. */
  readonly composition?: unknown;
}

/** As much of a prepared pod as the tunnel needs. */
export interface ServablePod {
  readonly cookie: NetnsCookie;
  readonly netnsFd: number;
  readonly listeners: ReadonlyArray<{ readonly port: number; readonly slot: number; readonly fd: number }>;
}

const DEFAULT_BACKLOG = 4096;

const SERIES_IDLE_SECONDS = 600;
const POOL_IDLE_MS = 300_000;
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 20_000;

interface Known {
  readonly name: PodName;
  readonly prepared: ServablePod;
  /** Our own duplicate of the descriptor of its namespace. */
  readonly netnsFd: number;
  readonly line: number;
}

/**
 * The worker threads, seen from the main thread, which keeps every listener itself. A worker has duplicates, so its end
 * refuses nobody: what comes waits in the kernel until the next one has taken over.
 */
export class TunnelWorkers {
  readonly #deps: TunnelWorkersDeps;
  readonly #options: TunnelWorkersOptions;
  readonly #seats: Seat[];
  readonly #pods = new Map<NetnsCookie, Known>();
  /** Ledger lines by pod, also of pods that only have open connections left. */
  readonly #lines = new Map<NetnsCookie, number>();
  readonly #namespaces: Namespaces;
  /** The current ones, for new workers. */
  readonly #certificates = new Map<SpiffeId, Certificate>();
  readonly #costs: EndpointCosts | undefined;
  #isMeshKnown = false;
  #shutdown: Promise<void> | undefined;

  constructor(deps: TunnelWorkersDeps, options: TunnelWorkersOptions) {
    this.#deps = deps;
    this.#options = options;
    const descriptorLimit = Math.floor((options.descriptorLimit - options.descriptorReserve) / options.workers);
    this.#namespaces = new Namespaces(deps.duplicate);
    const mesh = workerMesh(options, deps);
    compileSoon();
    this.#costs = mesh && new EndpointCosts({ memory: mesh.endpointCosts, worker: undefined });
    this.#seats = Array.from(
      { length: options.workers },
      (_, slot) =>
        new Seat(
          {
            log: deps.log,
            handOver: (seat, cookie) => this.#handOverAll(seat, cookie),
            greeting: () => this.#greeting(),
            uses: (seat, cookie) => this.#namespaces.use(cookie, seat.slot),
            left: (seat, cookie) => this.#namespaces.leave(cookie, seat.slot),
            wantCertificate: (identity) => deps.wantCertificate(identity),
            pathWanted: (request) => deps.pathWanted?.(request),
            flowOpened: deps.flowOpened && ((subject, id) => deps.flowOpened?.(subject, id)),
            flowsEnded: (records) => deps.flows.add(records),
            series: deps.series,
          },
          {
            entry: options.entry,
            slot,
            descriptorLimit,
            backlog: options.backlog ?? DEFAULT_BACKLOG,
            seriesIdleSeconds: options.seriesIdleSeconds ?? SERIES_IDLE_SECONDS,
            mesh,
            composition: options.composition,
          },
        ),
    );
  }

  /**
   * Idempotent; resolves when every worker listens for the pod. Changed listeners replace the old ones. On failure a pod
   * that was not served before is served by no worker.
   */
  async serve(pod: Pod, prepared: ServablePod): Promise<void> {
    if (this.#shutdown !== undefined) throw new ZtunnelError('SHUT_DOWN', 'the tunnel is shutting down');
    const before = this.#pods.get(prepared.cookie);
    const { namespace, name, serviceAccount } = pod;
    const known: Known = {
      name: { namespace, name, serviceAccount },
      prepared,
      netnsFd: this.#namespaces.want(prepared.cookie, prepared.netnsFd),
      line: this.#lineOf(prepared.cookie),
    };
    this.#pods.set(prepared.cookie, known);
    try {
      await Promise.all(this.#seats.map((seat) => this.#handOver(seat, known)));
    } catch (error) {
      if (before === undefined && this.#pods.get(prepared.cookie) === known) await this.stopAccepting(prepared.cookie);
      throw error;
    }
  }

  /**
   * No further connection is accepted for the pod; open ones live on, those that are still being made included: for them a
   * duplicate of the pod's `netnsFd` stays open. Resolves when every worker has closed its listeners. Idempotent.
   */
  async stopAccepting(cookie: NetnsCookie): Promise<void> {
    this.#forget(cookie);
    await Promise.all(this.#seats.map((seat) => seat.tell({ kind: 'stop-accepting', cookie: String(cookie) })));
    for (const seat of this.#seats) seat.forget(cookie);
  }

  /** Stops accepting and resets what is open. Idempotent. */
  async drop(cookie: NetnsCookie): Promise<void> {
    this.#forget(cookie);
    await Promise.all(this.#seats.map((seat) => seat.tell({ kind: 'drop', cookie: String(cookie) })));
    for (const seat of this.#seats) seat.forget(cookie);
  }

  /** What endpoints cost, as all workers know it; undefined: there is no mesh. */
  get endpointCosts(): EndpointCosts | undefined {
    return this.#costs;
  }

  /**
   * What has changed in the mesh; the first update is complete. Resolves when it is in force in every worker, and what it
   * forbids has been reset; a worker that ends meanwhile has nothing left to reset.
   */
  async updateMesh(update: MeshUpdate): Promise<void> {
    this.#isMeshKnown ||= update.complete;
    if (this.#options.mesh === undefined) return;
    await Promise.all(this.#seats.map((seat) => seat.tell({ kind: 'mesh', update })));
  }

  /** What became of a certificate of one of the node's identities. */
  updateCertificate(change: CertificateChange): void {
    if (change.kind === 'issued') this.#certificates.set(change.certificate.identity, change.certificate);
    else this.#certificates.delete(change.identity);
    this.#feed({ kind: 'certificate', change });
  }

  status(): TunnelWorkersStatus {
    const openConnections = new Map<NetnsCookie, number>();
    for (const [cookie, line] of this.#lines) {
      const open = this.#openOn(line);
      if (open > 0 || this.#pods.has(cookie)) openConnections.set(cookie, open);
    }
    const limit = this.#options.descriptorLimit - this.#options.descriptorReserve;
    return statusOf(this.#seats, openConnections, limit, this.#costs?.ejected ?? 0);
  }

  /** Connections that are open, at most so many of each worker. */
  async connections(most: number): Promise<ListedConnection[]> {
    return (await Promise.all(this.#seats.map((seat) => seat.connections(most)))).flat();
  }

  /** Stops accepting, waits at most `deadlineMs` for open connections, resets the rest, ends the workers. Idempotent. */
  shutdown(deadlineMs: number): Promise<void> {
    this.#shutdown ??= Promise.all(this.#seats.map((seat) => seat.shutdown(deadlineMs))).then(() => {
      this.#pods.clear();
      this.#namespaces.close();
    });
    return this.#shutdown;
  }

  #feed(message: Feed): void {
    if (this.#options.mesh === undefined) return;
    for (const seat of this.#seats) seat.feed(message);
  }

  #greeting(): ToWorker[] {
    if (!this.#isMeshKnown) return [];
    const certificates = [...this.#certificates.values()];
    return [
      { kind: 'mesh', id: 0, update: this.#deps.meshSnapshot() },
      ...certificates.map(
        (certificate): ToWorker => ({ kind: 'certificate', change: { kind: 'issued', certificate } }),
      ),
    ];
  }

  #forget(cookie: NetnsCookie): void {
    this.#pods.delete(cookie);
    this.#namespaces.forget(cookie);
  }

  async #handOverAll(seat: Seat, only: NetnsCookie | undefined): Promise<void> {
    const pods = [...this.#pods.values()].filter(({ prepared }) => only === undefined || prepared.cookie === only);
    const results = await Promise.allSettled(pods.map((known) => this.#handOver(seat, known, true)));
    for (const result of results) {
      if (result.status === 'rejected')
        this.#deps.log.error({ worker: seat.slot, error: result.reason }, 'a worker could not take over a pod');
    }
  }

  async #handOver(seat: Seat, known: Known, again = false): Promise<void> {
    const { cookie, listeners } = known.prepared;
    const own = listeners.filter(({ slot }) => slot === seat.slot);
    const { name, netnsFd, line } = known;
    const descriptors = own.map(({ fd }) => `${fd}:${fstatSync(fd).ino}`);
    const handed = [name.namespace, name.name, name.serviceAccount, ...descriptors].join();
    const pod = { cookie, name, netnsFd, line, handed, isWanted: () => this.#pods.get(cookie) === known };
    await seat.serve(pod, () => this.#duplicates(own), again);
  }

  #duplicates(own: ServablePod['listeners']): HandedListener[] {
    const duplicates: HandedListener[] = [];
    try {
      for (const { port, fd } of own) duplicates.push({ port, fd: this.#deps.duplicate(fd) });
      return duplicates;
    } catch (error) {
      for (const { fd } of duplicates) closeSync(fd);
      throw new ZtunnelError('NO_DESCRIPTORS', 'cannot duplicate a listener', { cause: error });
    }
  }

  #lineOf(cookie: NetnsCookie): number {
    const known = this.#lines.get(cookie);
    if (known !== undefined) return known;
    for (const [old, line] of this.#lines) {
      if (this.#pods.has(old) || this.#openOn(line) > 0) continue;
      this.#lines.delete(old);
    }
    const taken = new Set(this.#lines.values());
    let line = 0;
    while (taken.has(line)) line += 1;
    // Beyond the ledger's lines a pod is served but not counted by itself.
    this.#lines.set(cookie, Math.min(line, LEDGER_PODS));
    return Math.min(line, LEDGER_PODS);
  }

  #openOn(line: number): number {
    return line < LEDGER_PODS ? this.#seats.reduce((sum, seat) => sum + seat.openOn(line), 0) : 0;
  }
}

function workerMesh(
  { mesh, workers }: TunnelWorkersOptions,
  { pathWanted }: TunnelWorkersDeps,
): WorkerMesh | undefined {
  if (mesh === undefined) return undefined;
  return {
    node: mesh.node,
    workers,
    endpointCosts: EndpointCosts.allocate(workers),
    poolIdleMs: mesh.poolIdleMs ?? POOL_IDLE_MS,
    session: {
      pingIntervalMs: mesh.pingIntervalMs ?? PING_INTERVAL_MS,
      pingTimeoutMs: mesh.pingTimeoutMs ?? PING_TIMEOUT_MS,
    },
    asksForPaths: pathWanted !== undefined,
  };
}
