/** Namespaces of which each has its own series; all others together are `other`. */
export const MOST_NAMESPACES = 200;
export const OTHER = 'other';

type Counts = Readonly<Record<string, number | undefined>>;

/** Keeps a family that has the label `namespace` bounded. Who has come first has the place for as long as there is something to say of it. */
export class NamespaceBound {
  readonly #most: number;
  #known = new Set<string>();

  constructor(most = MOST_NAMESPACES) {
    this.#most = most;
  }

  /** The same numbers, of at most so many namespaces and `other`. */
  sum(byNamespace: Readonly<Record<string, Counts>>): Array<readonly [namespace: string, Counts]> {
    const sums = new Map<string, Record<string, number>>();
    const entries = Object.entries(byNamespace);
    const isFull = this.#known.size + entries.length > this.#most;
    if (isFull) this.#known = new Set([...this.#known].filter((namespace) => Object.hasOwn(byNamespace, namespace)));
    for (const [namespace, counts] of entries) {
      if (this.#known.size < this.#most) this.#known.add(namespace);
      const label = this.#known.has(namespace) ? namespace : OTHER;
      const sum = sums.get(label) ?? {};
      sums.set(label, sum);
      for (const [name, count = 0] of Object.entries(counts)) sum[name] = (sum[name] ?? 0) + count;
    }
    return [...sums];
  }
}
