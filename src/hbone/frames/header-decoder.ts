import { Buffer } from 'node:buffer';
import type { HeaderFields } from '../session.ts';
import { badCompression } from './breach.ts';
import { decodeHuffman, huffmanRoom } from './huffman.ts';
import { u8 } from './octets.ts';
import { STATIC_TABLE } from './static-table.ts';

/** One header block, decoded. */
export interface HeaderList {
  readonly fields: HeaderFields;
  /** It is longer than the bound (names, values, and 32 per field): what is above it was thrown away. */
  readonly tooLong: boolean;
}

/** SETTINGS_HEADER_TABLE_SIZE, which we leave at its default. */
const TABLE_BYTES = 4096;
/** What an entry, and a field of a header list, counts besides its name and value (RFC 7541, section 4.1). */
const ENTRY_BYTES = 32;
/** More entries than this never fit: a power of two, for the ring. */
const TABLE_ENTRIES = TABLE_BYTES / ENTRY_BYTES;
const MAX_INTEGER = 2 ** 28;

type Field = readonly [name: string, value: string];

/**
 * HPACK (RFC 7541), the receiving side of one connection.
 *
 * Bounds: the table holds at most 4 KiB; of one block at most `maxListBytes` are kept, and entries are shared, not copied,
 * so that a block of many references costs its own length.
 */
export class HeaderDecoder {
  readonly #maxListBytes: number;
  /** Dynamic table: a ring; the newest entry stands at `#newest`. */
  readonly #entries: Array<Field | undefined> = new Array(TABLE_ENTRIES);
  #newest = 0;
  #count = 0;
  #tableBytes = 0;
  #tableLimit = TABLE_BYTES;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;
  #end = 0;

  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /** @throws Breach COMPRESSION_ERROR: the table is not the peer's any more, the connection must end */
  decode(block: Buffer, start: number, end: number): HeaderList {
    this.#block = block;
    this.#at = start;
    this.#end = end;
    const fields: Field[] = [];
    let listBytes = 0;
    let begun = false;
    while (this.#at < end) {
      const first = u8(block, this.#at);
      if ((first & 0xe0) === 0x20) {
        if (begun) throw badCompression('a table size update that is not at the beginning');
        this.#resize(this.#integer(0x1f));
        continue;
      }
      begun = true;
      const field = this.#field(first);
      listBytes += sizeOf(field);
      if (listBytes <= this.#maxListBytes) fields.push(field);
    }
    return { fields, tooLong: listBytes > this.#maxListBytes };
  }

  #field(first: number): Field {
    if (first & 0x80) return this.#entry(this.#integer(0x7f));
    const indexed = (first & 0x40) !== 0;
    const index = this.#integer(indexed ? 0x3f : 0x0f);
    const name = index === 0 ? this.#string() : this.#entry(index)[0];
    const field: Field = [name, this.#string()];
    if (indexed) this.#insert(field);
    return field;
  }

  #entry(index: number): Field {
    const entry =
      index <= STATIC_TABLE.length
        ? STATIC_TABLE[index - 1]
        : index - STATIC_TABLE.length <= this.#count
          ? this.#entries[(this.#newest - (index - STATIC_TABLE.length - 1)) & (TABLE_ENTRIES - 1)]
          : undefined;
    if (entry === undefined) throw badCompression(`index ${index} of a table that ends before`);
    return entry;
  }

  #insert(field: Field): void {
    const size = sizeOf(field);
    this.#evict(this.#tableLimit - size);
    if (size > this.#tableLimit) return;
    this.#newest = (this.#newest + 1) & (TABLE_ENTRIES - 1);
    this.#entries[this.#newest] = field;
    this.#count += 1;
    this.#tableBytes += size;
  }

  #resize(limit: number): void {
    if (limit > TABLE_BYTES) throw badCompression('a table size update above what was announced');
    this.#tableLimit = limit;
    this.#evict(limit);
  }

  /** Takes the oldest away until the table is no larger. */
  #evict(bytes: number): void {
    while (this.#count > 0 && this.#tableBytes > bytes) {
      const oldest = (this.#newest - this.#count + 1) & (TABLE_ENTRIES - 1);
      const field = this.#entries[oldest];
      this.#entries[oldest] = undefined;
      this.#count -= 1;
      if (field !== undefined) this.#tableBytes -= sizeOf(field);
    }
  }

  #integer(mask: number): number {
    let value = u8(this.#block, this.#at) & mask;
    this.#at += 1;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (this.#at >= this.#end) throw badCompression('a header block that ends within an integer');
      const byte = u8(this.#block, this.#at);
      this.#at += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (value > MAX_INTEGER || shift > 28) throw badCompression('an integer that is too large');
      if (byte < 0x80) return value;
    }
  }

  #string(): string {
    if (this.#at >= this.#end) throw badCompression('a header block that ends before a string');
    const huffman = (u8(this.#block, this.#at) & 0x80) !== 0;
    const length = this.#integer(0x7f);
    const start = this.#at;
    if (length > this.#end - start) throw badCompression('a header block that ends within a string');
    this.#at = start + length;
    if (!huffman) return this.#block.toString('latin1', start, this.#at);
    const room = huffmanRoom(length);
    if (room > scratch.length) scratch = Buffer.allocUnsafeSlow(room);
    return scratch.toString('latin1', 0, decodeHuffman(this.#block, start, this.#at, scratch));
  }
}

/** One for all decoders of a thread: nothing outlives a call. Grows to the longest string, which the block's bound bounds. */
let scratch = Buffer.allocUnsafeSlow(1024);

function sizeOf(field: Field): number {
  return field[0].length + field[1].length + ENTRY_BYTES;
}
