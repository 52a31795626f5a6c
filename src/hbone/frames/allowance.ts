import { excess } from './breach.ts';

/** How much a peer may cost us without any use, before it has earned more. */
const BURST = 2000;
/** Some hundred refused requests, with the resets that belong to them. */
const PER_SECOND = 1000;

/** What a frame costs that moves nothing. */
export const COST_IDLE = 1;
/** SETTINGS wants an answer and touches every stream. */
export const COST_SETTINGS = 10;
/** A request that is refused, or taken back before it was answered: work for nothing. */
export const COST_ABANDONED = 2;
/** A request that was answered with 200: what it cost, and the reset or window update that may come with its end. */
export const EARNED_BY_ANSWER = 4;

/**
 * A bucket of tokens for one peer. What moves a tunnel on is free and earns tokens; frames that only cost (PING, SETTINGS,
 * empty DATA, resets, refused requests, ...) use them up. So a busy peer may ask for much, and a flood is cut off after a few
 * thousand frames. Time gives tokens too: what comes slowly may come for ever.
 */
export class Allowance {
  readonly #now: () => number;
  #tokens = BURST;
  #since: number;

  /** @param now milliseconds on a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#since = now();
  }

  earn(tokens: number): void {
    this.#tokens = Math.min(BURST, this.#tokens + tokens);
  }

  /** @throws Breach ENHANCE_YOUR_CALM */
  spend(tokens: number, what: string): void {
    this.#tokens -= tokens;
    if (this.#tokens < 0) this.#refill(what);
  }

  #refill(what: string): void {
    const now = this.#now();
    this.#tokens = Math.min(BURST, this.#tokens + Math.floor(((now - this.#since) / 1000) * PER_SECOND));
    this.#since = now;
    if (this.#tokens < 0) throw excess(`too many frames for nothing, the last: ${what}`);
  }
}
