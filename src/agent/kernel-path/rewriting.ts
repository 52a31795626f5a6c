import type { PublishedServices } from './services.ts';
import type { Verdicts } from './verdicts.ts';

interface RewritingDeps {
  readonly services: Pick<PublishedServices, 'publish'>;
  readonly verdicts: Pick<Verdicts, 'renew'>;
  /** Runs a later turn, and takes what it throws. */
  guarded(run: () => void): void;
}

/** The loop is not held up for longer at a time by what can wait. */
const TURN_MS = 5;

/** Writes what is still right after a change, a little at a time: what a change forbids was void before this begins. */
export class Rewriting {
  readonly #deps: RewritingDeps;
  /** Wait until everything is written again. */
  #waiters: Array<() => void> = [];
  #isUnderWay = false;

  constructor(deps: RewritingDeps) {
    this.#deps = deps;
  }

  /** Begins, or goes on. */
  work(): void {
    const { services, verdicts, guarded } = this.#deps;
    const mayGoOn = turn();
    if (services.publish(mayGoOn) && verdicts.renew(mayGoOn)) this.settle();
    else if (!this.#isUnderWay) {
      this.#isUnderWay = true;
      setImmediate(() => {
        this.#isUnderWay = false;
        guarded(() => this.work());
      });
    }
  }

  /** Resolves when everything is written again. */
  async settled(): Promise<void> {
    if (!this.#isUnderWay) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.push(resolve);
    await promise;
  }

  /** Nobody waits any longer: all is written, or will not be. */
  settle(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}

/** Whether there is time left of a turn that begins now. */
export function turn(ms = TURN_MS): () => boolean {
  const end = performance.now() + ms;
  return () => performance.now() < end;
}
