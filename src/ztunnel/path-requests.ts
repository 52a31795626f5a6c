import { type Endpoint, formatEndpoint } from '../mesh/index.ts';

/** Destinations that one pod may ask about in a second. */
const MOST_IN_A_SECOND = 2048;

/**
 * Asks the main thread whether further connections of one pod to a destination need an agent: at most once a second for each,
 * so that one that is often connected to costs little. Beyond the bound nothing is asked: such connections only take the
 * longer way.
 */
export class PathRequests {
  readonly #ask: (destination: Endpoint) => void;
  /** Asked in this second, and in the one before. */
  #now = new Set<string>();
  #before = new Set<string>();

  constructor(ask: (destination: Endpoint) => void) {
    this.#ask = ask;
  }

  want(destination: Endpoint): void {
    const key = formatEndpoint(destination);
    if (this.#now.has(key) || this.#before.has(key) || this.#now.size >= MOST_IN_A_SECOND) return;
    this.#now.add(key);
    this.#ask(destination);
  }

  /** Begins a new second. */
  nextSecond(): void {
    if (this.#now.size === 0 && this.#before.size === 0) return;
    this.#before = this.#now;
    this.#now = new Set();
  }
}
