import { type Address, type Endpoint, formatEndpoint, type NetnsCookie } from '../../mesh/index.ts';
import type { Place } from './ports.ts';

/** A verdict that stands in the kernel's table. */
export interface Written {
  readonly kind: 'local' | 'outside';
  readonly source: NetnsCookie;
  readonly destination: Endpoint;
  /** The destination pod; 0 outside. */
  readonly to: Place;
}

/** No pod's verdicts may take the others' room: of each as many, then the oldest goes. */
const MOST_PER_SOURCE = 4096;

/** The verdicts that stand in the kernel's table: by source, by destination pod and by destination address. */
export class VerdictBook {
  /** By the destination as text, the oldest first. */
  readonly #bySource = new Map<NetnsCookie, Map<string, Written>>();
  readonly #byTo = new Map<Place, Set<Written>>();
  readonly #byAddress = new Map<Address, Set<Written>>();
  readonly #mostPerSource: number;
  #size = 0;

  /** @param mostPerSource default: 4,096 */
  constructor(mostPerSource = MOST_PER_SOURCE) {
    this.#mostPerSource = mostPerSource;
  }

  get size(): number {
    return this.#size;
  }

  find(source: NetnsCookie, destination: Endpoint): Written | undefined {
    return this.#bySource.get(source)?.get(formatEndpoint(destination));
  }

  has(written: Written): boolean {
    return this.find(written.source, written.destination) === written;
  }

  /** The one that must go before another of this source has a place. */
  oldestInTheWay(source: NetnsCookie): Written | undefined {
    const all = this.#bySource.get(source);
    if (all === undefined || all.size < this.#mostPerSource) return undefined;
    return all.values().next().value;
  }

  /**
   * The one that must go when the table is full and another of this source is to have a place: the oldest of whoever has the
   * most, so that nobody is left without. In doubt its own.
   */
  oldestOfLargest(source: NetnsCookie): Written | undefined {
    let largest = this.#bySource.get(source);
    for (const all of this.#bySource.values()) if (all.size > (largest?.size ?? 0)) largest = all;
    return largest?.values().next().value;
  }

  /** Of the same source and destination there must be none. */
  add(written: Written): void {
    const { source, destination, to } = written;
    innerOf(this.#bySource, source, () => new Map<string, Written>()).set(formatEndpoint(destination), written);
    innerOf(this.#byTo, to, () => new Set<Written>()).add(written);
    innerOf(this.#byAddress, destination.address, () => new Set<Written>()).add(written);
    this.#size += 1;
  }

  /** False: it was not in it. */
  delete(written: Written): boolean {
    if (!this.has(written)) return false;
    const { source, destination, to } = written;
    const all = this.#bySource.get(source);
    all?.delete(formatEndpoint(destination));
    if (all?.size === 0) this.#bySource.delete(source);
    takeFrom(this.#byTo, to, written);
    takeFrom(this.#byAddress, destination.address, written);
    this.#size -= 1;
    return true;
  }

  from(source: NetnsCookie): Iterable<Written> {
    return this.#bySource.get(source)?.values() ?? [];
  }

  /** 0: all that lead outside. */
  to(place: Place): Iterable<Written> {
    return this.#byTo.get(place) ?? [];
  }

  at(address: Address): Iterable<Written> {
    return this.#byAddress.get(address) ?? [];
  }

  *values(): Generator<Written> {
    for (const all of this.#bySource.values()) yield* all.values();
  }

  clear(): void {
    this.#bySource.clear();
    this.#byTo.clear();
    this.#byAddress.clear();
    this.#size = 0;
  }
}

function innerOf<Key, Inner>(outer: Map<Key, Inner>, key: Key, make: () => Inner): Inner {
  const found = outer.get(key);
  if (found !== undefined) return found;
  const made = make();
  outer.set(key, made);
  return made;
}

function takeFrom<Key>(outer: Map<Key, Set<Written>>, key: Key, written: Written): void {
  const found = outer.get(key);
  found?.delete(written);
  if (found?.size === 0) outer.delete(key);
}
