/** Times of a session's PINGs; wire contract, section 2.7. */
export interface KeepaliveOptions {
  /** A PING after this much silence. */
  readonly intervalMs: number;
  /** Silence after a PING that means: gone. */
  readonly timeoutMs: number;
}

export interface KeepaliveHost {
  /** Sends a PING. */
  probe(): void;
  /** The peer did not say anything since the PING. */
  silent(): void;
}

type KeepaliveState = 'listening' | 'probing' | 'last chance' | 'stopped';

/**
 * Finds out that a peer is gone. Anything from it is a sign of life, not only the PING's answer, which may stand behind a
 * lot of data. One timer per session, set again only when it fires.
 */
export class Keepalive {
  readonly #host: KeepaliveHost;
  readonly #options: KeepaliveOptions;
  #state: KeepaliveState = 'listening';
  #heardAt = performance.now();
  #probedAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(host: KeepaliveHost, options: KeepaliveOptions) {
    this.#host = host;
    this.#options = options;
    this.#wait(options.intervalMs);
  }

  /** Something came from the peer. */
  heard(now: number): void {
    this.#heardAt = now;
  }

  stop(): void {
    this.#state = 'stopped';
    clearTimeout(this.#timer);
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(look, Math.max(1, Math.ceil(ms)), this).unref();
  }

  /** The timer's: looks at what has been heard. */
  look(): void {
    if (this.#state === 'stopped') return;
    const now = performance.now();
    const { intervalMs, timeoutMs } = this.#options;
    if (this.#state !== 'listening' && this.#heardAt >= this.#probedAt) this.#state = 'listening';
    const since = this.#state === 'listening' ? this.#heardAt : this.#probedAt;
    const left = since + (this.#state === 'listening' ? intervalMs : timeoutMs) - now;
    // While probing, now and then: what has been heard ends it.
    if (left > 0) this.#wait(Math.min(left, intervalMs));
    else this.#next(now);
  }

  #next(now: number): void {
    if (this.#state === 'listening') {
      this.#state = 'probing';
      this.#probedAt = now;
      this.#host.probe();
      this.#wait(Math.min(this.#options.intervalMs, this.#options.timeoutMs));
    } else if (this.#state === 'probing') {
      // If this process was stopped for long, the answer may lie in the kernel: one turn of the loop to read it.
      this.#state = 'last chance';
      setImmediate(look, this);
    } else {
      this.#state = 'stopped';
      this.#host.silent();
    }
  }
}

function look(keepalive: Keepalive): void {
  keepalive.look();
}
