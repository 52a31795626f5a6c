/** A relayed connection holds two descriptors. */
const PER_CONNECTION = 2;
/** Accepting begins again when this share of the places is taken, or less. */
const RESUME_SHARE = 0.95;

/**
 * How many connections a worker may hold open at once.
 *
 * At EMFILE, libuv accepts and closes what waits: a clean end that the app would take for an answer. So accepting stops
 * before, and what comes meanwhile waits in the kernel's backlog. The pods' listeners count whether they are adopted at
 * this moment or not; else closing them would make the room to reopen them, for ever.
 */
export class DescriptorBudget {
  readonly limit: number;
  #listeners = 0;
  #connections = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#listeners + PER_CONNECTION * this.#connections;
  }

  get isFull(): boolean {
    return this.#connections >= this.#places;
  }

  /** Whether accepting may begin again after it was full. */
  get hasRoom(): boolean {
    const places = this.#places;
    return this.#connections <= Math.min(places - 1, Math.floor(places * RESUME_SHARE));
  }

  /** Whether this many more listeners would still leave room for one connection. */
  canListen(listeners: number): boolean {
    return this.#listeners + listeners + PER_CONNECTION <= this.limit;
  }

  addListeners(count: number): void {
    this.#listeners += count;
  }

  addConnection(): void {
    this.#connections += 1;
  }

  removeConnection(): void {
    this.#connections -= 1;
  }

  get #places(): number {
    return Math.floor((this.limit - this.#listeners) / PER_CONNECTION);
  }
}
