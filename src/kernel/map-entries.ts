import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { viewOf } from './bytes.ts';
import { mapFlag } from './constants.ts';
import { errnoOf, type KernelError } from './errors.ts';

/** The records of one length that lie in a buffer one after the other. */
export function* records(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at + size <= bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Puts an entry. False when the map has no room for it. */
export function tryPut(map: BpfMap, key: Uint8Array, value: Uint8Array): boolean {
  try {
    addon.mapUpdate(map, key, value, mapFlag.any);
    return true;
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === 'E2BIG' || errno === 'ENOSPC' || errno === 'ENOMEM') return false;
    throw cause;
  }
}

/** Puts an entry; `full` makes the error for a map that has no room. */
export function put(map: BpfMap, key: Uint8Array, value: Uint8Array, full: () => KernelError): void {
  if (!tryPut(map, key, value)) throw full();
}

/** An entry of a listing, to look at. A listing has one of these, which goes from entry to entry: it is not to be kept. */
export class Entry {
  readonly #keys: DataView;
  readonly #values: DataView;
  readonly #keyBytes: number;
  readonly #valueBytes: number;
  readonly count: number;
  /** Which one it is at. */
  index = 0;

  constructor({ keys, values }: { keys: Uint8Array; values: Uint8Array }, keyBytes: number) {
    this.#keys = viewOf(keys);
    this.#values = viewOf(values);
    this.#keyBytes = keyBytes;
    this.count = keys.length / keyBytes;
    this.#valueBytes = this.count === 0 ? 0 : values.length / this.count;
  }

  keyU64(offset = 0): bigint {
    return this.#keys.getBigUint64(this.index * this.#keyBytes + offset, true);
  }

  valueU64(offset = 0): bigint {
    return this.#values.getBigUint64(this.index * this.#valueBytes + offset, true);
  }

  valueU32(offset = 0): number {
    return this.#values.getUint32(this.index * this.#valueBytes + offset, true);
  }

  valueU8(offset = 0): number {
    return this.#values.getUint8(this.index * this.#valueBytes + offset);
  }

  /** The key's bytes, which may be kept. */
  key(): Uint8Array {
    const { buffer, byteOffset } = this.#keys;
    return new Uint8Array(buffer, byteOffset + this.index * this.#keyBytes, this.#keyBytes);
  }
}

/** All keys of a map at this moment, one after the other, and the values in the same order. */
export function listingOf(map: BpfMap): { readonly keys: Uint8Array; readonly values: Uint8Array } {
  return addon.mapEntries(map);
}

/** All entries of a map at this moment. */
export function entriesOf(map: BpfMap): Entry {
  return new Entry(addon.mapEntries(map), addon.info(map).keyBytes);
}

/** Deletes the entries for which `unwanted` says so; default: all. Returns how many. */
export function deleteEntries(map: BpfMap, unwanted: (entry: Entry) => boolean = () => true): number {
  const entry = entriesOf(map);
  let deleted = 0;
  for (; entry.index < entry.count; entry.index += 1)
    if (unwanted(entry) && addon.mapDelete(map, entry.key())) deleted += 1;
  return deleted;
}
