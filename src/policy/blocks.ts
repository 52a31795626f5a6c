import { type Cidr, encodeCidr } from '../mesh/index.ts';
import type { Words } from './subject.ts';

const WORD_BITS = 32;
/** `encodeCidr` counts from the start of the v4-mapped form. */
const MAPPED_BITS = 96;
const WORDS_4 = [12];
const WORDS_6 = [0, 4, 8, 12];

/** A block as numbers; how many words there are tells the family. */
export interface Block {
  readonly words: Words;
  readonly bits: number;
}

export function parseBlock(cidr: Cidr): Block {
  const { address, bits, family } = encodeCidr(cidr);
  const view = new DataView(address.buffer, address.byteOffset, address.byteLength);
  const words = (family === 4 ? WORDS_4 : WORDS_6).map((place) => view.getInt32(place));
  return { words, bits: family === 4 ? bits - MAPPED_BITS : bits };
}

/** Blocks of one family and length: an address is in the one whose first bits it has. */
export class BlockLevel<Value> {
  readonly bits: number;
  readonly #masks: Words;
  readonly #values = new Map<number | string, Value>();

  constructor(words: number, bits: number) {
    this.bits = bits;
    this.#masks = Array.from({ length: words }, (_, index) => maskOf(bits - index * WORD_BITS));
  }

  get(words: Words): Value | undefined {
    return this.#values.get(this.#keyOf(words));
  }

  set(words: Words, value: Value): void {
    this.#values.set(this.#keyOf(words), value);
  }

  #keyOf(words: Words): number | string {
    const masks = this.#masks;
    const first = at(words, 0) & at(masks, 0);
    if (masks.length === 1) return first;
    return `${first},${at(words, 1) & at(masks, 1)},${at(words, 2) & at(masks, 2)},${at(words, 3) & at(masks, 3)}`;
  }
}

function at(words: Words, index: number): number {
  return words[index] ?? 0;
}

/** The first bits of a word set. A shift by 32 would shift by none. */
function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= WORD_BITS ? -1 : -1 << (WORD_BITS - bits);
}

/** Something for each of some blocks. What it costs to find it depends on how many lengths there are, not on how many blocks. */
export class BlockTable<Value> {
  readonly #levels4: BlockLevel<Value>[] = [];
  readonly #levels6: BlockLevel<Value>[] = [];

  /** Puts in what has been made of what was there. */
  change(block: Block, make: (old: Value | undefined) => Value): void {
    const level = this.#levelOf(block);
    level.set(block.words, make(level.get(block.words)));
  }

  /** The levels on which the address may be. Families never meet. */
  levels(words: Words): ReadonlyArray<BlockLevel<Value>> {
    return words.length === 1 ? this.#levels4 : this.#levels6;
  }

  get isEmpty(): boolean {
    return this.#levels4.length === 0 && this.#levels6.length === 0;
  }

  #levelOf({ words, bits }: Block): BlockLevel<Value> {
    const levels = words.length === 1 ? this.#levels4 : this.#levels6;
    const known = levels.find((level) => level.bits === bits);
    if (known !== undefined) return known;
    const level = new BlockLevel<Value>(words.length, bits);
    levels.push(level);
    return level;
  }
}

/** Whether an address is in one of some blocks. */
export class BlockSet {
  readonly #table = new BlockTable<true>();

  constructor(cidrs: readonly Cidr[]) {
    for (const cidr of cidrs) this.#table.change(parseBlock(cidr), () => true);
  }

  has(words: Words): boolean {
    for (const level of this.#table.levels(words)) if (level.get(words)) return true;
    return false;
  }
}
