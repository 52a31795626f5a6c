/** Slots, from the one that a key's hash names, among which it may be. */
const WINDOW = 16;
/** The average forgets: after so many milliseconds a value counts for 1/e. */
const DECAY_MS = 10_000;
/** Ends of ejections are kept in this unit, so that 32 bits last for years. */
const TICK_MS = 100;

/** Cells of the header: how many there are of each; ejections and restorations so far; how many are ejected. */
const MOST = 0;
const WORKERS = 1;
const EPOCH = 2;
const EJECTED = 3;
const HEADER_BYTES = 32;
/** The header's last cell: the beginning of time, milliseconds. */
const BEGINNING_AT = 24;
const BYTES_PER_ENDPOINT = 4 * 8 + 3 * 4;

/**
 * What the workers of a node know of endpoints, in one piece of shared memory: a hash table of fixed size, which never has
 * to be locked. A key is in one of the 16 slots after the place of its hash; if all are taken, the one that was used least
 * recently and has no open connection is forgotten.
 *
 * A slot's key and the end of its ejection change by compare-and-exchange. Connect times are plain numbers: when two workers
 * write one at the same moment, one value is lost, which does no harm. Open connections are counted by each worker in a
 * column of its own, so that those of a worker that ended can be taken off.
 */
export class CostTable {
  readonly #workers: number;
  readonly #most: number;
  readonly #mask: number;
  readonly #worker: number | undefined;
  readonly #beginning: number;
  readonly #header: Int32Array;
  /** Hashes of the keys, 64 bits; 0: free. Read as halves, which costs no BigInt. */
  readonly #keys: BigInt64Array;
  readonly #halves: Int32Array;
  readonly #ms: Float64Array;
  /** When `ms` was true; 0: never. */
  readonly #msAt: Float64Array;
  readonly #usedAt: Float64Array;
  readonly #failures: Int32Array;
  readonly #ejections: Int32Array;
  /** Ticks since the beginning; 0: not ejected. */
  readonly #ejectedUntil: Int32Array;
  /** One column of `most` cells for each worker. */
  readonly #open: Int32Array;
  #low = 0;
  #high = 0;

  /** @param worker undefined: somebody who opens no connections */
  constructor(memory: SharedArrayBuffer, worker: number | undefined) {
    this.#header = new Int32Array(memory, 0, BEGINNING_AT / 4);
    const most = this.#header[MOST] ?? 0;
    const workers = this.#header[WORKERS] ?? 0;
    if (worker !== undefined && !(worker >= 0 && worker < workers))
      throw new RangeError(`no worker ${worker} of ${workers}`);
    this.#most = most;
    this.#mask = most - 1;
    this.#workers = workers;
    this.#worker = worker;
    this.#beginning = new Float64Array(memory, BEGINNING_AT, 1)[0] ?? 0;
    // Eight-byte cells first: each array must begin at a multiple of its cells' size.
    const eight = (place: number): number => HEADER_BYTES + place * 8 * most;
    const four = (place: number): number => eight(4) + place * 4 * most;
    this.#keys = new BigInt64Array(memory, eight(0), most);
    this.#halves = new Int32Array(memory, eight(0), 2 * most);
    this.#ms = new Float64Array(memory, eight(1), most);
    this.#msAt = new Float64Array(memory, eight(2), most);
    this.#usedAt = new Float64Array(memory, eight(3), most);
    this.#failures = new Int32Array(memory, four(0), most);
    this.#ejections = new Int32Array(memory, four(1), most);
    this.#ejectedUntil = new Int32Array(memory, four(2), most);
    this.#open = new Int32Array(memory, four(3), most * workers);
    if (worker !== undefined) this.#open.fill(0, worker * most, (worker + 1) * most);
  }

  /** @param most a power of two, at least 16 */
  static allocate(workers: number, most: number, now: number): SharedArrayBuffer {
    if (most < WINDOW || (most & (most - 1)) !== 0)
      throw new RangeError(`${most} is no power of two from ${WINDOW} on`);
    const memory = new SharedArrayBuffer(HEADER_BYTES + most * (BYTES_PER_ENDPOINT + 4 * workers));
    const header = new Int32Array(memory, 0, BEGINNING_AT / 4);
    header[MOST] = most;
    header[WORKERS] = workers;
    new Float64Array(memory, BEGINNING_AT, 1)[0] = now;
    return memory;
  }

