import { Breach, excess } from './breach.ts';
import type { MemoryBudget } from './budget.ts';
import { CONNECTION_WINDOW_BYTES, FLOW_CONTROL_ERROR, STREAM_WINDOW_BYTES } from './wire.ts';

/** A session that holds more than this announces small windows; below half of it, the usual ones again. */
export const HELD_PRESSURE_BYTES = 8 * 2 ** 20;
/** A stream's window under pressure. */
export const PRESSED_WINDOW_BYTES = 64 * 1024;
/** Windows do not grow again sooner than this after they shrank: a change costs the peer a look at every stream. */
const PRESSED_AT_LEAST_MS = 500;
/** Part of a window that is used before it is given back. */
const SHARE = 4;

/**
 * The most that a session may hold of received bytes, 36.5 MiB for 200 streams, and why no honest peer is ever stopped by it:
 * what it holds when it announces small windows, what the peer could send before reading that, and a small window for each
 * stream. A peer that exceeds it has not heeded our SETTINGS.
 */
export function maxHeldBytes(maxStreams: number): number {
  return HELD_PRESSURE_BYTES + CONNECTION_WINDOW_BYTES + maxStreams * PRESSED_WINDOW_BYTES;
}

/** Who sends what the windows ask for. */
export interface WindowHost {
  /** WINDOW_UPDATE of the connection. */
  giveBack(bytes: number): void;
  /** SETTINGS with this initial window; what streams are owed is to be looked at again. */
  announce(streamWindow: number): void;
  /** What the peer may send on every stream changes by so much. */
  shift(bytes: number): void;
}

/**
 * What the peer may send: windows of the connection and of new streams, and the bytes held because their readers stall.
 *
 * The connection's window is given back on receipt, so a stalled stream never slows its neighbours. Instead, the streams'
 * windows shrink while much is held (RFC 9113, section 6.9.2: they may become negative).
 */
export class ReceiveWindows {
  readonly #host: WindowHost;
  readonly #budget: MemoryBudget;
  readonly #maxHeldBytes: number;
  #connection = CONNECTION_WINDOW_BYTES;
  #owed = 0;
  #held = 0;
  #announced: number;
  /** What the peer may count on for a stream: the largest of what it has acknowledged and what it has not yet. */
  #allowed: number;
  #acknowledged: number;
  readonly #unacknowledged: number[] = [];
  #pressedSince = 0;

  constructor(host: WindowHost, budget: MemoryBudget, maxStreams: number) {
    this.#host = host;
    this.#budget = budget;
    this.#maxHeldBytes = maxHeldBytes(maxStreams);
    this.#announced = budget.pressed ? PRESSED_WINDOW_BYTES : STREAM_WINDOW_BYTES;
    // Until it has read our SETTINGS, a peer counts on 65,535 bytes.
    this.#acknowledged = Math.max(this.#announced, STREAM_WINDOW_BYTES);
    this.#allowed = this.#acknowledged;
    this.#unacknowledged.push(this.#announced);
  }

  /** The initial window last announced. */
  get announced(): number {
    return this.#announced;
  }

  /** What a new stream's peer may send. */
  get allowed(): number {
    return this.#allowed;
  }

  /** From here on a stream's window is given back. */
  get creditAt(): number {
    return this.#announced / SHARE;
  }

  get heldBytes(): number {
    return this.#held;
  }

  /** Bytes of DATA have come. @throws Breach */
  received(bytes: number): void {
    this.#connection -= bytes;
    if (this.#connection < 0) throw new Breach(FLOW_CONTROL_ERROR, 'DATA beyond the window of the connection');
    this.#owed += bytes;
    if (this.#owed < CONNECTION_WINDOW_BYTES / SHARE) return;
    this.#host.giveBack(this.#owed);
    this.#connection += this.#owed;
    this.#owed = 0;
  }

  /** Bytes must wait for their reader. @throws Breach */
  hold(bytes: number): void {
    this.#held += bytes;
    this.#budget.hold(bytes);
    if (this.#held > this.#maxHeldBytes) throw excess('more held than the windows allow');
    if (this.#held > HELD_PRESSURE_BYTES && this.#announced > PRESSED_WINDOW_BYTES) this.shrink();
  }

  /** Bytes wait no more. */
  release(bytes: number): void {
    this.#held -= bytes;
    this.#budget.release(bytes);
  }

  /** Announces small windows. */
  shrink(): void {
    if (this.#announced === PRESSED_WINDOW_BYTES) return;
    this.#pressedSince = performance.now();
    this.#announce(PRESSED_WINDOW_BYTES);
  }

  /** Announces the usual windows again, if that is due. Asked now and then. */
  relax(now: number): void {
    if (this.#announced === STREAM_WINDOW_BYTES || this.#budget.pressed) return;
    if (this.#held >= HELD_PRESSURE_BYTES / 2 || now - this.#pressedSince < PRESSED_AT_LEAST_MS) return;
    if (this.#unacknowledged.length === 0) this.#announce(STREAM_WINDOW_BYTES);
  }

  /** The peer has acknowledged SETTINGS; false: there was nothing to acknowledge. */
  acknowledge(): boolean {
    const window = this.#unacknowledged.shift();
    if (window === undefined) return false;
    this.#acknowledged = window;
    this.#allow();
    return true;
  }

  #announce(window: number): void {
    this.#announced = window;
    this.#unacknowledged.push(window);
    this.#allow();
    this.#host.announce(window);
  }

  #allow(): void {
    const allowed = Math.max(this.#acknowledged, ...this.#unacknowledged);
    const change = allowed - this.#allowed;
    this.#allowed = allowed;
    if (change !== 0) this.#host.shift(change);
  }
}
