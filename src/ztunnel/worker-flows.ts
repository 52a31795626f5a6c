import type { NetnsCookie } from '../mesh/index.ts';
import { FlowWriter, SeriesTable } from '../telemetry/index.ts';
import type { ConnectionRecord } from './open-connection.ts';
import type { FromWorker, TunnelWorkerData } from './protocol.ts';

/** How soon the main thread learns of a record. */
const FLUSH_MS = 50;

/** What a worker counts and writes down of its connections, in memory that the main thread reads. */
export class WorkerFlows {
  readonly series: SeriesTable;
  readonly #writer: FlowWriter;
  #timer: NodeJS.Timeout | undefined;

  /** @param send messages to the main thread */
  constructor(
    { series, flows, seriesIdleSeconds }: Pick<TunnelWorkerData, 'series' | 'flows' | 'seriesIdleSeconds'>,
    send: (message: FromWorker) => void,
  ) {
    const reader = {
      added: (slot: number, labels: Readonly<Record<string, string>>) => send({ kind: 'series-added', slot, labels }),
      idle: (slot: number) => send({ kind: 'series-idle', slot }),
    };
    // Nothing of the kernel path is counted here.
    this.series = new SeriesTable(series, reader, { kernelPathAs: 'kernel', idleSeconds: seriesIdleSeconds });
    this.#writer = new FlowWriter(flows, (batch) => send({ kind: 'flows', batch }));
  }

  /** A connection has ended. One that nothing is known of is only counted. */
  add(pod: NetnsCookie, record: ConnectionRecord): void {
    if (record.subject === undefined) return;
    this.#writer.write(pod, record.subject, record);
    this.#timer ??= setTimeout(this.flush, FLUSH_MS).unref();
  }

  readonly flush = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writer.flush();
  };

  /** Gives up series that are idle. To be called now and then. */
  sweep(): void {
    this.series.sweep(performance.now() / 1000);
  }
}
