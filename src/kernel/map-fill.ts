import * as addon from '../../native/addon/index.js';
import { limit, ring } from '../gen/layout.ts';
import { u32 } from './bytes.ts';
import { listingOf } from './map-entries.ts';
import type { MapName, Maps } from './programs.ts';
import { sum, type Tables } from './tables.ts';

/** How full a map is. */
export interface MapFill {
  readonly name: string;
  readonly entries: number;
  readonly capacity: number;
}

/** Records that a full ring buffer has not taken, since the programs were first loaded. */
export interface LostRecords {
  readonly flows: number;
  readonly events: number;
  readonly alarms: number;
}

/** Maps whose entries are counted by listing them. The two that may be large are counted by what the kernel says of its pods. */
const listed = [
  'pods',
  'epochs',
  'verdicts',
  'services',
  'addresses',
  'open_ports',
  'listeners',
  'excluded_ports',
  'earlier_sockets',
  'excluded_cidrs',
  'counters',
  'cgroups',
  'pod_usage',
] as const satisfies readonly MapName[];

/** A listing takes a while where there is much: not each time that somebody asks. */
const countIntervalNs = 10_000_000_000n;

/** How full the maps are, and what the rings have lost. */
export class MapFills {
  readonly #maps: Maps;
  readonly #tables: Pick<Tables, 'flowCount' | 'handoverCount'>;
  #fills: readonly MapFill[] = [];
  #countedNs: bigint | undefined;

  constructor(maps: Maps, tables: Pick<Tables, 'flowCount' | 'handoverCount'>) {
    this.#maps = maps;
    this.#tables = tables;
  }

  /** Not older than 10 s. */
  fills(nowNs = process.hrtime.bigint()): readonly MapFill[] {
    if (this.#countedNs !== undefined && nowNs - this.#countedNs < countIntervalNs) return this.#fills;
    this.#countedNs = nowNs;
    this.#fills = [
      ...listed.map((name): MapFill => {
        const map = this.#maps[name];
        const { keyBytes, maxEntries } = addon.info(map);
        return { name, entries: listingOf(map).keys.length / keyBytes, capacity: maxEntries };
      }),
      { name: 'flows', entries: this.#tables.flowCount(), capacity: limit.FLOWS },
      { name: 'handovers', entries: this.#tables.handoverCount(), capacity: limit.HANDOVERS },
    ];
    return this.#fills;
  }

  lostRecords(): LostRecords {
    return {
      flows: this.#lost(ring.FLOW_RECORDS),
      events: this.#lost(ring.EVENTS),
      alarms: this.#lost(ring.ALARMS),
    };
  }

  #lost(which: number): number {
    const ofCpus = addon.mapLookup(this.#maps.lost_records, u32(which));
    return ofCpus === undefined ? 0 : Number(sum(ofCpus));
  }
}
