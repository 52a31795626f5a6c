import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { limit } from '../gen/layout.ts';
import { type Address, encodeAddress, type NetnsCookie } from '../mesh/index.ts';
import { readU64, u64 } from './bytes.ts';
import { KernelError } from './errors.ts';
import { deleteEntries, put } from './map-entries.ts';

/**
 * Whose address is whose. An address is given to another pod as soon as its pod is gone, often before the agent hears of
 * that: it belongs to the pod that came with it last, and nobody else takes it away.
 */
export class PodAddresses {
  readonly #map: BpfMap;

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /**
   * Brings a pod's addresses up to date. One that it had already is not taken back from a pod that came with it later.
   *
   * @param before those that it had
   * @throws KernelError TOO_MANY_PODS
   */
  replace(cookie: NetnsCookie, before: readonly Address[], after: readonly Address[]): void {
    const full = (): KernelError =>
      new KernelError('TOO_MANY_PODS', `this node has ${limit.PODS} enrolled pods already: no more fit`);
    for (const address of after) {
      if (before.includes(address) && this.#ownerOf(address) !== undefined) continue;
      put(this.#map, encodeAddress(address), u64(cookie), full);
    }
    this.forget(
      cookie,
      before.filter((address) => !after.includes(address)),
    );
  }

  /** Takes away those that are still the pod's. */
  forget(cookie: NetnsCookie, addresses: readonly Address[]): void {
    for (const address of addresses)
      if (this.#ownerOf(address) === cookie) addon.mapDelete(this.#map, encodeAddress(address));
  }

  forgetStrangers(enrolled: ReadonlySet<bigint>): void {
    deleteEntries(this.#map, (entry) => !enrolled.has(entry.valueU64()));
  }

  #ownerOf(address: Address): bigint | undefined {
    const value = addon.mapLookup(this.#map, encodeAddress(address));
    return value === undefined ? undefined : readU64(value);
  }
}
