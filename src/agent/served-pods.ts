import type { NetnsCookie, Pod } from '../mesh/index.ts';
import type { PodFollower } from './ports.ts';

/** Counts how often serving a pod was begun and ended, and passes on what it is told. */
export class ServedPods implements PodFollower {
  readonly #next: ReadonlyArray<PodFollower | undefined>;
  readonly #served = new Set<NetnsCookie>();
  #started = 0;
  #stopped = 0;

  constructor(...next: ReadonlyArray<PodFollower | undefined>) {
    this.#next = next;
  }

  podChanged(pod: Pod, cookie: NetnsCookie, state: 'enrolled' | 'captured' | 'left'): void {
    if (state === 'enrolled') this.#begin(cookie);
    else if (this.#served.delete(cookie)) this.#stopped += 1;
    for (const next of this.#next) next?.podChanged(pod, cookie, state);
  }

  counts(): { readonly started: number; readonly stopped: number } {
    return { started: this.#started, stopped: this.#stopped };
  }

  /** An enrolled pod that has changed is told of again. */
  #begin(cookie: NetnsCookie): void {
    if (this.#served.has(cookie)) return;
    this.#served.add(cookie);
    this.#started += 1;
  }
}
