import { closeSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { MessagePort } from 'node:worker_threads';
import { DescriptorBudget } from './descriptors.ts';
import { ZtunnelError } from './errors.ts';
import { LEDGER_PODS, Ledger } from './ledger.ts';
import type { ConnectionRecord } from './open-connection.ts';
import { PodProxy } from './pod-proxy.ts';
import type { PodSockets } from './ports.ts';
import type { FromWorker, ToWorker, TunnelWorkerData } from './protocol.ts';

/** How soon a reset is passed on that only a probe can find. */
const PROBE_MS = 250;
const SECOND_MS = 1000;
const NANOSECONDS_PER_MS = 1e6;

export interface TunnelWorkerDeps {
  readonly port: MessagePort;
  readonly sockets: PodSockets;
}

interface ServedPod {
  readonly cookie: string;
  readonly proxy: PodProxy;
  readonly line: number;
  /** False once the main thread has said stop; room in the budget does not change that. */
  wanted: boolean;
  listeners: number;
  /** `held`: it has its share of the places; `asking`: there is room in it again and the main thread knows. */
  share: 'open' | 'held' | 'asking';
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
  readonly #pods = new Map<string, ServedPod>();
  /** How many of them are wanted. */
  #wanted = 0;
  readonly #delay = monitorEventLoopDelay({ resolution: 20 });
  readonly #probeTimer: NodeJS.Timeout;
  readonly #secondTimer: NodeJS.Timeout;
  /** `stopped`: no descriptors; `asking`: there is room again and the main thread knows; `draining`: for good. */
  #accepting: 'accepting' | 'stopped' | 'asking' | 'draining' = 'accepting';

  constructor(deps: TunnelWorkerDeps, data: TunnelWorkerData) {
    this.#deps = deps;
    this.#data = data;
    this.#ledger = new Ledger(data.ledger);
    this.#budget = new DescriptorBudget(data.descriptorLimit);
    this.#ledger.set('accepting', 1);
    this.#delay.enable();
    this.#probeTimer = setInterval(() => this.#probe(), PROBE_MS).unref();
    this.#secondTimer = setInterval(() => this.#everySecond(), SECOND_MS).unref();
    deps.port.on('message', (message: ToWorker) => void this.#handle(message));
    this.#send({ kind: 'ready' });
  }

  /** The last thing before the thread ends by a fault: no app may take its end for a clean one. */
  crash(error: unknown): void {
    for (const pod of this.#pods.values()) {
      pod.proxy.stopAccepting();
      pod.proxy.resetAll('worker-ended');
    }
    this.#send({ kind: 'crashed', ...describe(error) });
  }

  async #handle(message: ToWorker): Promise<void> {
    try {
      await this.#do(message);
      this.#send({ kind: 'done', id: message.id });
    } catch (error) {
      const code = error instanceof ZtunnelError ? error.code : 'LISTEN_FAILED';
      this.#send({ kind: 'failed', id: message.id, code, message: describe(error).message });
    }
  }

  async #do(message: ToWorker): Promise<void> {
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

  async #serve(message: Extract<ToWorker, { kind: 'serve' }>): Promise<void> {
    new Int32Array(message.taken)[0] = 1;
    const pod = this.#pods.get(message.cookie) ?? this.#createPod(message);
    const more = message.listeners.length - pod.listeners;
    if (this.#accepting === 'draining' || !this.#budget.canListen(more)) {
      for (const { fd } of message.listeners) closeSync(fd);
      if (!pod.wanted) this.#forgetIfEmpty(message.cookie);
      if (this.#accepting === 'draining') throw new ZtunnelError('SHUT_DOWN', 'the worker is draining');
      throw new ZtunnelError('NO_DESCRIPTORS', `${this.#budget.limit} descriptors leave no room for this pod`);
    }
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
    await pod.proxy.accept(message.netnsFd, message.listeners);
    this.#startedAccepting();
  }

  #createPod(message: Extract<ToWorker, { kind: 'serve' }>): ServedPod {
    const { cookie, line } = message;
    const proxy: PodProxy = new PodProxy(
      {
        sockets: this.#deps.sockets,
        opened: () => this.#opened(pod),
        ended: (record) => this.#ended(cookie, pod, record),
        outOfDescriptors: () => this.#stopAll(),
        failed: (error) => this.#send({ kind: 'fault', ...describe(error) }),
      },
      { backlog: this.#data.backlog },
    );
    const pod: ServedPod = { cookie, proxy, line, wanted: false, listeners: 0, share: 'open' };
    this.#pods.set(cookie, pod);
    return pod;
  }

  #stopAccepting(cookie: string): void {
    const pod = this.#pods.get(cookie);
    if (pod === undefined) return;
    this.#want(pod, false);
    pod.share = 'open';
    pod.proxy.stopAccepting();
    this.#setListeners(pod, 0);
    this.#forgetIfEmpty(cookie);
  }

  async #drop(cookie: string): Promise<void> {
    const pod = this.#pods.get(cookie);
    if (pod === undefined) return;
    this.#stopAccepting(cookie);
    pod.proxy.resetAll('pod-dropped');
    await pod.proxy.emptied();
  }

  async #drain(deadlineMs: number): Promise<void> {
    this.#accepting = 'draining';
    this.#ledger.set('accepting', 0);
    const proxies = [...this.#pods.values()].map((pod) => pod.proxy);
    for (const proxy of proxies) proxy.stopAccepting();
    const deadline = setTimeout(() => {
      for (const proxy of proxies) proxy.resetAll('drain-deadline');
    }, deadlineMs);
    await Promise.all(proxies.map((proxy) => proxy.emptied()));
    clearTimeout(deadline);
    clearInterval(this.#probeTimer);
    clearInterval(this.#secondTimer);
    this.#delay.disable();
  }

  #opened(pod: ServedPod): void {
    this.#budget.addConnection();
    this.#ledger.add('opened', 1);
    this.#count(pod);
    this.#holdIfFull(pod);
    if (this.#budget.isFull) this.#stopAll();
  }

  #ended(cookie: string, pod: ServedPod, record: ConnectionRecord): void {
    this.#budget.removeConnection();
    this.#ledger.addEnded(record.ended);
    this.#ledger.add('bytesFromClients', record.bytesFromClient);
    this.#ledger.add('bytesFromServers', record.bytesFromServer);
    this.#count(pod);
    this.#forgetIfEmpty(cookie);
    if (this.#accepting === 'stopped' && this.#budget.hasRoom && record.ended !== 'no-descriptors') this.#ask();
    if (pod.share === 'held') this.#askIfRoom(pod);
  }

  #want(pod: ServedPod, wanted: boolean): void {
    if (pod.wanted !== wanted) this.#wanted += wanted ? 1 : -1;
    pod.wanted = wanted;
  }

  #shareHasRoom(pod: ServedPod): boolean {
    return this.#budget.shareHasRoom(pod.proxy.openConnections, this.#wanted);
  }

  /** One pod, with callers to a host that never answers say, must not take the places of all. */
  #holdIfFull(pod: ServedPod): void {
    if (this.#wanted < 2 || !pod.wanted || pod.share !== 'open' || this.#accepting === 'draining') return;
    if (!this.#budget.isShareFull(pod.proxy.openConnections, this.#wanted)) return;
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
    if (pod.line < LEDGER_PODS) this.#ledger.setOpen(pod.line, pod.proxy.openConnections);
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

  #forgetIfEmpty(cookie: string): void {
    const pod = this.#pods.get(cookie);
    if (pod !== undefined && !pod.wanted && pod.proxy.openConnections === 0) this.#pods.delete(cookie);
  }

  #probe(): void {
    for (const pod of this.#pods.values()) pod.proxy.probeAll();
  }

  #everySecond(): void {
    this.#ledger.set('delayP50Ms', this.#delay.percentile(50) / NANOSECONDS_PER_MS);
    this.#ledger.set('delayP99Ms', this.#delay.percentile(99) / NANOSECONDS_PER_MS);
    this.#ledger.set('delayMaxMs', this.#delay.max / NANOSECONDS_PER_MS);
    this.#delay.reset();
    // Also while asking: the main thread may have had no descriptor to give.
    if ((this.#accepting === 'stopped' || this.#accepting === 'asking') && this.#budget.hasRoom) this.#ask();
    for (const pod of this.#pods.values()) if (pod.share !== 'open') this.#askIfRoom(pod);
  }

  #send(message: FromWorker): void {
    this.#deps.port.postMessage(message);
  }
}

/** What the worker entry calls: serves until it is told to drain, and ends by a fault only after it reset what was open. */
export function runTunnelWorker(deps: TunnelWorkerDeps, data: TunnelWorkerData): void {
  const worker = new TunnelWorker(deps, data);
  process.on('uncaughtException', (error) => {
    worker.crash(error);
    process.exit(1);
  });
}

function describe(error: unknown): { message: string; stack: string | undefined } {
  return error instanceof Error
    ? { message: error.message, stack: error.stack }
    : { message: String(error), stack: undefined };
}
