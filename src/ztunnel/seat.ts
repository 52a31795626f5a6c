import { closeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Endpoint, FlowId, FlowRecord, FlowSubject, NetnsCookie, SpiffeId } from '../mesh/index.ts';
import type { DecisionReason } from '../policy/index.ts';
import { allocateFlowRing, FlowReader, type SeriesReader, SeriesTable } from '../telemetry/index.ts';
import { ConnectionLists, type ListedConnection } from './connection-lists.ts';
import { END_REASONS, type EndReason, ZtunnelError } from './errors.ts';
import { DECISION_REASONS, Ledger, type SocketsOpen, TOTALS, type Total } from './ledger.ts';
import type { PodName } from './node-view.ts';
import type { Log } from './ports.ts';
import type { FromWorker, HandedListener, Question, ToWorker, TunnelWorkerData, WorkerMesh } from './protocol.ts';

export interface TunnelWorkerStatus {
  readonly slot: number;
  /** `paused`: accepts nothing for want of descriptors. */
  readonly state: 'starting' | 'serving' | 'paused' | 'stopped';
  readonly openConnections: number;
  /** How often this slot's worker has been started again. */
  readonly restarts: number;
  /** How often it stopped accepting, at all or for one pod, for want of descriptors. */
  readonly descriptorStops: number;
  readonly descriptors: { readonly open: number; readonly limit: number };
  /** Of the last second. */
  readonly eventLoopDelayMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** CPU time of this slot's threads, those before included; at most a second old. */
  readonly cpuSeconds: number;
  /** That the thread's JavaScript uses; at most a second old. */
  readonly heapBytes: number;
}

/** Whoever reads what a worker counts of its connections. */
export interface SeriesSource extends SeriesReader {
  /** The worker has ended: its cells do not change any more. */
  gone(): void;
}

/** Whoever keeps what all workers count of their connections (src/telemetry's SeriesBook). */
export interface SeriesSources {
  /** @param freed to be called when what an idle slot had counted has been put aside */
  source(cells: Float64Array, freed: (slot: number) => void): SeriesSource;
}

/** A worker that lived less than this is started again only after a pause. */
const SHORT_LIFE_MS = 1000;
const LONGEST_PAUSE_MS = 5000;
/** How many successors of a dying worker `serve` tries before it gives up. */
const SERVE_ATTEMPTS = 3;
/** Shortage of descriptors is logged once per worker, or pod in a worker, and this long. */
const FULL_LOG_MS = 60_000;
/** What a worker may need beyond its drain deadline to see its resets through. */
const DRAIN_GRACE_MS = 1000;

export interface SeatDeps {
  readonly log: Log;
  /** Gives a new worker, or one that has room again, every pod, or the one that has room again in its share. */
  handOver(seat: Seat, cookie?: NetnsCookie): Promise<void>;
  /** What a new worker must know before anything else. */
  greeting(): readonly ToWorker[];
  /** The worker will use the pod's namespace, or has no more use for it. */
  uses(seat: Seat, cookie: NetnsCookie): void;
  left(seat: Seat, cookie: NetnsCookie): void;
  /** A connection of the worker waits for a certificate. */
  wantCertificate(identity: SpiffeId): void;
  /** See `path` in protocol.ts. */
  pathWanted(request: PathRequest): void;
  /** See `opened` in protocol.ts. Undefined: nobody wants to know. */
  readonly flowOpened: ((subject: FlowSubject, id: FlowId) => void) | undefined;
  /** Connections that have ended. */
  flowsEnded(records: readonly FlowRecord[]): void;
  readonly series: SeriesSources;
}

/** Whether further connections of a pod to a destination need an agent. */
export interface PathRequest {
  readonly source: NetnsCookie;
  /** The endpoint that was connected to; of a service, the one that was chosen. */
  readonly destination: Endpoint;
}

interface SeatOptions {
  readonly entry: URL;
  readonly slot: number;
  readonly descriptorLimit: number;
  readonly backlog: number;
  readonly seriesIdleSeconds: number;
  readonly mesh: WorkerMesh | undefined;
  readonly composition: unknown;
}

/** What is told without an answer. */
export type Feed = Exclude<ToWorker, Question | { kind: 'list-connections' }>;

/** A pod as a worker is given it. */
interface ServedPod {
  readonly cookie: NetnsCookie;
  readonly name: PodName;
  readonly netnsFd: number;
  readonly line: number;
  /** What it is given, to know when that has changed. */
  readonly handed: string;
  isWanted(): boolean;
}

/** A thread and what it shares with this one. */
interface Seated {
  readonly thread: Worker;
  readonly ledger: Ledger;
  readonly series: SeriesSource;
  readonly flows: FlowReader;
  readonly since: number;
}

