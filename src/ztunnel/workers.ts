import { closeSync, fstatSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { NetnsCookie, Pod } from '../mesh/index.ts';
import { END_REASONS, type EndReason, ZtunnelError } from './errors.ts';
import { LEDGER_PODS, Ledger } from './ledger.ts';
import type { Log } from './ports.ts';
import type { FromWorker, HandedListener, ToWorker, TunnelWorkerData } from './protocol.ts';

export interface TunnelWorkersDeps {
  readonly log: Log;
  /** A new descriptor of the same socket, close-on-exec. */
  duplicate(fd: number): number;
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
  /** Given to every worker's entry as `workerData.composition`; structured-clonable. */
  readonly composition?: unknown;
}

/** As much of a prepared pod as the tunnel needs. */
export interface ServablePod {
  readonly cookie: NetnsCookie;
  readonly netnsFd: number;
  readonly listeners: ReadonlyArray<{ readonly port: number; readonly slot: number; readonly fd: number }>;
}

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
}

export interface TunnelWorkersStatus {
  readonly workers: readonly TunnelWorkerStatus[];
  readonly openConnections: ReadonlyMap<NetnsCookie, number>;
  readonly totals: {
    readonly accepted: number;
    readonly closed: number;
    /** Accepted, but the other leg could not be dialled. */
    readonly failed: number;
    /** Accepted without an original destination, so reset. */
    readonly unattributed: number;
    readonly bytesFromClients: number;
    readonly bytesFromServers: number;
  };
  /** How many connections ended for which reason, since the start. */
  readonly ended: Readonly<Record<EndReason, number>>;
  readonly descriptors: { readonly open: number; readonly limit: number };
}

const DEFAULT_BACKLOG = 4096;
/** A worker that lived less than this is started again only after a pause. */
const SHORT_LIFE_MS = 1000;
const LONGEST_PAUSE_MS = 5000;
/** How many successors of a dying worker `serve` tries before it gives up. */
const SERVE_ATTEMPTS = 3;
/** Shortage of descriptors is logged once per worker, or pod in a worker, and this long. */
const FULL_LOG_MS = 60_000;
/** What a worker may need beyond its drain deadline to see its resets through. */
const DRAIN_GRACE_MS = 1000;

const FAILED_DIALS: readonly EndReason[] = [
  'dial-refused',
  'dial-unreachable',
  'dial-timed-out',
  'dial-failed',
  'no-descriptors',
];

interface Known {
  readonly prepared: ServablePod;
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
  #shutdown: Promise<void> | undefined;

  constructor(deps: TunnelWorkersDeps, options: TunnelWorkersOptions) {
    this.#deps = deps;
    this.#options = options;
    const descriptorLimit = Math.floor((options.descriptorLimit - options.descriptorReserve) / options.workers);
    this.#seats = Array.from(
      { length: options.workers },
      (_, slot) =>
        new Seat(
          { log: deps.log, handOver: (seat, cookie) => this.#handOverAll(seat, cookie) },
          {
            entry: options.entry,
            slot,
            descriptorLimit,
            backlog: options.backlog ?? DEFAULT_BACKLOG,
            composition: options.composition,
          },
        ),
    );
  }

