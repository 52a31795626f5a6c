import type { FlowRecord, NetnsCookie } from '../mesh/index.ts';
import type { ConnectionRecord } from './open-connection.ts';

/** What a connection was, apart from its end; changed while it is being made. */
export type FlowSubject = {
  -readonly [Field in
    | 'direction'
    | 'path'
    | 'client'
    | 'server'
    | 'sourceIdentity'
    | 'destinationIdentity'
    | 'service']: FlowRecord[Field];
};

/** Records in one batch. */
const MOST_IN_BATCH = 256;

/** The records of a worker's connections, on their way to the main thread: in batches, and no more than it can bear. */
export class FlowLog {
  readonly #send: (records: readonly FlowRecord[], dropped: number) => void;
  #records: FlowRecord[] = [];
  #dropped = 0;

  /** @param send takes a batch, and how many records since the last one had no room in it */
  constructor(send: (records: readonly FlowRecord[], dropped: number) => void) {
    this.#send = send;
  }

  add(pod: NetnsCookie, record: ConnectionRecord): void {
    if (record.subject === undefined) return;
    if (this.#records.length >= MOST_IN_BATCH) this.#dropped += 1;
    else this.#records.push(flowOf(pod, record.subject, record));
  }

  /** To be called every 250 ms. */
  flush(): void {
    if (this.#records.length === 0) return;
    const [records, dropped] = [this.#records, this.#dropped];
    this.#records = [];
    this.#dropped = 0;
    this.#send(records, dropped);
  }
}

function flowOf(pod: NetnsCookie, subject: FlowSubject, record: ConnectionRecord): FlowRecord {
  return {
    pod,
    endedAt: Date.now(),
    direction: subject.direction,
    path: subject.path,
    client: subject.client,
    server: subject.server,
    sourceIdentity: subject.sourceIdentity,
    destinationIdentity: subject.destinationIdentity,
    service: subject.service,
    ended: record.ended,
    decision: record.decision?.text,
    bytesSent: record.bytesFromClient,
    bytesReceived: record.bytesFromServer,
    durationMs: record.durationMs,
  };
}
