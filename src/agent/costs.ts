/**
 * What the tunnel costs, shared out among the namespaces of this node's pods. An estimate: nobody measures which connection
 * a worker is at work for. The sum is not: it is what the workers have used.
 */
import type { NamespaceUse } from './tunnel-use.ts';

export interface NamespaceCost {
  /** Only grows. */
  readonly cpuSeconds: number;
  readonly memoryBytes: number;
}

export interface CostsDeps {
  /** By namespace; `connections` and `bytes` only grow. */
  use(): ReadonlyMap<string, NamespaceUse>;
  /** Of each worker since it was first started, its predecessors included; and what it holds now. */
  workers(): ReadonlyArray<{ readonly cpuSeconds: number; readonly memoryBytes: number }>;
}

/**
 * A connection opened and closed takes a worker about as long as passing on so many bytes: measured, 4,200 connections or
 * 5.5 Gbit a second.
 */
const BYTES_OF_A_CONNECTION = 160_000;

/** Whom time is charged to in which nobody's connections were at work: no namespace is called so. */
const NOBODY = '-';

export class TunnelCosts {
  readonly #deps: CostsDeps;
  readonly #cpuSeconds = new Map<string, number>();
  #work: ReadonlyMap<string, number> = new Map();
  #usedSeconds = 0;

  constructor(deps: CostsDeps) {
    this.#deps = deps;
  }

  /** Charges what the workers have used since the last call. To be called every few seconds, and before the costs are read. */
  take(): void {
    const used = this.#deps.workers().reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
    const work = new Map(Array.from(this.#deps.use(), ([namespace, use]) => [namespace, workOf(use)]));
    const done = new Map(
      Array.from(work, ([namespace, now]) => [namespace, Math.max(0, now - (this.#work.get(namespace) ?? 0))]),
    );
    const seconds = used - this.#usedSeconds;
    this.#work = work;
    // A worker's successor may tell of less for a moment.
    if (seconds <= 0) return;
    this.#usedSeconds = used;
    for (const [namespace, share] of shares(done))
      this.#cpuSeconds.set(namespace, (this.#cpuSeconds.get(namespace) ?? 0) + seconds * share);
  }

  /** By namespace; `-`: nobody. */
  costs(): Record<string, NamespaceCost> {
    const memoryBytes = this.#deps.workers().reduce((sum, worker) => sum + worker.memoryBytes, 0);
    const open = new Map(Array.from(this.#deps.use(), ([namespace, use]) => [namespace, Math.max(0, use.open)]));
    const memory = new Map(Array.from(shares(open), ([namespace, share]) => [namespace, share * memoryBytes]));
    const names = new Set([...this.#cpuSeconds.keys(), ...memory.keys()]);
    return Object.fromEntries(
      Array.from(names, (name) => [
        name,
        { cpuSeconds: this.#cpuSeconds.get(name) ?? 0, memoryBytes: memory.get(name) ?? 0 },
      ]),
    );
  }
}

/** In bytes. */
function workOf({ connections, bytes }: NamespaceUse): number {
  return bytes + connections * BYTES_OF_A_CONNECTION;
}

/** Each one's part of the whole; together 1. */
function shares(parts: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  const whole = parts.values().reduce((sum, part) => sum + part, 0);
  if (whole === 0) return new Map([[NOBODY, 1]]);
  return new Map(Array.from(parts, ([name, part]) => [name, part / whole]));
}