type SeatState =
  | (Seated & { readonly name: 'starting' })
  | (Seated & { readonly name: 'serving' })
  | { readonly name: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly name: 'stopped' };

export type Ask = Question extends infer Message ? (Message extends Question ? Omit<Message, 'id'> : never) : never;

interface Pending {
  readonly resolve: () => void;
  readonly reject: (error: ZtunnelError) => void;
  /** Duplicates that are not the worker's until it has said so. */
  readonly handed: readonly HandedListener[];
  readonly taken: SharedArrayBuffer | undefined;
}

/** The place of one worker: the thread that sits in it may die and be replaced, the place and its totals remain. */
export class Seat {
  readonly slot: number;
  readonly #deps: SeatDeps;
  readonly #options: SeatOptions;
  /** Totals of the threads that sat here before. */
  readonly #before = new Ledger();
  readonly #pending = new Map<number, Pending>();
  readonly #lists = new ConnectionLists();
  /** What the thread has been given, by pod. */
  readonly #handed = new Map<NetnsCookie, string>();
  /** The last `serve` of each pod that the thread has and has not left. */
  readonly #served = new Map<string, number>();
  #state: SeatState;
  #lastId = 0;
  #restarts = 0;
  /** Records of the threads before for which there was no room, or that were never told of. */
  #recordsLostBefore = 0;
  #shortLives = 0;
  #leaving = false;
  /** When shortage was last logged: of the pod with this cookie, or of the worker. */
  readonly #fullSaid = new Map<string | undefined, number>();
  #onStopped: Array<() => void> = [];

  constructor(deps: SeatDeps, options: SeatOptions) {
    this.slot = options.slot;
    this.#deps = deps;
    this.#options = options;
    this.#state = this.#spawn();
  }

