import type { Log } from '../../../src/telemetry/index.ts';

export interface Entry {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

/** A log that keeps what it is told, and lets a test wait for it. */
export class FakeLog {
  readonly entries: Entry[] = [];
  #next = 0;
  #more = Promise.withResolvers<void>();

  /** As a room takes it. */
  readonly log: Log = {
    fatal: this.#writer('fatal'),
    error: this.#writer('error'),
    warn: this.#writer('warn'),
    info: this.#writer('info'),
    debug: this.#writer('debug'),
    trace: this.#writer('trace'),
    child: () => this.log,
  };

  /** The next entry with this message, behind the one that the last call has found. */
  async next(message: string): Promise<Entry> {
    for (;;) {
      for (; this.#next < this.entries.length; this.#next += 1) {
        const entry = this.entries[this.#next];
        if (entry?.message !== message) continue;
        this.#next += 1;
        return entry;
      }
      await this.#more.promise;
    }
  }

  #writer(level: string) {
    return (fields: unknown, message?: unknown): void => {
      this.entries.push({ level, message: String(message), fields: { ...Object(fields) } });
      this.#more.resolve();
      this.#more = Promise.withResolvers<void>();
    };
  }
}
