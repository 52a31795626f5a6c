import type { Overview } from '../../telemetry/index.ts';

export type LiveState = 'waiting' | 'live' | 'lost' | 'paused';

/** The agent's stream of overviews, for as long as somebody can see the page. */
export class Live {
  readonly #heard: (overview: Overview) => void;
  readonly #changed: (state: LiveState) => void;
  #stream: EventSource | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(heard: (overview: Overview) => void, changed: (state: LiveState) => void) {
    this.#heard = heard;
    this.#changed = changed;
    document.addEventListener('visibilitychange', () => (document.hidden ? this.#pause() : this.open()));
  }

  open(): void {
    clearTimeout(this.#retry);
    this.#stream?.close();
    const stream = new EventSource('/api/live');
    this.#stream = stream;
    stream.addEventListener('overview', (event: MessageEvent<string>) => {
      this.#changed('live');
      this.#heard(JSON.parse(event.data) as Overview);
    });
    stream.addEventListener('error', () => {
      this.#changed('lost');
      // The browser tries again by itself, but not after an answer that was no stream.
      if (stream.readyState === EventSource.CLOSED) this.#retry = setTimeout(() => this.open(), 3_000);
    });
  }

  #pause(): void {
    clearTimeout(this.#retry);
    this.#stream?.close();
    this.#stream = undefined;
    this.#changed('paused');
  }
}
