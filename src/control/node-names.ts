import type { MeshUpdate } from '../mesh/index.ts';

/** The nodes that the mesh's workloads are on. */
export class NodeNames {
  /** Node by workload. */
  readonly #nodes = new Map<string, string>();
  readonly #workloads = new Map<string, number>();

  apply(update: MeshUpdate): void {
    if (update.complete) {
      this.#nodes.clear();
      this.#workloads.clear();
    }
    for (const { uid, node } of update.workloads) this.#place(uid, node);
    for (const key of update.removed) this.#place(key, '');
  }

  names(): ReadonlySet<string> {
    return new Set(this.#workloads.keys());
  }

  #place(uid: string, node: string): void {
    const before = this.#nodes.get(uid) ?? '';
    if (before === node) return;
    if (before !== '') this.#count(before, -1);
    if (node !== '') this.#count(node, 1);
    if (node === '') this.#nodes.delete(uid);
    else this.#nodes.set(uid, node);
  }

  #count(node: string, change: number): void {
    const count = (this.#workloads.get(node) ?? 0) + change;
    if (count === 0) this.#workloads.delete(node);
    else this.#workloads.set(node, count);
  }
}
