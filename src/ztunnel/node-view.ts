import { type Address, type MeshUpdate, type Pod, ReadModel, type Workload } from '../mesh/index.ts';

/** As much of a pod as its workload is found by. */
export type PodName = Pick<Pod, 'namespace' | 'name' | 'serviceAccount'>;

/** Where an update of the mesh may have changed who is there, or what applies to it. */
export type ChangedAt = ReadonlySet<Address> | 'anywhere';

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

  apply(update: MeshUpdate): ChangedAt {
    const before = this.model.policyVersion;
    const addresses = addressesOf(update, this.model);
    this.model.apply(update);
    this.#version += 1;
    for (const waiter of [...this.#waiters]) {
      const workload = this.workloadOf(waiter.pod);
      if (workload !== undefined) waiter.found(workload);
    }
    return update.complete || this.model.policyVersion !== before ? 'anywhere' : addresses;
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

/** Those that its workloads had, or have from then on. To be asked before it is applied. */
function addressesOf({ complete, workloads, removed }: MeshUpdate, model: ReadModel): ReadonlySet<Address> {
  const found = new Set<Address>();
  if (complete) return found;
  const add = (workload: Workload | undefined): void => {
    for (const address of workload?.addresses ?? []) found.add(address);
  };
  for (const workload of workloads) {
    add(model.workload(workload.uid));
    add(workload);
  }
  for (const key of removed) add(model.workload(key));
  return found;
}
