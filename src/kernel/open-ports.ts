import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { encodeOpenPort, openPortFields } from '../gen/layout.ts';
import type { NetnsCookie } from '../mesh/index.ts';
import { deleteEntries, tryPut } from './map-entries.ts';

/** Whether plaintext of anybody is let in: by port, and on the ports that have no entry. */
export interface OpenPortSet {
  readonly others: boolean;
  readonly ports: ReadonlyMap<number, boolean>;
}

const closed: OpenPortSet = { others: false, ports: new Map() };
/** Stands for all ports that have no entry of their own. */
const others = 0;

/** A change of one entry; `says` undefined: it goes. */
export interface OpenPortStep {
  readonly port: number;
  readonly says: boolean | undefined;
}

/**
 * How to come from one set to another, so that at no moment a port is open that is open neither before nor afterwards: what
 * closes comes first, what opens last. An entry that goes leaves its port to what `others` says at that moment.
 */
export function openPortSteps(before: OpenPortSet, after: OpenPortSet): OpenPortStep[] {
  const entries = (says: boolean): OpenPortStep[] =>
    [...after.ports].filter(([, is]) => is === says).map(([port]) => ({ port, says }));
  return [
    ...(after.others ? [] : [{ port: others, says: undefined }]),
    ...entries(false),
    ...[...before.ports.keys()].filter((port) => !after.ports.has(port)).map((port) => ({ port, says: undefined })),
    ...entries(true),
    ...(after.others ? [{ port: others, says: true }] : []),
  ];
}

/** Which ports of pods take plaintext from anybody, past the agent. */
export class OpenPorts {
  readonly #map: BpfMap;
  readonly #present = new Map<bigint, OpenPortSet>();

  /** What an earlier agent has left counts no more: whoever begins calls `clear`. */
  constructor(map: BpfMap) {
    this.#map = map;
  }

  /**
   * Makes the pod's open ports exactly these.
   *
   * @returns false when there is no room: then none is open
   */
  replace(cookie: NetnsCookie, open: OpenPortSet | undefined): boolean {
    const before = this.#present.get(cookie) ?? closed;
    const after = open ?? closed;
    if (!openPortSteps(before, after).every((step) => this.#take(cookie, step))) {
      this.#close(cookie, [before, after]);
      return false;
    }
    if (open === undefined) this.#present.delete(cookie);
    else this.#present.set(cookie, open);
    return true;
  }

  forget(cookie: NetnsCookie): void {
    this.#close(cookie, [this.#present.get(cookie) ?? closed]);
  }

  forgetStrangers(enrolled: ReadonlySet<bigint>): void {
    deleteEntries(this.#map, (entry) => !enrolled.has(entry.keyU64(openPortFields.netns.offset)));
  }

  clear(): void {
    this.#present.clear();
    // First those that open: what closes a port may be what keeps it from being one of the others.
    deleteEntries(this.#map, (entry) => entry.valueU8() === 1);
    deleteEntries(this.#map);
  }

  #close(cookie: NetnsCookie, sets: readonly OpenPortSet[]): void {
    for (const set of sets) for (const step of openPortSteps(set, closed)) this.#take(cookie, step);
    this.#present.delete(cookie);
  }

  #take(cookie: NetnsCookie, { port, says }: OpenPortStep): boolean {
    const key = encodeOpenPort({ netns: cookie, port });
    if (says !== undefined) return tryPut(this.#map, key, Uint8Array.of(says ? 1 : 0));
    addon.mapDelete(this.#map, key);
    return true;
  }
}
