import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { limit } from '../gen/layout.ts';
import type { NetnsCookie } from '../mesh/index.ts';
import { readU64, u64 } from './bytes.ts';
import { KernelError } from './errors.ts';
import { deleteEntries, put } from './map-entries.ts';

/** Whose epoch: a pod's, or 0 for all that is outside. */
export type Place = NetnsCookie | 0n;

export const outside = 0n;

/**
 * What verdicts are valid against: one that names another epoch than the present one counts for nothing.
 *
 * An epoch is never met twice: each is the time at which it began (CLOCK_MONOTONIC, nanoseconds), or one more than the one
 * before if that is not enough. So a pod that is enrolled again, or an agent that is started again, cannot revive what
 * sockets and maps still hold of an earlier one.
 */
export class Epochs {
  readonly #map: BpfMap;
  /** Present ones. The agent is the map's only writer, so this is as good as asking the kernel. */
  readonly #present: Map<bigint, bigint>;

  constructor(map: BpfMap) {
    this.#map = map;
    const { keys, values } = addon.mapEntries(map);
    this.#present = new Map();
    for (let at = 0; at + 8 <= keys.length; at += 8) this.#present.set(readU64(keys, at), readU64(values, at));
    this.#write(outside);
  }

  /** 0: it has none, so no verdict that names it counts. */
  of(place: Place): bigint {
    return this.#present.get(place) ?? 0n;
  }

  /**
   * From now on the pod has an epoch, another one than it may have had.
   *
   * @throws KernelError TOO_MANY_PODS
   */
  begin(cookie: NetnsCookie): bigint {
    return this.#write(cookie);
  }

  /** Makes void what names the present epoch. A pod that has none gets none: nothing names it. */
  raise(place: Place): bigint {
    return this.#present.has(place) ? this.#write(place) : this.#next(place);
  }

  raiseAll(): void {
    for (const place of [...this.#present.keys()]) this.#write(place);
  }

  forget(cookie: NetnsCookie): void {
    this.#present.delete(cookie);
    addon.mapDelete(this.#map, u64(cookie));
  }

  /** Deletes those of pods that are not enrolled: an agent may have died while it forgot one. */
  forgetStrangers(enrolled: ReadonlySet<bigint>): void {
    deleteEntries(this.#map, (entry) => {
      const place = entry.keyU64();
      if (place === outside || enrolled.has(place)) return false;
      return this.#present.delete(place) || true;
    });
  }

  #next(place: bigint): bigint {
    const now = process.hrtime.bigint();
    const before = this.#present.get(place) ?? 0n;
    return now > before ? now : before + 1n;
  }

  #write(place: bigint): bigint {
    const epoch = this.#next(place);
    const full = (): KernelError =>
      new KernelError('TOO_MANY_PODS', `this node has ${limit.PODS} enrolled pods already: no more fit`);
    put(this.#map, u64(place), u64(epoch), full);
    this.#present.set(place, epoch);
    return epoch;
  }
}
