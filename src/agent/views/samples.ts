import { FLOW_PATHS, type FlowRecord, type FlowSink } from '../../mesh/index.ts';
import type { OverviewSample } from '../../telemetry/index.ts';
import { isDenied } from '../flow-query.ts';
import { Latency } from './latency.ts';
import type { LiveTotals } from './live-series.ts';

/** An hour of them. */
const MOST = 720;
const COLUMN = { at: 0, kernel: 1, tunnel: 2, plain: 3, passthrough: 4, open: 5, failed: 6, denied: 7 } as const;
const MORE = { sent: 8, received: 9, p50: 10, p99: 11 } as const;
const COLUMNS = 12;

/** What went on every few seconds, in one array of numbers that is made once. */
export class Samples implements FlowSink {
  readonly #cells = new Float64Array(MOST * COLUMNS);
  readonly #latency = new Latency();
  #taken = 0;
  #denied = 0;
  #before: { readonly at: number; readonly totals: LiveTotals } | undefined;

  add(records: readonly FlowRecord[]): void {
    for (const record of records) {
      if (isDenied(record)) this.#denied += 1;
      if (record.connectMs !== undefined && record.direction === 'outbound') this.#latency.add(record.connectMs);
    }
  }

  /** @param totals of all writers; the first call only remembers them */
  take(totals: LiveTotals, at: number): void {
    const before = this.#before;
    this.#before = { at, totals };
    const denied = this.#denied;
    this.#denied = 0;
    const [p50, p99] = this.#latency.take(0.5, 0.99);
    if (before === undefined || at <= before.at) return;
    const perSecond = (now: number, then: number): number => (Math.max(0, now - then) * 1000) / (at - before.at);
    const row = (this.#taken % MOST) * COLUMNS;
    this.#cells[row + COLUMN.at] = at;
    for (const path of FLOW_PATHS)
      this.#cells[row + COLUMN[path]] = perSecond(totals.opened[path], before.totals.opened[path]);
    this.#cells[row + COLUMN.open] = totals.open;
    this.#cells[row + COLUMN.failed] = perSecond(totals.failed, before.totals.failed);
    this.#cells[row + COLUMN.denied] = perSecond(denied, 0);
    this.#cells[row + MORE.sent] = perSecond(totals.bytesSent, before.totals.bytesSent);
    this.#cells[row + MORE.received] = perSecond(totals.bytesReceived, before.totals.bytesReceived);
    this.#cells[row + MORE.p50] = p50 ?? Number.NaN;
    this.#cells[row + MORE.p99] = p99 ?? Number.NaN;
    this.#taken += 1;
  }

  /** The oldest first. */
  read(): OverviewSample[] {
    const first = Math.max(0, this.#taken - MOST);
    return Array.from({ length: this.#taken - first }, (_, index) => this.#read(((first + index) % MOST) * COLUMNS));
  }

  #read(row: number): OverviewSample {
    const cell = (column: number): number => this.#cells[row + column] ?? 0;
    return {
      at: cell(COLUMN.at),
      opened: {
        kernel: cell(COLUMN.kernel),
        tunnel: cell(COLUMN.tunnel),
        plain: cell(COLUMN.plain),
        passthrough: cell(COLUMN.passthrough),
      },
      open: cell(COLUMN.open),
      failed: cell(COLUMN.failed),
      denied: cell(COLUMN.denied),
      bytesSent: cell(MORE.sent),
      bytesReceived: cell(MORE.received),
      connectP50Ms: numberOrNot(cell(MORE.p50)),
      connectP99Ms: numberOrNot(cell(MORE.p99)),
    };
  }
}

function numberOrNot(value: number): number | undefined {
  return Number.isNaN(value) ? undefined : value;
}
