import type { BpfMap, BpfRing } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { decodeEvent, EVENT_BYTES, reason } from '../gen/layout.ts';
import { decodeAddress, type Endpoint, type NetnsCookie } from '../mesh/index.ts';
import { records } from './map-entries.ts';

/** What the kernel did to a connection, named as in layout.h's `enum reason` (`CAPTURED_OUTBOUND` -> `captured_outbound`). */
export type Reason = Lowercase<keyof typeof reason>;

const names = new Map<number, Reason>(
  Object.entries(reason).map(([name, value]) => [value, name.toLowerCase() as Reason]),
);

/** The name of a reason's number; undefined for one that this version does not know. */
export function reasonName(value: number): Reason | undefined {
  return names.get(value);
}

/** Something an operator should be told of. */
export interface KernelEvent {
  readonly timeNs: bigint;
  readonly cookie: NetnsCookie;
  readonly reason: Reason;
  readonly client: Endpoint;
  readonly server: Endpoint;
}

/** Reads the kernel's event ring. */
export class Events {
  readonly #ring: BpfRing;

  constructor(map: BpfMap) {
    this.#ring = addon.ringOpen(map);
  }

  /** @param most records to take, default 512 */
  read(most = 512): KernelEvent[] {
    return [...records(addon.ringRead(this.#ring, most), EVENT_BYTES)].flatMap((record) => {
      const event = decodeEvent(record);
      const name = reasonName(event.reason);
      if (name === undefined) return [];
      const endpoint = (from: typeof event.client): Endpoint => ({
        address: decodeAddress(from.address.bytes),
        port: from.port,
      });
      return [
        {
          timeNs: event.timeNs,
          cookie: event.netns as NetnsCookie,
          reason: name,
          client: endpoint(event.client),
          server: endpoint(event.server),
        },
      ];
    });
  }

  close(): void {
    addon.close(this.#ring);
  }
}
