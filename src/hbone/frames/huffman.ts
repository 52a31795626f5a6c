import type { Buffer } from 'node:buffer';
import { badCompression } from './breach.ts';
import { u8 } from './octets.ts';

/**
 * Length in bits of the code of each byte, and of EOS at the end (RFC 7541, appendix B). Together with the order of the
 * symbols it says everything: codes of one length follow each other by symbol, shorter ones come first.
 */
export const CODE_LENGTHS: readonly number[] = [
  [13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28],
  [28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12],
  [10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6],
  [5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22],
  [22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20],
  [22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23],
  [26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28],
  [27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28],
  [27, 27, 27, 27, 27, 26, 30],
].flat();
const EOS = 256;

/** Row of the table: an inner node of the code's tree. Column: the next four bits. */
const NEXT_MASK = 0xff;
const SYMBOL_SHIFT = 8;
/** A symbol is complete with these bits. */
const EMITS = 1 << 16;
/** EOS, which no string may hold. */
const FAILS = 1 << 17;
const TABLE = buildTable();
/** Rows that a string may end in: at most seven bits into a code, all ones (section 5.2). */
const MAY_END = buildEnds();

/** A node of the code's tree: two children, or a symbol. */
interface Node {
  row: number;
  symbol: number;
  zero?: Node;
  one?: Node;
}

/**
 * Decodes bytes[start, end) into `out` from `at` on, which must have room: a byte in makes at most 1.6 out.
 *
 * @returns the end of what was written
 * @throws Breach COMPRESSION_ERROR
 */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number, out: Buffer): number {
  let row = 0;
  let at = 0;
  for (let from = start; from < end; from += 1) {
    const byte = u8(bytes, from);
    const high = TABLE[(row << 4) | (byte >>> 4)] as number;
    if (high & EMITS) out[at++] = high >>> SYMBOL_SHIFT;
    const low = TABLE[((high & NEXT_MASK) << 4) | (byte & 15)] as number;
    if (low & EMITS) out[at++] = low >>> SYMBOL_SHIFT;
    if ((high | low) & FAILS) throw badCompression('a Huffman code that no string may hold');
    row = low & NEXT_MASK;
  }
  if (MAY_END[row] !== 1) throw badCompression('a Huffman string whose padding is not the beginning of EOS');
  return at;
}

function buildTree(): Node[] {
  const root: Node = { row: 0, symbol: -1 };
  const rows = [root];
  const order = CODE_LENGTHS.map((length, symbol) => ({ length, symbol })).sort(
    (a, b) => a.length - b.length || a.symbol - b.symbol,
  );
  let code = 0;
  let before = 0;
  for (const { length, symbol } of order) {
    code <<= length - before;
    before = length;
    let node = root;
    for (let bit = length - 1; bit >= 0; bit -= 1) {
      const side = (code >>> bit) & 1 ? 'one' : 'zero';
      let child = node[side];
      if (child === undefined) {
        child = { row: bit === 0 ? -1 : rows.length, symbol: bit === 0 ? symbol : -1 };
        if (bit > 0) rows.push(child);
        node[side] = child;
      }
      node = child;
    }
    code += 1;
  }
  return rows;
}

function buildTable(): Uint32Array {
  const rows = buildTree();
  const [root] = rows;
  const table = new Uint32Array(rows.length * 16);
  for (const row of rows) {
    for (let nibble = 0; nibble < 16; nibble += 1) {
      let node: Node | undefined = row;
      let entry = 0;
      for (let bit = 3; bit >= 0; bit -= 1) {
        node = (nibble >>> bit) & 1 ? node?.one : node?.zero;
        if (node === undefined || node.symbol === EOS) {
          entry = FAILS;
          node = root;
        } else if (node.symbol >= 0) {
          entry |= EMITS | (node.symbol << SYMBOL_SHIFT);
          node = root;
        }
      }
      table[row.row * 16 + nibble] = entry | (node?.row ?? 0);
    }
  }
  return table;
}

function buildEnds(): Uint8Array {
  const rows = buildTree();
  const ends = new Uint8Array(rows.length);
  let node: Node | undefined = rows[0];
  for (let ones = 0; ones <= 7 && node !== undefined; ones += 1) {
    ends[node.row] = 1;
    node = node.one;
  }
  return ends;
}

/** Room that is surely enough for a string of so many bytes. */
export function huffmanRoom(bytes: number): number {
  return Math.ceil((bytes * 8) / 5);
}
