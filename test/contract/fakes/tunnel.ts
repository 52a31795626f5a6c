import type { PreparedPod, Tunnel, TunnelStatus } from '../../../src/agent/index.ts';
import type { NetnsCookie, Pod } from '../../../src/mesh/index.ts';

export type TunnelStep = 'serve' | 'stopAccepting' | 'drop' | 'shutdown';

/** A tunnel in memory: it accepts nothing, but knows what it has been told, and keeps the connections a test opens. */
export class FakeTunnel implements Tunnel {
  /** A test may put in its place a list that others write to as well. */
  calls: string[] = [];
  readonly served = new Map<NetnsCookie, { pod: Pod; prepared: PreparedPod }>();
  readonly connections = new Map<NetnsCookie, number>();
  readonly #failures = new Map<TunnelStep, Error[]>();
  readonly #gates = new Map<TunnelStep, Promise<void>>();
  #ended = 0;
  #down = false;

  /** The next calls of a step fail, one after the other. */
  fail(step: TunnelStep, ...errors: Error[]): void {
    this.#failures.set(step, errors);
  }

  /** Calls of a step wait until the returned function is called. */
  hold(step: TunnelStep): () => void {
    const gate = Promise.withResolvers<void>();
    this.#gates.set(step, gate.promise);
    return () => {
      this.#gates.delete(step);
      gate.resolve();
    };
  }

  /** A client connects. False if nobody accepts. */
  connect(cookie: NetnsCookie): boolean {
    if (!this.served.has(cookie)) return false;
    this.connections.set(cookie, (this.connections.get(cookie) ?? 0) + 1);
    return true;
  }

  async serve(pod: Pod, prepared: PreparedPod): Promise<void> {
    await this.#called('serve', prepared.cookie);
    if (this.#down) throw Object.assign(new Error('the tunnel is shutting down'), { code: 'SHUT_DOWN' });
    this.served.set(prepared.cookie, { pod, prepared });
  }

  async stopAccepting(cookie: NetnsCookie): Promise<void> {
    await this.#called('stopAccepting', cookie);
    this.served.delete(cookie);
  }

  async drop(cookie: NetnsCookie): Promise<void> {
    await this.#called('drop', cookie);
    this.served.delete(cookie);
    this.#end(cookie);
  }

  status(): TunnelStatus {
    const open = [...this.connections.values()].reduce((sum, count) => sum + count, 0);
    return {
      workers: [
        {
          slot: 0,
          state: this.#down ? 'stopped' : 'serving',
          openConnections: open,
          restarts: 0,
          descriptorStops: 0,
          eventLoopDelayMs: { p50: 1, p99: 2, max: 3 },
          cpuSeconds: 4,
          heapBytes: 5,
        },
      ],
      openConnections: new Map(this.connections),
      totals: {
        accepted: open + this.#ended,
        closed: this.#ended,
        failed: 0,
        unattributed: 0,
        bytesFromClients: 4,
        bytesFromServers: 5,
      },
      ended: { 'pod-dropped': this.#ended },
      paths: {
        outbound: { tunnel: 0, plain: 0, passthrough: open + this.#ended },
        inbound: { tunnel: 0, plain: 0 },
      },
      sessions: { open: 6, opened: 7, handshakesFailed: 8 },
      policy: { decisions: { allowed: 9, denied: 10 }, dryRun: { denies: 11, allows: 12 }, closed: 13 },
      descriptors: { open: 2 * open, limit: 1024 },
    };
  }

  async shutdown(deadlineMs: number): Promise<void> {
    this.#down = true;
    await this.#called('shutdown', deadlineMs);
    this.served.clear();
    for (const cookie of [...this.connections.keys()]) this.#end(cookie);
  }

  #end(cookie: NetnsCookie): void {
    this.#ended += this.connections.get(cookie) ?? 0;
    this.connections.delete(cookie);
  }

  async #called(step: TunnelStep, subject: bigint | number): Promise<void> {
    this.calls.push(`${step} ${subject}`);
    await this.#gates.get(step);
    const error = this.#failures.get(step)?.shift();
    if (error !== undefined) throw error;
  }
}
