import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import type { NetnsCookie } from '../mesh/index.ts';
import { KernelError } from './errors.ts';
import { put, records } from './map-entries.ts';

const present = Uint8Array.of(1);

/**
 * A map whose keys belong to pods, and which pod's are which. The map itself could only tell by being listed whole, so
 * that is done once, to learn what an earlier agent left.
 */
export class KeysOfPods {
  readonly #map: BpfMap;
  readonly #held = new Map<NetnsCookie, Map<string, Uint8Array>>();

  constructor(map: BpfMap, keyBytes: number, ownerOf: (key: Uint8Array) => bigint) {
    this.#map = map;
    for (const key of records(addon.mapEntries(map).keys, keyBytes)) {
      const cookie = ownerOf(key) as NetnsCookie;
      this.#held.set(cookie, (this.#held.get(cookie) ?? new Map()).set(nameOf(key), key));
    }
  }

  of(cookie: NetnsCookie): Uint8Array[] {
    return [...(this.#held.get(cookie)?.values() ?? [])];
  }

  /**
   * Makes the pod's keys exactly these: adds what is missing first, then deletes what is too much.
   *
   * @throws KernelError TOO_MANY_EXCLUSIONS when the map is full; the pod's keys are then as before
   */
  replace(cookie: NetnsCookie, keys: readonly Uint8Array[]): void {
    const before = this.#held.get(cookie) ?? new Map<string, Uint8Array>();
    const after = new Map(keys.map((key) => [nameOf(key), key]));
    const full = (): KernelError =>
      new KernelError('TOO_MANY_EXCLUSIONS', 'the node has no room for more exclusions: give fewer, or larger blocks');
    try {
      for (const key of after.values()) put(this.#map, key, present, full);
    } catch (error) {
      for (const [name, key] of after) if (!before.has(name)) addon.mapDelete(this.#map, key);
      throw error;
    }
    for (const [name, key] of before) if (!after.has(name)) addon.mapDelete(this.#map, key);
    if (after.size > 0) this.#held.set(cookie, after);
    else this.#held.delete(cookie);
  }
}

function nameOf(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1');
}
