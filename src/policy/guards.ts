import type { Attempt } from './attempt.ts';
import type { Decision } from './decision.ts';
import type { Rules } from './rules.ts';

/** The proof of a yes. Only `Guard.ask` makes one, and nothing that merely looks like one is one. */
class Permit {
  readonly #decision: Decision;

  constructor(decision: Decision) {
    this.#decision = decision;
  }

  get decision(): Decision {
    return this.#decision;
  }
}

export type { Permit };

export type Answer = { readonly permit: Permit } | { readonly denied: Decision };

/** One connection, watched from before its check until its end. */
export interface Guard {
  /** The last one; undefined: not asked yet. */
  readonly decision: Decision | undefined;
  /** Denied: it has left. Throws if it left before. */
  ask(rules: Rules): Answer;
  /** The connection is over. Again: nothing happens. */
  leave(): void;
}

/** The connections to one pod in one worker. */
export class Guards {
  readonly #guards = new Set<Watched>();

  /** How many have entered and not left. */
  get size(): number {
    return this.#guards.size;
  }

  /**
   * Registers a connection. This comes before its check, so that no change of policy can slip in between.
   *
   * @param forbidden called once, if it has been permitted and a `recheck` says no: it has left, and must be ended
   */
  enter(attempt: Attempt, forbidden: (decision: Decision) => void): Guard {
    const guard = new Watched(attempt, forbidden, (left) => this.#guards.delete(left));
    this.#guards.add(guard);
    return guard;
  }

  /**
   * Decides all anew, and tells those that are forbidden now.
   *
   * @returns how many
   */
  recheck(rules: Rules): number {
    // All are decided first: the end of one may be the end of others, and these are to know why.
    const forbidden = [...this.#guards].filter((guard) => guard.isForbiddenBy(rules));
    const failures: unknown[] = [];
    for (const guard of forbidden)
      try {
        guard.tell();
      } catch (error) {
        // One that cannot be ended must not save the others.
        failures.push(error);
      }
    if (failures.length > 0) throw failures[0];
    return forbidden.length;
  }
}

/** `changed`: the rules of a recheck that came before the question. */
type WatchState =
  | { readonly is: 'unasked'; readonly changed: Rules | undefined; readonly decision: undefined }
  | { readonly is: 'permitted'; readonly decision: Decision }
  | { readonly is: 'over'; readonly decision: Decision | undefined };

class Watched implements Guard {
  readonly #attempt: Attempt;
  readonly #forbidden: (decision: Decision) => void;
  readonly #left: (guard: Watched) => void;
  #state: WatchState = { is: 'unasked', changed: undefined, decision: undefined };

  constructor(attempt: Attempt, forbidden: (decision: Decision) => void, left: (guard: Watched) => void) {
    this.#attempt = attempt;
    this.#forbidden = forbidden;
    this.#left = left;
  }

  get decision(): Decision | undefined {
    return this.#state.decision;
  }

  ask(rules: Rules): Answer {
    const state = this.#state;
    if (state.is === 'over') {
      // A permit now would be for a connection that nobody watches.
      if (state.decision?.allowed !== false) throw new Error('a guard that has left was asked');
      return { denied: state.decision };
    }
    const changed = state.is === 'unasked' ? state.changed : undefined;
    const decision = this.#decide(rules, changed);
    this.#decided(decision);
    return decision.allowed ? { permit: new Permit(decision) } : { denied: decision };
  }

  leave(): void {
    if (this.#state.is !== 'over') this.#setState({ is: 'over', decision: this.#state.decision });
  }

  /** Only news is told: not that what was denied still is. */
  isForbiddenBy(rules: Rules): boolean {
    if (this.#state.is === 'unasked') this.#setState({ is: 'unasked', changed: rules, decision: undefined });
    if (this.#state.is !== 'permitted') return false;
    this.#decided(rules.decide(this.#attempt));
    return this.#state.is !== 'permitted';
  }

  tell(): void {
    const { decision } = this.#state;
    if (decision !== undefined) this.#forbidden(decision);
  }

  /** The asker may hold rules from before a change that it has not seen: those of the change have a say too. */
  #decide(rules: Rules, changed: Rules | undefined): Decision {
    const decision = rules.decide(this.#attempt);
    return changed === undefined || changed === rules || !decision.allowed ? decision : changed.decide(this.#attempt);
  }

  #decided(decision: Decision): void {
    this.#setState({ is: decision.allowed ? 'permitted' : 'over', decision });
  }

  #setState(state: WatchState): void {
    this.#state = state;
    if (state.is === 'over') this.#left(this);
  }
}
