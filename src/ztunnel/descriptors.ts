/** What a new connection may come to hold: its client's socket and its server's. */
const PER_CONNECTION = 2;
/** Accepting begins again when this share of the room is taken, or less. */
const RESUME_SHARE = 0.95;
/** What one pod may take of the room while it is not the only one served. */
const POD_SHARE = 0.5;

/**
 * How many descriptors a worker may hold at once, and for what: a connection between two sockets holds two, one with a
 * stream of the tunnel at one end holds one, a session of the tunnel holds one.
 *
 * At EMFILE, libuv accepts and closes what waits: a clean end that the app would take for an answer. So accepting stops
 * before, and what comes meanwhile waits in the kernel's backlog. The pods' listeners count whether they are adopted at
 * this moment or not; else closing them would make the room to reopen them, for ever.
 */
export class DescriptorBudget {
  readonly limit: number;
  #listeners = 0;
  #held = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#listeners + this.#held;
  }

  get isFull(): boolean {
    return isFull(this.#held, this.#room);
  }

  /** Whether accepting may begin again after it was full. */
  get hasRoom(): boolean {
    return hasRoom(this.#held, this.#room);
  }

  /** Whether one more may be held, of a connection that nobody could let wait: a request on an open session. */
  get hasOne(): boolean {
    return this.#held < this.#room;
  }

  /** Whether a pod that holds so many, of so many pods, has no further connection to its share. */
  isShareFull(held: number, pods: number): boolean {
    return isFull(held, this.#share(pods));
  }

  /** Whether accepting for the pod may begin again after its share was full. */
  shareHasRoom(held: number, pods: number): boolean {
    return hasRoom(held, this.#share(pods));
  }

  shareHasOne(held: number, pods: number): boolean {
    return held < this.#share(pods);
  }

  /** Whether this many more listeners would still leave room for one connection. */
  canListen(listeners: number): boolean {
    return this.#listeners + listeners + PER_CONNECTION <= this.limit;
  }

  addListeners(count: number): void {
    this.#listeners += count;
  }

  /** So many more are held, or fewer. */
  hold(count: number): void {
    this.#held += count;
  }

  get #room(): number {
    return this.limit - this.#listeners;
  }

  #share(pods: number): number {
    return pods > 1 ? Math.max(PER_CONNECTION, Math.floor(this.#room * POD_SHARE)) : this.#room;
  }
}

function isFull(held: number, room: number): boolean {
  return held + PER_CONNECTION > room;
}

function hasRoom(held: number, room: number): boolean {
  return !isFull(held, room) && held <= room * RESUME_SHARE;
}
