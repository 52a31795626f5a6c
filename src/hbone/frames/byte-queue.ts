import { Buffer } from 'node:buffer';
import { type Gather, type GatherPool, SMALL_GATHER_BYTES } from './gather.ts';

/** Up to here, what waits has buffers of its own size: most streams have little that waits, and there may be many of them. */
const LITTLE_BYTES = SMALL_GATHER_BYTES / 2;
const FIRST_BYTES = 256;

/** A piece of what waits. */
interface Piece {
  readonly bytes: Buffer;
  /** Whose buffer it is; undefined: the collector's. */
  readonly gather: Gather | undefined;
  /** What is before it has been taken. */
  start: number;
  end: number;
}

/** Bytes that wait, in order, copied together. What is held is at most three times `length`, and 256 bytes. */
export class ByteQueue {
  length = 0;
  readonly #pool: GatherPool;
  /** From `#first` on. */
  readonly #pieces: Piece[] = [];
  #first = 0;
  /** Comes after all pieces; it is somebody else's buffer, and used only until `keep`. */
  #lent: Buffer | undefined;

  constructor(pool: GatherPool) {
    this.#pool = pool;
  }

  /** Adds bytes, which are not copied before `keep`: what is taken until then never is. */
  lend(bytes: Buffer): void {
    this.#lent = bytes;
    this.length += bytes.length;
  }

  /** Copies what is left of the bytes that were lent. */
  keep(): void {
    const lent = this.#lent;
    if (lent === undefined) return;
    this.#lent = undefined;
    this.length -= lent.length;
    this.push(lent);
  }

  push(bytes: Buffer): void {
    const size = bytes.length;
    for (let at = 0; at < size; ) {
      const piece = this.#pieceFor(size - at);
      const moved = Math.min(size - at, piece.bytes.length - piece.end);
      bytes.copy(piece.bytes, piece.end, at, at + moved);
      piece.end += moved;
      this.length += moved;
      at += moved;
    }
  }

  /** Moves so many bytes, which are there, to `to[at...]`. */
  copy(to: Buffer, at: number, size: number): void {
    let left = size;
    this.length -= size;
    while (left > 0) {
      const piece = this.#pieces[this.#first];
      if (piece === undefined) break;
      const moved = Math.min(left, piece.end - piece.start);
      piece.bytes.copy(to, at + size - left, piece.start, piece.start + moved);
      piece.start += moved;
      left -= moved;
      if (piece.start === piece.end) this.#advance(piece);
    }
    if (left === 0 || this.#lent === undefined) return;
    this.#lent.copy(to, at + size - left, 0, left);
    this.#lent = left === this.#lent.length ? undefined : this.#lent.subarray(left);
  }

  /** The first piece, valid until `done`; undefined if there is none. It counts as taken already. */
  begin(): Buffer | undefined {
    const piece = this.#pieces[this.#first];
    if (piece === undefined) return undefined;
    const bytes = piece.bytes.subarray(piece.start, piece.end);
    piece.start = piece.end;
    this.length -= bytes.length;
    return bytes;
  }

  /** The piece that `begin` returned has been used. */
  done(): void {
    const piece = this.#pieces[this.#first];
    if (piece !== undefined && piece.start === piece.end) this.#advance(piece);
  }

  /** Throws everything away. */
  clear(): void {
    for (let at = this.#first; at < this.#pieces.length; at += 1) this.#giveBack(this.#pieces[at]);
    this.#pieces.length = 0;
    this.#first = 0;
    this.#lent = undefined;
    this.length = 0;
  }

  #pieceFor(size: number): Piece {
    const last = this.#pieces.at(-1);
    if (last !== undefined && last.end < last.bytes.length) return last;
    const piece = this.#makePiece(size);
    this.#pieces.push(piece);
    return piece;
  }

  #makePiece(size: number): Piece {
    const needed = this.length + size;
    if (needed <= LITTLE_BYTES)
      return { bytes: Buffer.allocUnsafe(Math.max(needed, FIRST_BYTES)), gather: undefined, start: 0, end: 0 };
    const gather = this.#pool.take(SMALL_GATHER_BYTES);
    return { bytes: gather.buffer, gather, start: 0, end: 0 };
  }

  #advance(piece: Piece): void {
    this.#giveBack(piece);
    this.#first += 1;
    if (this.#first === this.#pieces.length) {
      this.#pieces.length = 0;
      this.#first = 0;
    } else if (this.#first >= 64 && this.#first * 2 >= this.#pieces.length) {
      this.#pieces.splice(0, this.#first);
      this.#first = 0;
    }
  }

  #giveBack(piece: Piece | undefined): void {
    if (piece?.gather !== undefined) this.#pool.giveBack(piece.gather);
  }
}
