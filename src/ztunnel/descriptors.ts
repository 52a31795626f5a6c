/** A relayed connection holds two descriptors. */
const PER_CONNECTION = 2;
/** Accepting begins again when this share of the places is taken, or less. */
const RESUME_SHARE = 0.95;
/** What one pod may take of the places while it is not the only one served. */
const POD_SHARE = 0.5;

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
    return this.#connections <= resumeAt(this.#places);
  }

  /** Whether a pod with so many connections, of so many pods, has no further one to its share. */
  isShareFull(connections: number, pods: number): boolean {
    return connections >= this.#share(pods);
  }

  /** Whether accepting for the pod may begin again after its share was full. */
  shareHasRoom(connections: number, pods: number): boolean {
    return connections <= resumeAt(this.#share(pods));
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

  #share(pods: number): number {
    return pods > 1 ? Math.max(1, Math.floor(this.#places * POD_SHARE)) : this.#places;
  }
}

function resumeAt(places: number): number {
  return Math.min(places - 1, Math.floor(places * RESUME_SHARE));
}