  /** Resolves when the worker listens; a worker that dies meanwhile is replaced, and its successor asked. */
  async serve(pod: ServedPod, duplicates: () => HandedListener[], again: boolean): Promise<void> {
    for (let attempts = 1; ; attempts += 1) {
      if (this.#leaving) throw new ZtunnelError('SHUT_DOWN', 'the tunnel is shutting down');
      if (!again && this.#handed.get(pod.cookie) === pod.handed) return;
      const { cookie, name, netnsFd, line, handed } = pod;
      const ask = { kind: 'serve' as const, cookie: String(cookie), pod: name, netnsFd, line };
      try {
        if (!this.#isAlive) throw new ZtunnelError('WORKER_ENDED', `worker ${this.slot} keeps ending`);
        const listeners = duplicates();
        this.#deps.uses(this, cookie);
        await this.#ask({ ...ask, listeners, taken: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT) });
        this.#handed.set(cookie, handed);
        return;
      } catch (error) {
        const successor = error instanceof ZtunnelError && error.code === 'WORKER_ENDED' && this.#isAlive;
        // Stopped meanwhile: its descriptors may be closed already, and a worker must not be given their numbers.
        if (!successor || attempts === SERVE_ATTEMPTS || !pod.isWanted()) throw error;
      }
    }
  }

  /** Tells a thread, if there is one; its successor is greeted with it. */
  feed(message: Feed): void {
    if (this.#state.name === 'starting' || this.#state.name === 'serving') this.#state.thread.postMessage(message);
  }

  /** What the thread has open, at most so many. One that does not answer in time, or is not there, has nothing to tell of. */
  async connections(most: number): Promise<readonly ListedConnection[]> {
    const state = this.#state;
    if (state.name !== 'serving') return [];
    return await this.#lists.ask((list) =>
      state.thread.postMessage({ kind: 'list-connections', list, most } satisfies ToWorker),
    );
  }

  /** As `ask`, but a worker that ended has nothing left to stop. */
  async tell(ask: Ask): Promise<void> {
    if (!this.#isAlive) return;
    try {
      await this.#ask(ask);
    } catch (error) {
      if (!(error instanceof ZtunnelError) || error.code !== 'WORKER_ENDED') throw error;
    }
  }

  forget(cookie: NetnsCookie): void {
    this.#handed.delete(cookie);
    this.#fullSaid.delete(String(cookie));
  }

  async shutdown(deadlineMs: number): Promise<void> {
    this.#leaving = true;
    if (this.#state.name === 'waiting') {
      clearTimeout(this.#state.timer);
      this.#become({ name: 'stopped' });
    }
    if (this.#state.name !== 'starting' && this.#state.name !== 'serving') return;
    const { thread } = this.#state;
    const stopped = new Promise<void>((resolve) => {
      this.#onStopped.push(resolve);
    });
    const bound = setTimeout(() => void thread.terminate(), deadlineMs + DRAIN_GRACE_MS);
    await this.tell({ kind: 'drain', deadlineMs });
    void thread.terminate();
    await stopped;
    clearTimeout(bound);
  }

  total(field: Total): number {
    return this.#before.get(field) + (this.#ledger?.get(field) ?? 0);
  }

  /** Sockets of sessions that are open now. */
  get openSessions(): number {
    return this.#ledger?.get('sessionsOpen') ?? 0;
  }

  ended(reason: EndReason): number {
    return this.#before.ended(reason) + (this.#ledger?.ended(reason) ?? 0);
  }

  decided(reason: DecisionReason): number {
    return this.#before.decided(reason) + (this.#ledger?.decided(reason) ?? 0);
  }

  /** Accepted sockets that are open now. */
  socketsOpen(sockets: SocketsOpen): number {
    return this.#ledger?.get(sockets) ?? 0;
  }

  /** Records of connections that nobody will ever read. */
  get recordsLost(): number {
    const state = this.#state;
    const isSeated = state.name === 'starting' || state.name === 'serving';
    return this.#recordsLostBefore + (isSeated ? state.flows.dropped : 0);
  }

  openOn(line: number): number {
    return this.#ledger?.open(line) ?? 0;
  }

  status(): TunnelWorkerStatus {
    const ledger = this.#ledger;
    return {
      slot: this.slot,
      state: this.#stateName(),
      openConnections: ledger?.totalOpen() ?? 0,
      restarts: this.#restarts,
      descriptorStops: this.total('descriptorStops'),
      descriptors: { open: ledger?.get('descriptorsUsed') ?? 0, limit: this.#options.descriptorLimit },
      eventLoopDelayMs: {
        p50: ledger?.get('delayP50Ms') ?? 0,
        p99: ledger?.get('delayP99Ms') ?? 0,
        max: ledger?.get('delayMaxMs') ?? 0,
      },
      cpuSeconds: this.total('cpuSeconds'),
      heapBytes: ledger?.get('heapBytes') ?? 0,
    };
  }

  get #isAlive(): boolean {
    return this.#state.name === 'starting' || this.#state.name === 'serving';
  }

  get #ledger(): Ledger | undefined {
    return this.#state.name === 'starting' || this.#state.name === 'serving' ? this.#state.ledger : undefined;
  }

  #stateName(): TunnelWorkerStatus['state'] {
    switch (this.#state.name) {
      case 'starting':
      case 'waiting':
        return 'starting';
      case 'serving':
        return this.#state.ledger.get('accepting') === 1 ? 'serving' : 'paused';
      case 'stopped':
        return 'stopped';
    }
  }

  #spawn(): SeatState {
    const ledger = new Ledger();
    const seriesMemory = SeriesTable.allocate();
    const flowsMemory = allocateFlowRing();
    const workerData: TunnelWorkerData = {
      slot: this.slot,
      ledger: ledger.memory,
      series: seriesMemory,
      seriesIdleSeconds: this.#options.seriesIdleSeconds,
      tellsOpened: this.#deps.flowOpened !== undefined,
      flows: flowsMemory,
      descriptorLimit: this.#options.descriptorLimit,
      backlog: this.#options.backlog,
      mesh: this.#options.mesh,
      composition: this.#options.composition,
    };
    // Its descriptors come from the main thread, and Node would warn of each that it closes.
    const thread = new Worker(this.#options.entry, {
      workerData,
      name: `tunnel-${this.slot}`,
      trackUnmanagedFds: false,
    });
    const series = this.#deps.series.source(new Float64Array(seriesMemory), (slot) =>
      thread.postMessage({ kind: 'series-freed', slot } satisfies ToWorker),
    );
    const flows = new FlowReader(flowsMemory);
    thread.on('message', (message: FromWorker) => this.#heard(message, series, flows));
    thread.on('error', (error) => this.#deps.log.error({ worker: this.slot, error }, 'a tunnel worker failed'));
    thread.on('exit', (exitCode) => this.#exited(exitCode));
    for (const message of this.#deps.greeting()) thread.postMessage(message);
    return { name: 'starting', thread, ledger, series, flows, since: performance.now() };
  }

  #ask(ask: Ask): Promise<void> {
    const state = this.#state;
    if (state.name !== 'starting' && state.name !== 'serving')
      return Promise.reject(new ZtunnelError('WORKER_ENDED', 'the worker has ended'));
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const handed = ask.kind === 'serve' ? ask.listeners : [];
      const taken = ask.kind === 'serve' ? ask.taken : undefined;
      this.#pending.set(id, { resolve, reject, handed, taken });
      if (ask.kind === 'serve') this.#served.set(ask.cookie, id);
      state.thread.postMessage({ ...ask, id } satisfies ToWorker);
    });
  }

  #heard(message: FromWorker, series: SeriesReader, flows: FlowReader): void {
    switch (message.kind) {
      case 'ready':
        if (this.#state.name === 'starting') this.#become({ ...this.#state, name: 'serving' });
        break;
      case 'done':
        this.#take(message.id)?.resolve();
        break;
      case 'failed':
        this.#take(message.id)?.reject(new ZtunnelError(message.code, message.message));
        break;
      case 'full':
        this.#sayFull(message);
        break;
      case 'room':
        if (this.#leaving) break;
        void this.#deps.handOver(
          this,
          message.cookie === undefined ? undefined : (BigInt(message.cookie) as NetnsCookie),
        );
        break;
      case 'left':
        this.#podLeft(message.cookie, message.served);
        break;
      case 'certificate-wanted':
        this.#deps.wantCertificate(message.identity);
        break;
      case 'path':
        this.#deps.pathWanted({ source: BigInt(message.cookie) as NetnsCookie, destination: message.destination });
        break;
      case 'opened':
        this.#deps.flowOpened?.(message.subject, message.id);
        break;
      case 'flows':
        this.#deps.flowsEnded(flows.read(message.batch));
        break;
      case 'series-added':
        series.added(message.slot, message.labels);
        break;
      case 'series-idle':
        series.idle(message.slot);
        break;
      case 'connections':
        this.#lists.answered(message.list, message.connections);
        break;
      case 'log':
        this.#deps.log[message.line.level]({ worker: this.slot, ...message.line.fields }, message.line.message);
        break;
      case 'fault':
      case 'crashed':
        this.#deps.log.error({ worker: this.slot, stack: message.stack }, `tunnel worker: ${message.message}`);
        break;
    }
  }

  /** Unless it has been told to serve the pod again meanwhile. */
  #podLeft(cookie: string, served: number): void {
    if (this.#served.get(cookie) !== served) return;
    this.#served.delete(cookie);
    this.#deps.left(this, BigInt(cookie) as NetnsCookie);
  }

  #sayFull({ used, limit, cookie }: Extract<FromWorker, { kind: 'full' }>): void {
    const now = performance.now();
    if (now - (this.#fullSaid.get(cookie) ?? Number.NEGATIVE_INFINITY) < FULL_LOG_MS) return;
    this.#fullSaid.set(cookie, now);
    const fields = { worker: this.slot, descriptors: used, limit };
    if (cookie === undefined)
      this.#deps.log.warn(fields, 'no descriptors left: the worker accepts no connection until some are closed');
    else
      this.#deps.log.warn(
        { ...fields, netns_cookie: cookie },
        "a pod has half of the worker's descriptors: the worker accepts no connection of it until some are closed",
      );
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #exited(exitCode: number): void {
    const state = this.#state;
    if (state.name !== 'starting' && state.name !== 'serving') return;
    this.#keepTotals(state.ledger);
    state.series.gone();
    this.#recordsLostBefore += state.flows.dropped + state.flows.unread;
    this.#lists.end();
    this.#handed.clear();
    for (const cookie of this.#served.keys()) this.#deps.left(this, BigInt(cookie) as NetnsCookie);
    this.#served.clear();
    for (const pending of this.#pending.values()) {
      const taken = pending.taken === undefined || new Int32Array(pending.taken)[0] === 1;
      if (!taken) for (const { fd } of pending.handed) closeSync(fd);
    }
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    if (this.#leaving) {
      this.#become({ name: 'stopped' });
      for (const resolve of this.#onStopped.splice(0)) resolve();
    } else {
      this.#restart(exitCode, performance.now() - state.since);
    }
    for (const pending of waiting) pending.reject(new ZtunnelError('WORKER_ENDED', 'the worker has ended'));
  }

  #restart(exitCode: number, livedMs: number): void {
    this.#restarts += 1;
    this.#shortLives = livedMs < SHORT_LIFE_MS ? this.#shortLives + 1 : 0;
    const pauseMs = this.#shortLives < 2 ? 0 : Math.min(LONGEST_PAUSE_MS, 50 * 2 ** this.#shortLives);
    this.#deps.log.error({ worker: this.slot, exitCode, restarts: this.#restarts, pauseMs }, 'a tunnel worker ended');
    const start = (): void => {
      this.#become(this.#spawn());
      void this.#deps.handOver(this);
    };
    if (pauseMs === 0) start();
    else this.#become({ name: 'waiting', timer: setTimeout(start, pauseMs).unref() });
  }

  #keepTotals(ledger: Ledger): void {
    for (const field of TOTALS) this.#before.add(field, ledger.get(field));
    for (const reason of END_REASONS) this.#before.addEnded(reason, ledger.ended(reason));
    for (const reason of DECISION_REASONS) this.#before.addDecided(reason, ledger.decided(reason));
    this.#before.addEnded('worker-ended', ledger.totalOpen());
  }

  #become(state: SeatState): void {
    this.#state = state;
  }
}