  /**
   * Idempotent; resolves when every worker listens for the pod. Changed listeners replace the old ones. On failure a pod
   * that was not served before is served by no worker.
   */
  async serve(_pod: Pod, prepared: ServablePod): Promise<void> {
    if (this.#shutdown !== undefined) throw new ZtunnelError('SHUT_DOWN', 'the tunnel is shutting down');
    const before = this.#pods.get(prepared.cookie);
    const known: Known = { prepared, line: this.#lineOf(prepared.cookie) };
    this.#pods.set(prepared.cookie, known);
    try {
      await Promise.all(this.#seats.map((seat) => this.#handOver(seat, known)));
    } catch (error) {
      if (before === undefined && this.#pods.get(prepared.cookie) === known) await this.stopAccepting(prepared.cookie);
      throw error;
    }
  }

  /**
   * No further connection is accepted for the pod; open ones live on. Resolves when every worker has closed its listeners,
   * after which none uses the pod's `netnsFd`: that happens only in the turn of the loop that accepts. Idempotent.
   */
  async stopAccepting(cookie: NetnsCookie): Promise<void> {
    this.#pods.delete(cookie);
    await Promise.all(this.#seats.map((seat) => seat.tell({ kind: 'stop-accepting', cookie: String(cookie) })));
    for (const seat of this.#seats) seat.forget(cookie);
  }

  /** Stops accepting and resets what is open. Idempotent. */
  async drop(cookie: NetnsCookie): Promise<void> {
    this.#pods.delete(cookie);
    await Promise.all(this.#seats.map((seat) => seat.tell({ kind: 'drop', cookie: String(cookie) })));
    for (const seat of this.#seats) seat.forget(cookie);
  }

  status(): TunnelWorkersStatus {
    const openConnections = new Map<NetnsCookie, number>();
    for (const [cookie, line] of this.#lines) {
      const open = this.#openOn(line);
      if (open > 0 || this.#pods.has(cookie)) openConnections.set(cookie, open);
    }
    const ended = Object.fromEntries(
      END_REASONS.map((reason) => [reason, this.#sum((seat) => seat.ended(reason))]),
    ) as Record<EndReason, number>;
    const workers = this.#seats.map((seat) => seat.status());
    return {
      workers,
      openConnections,
      totals: {
        accepted: this.#sum((seat) => seat.total('opened')),
        closed: END_REASONS.reduce((sum, reason) => sum + ended[reason], 0),
        failed: FAILED_DIALS.reduce((sum, reason) => sum + ended[reason], 0),
        unattributed: ended['no-original-destination'],
        bytesFromClients: this.#sum((seat) => seat.total('bytesFromClients')),
        bytesFromServers: this.#sum((seat) => seat.total('bytesFromServers')),
      },
      ended,
      descriptors: {
        open: workers.reduce((sum, { descriptors }) => sum + descriptors.open, 0),
        limit: this.#options.descriptorLimit - this.#options.descriptorReserve,
      },
    };
  }

  /** Stops accepting, waits at most `deadlineMs` for open connections, resets the rest, ends the workers. Idempotent. */
  shutdown(deadlineMs: number): Promise<void> {
    this.#shutdown ??= Promise.all(this.#seats.map((seat) => seat.shutdown(deadlineMs))).then(() => this.#pods.clear());
    return this.#shutdown;
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
    const { cookie, netnsFd, listeners } = known.prepared;
    const own = listeners.filter(({ slot }) => slot === seat.slot);
    const handed = own.map(({ fd }) => `${fd}:${fstatSync(fd).ino}`).join();
    const pod = { cookie, netnsFd, line: known.line, handed, isWanted: () => this.#pods.get(cookie) === known };
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
    return line < LEDGER_PODS ? this.#sum((seat) => seat.openOn(line)) : 0;
  }

  #sum(of: (seat: Seat) => number): number {
    return this.#seats.reduce((sum, seat) => sum + of(seat), 0);
  }
}

interface SeatDeps {
  readonly log: Log;
  /** Gives a new worker, or one that has room again, every pod, or the one that has room again in its share. */
  handOver(seat: Seat, cookie?: NetnsCookie): Promise<void>;
}

interface SeatOptions {
  readonly entry: URL;
  readonly slot: number;
  readonly descriptorLimit: number;
  readonly backlog: number;
  readonly composition: unknown;
}

type SeatState =
  | { readonly name: 'starting'; readonly thread: Worker; readonly ledger: Ledger; readonly since: number }
  | { readonly name: 'serving'; readonly thread: Worker; readonly ledger: Ledger; readonly since: number }
  | { readonly name: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly name: 'stopped' };

type Ask = ToWorker extends infer Message ? (Message extends ToWorker ? Omit<Message, 'id'> : never) : never;

interface Pending {
  readonly resolve: () => void;
  readonly reject: (error: ZtunnelError) => void;
  /** Duplicates that are not the worker's until it has said so. */
  readonly handed: readonly HandedListener[];
  readonly taken: SharedArrayBuffer | undefined;
}

/** The place of one worker: the thread that sits in it may die and be replaced, the place and its totals remain. */
class Seat {
  readonly slot: number;
  readonly #deps: SeatDeps;
  readonly #options: SeatOptions;
  /** Totals of the threads that sat here before. */
  readonly #before = new Ledger();
  readonly #pending = new Map<number, Pending>();
  /** What the thread has been given, by pod. */
  readonly #handed = new Map<NetnsCookie, string>();
  #state: SeatState;
  #lastId = 0;
  #restarts = 0;
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
  async serve(
    pod: { cookie: NetnsCookie; netnsFd: number; line: number; handed: string; isWanted(): boolean },
    duplicates: () => HandedListener[],
    again: boolean,
  ): Promise<void> {
    for (let attempts = 1; ; attempts += 1) {
      if (this.#leaving) throw new ZtunnelError('SHUT_DOWN', 'the tunnel is shutting down');
      if (!again && this.#handed.get(pod.cookie) === pod.handed) return;
      const { cookie, netnsFd, line, handed } = pod;
      const ask = { kind: 'serve' as const, cookie: String(cookie), netnsFd, line };
      try {
        if (!this.#isAlive) throw new ZtunnelError('WORKER_ENDED', `worker ${this.slot} keeps ending`);
        const listeners = duplicates();
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

  total(field: 'opened' | 'bytesFromClients' | 'bytesFromServers' | 'descriptorStops'): number {
    return this.#before.get(field) + (this.#ledger?.get(field) ?? 0);
  }

  ended(reason: EndReason): number {
    return this.#before.ended(reason) + (this.#ledger?.ended(reason) ?? 0);
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
    const workerData: TunnelWorkerData = {
      slot: this.slot,
      ledger: ledger.memory,
      descriptorLimit: this.#options.descriptorLimit,
      backlog: this.#options.backlog,
      composition: this.#options.composition,
    };
    // Its descriptors come from the main thread, and Node would warn of each that it closes.
    const thread = new Worker(this.#options.entry, {
      workerData,
      name: `tunnel-${this.slot}`,
      trackUnmanagedFds: false,
    });
    thread.on('message', (message: FromWorker) => this.#heard(message));
    thread.on('error', (error) => this.#deps.log.error({ worker: this.slot, error }, 'a tunnel worker failed'));
    thread.on('exit', (exitCode) => this.#exited(exitCode));
    return { name: 'starting', thread, ledger, since: performance.now() };
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
      state.thread.postMessage({ ...ask, id } satisfies ToWorker);
    });
  }

  #heard(message: FromWorker): void {
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
      case 'fault':
      case 'crashed':
        this.#deps.log.error({ worker: this.slot, stack: message.stack }, `tunnel worker: ${message.message}`);
        break;
    }
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
    this.#handed.clear();
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
    for (const field of ['opened', 'bytesFromClients', 'bytesFromServers', 'descriptorStops'] as const)
      this.#before.add(field, ledger.get(field));
    for (const reason of END_REASONS) this.#before.addEnded(reason, ledger.ended(reason));
    this.#before.addEnded('worker-ended', ledger.totalOpen());
  }

  #become(state: SeatState): void {
    this.#state = state;
  }
}