  /** Changes whenever somebody, anywhere, is ejected or restored. */
  get epoch(): number {
    return Atomics.load(this.#header, EPOCH);
  }

  /** How many are ejected. */
  get ejected(): number {
    return Atomics.load(this.#header, EJECTED);
  }

  find(key: string): number | undefined {
    this.#hash(key);
    return this.#findHash();
  }

  /** The key's slot, a new one if need be; undefined if there is no room. */
  claim(key: string, now: number): number | undefined {
    this.#hash(key);
    // Another worker may be faster, with this or another key: then look again.
    for (let attempt = 0; attempt < WINDOW; attempt += 1) {
      const slot = this.#findHash() ?? this.#take();
      if (slot === 'lost') continue;
      if (slot !== undefined) this.#usedAt[slot] = now;
      return slot;
    }
    return undefined;
  }

  /** Connections that are open or being made, of all workers. */
  open(slot: number): number {
    let sum = 0;
    for (let worker = 0; worker < this.#workers; worker += 1) sum += this.#open[worker * this.#most + slot] ?? 0;
    return sum;
  }

  /** Only this worker writes its column. One that was not counted, for want of room, is not taken off either. */
  addOpen(slot: number, more: 1 | -1): void {
    if (this.#worker === undefined) return;
    const at = this.#worker * this.#most + slot;
    this.#open[at] = Math.max(0, (this.#open[at] ?? 0) + more);
  }

  /** Connect time: peak EWMA. Falls towards 0 by itself, so that the slow are tried again; undefined: not known. */
  msOf(slot: number, now: number): number | undefined {
    const at = this.#msAt[slot] ?? 0;
    return at === 0 ? undefined : (this.#ms[slot] ?? 0) * Math.exp(-Math.max(0, now - at) / DECAY_MS);
  }

  setMs(slot: number, ms: number, now: number): void {
    this.#ms[slot] = ms;
    this.#msAt[slot] = now;
  }

  /** Up at once, down slowly. */
  addMs(slot: number, ms: number, now: number): void {
    const decayed = this.msOf(slot, now) ?? 0;
    const share = Math.exp(-Math.max(0, now - (this.#msAt[slot] ?? 0)) / DECAY_MS);
    this.setMs(slot, ms > decayed ? ms : (this.#ms[slot] ?? 0) * share + ms * (1 - share), now);
  }

  /** @returns failures in a row, with this one */
  addFailure(slot: number): number {
    return Atomics.add(this.#failures, slot, 1) + 1;
  }

  /** In a row. */
  failures(slot: number): number {
    return Atomics.load(this.#failures, slot);
  }

  /** @returns whether there were any */
  clearFailures(slot: number): boolean {
    return Atomics.exchange(this.#failures, slot, 0) !== 0;
  }

  ejections(slot: number): number {
    return this.#ejections[slot] ?? 0;
  }

  /** 0: not ejected. Else compare it by `isPast`. */
  ejectedUntil(slot: number): number {
    return Atomics.load(this.#ejectedUntil, slot);
  }

  isPast(until: number, now: number): boolean {
    return until <= this.#ticks(now);
  }

  /** Unless somebody else has changed it since `before` was read. */
  eject(slot: number, before: number, ms: number, now: number): void {
    if (this.postpone(slot, before, ms, now) === undefined) return;
    Atomics.add(this.#ejections, slot, 1);
    if (before === 0) this.#count(1);
  }

  /** @returns the new end of the ejection; undefined if somebody else has changed it since `before` was read */
  postpone(slot: number, before: number, ms: number, now: number): number | undefined {
    const end = this.#ticks(now + ms) + 1;
    // Another value in any case: it is by its value that a worker knows its own claim.
    const until = end === before ? end + 1 : end;
    return Atomics.compareExchange(this.#ejectedUntil, slot, before, until) === before ? until : undefined;
  }

  restore(slot: number): void {
    if (Atomics.load(this.#ejectedUntil, slot) === 0) return;
    Atomics.store(this.#ejections, slot, 0);
    if (Atomics.exchange(this.#ejectedUntil, slot, 0) !== 0) this.#count(-1);
  }

  #ticks(now: number): number {
    return Math.floor((now - this.#beginning) / TICK_MS);
  }

  #count(more: 1 | -1): void {
    Atomics.add(this.#header, EJECTED, more);
    Atomics.add(this.#header, EPOCH, 1);
  }

  #findHash(): number | undefined {
    for (let step = 0; step < WINDOW; step += 1) {
      const slot = (this.#low + step) & this.#mask;
      if (this.#halves[2 * slot] === this.#low && this.#halves[2 * slot + 1] === this.#high) return slot;
    }
    return undefined;
  }

  /** @returns undefined: all have open connections; `lost`: another worker took the slot */
  #take(): number | 'lost' | undefined {
    const slot = this.#dispensable();
    if (slot === undefined) return undefined;
    const before = Atomics.load(this.#keys, slot);
    const key = (BigInt(this.#high) << 32n) | BigInt(this.#low >>> 0);
    if (Atomics.compareExchange(this.#keys, slot, before, key) !== before) return 'lost';
    // Until here the others may see the new key with the old values, which does no harm.
    this.#ms[slot] = 0;
    this.#msAt[slot] = 0;
    Atomics.store(this.#failures, slot, 0);
    Atomics.store(this.#ejections, slot, 0);
    if (Atomics.exchange(this.#ejectedUntil, slot, 0) !== 0) this.#count(-1);
    return slot;
  }

  #dispensable(): number | undefined {
    let best: number | undefined;
    for (let step = 0; step < WINDOW; step += 1) {
      const slot = (this.#low + step) & this.#mask;
      if (this.#halves[2 * slot] === 0 && this.#halves[2 * slot + 1] === 0) return slot;
      if (this.open(slot) === 0 && (best === undefined || (this.#usedAt[slot] ?? 0) < (this.#usedAt[best] ?? 0)))
        best = slot;
    }
    return best;
  }

  /** FNV-1a in two lanes with different beginnings, each stirred at the end; into `low` and `high`, never both 0. */
  #hash(key: string): void {
    let low = 0x811c9dc5;
    let high = 0x5bd1e995;
    for (let at = 0; at < key.length; at += 1) {
      const code = key.charCodeAt(at);
      low = Math.imul(low ^ code, 0x01000193);
      high = Math.imul(high ^ code, 0x85ebca6b);
    }
    this.#low = stir(low) | 0 || 1;
    this.#high = stir(high) | 0;
  }
}

function stir(value: number): number {
  let stirred = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  stirred = Math.imul(stirred ^ (stirred >>> 15), 0x846ca68b);
  return stirred ^ (stirred >>> 16);
}
