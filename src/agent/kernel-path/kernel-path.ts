/**
 * The kernel path: connections that may go past the tunnel, and what becomes of them when the mesh changes.
 *
 * Invariants:
 * - This is the only writer of epochs, verdicts, services, open ports and the heartbeat.
 * - An update of the mesh is applied, and everything that it forbids is void or ended, in one turn of the loop, without an
 *   await in between. Only what is still right may be written again later.
 * - Nothing is vouched for (no heartbeat, so nothing counts) unless the kernel has been told everything.
 */
import {
  type Endpoint,
  type MeshUpdate,
  messageOf,
  type NetnsCookie,
  type Pod,
  type ServiceName,
} from '../../mesh/index.ts';
import type { DryRunOutcome, PolicyBook } from '../../policy/index.ts';
import type { Log } from '../../telemetry/index.ts';
import type { Clock, DirectoryWatch } from '../ports.ts';
import { type Concern, concernOf } from './concern.ts';
import { FlowEnds } from './flow-ends.ts';
import { KubeletWatch } from './kubelet.ts';
import { LiveFlows } from './live-flows.ts';
import { MasqueradedPairs } from './masqueraded.ts';
import { PathEvents } from './path-events.ts';
import { PodSwitches } from './pod-switches.ts';
import { type PathPodState, PathPods } from './pods.ts';
import type {
  ControlGroups,
  FlowEnd,
  FlowMemory,
  PathEvent,
  PathKernel,
  PathModel,
  PathRouting,
  Place,
} from './ports.ts';
import { PublishedServices } from './services.ts';
import type { KernelPathStatus, KernelPathTotals } from './status.ts';
import { Verdicts } from './verdicts.ts';

export interface KernelPathDeps {
  readonly kernel: PathKernel;
  /** As this node knows the mesh; changed only by the function that `apply` is given. */
  readonly model: PathModel;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
  readonly routing: PathRouting;
  /** Where flows that have ended are remembered. Default: nowhere. */
  readonly memory?: FlowMemory;
  readonly groups: ControlGroups;
  readonly directories: DirectoryWatch;
  readonly clock: Clock;
  readonly log: Log;
}

export interface KernelPathOptions {
  /** This node's name, as workloads have it. */
  readonly node: string;
  /**
   * False: every connection goes through the tunnel. What an earlier agent has let on the kernel path is watched
   * nevertheless, and so are the kubelet's probes.
   */
  readonly isOn: boolean;
  /** Where the kubelet's control group may be; the first that is there counts. None: its probes are as anybody's. */
  readonly kubeletPaths: readonly string[];
  /** Each connection is told to the log at its end, at level debug. Default: false. */
  readonly logsConnections?: boolean;
}

/** Events and ends are read so often. */
const TICK_MS = 50;
/** Ticks between looks at the weights of services, and between sweeps of the flows. */
const TICKS_A_LOOK = 2;
const TICKS_A_SWEEP = 20;
const BEAT_MS = 500;
/** The loop is not held up for longer at a time by what can wait. */
const TURN_MS = 5;
/** Nor by connections that are over: what does not fit waits in the kernel's ring, which holds 30,000 of them. */
const ENDS_MS = 20;

type State =
  | { readonly kind: 'new' }
  | { readonly kind: 'off' }
  | { readonly kind: 'on'; readonly beats: number }
  /** The kernel refused something: nothing counts until all of it has been told again. */
  | { readonly kind: 'failed'; readonly error: string }
  | { readonly kind: 'stopped' };

export class KernelPath {
  readonly #deps: KernelPathDeps;
  readonly #isWanted: boolean;
  readonly #pods: PathPods;
  readonly #verdicts: Verdicts;
  readonly #live: LiveFlows;
  readonly #services: PublishedServices;
  readonly #switches: PodSwitches;
  readonly #events: PathEvents;
  readonly #ends: FlowEnds;
  readonly #kubelet: KubeletWatch;
  readonly #decisions: Record<string, number> = {};
  readonly #dryRun = { denies: 0, allows: 0 };
  #state: State = { kind: 'new' };
  #timers: ReadonlyArray<{ stop(): void }> = [];
  #ticks = 0;
  #arePodsKnown = false;
  /** Whether the living flows have been judged by all that there is to know. */
  #hasJudged = false;
  /** Wait until everything is written again. */
  #waiters: Array<() => void> = [];
  #isWorking = false;

