/**
 * The only place that changes what is enrolled.
 *
 * Invariants:
 * - What happens to one pod happens one after the other; pods do not wait for each other.
 * - A new pod's failed step undoes the steps before it. A pod that an earlier agent captured is never undone: it stays
 *   captured, so refused, until it can be served or is withdrawn.
 * - A network namespace belongs to one pod. Its cookie is claimed in the same turn of the loop that learns of it.
 */

import { basename, dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { messageOf, type NetnsCookie, type Pod } from '../mesh/index.ts';
import type { Log, Metrics } from '../telemetry/index.ts';
import { AgentError, type AgentErrorCode } from './errors.ts';
import type { Clock, DirectoryWatch, PodFollower, PodKernel, PreparedPod, Tunnel } from './ports.ts';
import type { EnrolResult, WithdrawResult } from './protocol.ts';
import type { SavedPod } from './state.ts';

/** What is known of one pod. */
export type PodRecord =
  | { readonly kind: 'enrolling'; readonly pod: Pod }
  | { readonly kind: 'enrolled'; readonly pod: Pod; readonly cookie: NetnsCookie }
  /** Captured, but not served: its connections are refused. Tried again at each check. */
  | { readonly kind: 'failed'; readonly pod: Pod; readonly cookie: NetnsCookie; readonly error: string }
  /** Its withdrawal has begun. Finished at a later check if a step failed. */
  | {
      readonly kind: 'withdrawing';
      readonly pod: Pod;
      readonly cookie: NetnsCookie;
      readonly ending: Ending;
      readonly error?: string;
    };

/** What becomes of the open connections: they live on, or are reset because the namespace is gone. */
type Ending = 'stopAccepting' | 'drop';
type KnownPod = Exclude<PodRecord, { kind: 'enrolling' }>;

interface ReconcilerDeps {
  readonly kernel: PodKernel;
  readonly tunnel: Tunnel;
  /** Undefined: nobody follows. */
  readonly follower?: PodFollower | undefined;
  readonly state: { save(snapshot: () => readonly SavedPod[]): Promise<void> };
  readonly clock: Clock;
  readonly directories: DirectoryWatch;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'enrolments' | 'withdrawals' | 'listenersReopened'>;
}

interface ReconcilerOptions {
  /** How often each pod is looked at. Default: 500 ms. */
  readonly checkIntervalMs?: number;
  /** Longest wait for one step of the tunnel or the kernel. Default: 10,000 ms. */
  readonly stepDeadlineMs?: number;
}

export class Reconciler {
  readonly #deps: ReconcilerDeps;
  readonly #checkIntervalMs: number;
  readonly #stepDeadlineMs: number;
  readonly #records = new Map<string, PodRecord>();
  readonly #owners = new Map<NetnsCookie, string>();
  readonly #turns = new Map<string, Promise<unknown>>();
  readonly #watches = new Map<string, { close(): void }>();
  #ticker: { stop(): void } | undefined;
  #closed = false;
  /** The last save failed or is under way. */
  #unsaved = false;

  constructor(deps: ReconcilerDeps, options: ReconcilerOptions = {}) {
    this.#deps = deps;
    this.#checkIntervalMs = options.checkIntervalMs ?? 500;
    this.#stepDeadlineMs = options.stepDeadlineMs ?? 10_000;
  }

  /** All pods known, in the order in which they were first enrolled. */
  pods(): readonly PodRecord[] {
    return [...this.#records.values()];
  }

  /** True if the namespace belongs to a pod known here. */
  knows(cookie: NetnsCookie): boolean {
    return this.#owners.has(cookie);
  }

  /**
   * Serves the pods of an earlier agent again, and begins to watch. A pod that cannot be served stays captured and is
   * tried again later, so this does not fail.
   */
  async start(saved: readonly SavedPod[]): Promise<void> {
    for (const { pod, cookie, withdrawing } of saved) {
      const { uid } = pod;
      if (this.#records.has(uid) || this.#owners.has(cookie)) continue;
      this.#owners.set(cookie, uid);
      this.#set(
        withdrawing
          ? { kind: 'withdrawing', pod, cookie, ending: 'stopAccepting' }
          : { kind: 'failed', pod, cookie, error: 'not yet served by this agent' },
      );
    }
    await Promise.all([...this.#records.keys()].map((uid) => this.#inTurn(uid, () => this.#attend(uid))));
    await this.#saveQuietly();
    this.#ticker = this.#deps.clock.every(this.#checkIntervalMs, () => this.check());
  }

  /**
   * Enrols a pod, or brings an enrolled one up to date.
   *
   * @throws AgentError NETNS_TAKEN, ENROL_FAILED, SHUTTING_DOWN
   */
  async enrol(pod: Pod): Promise<{ result: EnrolResult; cookie: NetnsCookie }> {
    this.#refuseWhenClosed();
    const { metrics, log } = this.#deps;
    try {
      const outcome = await this.#inTurn(pod.uid, () => this.#enrol(pod));
      metrics.enrolments.inc({ result: outcome.result });
      log.info({ ...names(pod), netns_cookie: String(outcome.cookie), result: outcome.result }, 'pod enrolled');
      return outcome;
    } catch (error) {
      metrics.enrolments.inc({ result: 'failed' });
      log.warn({ ...names(pod), error }, 'pod not enrolled');
      throw error;
    }
  }

  /**
   * Withdraws a pod; its open connections live on. An unknown pod is no error.
   *
   * @throws AgentError WITHDRAW_FAILED, SHUTTING_DOWN
   */
  async withdraw(uid: string): Promise<WithdrawResult> {
    this.#refuseWhenClosed();
    const { metrics, log } = this.#deps;
    try {
      const result = await this.#inTurn(uid, () => this.#withdraw(uid));
      metrics.withdrawals.inc({ result });
      log.info({ pod: uid, result }, 'pod withdrawn');
      return result;
    } catch (error) {
      metrics.withdrawals.inc({ result: 'failed' });
      log.warn({ pod: uid, error }, 'pod not withdrawn');
      throw error;
    }
  }

  /**
   * Looks at every pod, or those whose namespace lies at one path. Pods that something is being done to are left out.
   * Resolves when what had to be done is done.
   */
  async check(netns?: { directory: string; name: string | undefined }): Promise<void> {
    if (this.#closed) return;
    if (this.#unsaved && this.#turns.size === 0) await this.#saveQuietly();
    const due = [...this.#records.values()].filter(({ pod }) => {
      if (this.#turns.has(pod.uid)) return false;
      if (netns === undefined) return true;
      return dirname(pod.netns) === netns.directory && (netns.name === undefined || basename(pod.netns) === netns.name);
    });
    await Promise.all(due.map(({ pod }) => this.#inTurn(pod.uid, () => this.#attend(pod.uid))));
  }

  /** Takes no further request and resolves when those under way are done. What is captured stays captured. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#ticker?.stop();
    for (const watch of this.#watches.values()) watch.close();
    this.#watches.clear();
    await Promise.allSettled(this.#turns.values());
  }

  // --- enrolling ------------------------------------------------------------------------------------------------------

  async #enrol(pod: Pod): Promise<{ result: EnrolResult; cookie: NetnsCookie }> {
    const current = await this.#settle(pod);
    if (current === undefined) this.#set({ kind: 'enrolling', pod });
    try {
      const prepared = await this.#step('ENROL_FAILED', pod, 'prepare', () => this.#deps.kernel.prepare(pod));
      this.#claim(prepared, pod);
      if (current?.cookie === prepared.cookie) {
        if (current.kind === 'enrolled') return await this.#refresh(current, pod, prepared);
        await this.#open(pod, prepared);
        return { result: 'enrolled', cookie: prepared.cookie };
      }
      await this.#enrolAfresh(current, pod, prepared);
      return { result: 'enrolled', cookie: prepared.cookie };
    } finally {
      if (this.#records.get(pod.uid)?.kind === 'enrolling') this.#forget(pod.uid, undefined);
    }
  }

  /** What is known of the pod once an unfinished withdrawal is finished and a vanished namespace forgotten. */
  async #settle(pod: Pod): Promise<Extract<PodRecord, { kind: 'enrolled' | 'failed' }> | undefined> {
    const current = this.#records.get(pod.uid);
    if (current === undefined || current.kind === 'enrolling') return undefined;
    if (current.kind === 'withdrawing') {
      await this.#step('ENROL_FAILED', pod, 'finish withdrawing it', () => this.#end(current, current.ending));
      await this.#saveQuietly();
      return undefined;
    }
    const found = await this.#step('ENROL_FAILED', pod, 'check', () =>
      this.#deps.kernel.check(current.pod, current.cookie),
    );
    if (found === 'gone') {
      await this.#step('ENROL_FAILED', pod, 'clean up its old sandbox', () => this.#end(current, 'drop'));
      await this.#saveQuietly();
      return undefined;
    }
    if (found === 'reopened' && current.kind === 'enrolled') {
      await this.#reopen(current);
      return this.#settled(pod.uid);
    }
    return current;
  }

  #settled(uid: string): Extract<PodRecord, { kind: 'enrolled' | 'failed' }> | undefined {
    const record = this.#records.get(uid);
    return record?.kind === 'enrolled' || record?.kind === 'failed' ? record : undefined;
  }

  #claim({ cookie }: PreparedPod, pod: Pod): void {
    const owner = this.#owners.get(cookie);
    if (owner !== undefined && owner !== pod.uid) {
      // Preparing may just have opened dead listeners of the owner's again. Not waited for: the owner's turn may wait for ours.
      void this.#inTurn(owner, () => this.#serveWhatIsOpen(owner)).catch(() => undefined);
      throw new AgentError(
        'NETNS_TAKEN',
        `enrol ${pod.uid}: ${pod.netns} is the network namespace of pod ${owner}; withdraw that pod first`,
      );
    }
    this.#owners.set(cookie, pod.uid);
  }

  /** A namespace that nobody serves yet. `old`: the same pod's former sandbox, withdrawn before the new one is captured. */
  async #enrolAfresh(old: KnownPod | undefined, pod: Pod, prepared: PreparedPod): Promise<void> {
    const { kernel, tunnel } = this.#deps;
    const { cookie } = prepared;
    const undo: Array<[string, () => void | Promise<void>]> = [['close', () => kernel.close(cookie)]];
    try {
      if (old !== undefined) {
        await this.#step('ENROL_FAILED', pod, 'withdraw its old sandbox', () => this.#end(old, 'stopAccepting'));
        this.#set({ kind: 'enrolling', pod });
      }
      undo.unshift(['stop accepting', () => tunnel.stopAccepting(cookie)]);
      await this.#step('ENROL_FAILED', pod, 'serve', () => tunnel.serve(pod, prepared));
      undo.unshift(['release', () => kernel.release(cookie)]);
      await this.#step('ENROL_FAILED', pod, 'capture', () => kernel.capture(pod, cookie));
      this.#set({ kind: 'enrolled', pod, cookie });
      await this.#step('ENROL_FAILED', pod, 'write the state file', () => this.#save());
    } catch (error) {
      const failure = await this.#undo(pod, undo);
      const left = this.#records.get(pod.uid);
      // An old sandbox that could not be withdrawn keeps its record; only the new namespace is given up.
      if (left !== undefined && left.kind !== 'enrolling' && left.cookie !== cookie) this.#owners.delete(cookie);
      else if (failure === undefined) this.#forget(pod.uid, cookie);
      else this.#set({ kind: 'withdrawing', pod, cookie, ending: 'stopAccepting', error: failure });
      await this.#saveQuietly();
      throw error;
    }
  }

  /** A namespace that an earlier agent captured: nothing is undone, so that a failure refuses and never opens. */
  async #open(pod: Pod, prepared: PreparedPod): Promise<void> {
    const { kernel, tunnel } = this.#deps;
    const { cookie } = prepared;
    try {
      await this.#step('ENROL_FAILED', pod, 'serve', () => tunnel.serve(pod, prepared));
      await this.#step('ENROL_FAILED', pod, 'capture', () => kernel.capture(pod, cookie));
      this.#set({ kind: 'enrolled', pod, cookie });
      await this.#step('ENROL_FAILED', pod, 'write the state file', () => this.#save());
    } catch (error) {
      this.#set({ kind: 'failed', pod, cookie, error: messageOf(error) });
      throw error;
    }
  }

  /** An enrolled pod, perhaps with other addresses, exclusions or names. */
  async #refresh(
    current: Extract<PodRecord, { kind: 'enrolled' }>,
    pod: Pod,
    prepared: PreparedPod,
  ): Promise<{ result: EnrolResult; cookie: NetnsCookie }> {
    const { kernel, tunnel } = this.#deps;
    const { cookie } = current;
    try {
      // Also for the same pod again: preparing may just have opened dead listeners again.
      await this.#step('ENROL_FAILED', pod, 'serve', () => tunnel.serve(pod, prepared));
      if (isDeepStrictEqual(current.pod, pod)) return { result: 'unchanged', cookie };
      await this.#step('ENROL_FAILED', pod, 'capture', () => kernel.capture(pod, cookie));
      this.#set({ kind: 'enrolled', pod, cookie });
      await this.#step('ENROL_FAILED', pod, 'write the state file', () => this.#save());
    } catch (error) {
      await this.#quietly(pod, 'undo: capture', () => kernel.capture(current.pod, cookie));
      const unserved = await this.#undo(pod, [['serve', () => tunnel.serve(current.pod, prepared)]]);
      this.#set(unserved === undefined ? current : { ...current, kind: 'failed', error: unserved });
      throw error;
    }
    return { result: 'updated', cookie };
  }

  // --- withdrawing ----------------------------------------------------------------------------------------------------

  async #withdraw(uid: string): Promise<WithdrawResult> {
    const current = this.#records.get(uid);
    if (current === undefined || current.kind === 'enrolling') return 'unchanged';
    const ending = current.kind === 'withdrawing' ? current.ending : 'stopAccepting';
    await this.#step('WITHDRAW_FAILED', current.pod, 'stop serving it', () => this.#end(current, ending));
    await this.#step('WITHDRAW_FAILED', current.pod, 'write the state file', () => this.#save());
    return 'withdrawn';
  }

  /**
   * Ends a pod's enrolment. If the kernel does not release a living pod, nothing has changed. After that there is no way
   * back: what failed is tried again at the next check. The namespace is closed only when the tunnel has let go of it: the
   * descriptor's number may be another pod's in the next moment, and a worker must never dial there.
   */
  async #end(record: KnownPod, ending: Ending): Promise<void> {
    const { kernel, tunnel } = this.#deps;
    const { pod, cookie } = record;
    const failures: unknown[] = [];
    const attempt = async (run: () => void | Promise<void>): Promise<boolean> => {
      try {
        await this.#within(run);
        return true;
      } catch (error) {
        failures.push(error);
        return false;
      }
    };
    if (ending === 'stopAccepting' && record.kind !== 'withdrawing') await this.#within(() => kernel.release(cookie));
    else await attempt(() => kernel.release(cookie));
    this.#set({ kind: 'withdrawing', pod, cookie, ending });
    if (await attempt(() => tunnel[ending](cookie))) await attempt(() => kernel.close(cookie));
    if (failures.length > 0) {
      const error = failures.map(messageOf).join('; ');
      this.#set({ kind: 'withdrawing', pod, cookie, ending, error });
      throw failures.length === 1 ? failures[0] : new AggregateError(failures, error);
    }
    this.#forget(pod.uid, cookie);
  }

  // --- watching -------------------------------------------------------------------------------------------------------

  /** Brings one pod nearer to what it should be. Never throws. */
  async #attend(uid: string): Promise<void> {
    const record = this.#records.get(uid);
    if (record === undefined || record.kind === 'enrolling') return;
    try {
      if (record.kind === 'withdrawing') {
        await this.#end(record, record.ending);
        await this.#saveQuietly();
        return;
      }
      const found = this.#deps.kernel.check(record.pod, record.cookie);
      if (found === 'gone') await this.#vanish(record);
      else if (record.kind === 'failed') await this.#serveAgain(record);
      else if (found === 'reopened') await this.#reopen(record);
    } catch (error) {
      this.#complain(record, error);
    }
  }

  async #vanish(record: KnownPod): Promise<void> {
    this.#deps.log.info({ ...names(record.pod), netns_cookie: String(record.cookie) }, 'network namespace is gone');
    await this.#end(record, 'drop');
    this.#deps.metrics.withdrawals.inc({ result: 'gone' });
    await this.#saveQuietly();
  }

  /** A pod that an earlier agent captured, or whose listeners could not be served. */
  async #serveAgain(record: Extract<PodRecord, { kind: 'failed' }>): Promise<void> {
    const { kernel, tunnel } = this.#deps;
    const { pod, cookie } = record;
    const prepared = kernel.prepare(pod);
    if (prepared.cookie !== cookie) {
      // The path was given to another namespace while nobody watched. That one has not been asked for.
      if (!this.#owners.has(prepared.cookie)) await this.#quietly(pod, 'close', () => kernel.close(prepared.cookie));
      await this.#vanish(record);
      return;
    }
    await this.#within(() => tunnel.serve(pod, prepared));
    kernel.capture(pod, cookie);
    this.#set({ kind: 'enrolled', pod, cookie });
    this.#deps.log.info({ ...names(pod), netns_cookie: String(cookie) }, 'pod served again');
  }

  async #reopen(record: Extract<PodRecord, { kind: 'enrolled' }>): Promise<void> {
    this.#deps.metrics.listenersReopened.inc();
    this.#deps.log.warn(
      names(record.pod),
      'a listener of the pod, or its lookup program, had been taken away and is back',
    );
    await this.#serveWhatIsOpen(record.pod.uid);
  }

  /** Gives the tunnel the listeners that an enrolled pod has now. */
  async #serveWhatIsOpen(uid: string): Promise<void> {
    const record = this.#records.get(uid);
    if (record?.kind !== 'enrolled') return;
    const { kernel, tunnel, log } = this.#deps;
    const { pod, cookie } = record;
    try {
      const prepared = kernel.prepare(pod);
      await this.#within(() => tunnel.serve(pod, prepared));
    } catch (error) {
      this.#set({ kind: 'failed', pod, cookie, error: messageOf(error) });
      log.error({ ...names(pod), error }, 'the pod is captured but cannot be served; trying again');
    }
  }

  /** Logs a failure once, not at every check. */
  #complain(record: KnownPod, error: unknown): void {
    const message = messageOf(error);
    if ('error' in record && record.error === message) return;
    const now = this.#records.get(record.pod.uid);
    if (now?.kind === 'failed') this.#set({ ...now, error: message });
    this.#deps.log.error({ ...names(record.pod), error }, 'the pod is not as it should be; trying again');
  }

  // --- records, steps, turns ------------------------------------------------------------------------------------------

  #set(record: PodRecord): void {
    const before = this.#records.get(record.pod.uid);
    this.#records.set(record.pod.uid, record);
    this.#watchDirectories();
    this.#tell(before, record);
  }

  #forget(uid: string, cookie: NetnsCookie | undefined): void {
    const before = this.#records.get(uid);
    this.#records.delete(uid);
    if (cookie !== undefined) this.#owners.delete(cookie);
    this.#watchDirectories();
    this.#tell(before, undefined);
  }

  /** A namespace is left when its pod has another, when it is withdrawn, or when nothing is known of it any more. */
  #tell(before: PodRecord | undefined, record: PodRecord | undefined): void {
    const { follower } = this.#deps;
    const [old, cookie] = [cookieOf(before), cookieOf(record)];
    if (before !== undefined && old !== undefined && old !== cookie) follower?.podChanged(before.pod, old, 'left');
    if (record === undefined || cookie === undefined) return;
    follower?.podChanged(record.pod, cookie, followedAs[record.kind]);
  }

  #watchDirectories(): void {
    if (this.#closed) return;
    const wanted = new Set([...this.#records.values()].map(({ pod }) => dirname(pod.netns)));
    for (const [directory, watch] of this.#watches) {
      if (wanted.has(directory)) continue;
      watch.close();
      this.#watches.delete(directory);
    }
    for (const directory of wanted) {
      if (this.#watches.has(directory)) continue;
      this.#watches.set(
        directory,
        this.#deps.directories.watch(directory, (name) => void this.check({ directory, name })),
      );
    }
  }

  #snapshot(): SavedPod[] {
    return [...this.#records.values()].flatMap((record) =>
      record.kind === 'enrolling'
        ? []
        : [{ pod: record.pod, cookie: record.cookie, withdrawing: record.kind === 'withdrawing' }],
    );
  }

  async #save(): Promise<void> {
    this.#unsaved = true;
    await this.#deps.state.save(() => this.#snapshot());
    this.#unsaved = false;
  }

  async #saveQuietly(): Promise<void> {
    try {
      await this.#save();
    } catch (error) {
      this.#deps.log.error({ error }, 'the state file could not be written');
    }
  }

  /** One step of a request; its failure says which pod and which step. */
  async #step<T>(code: AgentErrorCode, pod: Pod, name: string, run: () => T | Promise<T>): Promise<T> {
    try {
      return await this.#within(run);
    } catch (cause) {
      const request = code === 'WITHDRAW_FAILED' ? 'withdraw' : 'enrol';
      throw new AgentError(code, `${request} ${pod.uid}: ${name}: ${messageOf(cause)}`, { cause });
    }
  }

  /** Undoes steps one after the other; the first that fails ends it, because each counts on the one before. */
  async #undo(
    pod: Pod,
    steps: ReadonlyArray<readonly [string, () => void | Promise<void>]>,
  ): Promise<string | undefined> {
    for (const [name, run] of steps) {
      try {
        await this.#within(run);
      } catch (error) {
        this.#deps.log.error({ ...names(pod), step: `undo: ${name}`, error }, 'a step failed while another was undone');
        return messageOf(error);
      }
    }
    return undefined;
  }

  async #quietly(pod: Pod, step: string, run: () => void | Promise<void>): Promise<void> {
    try {
      await this.#within(run);
    } catch (error) {
      this.#deps.log.error({ ...names(pod), step, error }, 'a step failed while another was undone');
    }
  }

  /** Bounds a step's time, so that a worker that hangs does not hold its pod for ever. */
  async #within<T>(run: () => T | Promise<T>): Promise<T> {
    const running = run();
    if (!(running instanceof Promise)) return running;
    const late = Promise.withResolvers<never>();
    const deadline = setTimeout(
      () => late.reject(new Error(`no answer within ${this.#stepDeadlineMs} ms`)),
      this.#stepDeadlineMs,
    );
    deadline.unref();
    try {
      return await Promise.race([running, late.promise]);
    } finally {
      clearTimeout(deadline);
    }
  }

  #inTurn<T>(uid: string, run: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(uid) ?? Promise.resolve();
    const turn = before.then(run, run);
    const done = turn
      .catch(() => undefined)
      .finally(() => {
        if (this.#turns.get(uid) === done) this.#turns.delete(uid);
      });
    this.#turns.set(uid, done);
    return turn;
  }

  #refuseWhenClosed(): void {
    if (this.#closed) throw new AgentError('SHUTTING_DOWN', 'the agent is shutting down; try again when it is back');
  }
}

/** What whoever follows the pods makes of a record. */
const followedAs = { enrolled: 'enrolled', failed: 'captured', withdrawing: 'left', enrolling: 'left' } as const;

function cookieOf(record: PodRecord | undefined): NetnsCookie | undefined {
  return record === undefined || record.kind === 'enrolling' ? undefined : record.cookie;
}

/** The log fields that name a pod. */
function names(pod: Pod): { pod: string; name: string; namespace: string } {
  return { pod: pod.uid, name: pod.name, namespace: pod.namespace };
}
