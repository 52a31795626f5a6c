import { escapeLabel, type TextFamily } from './exposition.ts';
import type { SeriesBudget } from './series-budget.ts';

/** A label set whose series may leave, and where to count what finds no room in it. */
export interface Group {
  /** `name="value",...`, without braces. */
  readonly labels: string;
  /** Undefined: this is itself the group of all others, which has its room and never leaves. */
  readonly other: Group | undefined;
}

export function groupLabels(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escapeLabel(value)}"`)
    .join(',');
}

interface Counted {
  readonly group: Group;
  touchedAt: number;
}

/** Series by group, within a budget. */
abstract class GroupFamily<Kept extends Counted> {
  readonly name: string;
  readonly help: string;
  readonly #budget: SeriesBudget;
  /** Series of a group. */
  readonly #series: number;
  readonly #kept = new Map<string, Kept>();
  /** Groups for which there was no room, and when they were last counted elsewhere: each is said of once, not each time. */
  readonly #refused = new Map<string, number>();

  /** @param others how many groups of others there are at most */
  constructor(name: string, help: string, budget: SeriesBudget, series: number, others: number) {
    this.name = name;
    this.help = help;
    this.#budget = budget;
    this.#series = series;
    budget.reserve(others * series);
  }

  /** Whatever was not counted for so long leaves. */
  sweep(nowSeconds: number, idleSeconds: number): void {
    for (const [labels, { group, touchedAt }] of this.#kept) {
      if (group.other === undefined || nowSeconds - touchedAt < idleSeconds) continue;
      this.#kept.delete(labels);
      this.#budget.giveBack(this.#series);
    }
    for (const [labels, refusedAt] of this.#refused)
      if (nowSeconds - refusedAt >= idleSeconds) this.#refused.delete(labels);
  }

  *slices(): Generator<string> {
    for (const kept of this.#kept.values()) yield this.lines(kept);
  }

  protected of(group: Group, nowSeconds: number): Kept {
    const known = this.#kept.get(group.labels) ?? this.#make(group, nowSeconds);
    known.touchedAt = nowSeconds;
    return known;
  }

  protected abstract make(group: Group): Kept;
  protected abstract lines(kept: Kept): string;

  #make(group: Group, nowSeconds: number): Kept {
    const { labels, other } = group;
    if (other === undefined) this.#budget.takeReserved(this.#series);
    else if ((this.#refused.has(labels) && !this.#budget.hasRoom(this.#series)) || !this.#budget.take(this.#series)) {
      this.#refused.set(labels, nowSeconds);
      return this.of(other, nowSeconds);
    }
    this.#refused.delete(labels);
    const made = this.make(group);
    this.#kept.set(group.labels, made);
    return made;
  }
}

interface Count extends Counted {
  value: number;
}

export class GroupCounter extends GroupFamily<Count> implements TextFamily {
  readonly type = 'counter';

  constructor(name: string, help: string, budget: SeriesBudget, others: number) {
    super(name, help, budget, 1, others);
  }

  add(group: Group, value: number, nowSeconds: number): void {
    this.of(group, nowSeconds).value += value;
  }

  protected make(group: Group): Count {
    return { group, touchedAt: 0, value: 0 };
  }

  protected lines({ group, value }: Count): string {
    return `${this.name}{${group.labels}} ${value}\n`;
  }
}

interface Distribution extends Counted {
  /** One for each bound, and one for what is beyond. */
  readonly counts: Float64Array;
  sum: number;
}

export class GroupHistogram extends GroupFamily<Distribution> implements TextFamily {
  readonly type = 'histogram';
  readonly #bounds: readonly number[];

  /** @param bounds upper bounds of the buckets, ascending */
  constructor(name: string, help: string, bounds: readonly number[], budget: SeriesBudget, others: number) {
    // Each bucket, the one of all, sum and count.
    super(name, help, budget, bounds.length + 3, others);
    this.#bounds = bounds;
  }

  observe(group: Group, value: number, nowSeconds: number): void {
    const kept = this.of(group, nowSeconds);
    const bucket = this.#bucketOf(value);
    kept.counts[bucket] = (kept.counts[bucket] ?? 0) + 1;
    kept.sum += value;
  }

  protected make(group: Group): Distribution {
    return { group, touchedAt: 0, counts: new Float64Array(this.#bounds.length + 1), sum: 0 };
  }

  protected lines({ group, counts, sum }: Distribution): string {
    const { name } = this;
    let text = '';
    let count = 0;
    for (let bucket = 0; bucket < counts.length; bucket += 1) {
      count += counts[bucket] ?? 0;
      text += `${name}_bucket{${group.labels},le="${this.#bounds[bucket] ?? '+Inf'}"} ${count}\n`;
    }
    return `${text}${name}_sum{${group.labels}} ${sum}\n${name}_count{${group.labels}} ${count}\n`;
  }

  #bucketOf(value: number): number {
    let bucket = 0;
    while (value > (this.#bounds[bucket] ?? Number.POSITIVE_INFINITY)) bucket += 1;
    return bucket;
  }
}
