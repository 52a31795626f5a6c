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
  type Address,
  type Endpoint,
  type FlowSink,
  type MeshUpdate,
  messageOf,
  type NetnsCookie,
  type Pod,
} from '../../mesh/index.ts';
import type { PolicyBook } from '../../policy/index.ts';
import type { Log } from '../../telemetry/index.ts';
import type { Clock, DirectoryWatch } from '../ports.ts';
import type { PathAnswer } from './answer.ts';
import { PathChanges } from './changes.ts';
import { type Concern, concernOf } from './concern.ts';
import { decideVerdict, type PathWorld } from './decide.ts';
import { PastDestinations } from './destinations.ts';
import { FlowCounting, type FlowCountingOptions, type SeriesDeps } from './flow-counting.ts';
import { KubeletWatch } from './kubelet.ts';
import { LimitedLog } from './limited-log.ts';
import { LiveFlows } from './live-flows.ts';
import { MasqueradedPairs } from './masqueraded.ts';
import { PathEvents } from './path-events.ts';
import { PodSwitches } from './pod-switches.ts';
import { type PathPodState, PathPods } from './pods.ts';
import type { ControlGroups, FlowEnd, PathEvent, PathKernel, PathModel, PathRouting, Place } from './ports.ts';
import { Rewriting, turn } from './rewriting.ts';
import { PublishedServices } from './services.ts';
import type { KernelPathStatus, KernelPathTotals } from './status.ts';
import { PolicyTally } from './tally.ts';
import { Verdicts } from './verdicts.ts';

export interface KernelPathDeps {
  readonly kernel: PathKernel;
  /** As this node knows the mesh; changed only by the function that `apply` is given. */
  readonly model: PathModel;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
  readonly routing: PathRouting;
  /** Who is told of flows that have ended. Default: nobody. */
  readonly flows?: FlowSink;
  /** Who exposes Istio's counters of the kernel path. Default: nobody, so nothing is counted. */
  readonly series?: SeriesDeps;
  readonly groups: ControlGroups;
  readonly directories: DirectoryWatch;
  readonly clock: Clock;
  readonly log: Log;
}

export interface KernelPathOptions extends FlowCountingOptions {
  /** This node's name, as workloads have it. */
  readonly node: string;
  /**
   * False: every connection goes through the tunnel. What an earlier agent has let on the kernel path is watched
   * nevertheless, and so are the kubelet's probes.
   */
  readonly isOn: boolean;
  /** Where the kubelet's control group may be; the first that is there counts. None: its probes are as anybody's. */
  readonly kubeletPaths: readonly string[];
}

