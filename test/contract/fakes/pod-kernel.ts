import type { CapturedPods, PodKernel, PreparedPod } from '../../../src/agent/index.ts';
import type { NetnsCookie, Pod } from '../../../src/mesh/index.ts';

export type KernelStep = 'prepare' | 'capture' | 'release' | 'close' | 'check';

/** An error as the kernel room's are: with a code. */
export class FakeKernelError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

interface Opened {
  readonly prepared: PreparedPod;
  dead: boolean;
}

/**
 * A kernel in memory. `namespaces` stands for what lies at the paths and `pins` for what outlives a process: give both
 * to a second fake to play an agent that was started again.
 */
export class FakePodKernel implements PodKernel, CapturedPods {
  readonly namespaces: Map<string, NetnsCookie>;
  readonly pins: Map<NetnsCookie, Pod>;
  /** Every call, as `step cookie-or-path`. */
  readonly calls: string[] = [];
  readonly #opened = new Map<NetnsCookie, Opened>();
  readonly #failures = new Map<KernelStep, Error[]>();
  #nextFd = 1000;

  constructor(
    world: { namespaces: Map<string, NetnsCookie>; pins: Map<NetnsCookie, Pod> } = {
      namespaces: new Map(),
      pins: new Map(),
    },
  ) {
    this.namespaces = world.namespaces;
    this.pins = world.pins;
  }

  // --- what a test does to the world ----------------------------------------------------------------------------------

  addNamespace(path: string, cookie: bigint): NetnsCookie {
    const branded = cookie as NetnsCookie;
    this.namespaces.set(path, branded);
    return branded;
  }

  removeNamespace(path: string): void {
    this.namespaces.delete(path);
  }

  killListeners(cookie: NetnsCookie): void {
    const opened = this.#opened.get(cookie);
    if (opened !== undefined) opened.dead = true;
  }

  /** The next calls of a step fail, one after the other. */
  fail(step: KernelStep, ...errors: Error[]): void {
    this.#failures.set(step, errors);
  }

  /** Cookies of the namespaces that this process holds open. */
  get open(): readonly NetnsCookie[] {
    return [...this.#opened.keys()];
  }

  // --- PodKernel --------------------------------------------------------------------------------------------------------

  prepare(pod: Pod): PreparedPod {
    this.#called('prepare', pod.netns);
    const cookie = this.namespaces.get(pod.netns);
    if (cookie === undefined) throw new FakeKernelError('NOT_A_NETNS', `${pod.netns} is not a network namespace`);
    const known = this.#opened.get(cookie);
    if (known !== undefined && !known.dead) return known.prepared;
    const prepared: PreparedPod = {
      cookie,
      netnsFd: known?.prepared.netnsFd ?? this.#fd(),
      listeners: [15001, 15006, 15008].map((port) => ({ port, slot: 0, fd: this.#fd() })),
    };
    this.#opened.set(cookie, { prepared, dead: false });
    return prepared;
  }

  capture(pod: Pod, cookie: NetnsCookie): void {
    this.#called('capture', String(cookie));
    if (!this.#opened.has(cookie)) throw new FakeKernelError('NOT_PREPARED', `${cookie} is not prepared`);
    const { outboundPorts, inboundPorts } = pod.exclusions;
    if (outboundPorts.length + inboundPorts.length > 65_536)
      throw new FakeKernelError('TOO_MANY_EXCLUSIONS', 'there is no room for so many ports');
    this.pins.set(cookie, pod);
  }

  async release(cookie: NetnsCookie): Promise<void> {
    this.#called('release', String(cookie));
    await Promise.resolve();
    this.pins.delete(cookie);
  }

  close(cookie: NetnsCookie): void {
    this.#called('close', String(cookie));
    this.pins.delete(cookie);
    this.#opened.delete(cookie);
  }

  check(pod: Pod, cookie: NetnsCookie): 'live' | 'gone' | 'reopened' {
    this.#called('check', String(cookie));
    if (this.namespaces.get(pod.netns) !== cookie) return 'gone';
    const opened = this.#opened.get(cookie);
    if (opened === undefined || !opened.dead) return 'live';
    const listeners = opened.prepared.listeners.map(({ port, slot }) => ({ port, slot, fd: this.#fd() }));
    this.#opened.set(cookie, { prepared: { ...opened.prepared, listeners }, dead: false });
    return 'reopened';
  }

  refuseAll(): void {
    this.calls.push('refuseAll');
    for (const opened of this.#opened.values()) opened.dead = true;
  }

  captured(): readonly NetnsCookie[] {
    return [...this.pins.keys()];
  }

  #called(step: KernelStep, subject: string): void {
    this.calls.push(`${step} ${subject}`);
    const error = this.#failures.get(step)?.shift();
    if (error !== undefined) throw error;
  }

  #fd(): number {
    this.#nextFd += 1;
    return this.#nextFd;
  }
}
