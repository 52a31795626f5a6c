import type {
  FlowEnd,
  FlowSample,
  FlowSampling,
  KernelBackend,
  KernelFlow,
  KernelVerdict,
  KubeletGroup,
  OpenPorts,
  PathCount,
  PathEvent,
  PathKernel,
  Place,
} from '../../../src/agent/index.ts';
import { type Endpoint, formatEndpoint, type NetnsCookie } from '../../../src/mesh/index.ts';

/** The kernel's side of the kernel path, in memory. What a connect would meet there is asked by `answer`. */
export class FakePathKernel implements PathKernel {
  /** Every call that changes something, by name, in order. */
  readonly calls: string[] = [];
  readonly verdicts = new Map<string, KernelVerdict>();
  readonly services = new Map<string, readonly KernelBackend[]>();
  readonly openPorts = new Map<NetnsCookie, OpenPorts>();
  readonly destroyed: KernelFlow[] = [];
  /** Verdicts that there is room for. */
  room = 65_536;
  beats = 0;
  kubelet: KubeletGroup | undefined;
  readonly #epochs = new Map<Place, bigint>([[0n, 1n]]);
  readonly #on = new Set<NetnsCookie>();
  readonly #failures = new Map<string, Error[]>();
  readonly #kept = new Set<Place>();
  #failsToEnd = false;
  #flows: KernelFlow[] = [];
  #ends: FlowEnd[] = [];
  #samples: FlowSample[] = [];
  #round = 1;
  #events: PathEvent[] = [];
  readonly #counts = new Map<string, PathCount>();

  // --- what a test does to the world ----------------------------------------------------------------------------------

  capture(cookie: NetnsCookie): void {
    this.#epochs.set(cookie, (this.#epochs.get(cookie) ?? 0n) + 1n);
  }

  /** The next calls of a method fail, one after the other. */
  fail(method: keyof PathKernel, ...errors: Error[]): void {
    this.#failures.set(method, errors);
  }

  begin(flow: KernelFlow): void {
    this.#flows.push(flow);
  }

