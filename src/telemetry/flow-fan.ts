import { type FlowRecord, type FlowSink, LineLimit } from '../mesh/index.ts';
import type { Log } from './log.ts';

const MOST_IN_A_SECOND = { error: 1 } as const;
const SECOND_MS = 1000;

/** Gives records to several, in order. A fault of one is told to the log, and keeps them from nobody else. */
export class FlowFan implements FlowSink {
  readonly #log: Pick<Log, 'error'>;
  readonly #sinks: readonly FlowSink[];
  readonly #limit = new LineLimit(MOST_IN_A_SECOND);
  #second = 0;

  constructor({ log }: { readonly log: Pick<Log, 'error'> }, sinks: readonly FlowSink[]) {
    this.#log = log;
    this.#sinks = sinks;
  }

  add(records: readonly FlowRecord[]): void {
    for (const sink of this.#sinks) {
      try {
        sink.add(records);
      } catch (error) {
        this.#tell(error);
      }
    }
  }

  #tell(error: unknown): void {
    const message = 'connections that have ended could not be told to everybody';
    const second = Math.floor(performance.now() / SECOND_MS);
    if (second !== this.#second) this.#limit.nextSecond();
    this.#second = second;
    if (this.#limit.allows('error', message)) this.#log.error({ error }, message);
  }
}