  constructor(deps: KernelPathDeps, options: KernelPathOptions) {
    const { kernel, model, book, routing, groups, directories, clock, log } = deps;
    this.#deps = deps;
    this.#isWanted = options.isOn;
    const pods = new PathPods({ model, book }, options.node);
    const masqueraded = new MasqueradedPairs(clock);
    const isMasqueraded = masqueraded.has.bind(masqueraded);
    const world = { model, book, routing, pods, isMasqueraded };
    const live = new LiveFlows({ table: kernel, world, log });
    const verdicts = new Verdicts({
      table: kernel,
      world,
      pods,
      decided: (reason) => this.#count(reason),
      leadsTo: (address) => live.mayLeadTo(address),
    });
    this.#pods = pods;
    this.#live = live;
    this.#verdicts = verdicts;
    this.#services = new PublishedServices({ table: kernel, model, routing, clock });
    this.#switches = new PodSwitches({ table: kernel, pods });
    this.#events = new PathEvents({ signals: kernel, live, verdicts, masqueraded, pods, log });
    this.#ends = new FlowEnds(
      {
        table: kernel,
        model,
        pods,
        takeFault: (end) => live.takeFault(end),
        failed: (end) => this.#failed(end),
        dryRun: (outcomes) => this.#countDryRun(outcomes),
        memory: deps.memory,
        clock,
        log,
      },
      options.logsConnections ?? false,
    );
    this.#kubelet = new KubeletWatch({ signals: kernel, groups, directories, clock, log }, options.kubeletPaths);
  }

  /** Voids all that an earlier agent has written, and begins. Its flows live on until more is known. */
  start(): void {
    const { clock } = this.#deps;
    this.#begin();
    this.#kubelet.start();
    this.#timers = [clock.every(TICK_MS, () => this.#tick()), clock.every(BEAT_MS, () => this.#beat())];
  }

  /** The kernel keeps everything, and what lives lives on. Nothing is vouched for any more. */
  stop(): void {
    for (const timer of this.#timers) timer.stop();
    this.#timers = [];
    this.#kubelet.stop();
    this.#setState({ kind: 'stopped' });
    this.#settle();
  }

  /** All pods of an earlier agent are known by now: its flows can be judged as soon as the mesh is known. */
  podsKnown(): void {
    this.#arePodsKnown = true;
    this.#guarded('judge what lives', () => this.#judgeFirst());
  }

  /** A pod of this node is captured, or no longer, or is to be treated otherwise than before. */
  podChanged(pod: Pod, cookie: NetnsCookie, state: PathPodState): void {
    const { now, before } = this.#pods.put(pod, cookie, state);
    this.#guarded('change a pod', () => {
      if (state !== 'left') this.#switches.forget(cookie);
      const addresses = new Set([...now.pod.addresses, ...(before?.pod.addresses ?? [])]);
      this.#changed(new Set([cookie]), { all: false, addresses, services: new Set() });
      if (state === 'left') this.#verdicts.forgetPod(cookie);
    });
  }

  /**
   * Takes an update of the mesh. Nothing that it forbids counts any more when this returns; the promise is kept when
   * everything that is still right is written again.
   *
   * @param run changes the model
   */
  async apply(update: MeshUpdate, run: () => void): Promise<void> {
    const concern = concernOf(update, this.#deps.model);
    run();
    this.#guarded('take an update of the mesh', () => {
      const changed = new Set<Place>(this.#pods.refresh().map(({ cookie }) => cookie));
      this.#note(update, concern);
      this.#changed(changed, concern);
      this.#judgeFirst();
    });
    await this.#settled();
  }

  /** A pod has connected through the tunnel, to a destination which the next might reach directly. */
  request(source: NetnsCookie, destination: Endpoint): void {
    if (this.#state.kind !== 'on') return;
    this.#guarded('write a verdict', () => this.#verdicts.request(source, destination));
  }

  /** Whether the pod is captured. */
  serves(cookie: NetnsCookie): boolean {
    const state = this.#pods.get(cookie)?.state;
    return state !== undefined && state !== 'left';
  }

  /** What an operator should be told of, since the last call. */
  events(): readonly PathEvent[] {
    return this.#events.take();
  }

  status(): KernelPathStatus {
    const pods = [...this.#pods.values()].filter(({ state }) => state !== 'left');
    const unknown = new Set(pods.flatMap(({ rules }) => rules.unknown));
    return {
      state: this.#state.kind,
      error: this.#state.kind === 'failed' ? this.#state.error : undefined,
      verdicts: this.#verdicts.count,
      services: this.#services.count,
      flows: this.#deps.kernel.flowCount(),
      beats: this.#state.kind === 'on' ? this.#state.beats : 0,
      kubelet: this.#kubelet.path,
      unknownPolicies: [...unknown].sort(),
    };
  }

  totals(): KernelPathTotals {
    const { given, unwritten } = this.#verdicts.totals();
    return {
      requests: { given, ...unwritten },
      decisions: this.#decisions,
      dryRun: this.#dryRun,
      closed: this.#live.closed,
      ended: this.#ends.totals(),
    };
  }

  // --- changes --------------------------------------------------------------------------------------------------------

  get #canJudge(): boolean {
    return this.#arePodsKnown && this.#deps.model.isComplete;
  }

  /** Services that have changed. */
  #note(update: MeshUpdate, { all, addresses, services }: Concern): void {
    if (update.complete) this.#services.forgetKnown();
    for (const service of update.services) this.#services.put(service);
    for (const key of update.removed) this.#services.delete(key as ServiceName);
    if (all) this.#services.touchAll();
    for (const name of services) this.#services.touch(name);
    for (const address of addresses) this.#services.touchAddress(address);
  }

  /** First void, then shut, then end what lives; only then write what is still right. */
  #changed(changed: ReadonlySet<Place>, { all, addresses }: Concern): void {
    const places = new Set(changed);
    if (all) for (const { cookie } of this.#pods.values()) places.add(cookie);
    for (const address of addresses) for (const cookie of this.#pods.allAt(address)) places.add(cookie);
    for (const place of places) this.#verdicts.revoke(place);
    if (all || [...addresses].some((address) => this.#verdicts.leadsAstray(address))) this.#verdicts.revoke(0n);
    const isOn = this.#state.kind === 'on' && this.#deps.model.isComplete;
    this.#switches.update(isOn);
    if (this.#hasJudged && (places.size > 0 || !this.#live.leadToNoneOf(addresses)))
      this.#live.judge({ all, places, addresses });
    this.#services.seenFrom(isOn ? this.#switches.vantage() : undefined);
    this.#work();
  }

  #judgeFirst(): void {
    if (this.#hasJudged || !this.#canJudge) return;
    this.#hasJudged = true;
    this.#live.judge({ all: true, places: new Set(), addresses: new Set() });
  }

  /** Writes what is still right, a little at a time. */
  #work(): void {
    const mayGoOn = turn();
    if (this.#services.publish(mayGoOn) && this.#verdicts.renew(mayGoOn)) this.#settle();
    else if (!this.#isWorking) {
      this.#isWorking = true;
      setImmediate(() => {
        this.#isWorking = false;
        this.#guarded('write what is still right', () => this.#work());
      });
    }
  }

  async #settled(): Promise<void> {
    if (!this.#isWorking) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.push(resolve);
    await promise;
  }

  #settle(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }

  // --- time -----------------------------------------------------------------------------------------------------------

  #tick(): void {
    this.#ticks += 1;
    this.#guarded('read what the kernel tells', () => {
      this.#events.read(this.#hasJudged);
      this.#ends.read(turn(ENDS_MS));
      if (this.#ticks % TICKS_A_SWEEP === 0) this.#live.sweep();
      if (this.#state.kind === 'on' && this.#ticks % TICKS_A_LOOK === 0) this.#services.refresh(turn());
    });
  }

  #beat(): void {
    if (this.#state.kind === 'failed') this.#begin();
    if (this.#state.kind !== 'on') return;
    const { beats } = this.#state;
    this.#guarded('give a sign of life', () => {
      this.#deps.kernel.beat();
      this.#setState({ kind: 'on', beats: beats + 1 });
    });
  }

  /** Void, all of it; then tell everything. */
  #begin(): void {
    this.#guarded('begin', () => {
      const before = this.#state.kind;
      this.#deps.kernel.clearPaths();
      this.#verdicts.clear();
      this.#services.clear();
      for (const { cookie } of this.#pods.values()) this.#switches.forget(cookie);
      this.#setState(this.#isWanted ? { kind: 'on', beats: 0 } : { kind: 'off' });
      this.#hasJudged = false;
      this.#changed(new Set(), { all: true, addresses: new Set(), services: new Set() });
      this.#judgeFirst();
      if (this.#isWanted) this.#deps.kernel.beat();
      if (before === 'failed') this.#deps.log.info({}, 'the kernel path is whole again');
    });
  }

  #guarded(task: string, run: () => void): void {
    if (this.#state.kind === 'stopped') return;
    try {
      run();
    } catch (error) {
      this.#fail(task, error);
    }
  }

  #fail(task: string, error: unknown): void {
    const before = this.#state;
    this.#setState({ kind: 'failed', error: messageOf(error) });
    this.#settle();
    if (before.kind === 'failed' && before.error === messageOf(error)) return;
    this.#deps.log.error({ error, task }, 'the kernel path failed, so nothing is vouched for; trying again');
    try {
      this.#deps.kernel.clearPaths();
    } catch (cause) {
      this.#deps.log.error({ error: cause }, 'nor can it be cleared: what was vouched for counts for 5 s more');
    }
  }

  // --- counting -------------------------------------------------------------------------------------------------------

  /** The next connection goes through the tunnel, which tries another endpoint if it must. */
  #failed({ source, server }: FlowEnd): void {
    if (source !== 0n) this.#verdicts.forget(source, server);
  }

  #count(reason: string): void {
    this.#decisions[reason] = (this.#decisions[reason] ?? 0) + 1;
  }

  #countDryRun(outcomes: readonly DryRunOutcome[]): void {
    for (const { would } of outcomes)
      if (would === 'allow') this.#dryRun.allows += 1;
      else this.#dryRun.denies += 1;
  }

  #setState(state: State): void {
    this.#state = state;
  }
}

/** Whether there is time left of a turn that begins now. */
function turn(ms = TURN_MS): () => boolean {
  const end = performance.now() + ms;
  return () => performance.now() < end;
}
