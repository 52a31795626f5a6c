import type { Address, NetnsCookie, Pod, ReadModel, Workload } from '../../mesh/index.ts';
import type { PolicyBook, Rules } from '../../policy/index.ts';
import { signatureOf } from './concern.ts';
import type { Place } from './ports.ts';

/**
 * `enrolled`: served by this agent; `captured`: not served (yet, or any more), so it takes part in nothing new;
 * `left`: no longer captured, but connections of its may live on.
 */
export type PathPodState = 'enrolled' | 'captured' | 'left';

/** A pod of this node as the kernel path knows it. */
export interface PathPod {
  readonly cookie: NetnsCookie;
  readonly pod: Pod;
  readonly state: PathPodState;
  /** As the mesh knows it at present. */
  readonly workload: Workload | undefined;
  /** What applies to it; all is refused while it is unknown. The very same object as long as nothing has changed. */
  readonly rules: Rules;
  /** What its connections are judged by: a pod that nobody knows any more keeps what it has. Undefined: it was never known. */
  readonly judged: { readonly workload: Workload; readonly rules: Rules } | undefined;
}

/** Pods that have left are remembered for the sake of their open connections; no more than this many. */
const MOST_LEFT = 1024;

interface PathPodsDeps {
  readonly model: Pick<ReadModel, 'isComplete' | 'localWorkload'>;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
}

/** The pods of this node, by namespace and by address, each with its workload and what applies to it. */
export class PathPods {
  readonly #deps: PathPodsDeps;
  readonly #node: string;
  readonly #pods = new Map<NetnsCookie, PathPod>();
  /** Of enrolled pods. Two may have the same address for a while: a new pod is given that of one that is going. */
  readonly #byAddress = new Map<Address, NetnsCookie[]>();
  #left = 0;

  /** @param node this node's name */
  constructor(deps: PathPodsDeps, node: string) {
    this.#deps = deps;
    this.#node = node;
  }

  get(place: Place): PathPod | undefined {
    return place === 0n ? undefined : this.#pods.get(place);
  }

  /** The enrolled pod that has the address; `several`: nobody knows which. */
  at(address: Address): PathPod | 'several' | undefined {
    const found = this.#byAddress.get(address);
    if (found === undefined) return undefined;
    const [cookie] = found;
    return found.length > 1 || cookie === undefined ? 'several' : this.#pods.get(cookie);
  }

  /** The cookies of all enrolled pods that have the address. */
  allAt(address: Address): readonly NetnsCookie[] {
    return this.#byAddress.get(address) ?? [];
  }

  values(): IterableIterator<PathPod> {
    return this.#pods.values();
  }

  /** Returns the pod as it is now, and as it was. */
  put(pod: Pod, cookie: NetnsCookie, state: PathPodState): { now: PathPod; before: PathPod | undefined } {
    const before = this.#pods.get(cookie);
    if (before !== undefined) this.#remove(before);
    const now = this.#look(pod, cookie, state, before);
    this.#pods.set(cookie, now);
    if (state === 'enrolled')
      for (const address of pod.addresses)
        this.#byAddress.set(address, [...(this.#byAddress.get(address) ?? []), cookie]);
    if (state === 'left') this.#bound();
    return { now, before };
  }

  /** Looks at all of them again. Returns those of which something has changed that matters here. */
  refresh(): PathPod[] {
    const changed: PathPod[] = [];
    for (const before of this.#pods.values()) {
      const now = this.#look(before.pod, before.cookie, before.state, before);
      const areRulesSame = now.rules === before.rules && now.judged?.rules === before.judged?.rules;
      if (areRulesSame && now.workload === before.workload) continue;
      this.#pods.set(now.cookie, now);
      if (!areRulesSame || signatureOf(now.workload) !== signatureOf(before.workload)) changed.push(now);
    }
    return changed;
  }

  #look(pod: Pod, cookie: NetnsCookie, state: PathPodState, before: PathPod | undefined): PathPod {
    const { model, book } = this.#deps;
    const { namespace, name, serviceAccount } = pod;
    const workload = model.isComplete ? model.localWorkload(this.#node, namespace, name, serviceAccount) : undefined;
    const last = workload ?? (before?.pod.uid === pod.uid ? before.judged?.workload : undefined);
    const judged = last && { workload: last, rules: book.rulesFor(last) };
    return { cookie, pod, state, workload, rules: book.rulesFor(workload), judged };
  }

  #remove({ cookie, pod, state }: PathPod): void {
    this.#pods.delete(cookie);
    if (state === 'left') this.#left -= 1;
    if (state !== 'enrolled') return;
    for (const address of pod.addresses) {
      const rest = this.allAt(address).filter((each) => each !== cookie);
      if (rest.length === 0) this.#byAddress.delete(address);
      else this.#byAddress.set(address, rest);
    }
  }

  #bound(): void {
    this.#left += 1;
    if (this.#left <= MOST_LEFT) return;
    for (const each of this.#pods.values()) {
      if (each.state !== 'left') continue;
      this.#remove(each);
      return;
    }
  }
}