/** Events and ends are read so often. */
const TICK_MS = 50;
/** Ends are told of when the mesh is known, so that it is known whose they are; but no later than after so many ticks. */
const MOST_TICKS_TO_WAIT = 600;
/** Ticks between looks at the weights of services. */
const TICKS_A_LOOK = 2;
const TICKS_A_SECOND = 20;
/** Ticks between collections of the addresses that connections may lead to, if they are too many to be remembered. */
const TICKS_A_COLLECTION = 200;
const BEAT_MS = 500;

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
  readonly #world: PathWorld;
  readonly #pods: PathPods;
  readonly #masqueraded: MasqueradedPairs;
  readonly #changes: PathChanges;
  readonly #verdicts: Verdicts;
  readonly #live: LiveFlows;
  readonly #services: PublishedServices;
  readonly #switches: PodSwitches;
  readonly #events: PathEvents;
  readonly #counting: FlowCounting;
  readonly #kubelet: KubeletWatch;
  readonly #rewriting: Rewriting;
  readonly #limited: LimitedLog;
  readonly #tally = new PolicyTally();
  #state: State = { kind: 'new' };
  #timers: ReadonlyArray<{ stop(): void }> = [];
  #ticks = 0;
  #arePodsKnown = false;

  constructor(deps: KernelPathDeps, options: KernelPathOptions) {
    const { kernel, model, book, routing, groups, directories, clock, log } = deps;
    this.#deps = deps;
    this.#isWanted = options.isOn;
    const pods = new PathPods({ model, book }, options.node);
    const masqueraded = new MasqueradedPairs(clock);
    const isMasqueraded = masqueraded.has.bind(masqueraded);
    const world = { model, book, routing, pods, isMasqueraded };
    this.#world = world;
    const limited = new LimitedLog(log);
    const tally = this.#tally;
    const past = new PastDestinations();
    const verdicts = new Verdicts({
      table: kernel,
      world,
      pods,
      decided: (reason) => tally.decided(reason),
      leftBehind: (address) => past.add(address),
    });
    const found = (address: Address): void => {
      if (!verdicts.leadsOutside(address)) past.add(address);
    };
    const live = new LiveFlows({ table: kernel, world, found, log, limited });
    const services = new PublishedServices({ table: kernel, model, routing, clock });
    const switches = new PodSwitches({ table: kernel, pods });
    this.#pods = pods;
    this.#masqueraded = masqueraded;
    this.#limited = limited;
    this.#live = live;
    this.#verdicts = verdicts;
    this.#services = services;
    this.#switches = switches;
    this.#changes = new PathChanges({ pods, past, verdicts, live, services, switches });
    this.#events = new PathEvents({ signals: kernel, live, verdicts, masqueraded, pods, log: limited });
    this.#counting = new FlowCounting(
      {
        table: kernel,
        model,
        pods,
        takeFault: (end) => live.takeFault(end),
        failed: (end) => this.#failed(end),
        dryRun: (outcomes) => tally.rehearsed(outcomes),
        flows: deps.flows,
        series: deps.series,
        clock,
        limited,
      },
      options,
    );
    this.#kubelet = new KubeletWatch({ signals: kernel, groups, directories, clock, log }, options.kubeletPaths);
    this.#rewriting = new Rewriting({
      services,
      verdicts,
      guarded: (run) => this.#guarded('write what is still right', run),
    });
  }

  /** Voids all that an earlier agent has written, and begins. Its flows live on until more is known. */
  start(): void {
    const { clock } = this.#deps;
    this.#guarded('begin', () => this.#events.begin());
    this.#counting.begin();
    this.#begin();
    this.#kubelet.start();
    this.#timers = [clock.every(TICK_MS, () => this.#tick()), clock.every(BEAT_MS, () => this.#beat())];
  }

  /** The kernel keeps everything, and what lives lives on. Nothing is vouched for any more. */
  stop(): void {
    for (const timer of this.#timers) timer.stop();
    this.#timers = [];
    this.#kubelet.stop();
    this.#limited.nextSecond();
    this.#counting.stop();
    this.#setState({ kind: 'stopped' });
    this.#rewriting.settle();
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
      if (state !== 'left') return;
      this.#verdicts.forgetPod(cookie);
      this.#masqueraded.forgetPod(cookie);
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
      this.#services.note(update, concern);
      this.#changed(changed, concern);
      this.#judgeFirst();
    });
    await this.#rewriting.settled();
  }

  /** A pod has connected through the tunnel, to a destination which the next might reach directly. */
  request(source: NetnsCookie, destination: Endpoint): void {
    if (this.#state.kind !== 'on') return;
    this.#guarded('write a verdict', () => this.#verdicts.request(source, destination));
  }

  /** Whether connections of a pod may go past the tunnel, or why not. Only for people: nothing is written, nothing counted. */
  answerOn(source: NetnsCookie, destination: Endpoint): PathAnswer {
    const verdict = decideVerdict(this.#world, this.#pods.get(source), destination);
    return {
      state: this.#state.kind,
      may: verdict.kind === 'none' ? verdict.reason : verdict.kind,
      isWritten: this.#verdicts.leadsTo(source, destination) !== undefined,
    };
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
      ...this.#tally.totals(),
      closed: this.#live.closed,
      ended: this.#counting.totals(),
    };
  }

  // --- changes --------------------------------------------------------------------------------------------------------

  /** The mesh, or the pods, are not as they were. */
  #changed(changed: ReadonlySet<Place>, concern: Concern): void {
    this.#changes.apply(changed, concern, this.#state.kind === 'on' && this.#deps.model.isComplete);
    this.#rewriting.work();
  }

  #judgeFirst(): void {
    if (this.#arePodsKnown && this.#deps.model.isComplete) this.#changes.judgeFirst();
  }

  // --- time -----------------------------------------------------------------------------------------------------------

  #tick(): void {
    this.#ticks += 1;
    const isSecond = this.#ticks % TICKS_A_SECOND === 0;
    if (isSecond) this.#limited.nextSecond();
    this.#guarded('read what the kernel tells', () => {
      const { hasJudged } = this.#changes;
      if (isSecond) this.#events.audit(hasJudged);
      else this.#events.read(hasJudged);
      if (this.#isKnownWhose()) this.#counting.run(this.#ticks / TICKS_A_SECOND);
      if (isSecond) this.#live.sweep();
      if (isSecond && hasJudged) this.#live.lookBack();
      if (this.#ticks % TICKS_A_COLLECTION === 0 && this.#changes.collect()) this.#rewriting.work();
      if (this.#state.kind === 'on' && this.#ticks % TICKS_A_LOOK === 0) this.#services.refresh(turn());
    });
  }

  /** Whose a flow was, and as what it is counted, is asked when its end is told. */
  #isKnownWhose(): boolean {
    return (this.#arePodsKnown && this.#deps.model.isComplete) || this.#ticks > MOST_TICKS_TO_WAIT;
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
      this.#changes.forgetJudged();
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
    this.#rewriting.settle();
    if (before.kind === 'failed' && before.error === messageOf(error)) return;
    this.#deps.log.error({ error, task }, 'the kernel path failed, so nothing is vouched for; trying again');
    try {
      this.#deps.kernel.clearPaths();
    } catch (cause) {
      this.#deps.log.error({ error: cause }, 'nor can it be cleared: what was vouched for counts for 5 s more');
    }
  }

  /** The next connection goes through the tunnel, which tries another endpoint if it must. */
  #failed({ source, server }: FlowEnd): void {
    if (source !== 0n) this.#verdicts.forget(source, server);
  }

  #setState(state: State): void {
    this.#state = state;
  }
}
