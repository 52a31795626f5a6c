export type Labels = Readonly<Record<string, string>>;

/** What selects by labels. Without any labels it selects nothing. */
export interface Selecting {
  readonly selector: Labels;
}

export class Selectors<Item extends Selecting> {
  /** By the first key and value of the selector: few of them have both in common with a workload. */
  readonly #byLabel = new Map<string, Map<string, Item[]>>();

  constructor(items: Iterable<Item>) {
    for (const item of items) {
      const [first] = Object.entries(item.selector);
      if (first === undefined) continue;
      const values = this.#byLabel.get(first[0]) ?? new Map<string, Item[]>();
      this.#byLabel.set(first[0], values);
      const same = values.get(first[1]);
      if (same === undefined) values.set(first[1], [item]);
      else same.push(item);
    }
  }

  /** Those that select whatever has these labels; of those with the same first label the earlier ones first. */
  matching(labels: Labels): readonly Item[] {
    if (this.#byLabel.size === 0) return [];
    const found: Item[] = [];
    for (const key in labels) {
      const items = this.#byLabel.get(key)?.get(labels[key] ?? '');
      for (const item of items ?? []) if (selects(item.selector, labels)) found.push(item);
    }
    return found;
  }
}

function selects(selector: Labels, labels: Labels): boolean {
  for (const key in selector) if (labels[key] !== selector[key]) return false;
  return true;
}
