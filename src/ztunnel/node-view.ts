import { type MeshUpdate, type Pod, ReadModel, type Workload } from '../mesh/index.ts';

/** As much of a pod as its workload is found by. */
export type PodName = Pick<Pod, 'namespace' | 'name' | 'serviceAccount'>;

interface Waiter {
  readonly pod: PodName;
  readonly found: (workload: Workload) => void;
}

/** The mesh as a worker knows it, seen from its node. */
export class NodeView {
  readonly model = new ReadModel();
  readonly #node: string;
  readonly #waiters = new Set<Waiter>();
  #version = 0;

  constructor(node: string) {
    this.#node = node;
  }

  /** Another number after each update: what was found in the model holds as long as it is the same. */
  get version(): number {
    return this.#version;
  }

  apply(update: MeshUpdate): void {
    this.model.apply(update);
    this.#version += 1;
    for (const waiter of [...this.#waiters]) {
      const workload = this.workloadOf(waiter.pod);
      if (workload !== undefined) waiter.found(workload);
    }
  }

  /** The workload that a pod of this node is; undefined also as long as not all of the mesh is known. */
  workloadOf({ namespace, name, serviceAccount }: PodName): Workload | undefined {
    return this.model.isComplete ? this.model.localWorkload(this.#node, namespace, name, serviceAccount) : undefined;
  }

  /**
   * Calls `found` when the pod's workload, which is not known yet, becomes known.
   *
   * @returns takes the listener off again
   */
  whenKnown(pod: PodName, found: (workload: Workload) => void): () => void {
    const waiter = { pod, found };
    this.#waiters.add(waiter);
    return () => this.#waiters.delete(waiter);
  }
}
