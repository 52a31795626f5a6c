import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import {
  encodeVerdictKey,
  encodeVerdictValue,
  verdictKeyFields,
  verdictKind,
  verdictValueFields,
} from '../gen/layout.ts';
import { type Endpoint, encodeAddress, type NetnsCookie } from '../mesh/index.ts';
import type { Place } from './epochs.ts';
import { deleteEntries, tryPut } from './map-entries.ts';

/** A yes that is written down for the kernel. It counts as long as both epochs are the present ones. */
export interface KernelVerdict {
  /** `local`: to a pod of this node; `outside`: to a destination that takes no tunnel. */
  readonly kind: 'local' | 'outside';
  readonly source: NetnsCookie;
  /** As it is connected to: a backend, never a service. */
  readonly destination: Endpoint;
  /** The destination pod; 0 outside. */
  readonly to: Place;
  /** Epochs of `source` and `to` as they were before the decision was made. */
  readonly sourceEpoch: bigint;
  readonly destinationEpoch: bigint;
}

const kinds = { local: verdictKind.LOCAL, outside: verdictKind.OUTSIDE } as const;

function keyOf(source: NetnsCookie, destination: Endpoint): Uint8Array {
  const { address, port } = destination;
  return encodeVerdictKey({ source, destination: { address: { bytes: encodeAddress(address) }, port } });
}

/** What the agent has decided about connections of pods to destinations. */
export class Verdicts {
  readonly #map: BpfMap;

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /** Replaces the one for the same source and destination. False when there is no room. */
  put(verdict: KernelVerdict): boolean {
    const { kind, source, destination, to, sourceEpoch, destinationEpoch } = verdict;
    const value = encodeVerdictValue({ destination: to, sourceEpoch, destinationEpoch, kind: kinds[kind] });
    return tryPut(this.#map, keyOf(source, destination), value);
  }

  delete(source: NetnsCookie, destination: Endpoint): void {
    addon.mapDelete(this.#map, keyOf(source, destination));
  }

  /** Deletes those that a pod is the source or the destination of. */
  forget(cookie: NetnsCookie): void {
    deleteEntries(
      this.#map,
      (entry) =>
        entry.keyU64(verdictKeyFields.source.offset) === cookie ||
        entry.valueU64(verdictValueFields.destination.offset) === cookie,
    );
  }

  clear(): void {
    deleteEntries(this.#map);
  }
}