  end(end: FlowEnd): void {
    this.#flows = this.#flows.filter(
      ({ client, server }) => !isSame(client, end.client) || !isSame(server, end.server),
    );
    this.#ends.push(end);
  }

  /** What the next sampling tells. */
  sample(...samples: FlowSample[]): void {
    this.#samples.push(...samples);
  }

  /** The next sampling begins a new round. */
  nextRound(): void {
    this.#round += 1;
  }

  tell(...events: PathEvent[]): void {
    this.#events.push(...events);
    this.lose(...events);
  }

  /** The ring is full: the events are counted, and nobody hears of them. */
  lose(...events: PathEvent[]): void {
    for (const { cookie, reason } of events) {
      const key = `${cookie} ${reason}`;
      this.#counts.set(key, { cookie, reason, count: (this.#counts.get(key)?.count ?? 0) + 1 });
    }
  }

  /** Flows of the pod cannot be ended; `fails`: and that is an error. Undefined: they can again. */
  keepFlowsOf(cookie: NetnsCookie | undefined, how: 'silently' | 'fails' = 'fails'): void {
    if (cookie === undefined) this.#kept.clear();
    else this.#kept.add(cookie);
    this.#failsToEnd = how === 'fails';
  }

  /** Which way a connect goes: `local` and `outside` are past the tunnel. */
  answer(source: NetnsCookie, destination: Endpoint): 'local' | 'outside' | 'tunnel' {
    const verdict = this.verdicts.get(keyOf(source, destination));
    if (verdict === undefined || !this.#on.has(source)) return 'tunnel';
    const isPresent =
      verdict.sourceEpoch === this.epochOf(source) && verdict.destinationEpoch === this.epochOf(verdict.to);
    return isPresent ? verdict.kind : 'tunnel';
  }

  isOn(cookie: NetnsCookie): boolean {
    return this.#on.has(cookie);
  }

  // --- PathKernel -------------------------------------------------------------------------------------------------------

  epochOf(place: Place): bigint {
    return this.#epochs.get(place) ?? 0n;
  }

  raiseEpoch(place: Place): bigint {
    this.#called('raiseEpoch', place);
    const epoch = this.epochOf(place) + 1n;
    if (this.#epochs.has(place)) this.#epochs.set(place, epoch);
    return epoch;
  }

  putVerdict(verdict: KernelVerdict): boolean {
    this.#called('putVerdict', verdict.source);
    const key = keyOf(verdict.source, verdict.destination);
    if (!this.verdicts.has(key) && this.verdicts.size >= this.room) return false;
    this.verdicts.set(key, verdict);
    return true;
  }

  deleteVerdict(source: NetnsCookie, destination: Endpoint): void {
    this.#called('deleteVerdict', source);
    this.verdicts.delete(keyOf(source, destination));
  }

  clearPaths(): void {
    this.#called('clearPaths', 0n);
    for (const [place, epoch] of this.#epochs) this.#epochs.set(place, epoch + 1n);
    this.verdicts.clear();
    this.services.clear();
    this.openPorts.clear();
    this.#on.clear();
  }

  putService(at: Endpoint, backends: readonly KernelBackend[]): boolean {
    this.#called('putService', at.port);
    this.services.set(formatEndpoint(at), backends);
    return true;
  }

  deleteService(at: Endpoint): void {
    this.#called('deleteService', at.port);
    this.services.delete(formatEndpoint(at));
  }

  setKernelPath(pod: NetnsCookie, on: boolean): void {
    this.#called('setKernelPath', pod);
    if (on && this.#epochs.has(pod)) this.#on.add(pod);
    else this.#on.delete(pod);
  }

  setOpenPorts(pod: NetnsCookie, open: OpenPorts | undefined): boolean {
    this.#called('setOpenPorts', pod);
    if (!this.#epochs.has(pod)) return false;
    if (open === undefined) this.openPorts.delete(pod);
    else this.openPorts.set(pod, open);
    return true;
  }

  flows(of?: ReadonlySet<Place>): readonly KernelFlow[] {
    this.#called('flows', 0n);
    return this.#flows.filter(({ source, destination }) => of === undefined || of.has(source) || of.has(destination));
  }

  destroyFlows(flows: readonly KernelFlow[]): number {
    this.#called('destroyFlows', flows.length);
    const ended = flows.filter(({ source, destination }) => !this.#kept.has(source) && !this.#kept.has(destination));
    this.destroyed.push(...ended);
    this.#flows = this.#flows.filter((flow) => !ended.includes(flow));
    if (ended.length < flows.length && this.#failsToEnd) throw new Error('the kernel did not end all connections');
    return 2 * ended.length;
  }

  flowRecords(): readonly FlowEnd[] {
    const failure = this.#failures.get('flowRecords')?.shift();
    if (failure !== undefined) throw failure;
    return this.#ends.splice(0, 2);
  }

  sampleFlows(): FlowSampling {
    const failure = this.#failures.get('sampleFlows')?.shift();
    if (failure !== undefined) throw failure;
    return { round: this.#round, samples: this.#samples.splice(0) };
  }

  sweepFlows(): number {
    return 0;
  }

  flowCount(): number {
    return this.#flows.length;
  }

  beat(): void {
    this.#called('beat', 0n);
    this.beats += 1;
  }

  setKubelet(group: KubeletGroup | undefined): void {
    this.#called('setKubelet', group?.cgroup ?? 0n);
    this.kubelet = group;
  }

  events(): readonly PathEvent[] {
    return this.#events.splice(0);
  }

  counts(): readonly PathCount[] {
    return [...this.#counts.values()];
  }

  #called(method: keyof PathKernel, subject: bigint | number): void {
    this.calls.push(`${method} ${subject}`);
    const failure = this.#failures.get(method)?.shift();
    if (failure !== undefined) throw failure;
  }
}

function keyOf(source: NetnsCookie, destination: Endpoint): string {
  return `${source} ${formatEndpoint(destination)}`;
}

function isSame(a: Endpoint, b: Endpoint): boolean {
  return a.address === b.address && a.port === b.port;
}
