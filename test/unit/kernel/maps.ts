import type { BpfObject } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { redirectObject } from '../../../src/kernel/paths.ts';
import { type MapName, type Maps, mapNames } from '../../../src/kernel/programs.ts';

/** The kernel room's maps, with nothing attached to anything. */
export class TestMaps {
  readonly #object: BpfObject;
  readonly maps: Maps;

  constructor() {
    this.#object = addon.objectOpen(redirectObject);
    addon.objectLoad(this.#object);
    const entries = mapNames.map((name) => [name, addon.objectMap(this.#object, name)]);
    this.maps = Object.fromEntries(entries) as Record<MapName, Maps['pods']>;
  }

  /** How many entries a map has. */
  count(name: MapName): number {
    return addon.mapEntries(this.maps[name]).keys.length / addon.info(this.maps[name]).keyBytes;
  }

  empty(): void {
    for (const name of [
      'pods',
      'pod_usage',
      'epochs',
      'verdicts',
      'services',
      'open_ports',
      'addresses',
      'flows',
    ] as const) {
      const { keys } = addon.mapEntries(this.maps[name]);
      const { keyBytes } = addon.info(this.maps[name]);
      for (let at = 0; at < keys.length; at += keyBytes)
        addon.mapDelete(this.maps[name], keys.subarray(at, at + keyBytes));
    }
  }

  close(): void {
    for (const map of Object.values(this.maps)) addon.close(map);
    addon.close(this.#object);
  }
}
