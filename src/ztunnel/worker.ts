import { closeSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import type { MessagePort } from 'node:worker_threads';
import type { MeshUpdate } from '../mesh/index.ts';
import { PolicyBook } from '../policy/index.ts';
import { WorkerCertificates } from './certificates.ts';
import { type ListedConnection, listedConnection } from './connection-lists.ts';
import { DescriptorBudget } from './descriptors.ts';
import { ZtunnelError } from './errors.ts';
import { LEDGER_PODS, Ledger } from './ledger.ts';
import type { PodName } from './node-view.ts';
import { NodeView } from './node-view.ts';
import type { ConnectionRecord } from './open-connection.ts';
import { EndpointCosts } from './outbound/endpoints.ts';
import { RetryBudget } from './outbound/retry-budget.ts';
import { PathRequests } from './path-requests.ts';
import { PodProxy } from './pod-proxy.ts';
import type { KnownMesh } from './pod-tunnel.ts';
import type { PodSockets, SocketMeter, TimeoutFollower } from './ports.ts';
import type { FromWorker, Question, ToWorker, TunnelWorkerData } from './protocol.ts';
import { ServedPod } from './served-pod.ts';
import { WorkerFlows } from './worker-flows.ts';
import { WorkerLog } from './worker-log.ts';

/** How soon a reset is passed on that only a probe can find. */
const PROBE_MS = 250;
const SECOND_MS = 1000;
const NANOSECONDS_PER_MS = 1e6;
const MICROSECONDS_PER_SECOND = 1e6;

type PodQuestion = Exclude<Question, { kind: 'mesh' }>;

export interface TunnelWorkerDeps {
  readonly port: MessagePort;
  readonly sockets: PodSockets;
  readonly timeouts: TimeoutFollower;
  readonly meter: SocketMeter;
}

/**
 * One worker thread: its pods, its descriptors, its numbers. The main thread tells it what to serve; it answers every
 * message by `done` or `failed`.
 */
class TunnelWorker {
  readonly #deps: TunnelWorkerDeps;
  readonly #data: TunnelWorkerData;
  readonly #ledger: Ledger;
  readonly #budget: DescriptorBudget;
  readonly #log: WorkerLog;
  readonly #mesh: KnownMesh | undefined;
  readonly #flows: WorkerFlows;
  readonly #pods = new Map<string, ServedPod>();
  /** How many of them are wanted. */
  #wanted = 0;
  readonly #delay = monitorEventLoopDelay({ resolution: 20 });
  readonly #probeTimer: NodeJS.Timeout;
  readonly #secondTimer: NodeJS.Timeout;
  /** `stopped`: no descriptors; `asking`: there is room again and the main thread knows; `draining`: for good. */
  #accepting: 'accepting' | 'stopped' | 'asking' | 'draining' = 'accepting';
  /** The process, not this worker, had no descriptor left: not asked for more within this second. */
  #isStarved = false;

  constructor(deps: TunnelWorkerDeps, data: TunnelWorkerData) {
    this.#deps = deps;
    this.#data = data;
    this.#ledger = new Ledger(data.ledger);
    this.#budget = new DescriptorBudget(data.descriptorLimit);
    this.#log = new WorkerLog((line) => this.#send({ kind: 'log', line }));
    this.#mesh = this.#knownMesh();
    this.#flows = new WorkerFlows(data, (message) => this.#send(message));
    this.#ledger.set('accepting', 1);
    this.#delay.enable();
    this.#probeTimer = setInterval(() => this.#probe(), PROBE_MS).unref();
    this.#secondTimer = setInterval(() => this.#everySecond(), SECOND_MS).unref();
    deps.port.on('message', (message: ToWorker) => this.#heard(message));
    this.#send({ kind: 'ready' });
  }

  /** The last thing before the thread ends by a fault: no app may take its end for a clean one. */
  crash(error: unknown): void {
    for (const proxy of this.#proxies()) {
      proxy.stopAccepting();
      proxy.resetAll('worker-ended');
    }
    this.#send({ kind: 'crashed', ...describe(error) });
  }

  /** Tells the main thread of all that has ended by now. */
  flush(): void {
    this.#flows.flush();
  }

  #knownMesh(): KnownMesh | undefined {
    const { mesh, slot } = this.#data;
    if (mesh === undefined) return undefined;
    const view = new NodeView(mesh.node);
    return {
      view,
      book: new PolicyBook(view.model),
      certificates: new WorkerCertificates({
        want: (identity) => this.#send({ kind: 'certificate-wanted', identity }),
      }),
      costs: new EndpointCosts({ memory: mesh.endpointCosts, worker: slot }),
      retries: new RetryBudget({ workers: mesh.workers }),
      lane: slot,
      poolIdleMs: mesh.poolIdleMs,
      session: mesh.session,
    };
  }

  #heard(message: ToWorker): void {
    switch (message.kind) {
      case 'mesh':
        this.#updateMesh(message.update);
        this.#send({ kind: 'done', id: message.id });
        break;
      case 'certificate':
        this.#mesh?.certificates.apply(message.change);
        break;
      case 'series-freed':
        this.#flows.series.freed(message.slot);
        break;
      case 'list-connections':
        this.#send({ kind: 'connections', list: message.list, connections: this.#listConnections(message.most) });
        break;
      default:
        void this.#answer(message);
    }
  }

  /** A fault here ends the worker: better that than connections that nobody has judged. */
  #updateMesh(update: MeshUpdate): void {
    const changed = this.#mesh?.view.apply(update);
    if (changed === undefined) return;
    for (const pod of this.#pods.values()) for (const proxy of pod.proxies) proxy.recheck(changed);
  }

  async #answer(message: PodQuestion): Promise<void> {
    try {
      await this.#do(message);
      this.#send({ kind: 'done', id: message.id });
    } catch (error) {
      const code = error instanceof ZtunnelError ? error.code : 'LISTEN_FAILED';
      this.#send({ kind: 'failed', id: message.id, code, message: describe(error).message });
    }
  }

  async #do(message: PodQuestion): Promise<void> {
    switch (message.kind) {
      case 'serve':
        return await this.#serve(message);
      case 'stop-accepting':
        return this.#stopAccepting(message.cookie);
      case 'drop':
        return await this.#drop(message.cookie);
      case 'drain':
        return await this.#drain(message.deadlineMs);
    }
  }

  async #serve(message: Extract<Question, { kind: 'serve' }>): Promise<void> {
    new Int32Array(message.taken)[0] = 1;
    const pod = this.#pods.get(message.cookie) ?? this.#createPod(message);
    pod.served = message.id;
    const more = message.listeners.length - pod.listeners;
    if (this.#accepting === 'draining' || !this.#budget.canListen(more)) {
      for (const { fd } of message.listeners) closeSync(fd);
      if (!pod.wanted) this.#forgetIfIdle(pod);
      if (this.#accepting === 'draining') throw new ZtunnelError('SHUT_DOWN', 'the worker is draining');
      throw new ZtunnelError('NO_DESCRIPTORS', `${this.#budget.limit} descriptors leave no room for this pod`);
    }
    pod.become(message.pod);
    this.#setListeners(pod, message.listeners.length);
    this.#want(pod, true);
    for (const each of this.#pods.values()) this.#holdIfFull(each);
    const isHeld = pod.share !== 'open' && !this.#shareHasRoom(pod);
    if (isHeld || (this.#accepting !== 'accepting' && !this.#budget.hasRoom)) {
      // Served as soon as there is room: until then its callers wait in the kernel.
      for (const { fd } of message.listeners) closeSync(fd);
      if (isHeld) this.#startedAccepting();
      return;
    }
    pod.share = 'open';
    await pod.proxy.accept(message.listeners);
    this.#startedAccepting();
  }

  #createPod(message: Extract<Question, { kind: 'serve' }>): ServedPod {
    const pod = new ServedPod(
      message,
      (served, name) => this.#createProxy(served, name, message.netnsFd),
      (served) => this.#forgetIfIdle(served),
    );
    const { cookie } = message;
    if (this.#data.mesh?.asksForPaths === true)
      pod.paths = new PathRequests((destination) => this.#send({ kind: 'path', cookie, destination }));
    this.#pods.set(message.cookie, pod);
    return pod;
  }

  #createProxy(pod: ServedPod, name: PodName, netnsFd: number): PodProxy {
    return new PodProxy(
      {
        sockets: this.#deps.sockets,
        timeouts: this.#deps.timeouts,
        meter: this.#deps.meter,
        series: this.#flows.series,
        mesh: this.#mesh,
        log: this.#log,
        hasOne: () => this.#budget.hasOne && this.#budget.shareHasOne(pod.held, this.#wanted),
        holds: (descriptors) => this.#hold(pod, descriptors),
        opened: () => this.#opened(pod),
        relayed: (path) => this.#ledger.add(path, 1),
        addressed: this.#data.tellsOpened
          ? (subject, id) => this.#send({ kind: 'opened', subject: { ...subject }, id })
          : undefined,
        ended: (record) => this.#ended(pod, record),
        decided: (decision) => this.#ledger.addDecision(decision),
        directly: (destination) => pod.paths?.want(destination),
        accepted: (sockets, more) => this.#ledger.add(sockets, more),
        session: (more) => this.#countSession(more),
        handshakeFailed: () => this.#ledger.add('handshakesFailed', 1),
        outOfDescriptors: () => this.#starve(),
        failed: (error) => this.#send({ kind: 'fault', ...describe(error) }),
      },
      {
        pod: name,
        netnsFd,
        backlog: this.#data.backlog,
      },
    );
  }

  #stopAccepting(cookie: string): void {
    const pod = this.#pods.get(cookie);
    if (pod === undefined) return;
    this.#want(pod, false);
    pod.share = 'open';
    pod.leave();
    this.#setListeners(pod, 0);
    this.#forgetIfIdle(pod);
  }

  async #drop(cookie: string): Promise<void> {
    const pod = this.#pods.get(cookie);
    if (pod === undefined) return;
    this.#stopAccepting(cookie);
    const { proxies } = pod;
    for (const proxy of proxies) proxy.resetAll('pod-dropped');
    await Promise.all(proxies.map((proxy) => proxy.emptied()));
    this.#forgetIfIdle(pod);
  }

  async #drain(deadlineMs: number): Promise<void> {
    this.#accepting = 'draining';
    this.#ledger.set('accepting', 0);
    const proxies = this.#proxies();
    for (const proxy of proxies) proxy.leave();
    const deadline = setTimeout(() => {
      for (const proxy of proxies) proxy.resetAll('drain-deadline');
    }, deadlineMs);
    await Promise.all(proxies.map((proxy) => proxy.emptied()));
    clearTimeout(deadline);
    clearInterval(this.#probeTimer);
    clearInterval(this.#secondTimer);
    this.#delay.disable();
    this.#flows.flush();
  }

  #opened(pod: ServedPod): void {
    this.#ledger.add('opened', 1);
    this.#count(pod);
  }

  #hold(pod: ServedPod, descriptors: number): void {
    this.#budget.hold(descriptors);
    pod.held += descriptors;
    this.#count(pod);
    if (descriptors > 0) {
      this.#holdIfFull(pod);
      if (this.#budget.isFull) this.#stopAll();
    } else {
      this.#askIfAnyRoom();
      if (pod.share === 'held') this.#askIfRoom(pod);
    }
  }

  #ended(pod: ServedPod, record: ConnectionRecord): void {
    // Counted first: whoever reads of it in the log finds it in the status.
    this.#count(pod);
    this.#ledger.addEnded(record.ended);
    this.#ledger.add('bytesFromClients', record.bytesSent);
    this.#ledger.add('bytesFromServers', record.bytesReceived);
    this.#flows.add(pod.netns, record);
  }

  #countSession(more: 1 | -1): void {
    if (more === 1) this.#ledger.add('sessionsOpened', 1);
    this.#ledger.add('sessionsOpen', more);
  }

  #want(pod: ServedPod, wanted: boolean): void {
    if (pod.wanted !== wanted) this.#wanted += wanted ? 1 : -1;
    pod.wanted = wanted;
  }

  #shareHasRoom(pod: ServedPod): boolean {
    return this.#budget.shareHasRoom(pod.held, this.#wanted);
  }

  /** One pod, with callers to a host that never answers say, must not take the places of all. */
  #holdIfFull(pod: ServedPod): void {
    if (this.#wanted < 2 || !pod.wanted || pod.share !== 'open' || this.#accepting === 'draining') return;
    if (!this.#budget.isShareFull(pod.held, this.#wanted)) return;
    pod.share = 'held';
    pod.proxy.stopAccepting();
    this.#ledger.add('descriptorStops', 1);
    this.#send({ kind: 'full', used: this.#budget.used, limit: this.#budget.limit, cookie: pod.cookie });
  }

  /** Not while all are stopped: the room for all is this pod's too. */
  #askIfRoom(pod: ServedPod): void {
    if (this.#accepting !== 'accepting' || !this.#shareHasRoom(pod)) return;
    pod.share = 'asking';
    this.#send({ kind: 'room', cookie: pod.cookie });
  }

  #count(pod: ServedPod): void {
    this.#ledger.set('descriptorsUsed', this.#budget.used);
    if (pod.line < LEDGER_PODS) this.#ledger.setOpen(pod.line, pod.openConnections);
  }

  /** Called while libuv accepts: closing the listeners here is what ends its loop. */
  #stopAll(): void {
    for (const pod of this.#pods.values()) pod.proxy.stopAccepting();
    if (this.#accepting === 'stopped' || this.#accepting === 'draining') return;
    this.#accepting = 'stopped';
    this.#ledger.set('accepting', 0);
    this.#ledger.add('descriptorStops', 1);
    this.#send({ kind: 'full', used: this.#budget.used, limit: this.#budget.limit });
  }

  #starve(): void {
    this.#isStarved = true;
    this.#stopAll();
  }

  #askIfAnyRoom(): void {
    if (this.#accepting === 'stopped' && !this.#isStarved && this.#budget.hasRoom) this.#ask();
  }

  #ask(): void {
    this.#accepting = 'asking';
    this.#send({ kind: 'room' });
  }

  #startedAccepting(): void {
    if (this.#accepting !== 'asking') return;
    for (const pod of this.#pods.values()) if (pod.wanted && pod.share === 'open' && !pod.proxy.isAccepting) return;
    this.#accepting = 'accepting';
    this.#ledger.set('accepting', 1);
  }

  #setListeners(pod: ServedPod, count: number): void {
    this.#budget.addListeners(count - pod.listeners);
    pod.listeners = count;
    this.#ledger.set('descriptorsUsed', this.#budget.used);
  }

  /** It is not wanted and nothing of it is open: its namespace is not used any more. */
  #forgetIfIdle(pod: ServedPod): void {
    if (pod.wanted || !pod.isEmpty || this.#pods.get(pod.cookie) !== pod) return;
    this.#pods.delete(pod.cookie);
    this.#send({ kind: 'left', cookie: pod.cookie, served: pod.served });
  }

  #listConnections(most: number): ListedConnection[] {
    const found: ListedConnection[] = [];
    for (const { netns, proxies } of this.#pods.values())
      for (const proxy of proxies)
        for (const subject of proxy.subjects()) {
          if (found.length >= most) return found;
          const listed = listedConnection(netns, subject);
          if (listed !== undefined) found.push(listed);
        }
    return found;
  }

  /** Also those that only finish what they have. */
  #proxies(): PodProxy[] {
    return [...this.#pods.values()].flatMap((pod) => pod.proxies);
  }

  #probe(): void {
    for (const pod of this.#pods.values()) for (const proxy of pod.proxies) proxy.probeAll();
    this.#deps.timeouts.pollTimeouts();
  }

  #everySecond(): void {
    this.#isStarved = false;
    this.#log.nextSecond();
    this.#ledger.set('delayP50Ms', this.#delay.percentile(50) / NANOSECONDS_PER_MS);
    this.#ledger.set('delayP99Ms', this.#delay.percentile(99) / NANOSECONDS_PER_MS);
    this.#ledger.set('delayMaxMs', this.#delay.max / NANOSECONDS_PER_MS);
    this.#delay.reset();
    this.#countCosts();
    this.#flows.sweep();
    // Also while asking: the main thread may have had no descriptor to give.
    if ((this.#accepting === 'stopped' || this.#accepting === 'asking') && this.#budget.hasRoom) this.#ask();
    for (const pod of this.#pods.values()) {
      pod.paths?.nextSecond();
      if (pod.share !== 'open') this.#askIfRoom(pod);
    }
  }

  #countCosts(): void {
    const { user, system } = process.threadCpuUsage();
    this.#ledger.set('cpuSeconds', (user + system) / MICROSECONDS_PER_SECOND);
    this.#ledger.set('heapBytes', getHeapStatistics().used_heap_size);
  }

  #send(message: FromWorker): void {
    this.#deps.port.postMessage(message);
  }
}

/** What the worker entry calls: serves until it is told to drain, and ends by a fault only after it reset what was open. */
export function runTunnelWorker(deps: TunnelWorkerDeps, data: TunnelWorkerData): void {
  const worker = new TunnelWorker(deps, data);
  let isEnding = false;
  process.on('uncaughtException', (error) => {
    if (isEnding) process.exit(1);
    isEnding = true;
    worker.crash(error);
    // What was reset is closed at the end of this turn of the loop, and its record is there in the next.
    setImmediate(() =>
      setImmediate(() => {
        worker.flush();
        process.exit(1);
      }),
    );
  });
}

function describe(error: unknown): { message: string; stack: string | undefined } {
  return error instanceof Error
    ? { message: error.message, stack: error.stack }
    : { message: String(error), stack: undefined };
}
