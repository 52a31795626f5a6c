import { type Logger, pino } from 'pino';
import type { FlowRecord, FlowSink, FlowSubject } from '../mesh/index.ts';
import { COMPLETE, completeLine, FAILED, failedLine, type Line, OPENED, openedLine, textLine } from './access-line.ts';
import { localNamespaceOf } from './flow-metrics.ts';
import type { LineWriter } from './line-writer.ts';
import { Repeats } from './repeats.ts';

export const ACCESS_LOG_MODES = ['all', 'errors', 'off'] as const;
export type AccessLogMode = (typeof ACCESS_LOG_MODES)[number];

export const ACCESS_LOG_FORMATS = ['json', 'text'] as const;
export type AccessLogFormat = (typeof ACCESS_LOG_FORMATS)[number];

export interface AccessLogOptions {
  /** Which connections have a line: all, those that did not end cleanly, or none. Default: all. */
  readonly mode?: AccessLogMode;
  /** The same for pods of a namespace of this node. */
  readonly namespaces?: ReadonlyMap<string, AccessLogMode>;
  /** Share of the clean ends that have a line, 0 to 1. The two agents of a connection choose the same ones. Default: 1. */
  readonly sample?: number;
  /** Lines of clean ends in a second, at most: what is above it is only counted. Default: 2,000. */
  readonly rate?: number;
  /** Default: json. */
  readonly format?: AccessLogFormat;
}

export interface AccessLogDeps {
  readonly writer: Pick<LineWriter, 'write' | 'counts'>;
}

type Level = 'debug' | 'info' | 'warn' | 'error';

/** One line for each connection at its end: names, levels and order of wire contract, section 9.2. */
export class AccessLog implements FlowSink {
  readonly #writer: AccessLogDeps['writer'];
  readonly #mode: AccessLogMode;
  readonly #namespaces: ReadonlyMap<string, AccessLogMode>;
  readonly #sample: number;
  readonly #rate: number;
  readonly #isText: boolean;
  readonly #json: Logger;
  readonly #repeats = new Repeats((record, repeated) => this.#say(record, repeated));
  /** Of the line that is being written. */
  #time = '';
  #sampledOut = 0;
  #rateLimited = 0;
  /** Lines of clean ends in this second. */
  #cleanLines = 0;

  constructor({ writer }: AccessLogDeps, options: AccessLogOptions = {}) {
    this.#writer = writer;
    this.#mode = options.mode ?? 'all';
    this.#namespaces = options.namespaces ?? new Map();
    this.#sample = options.sample ?? 1;
    this.#rate = options.rate ?? 2000;
    this.#isText = options.format === 'text';
    this.#json = pino(
      {
        level: 'debug',
        base: { scope: 'access' },
        timestamp: () => `,"time":"${this.#time}"`,
        formatters: { level: (label) => ({ level: label }) },
      },
      { write: (line: string) => writer.write(line) },
    );
  }

  add(records: readonly FlowRecord[]): void {
    const now = performance.now();
    for (const record of records) this.#add(record, now);
  }

  /** A line at level debug for a connection of which it has just become known where it goes. */
  opened(subject: FlowSubject, id: string, atMs = Date.now()): void {
    if (this.#modeOf(subject) !== 'all' || !this.#isSampled(id)) return;
    this.#write('debug', OPENED, openedLine(subject, id), atMs);
  }

  /** Lines by what became of them. */
  counts(): Readonly<Record<'written' | 'sampled-out' | 'rate-limited' | 'dropped' | 'failed', number>> {
    return { ...this.#writer.counts(), 'sampled-out': this.#sampledOut, 'rate-limited': this.#rateLimited };
  }

  /** To be called each second. */
  sweep(nowMs = performance.now()): void {
    this.#cleanLines = 0;
    this.#repeats.sweep(nowMs);
  }

  /** Says what was kept back. */
  flush(): void {
    this.#repeats.flush();
  }

  #add(record: FlowRecord, now: number): void {
    const mode = this.#modeOf(record);
    if (mode === 'off') return;
    if (record.ended !== 'clean') {
      this.#repeats.add(record, now);
      return;
    }
    if (mode === 'errors') return;
    if (!this.#isSampled(record.id)) this.#sampledOut += 1;
    else if (this.#cleanLines >= this.#rate) this.#rateLimited += 1;
    else {
      this.#cleanLines += 1;
      this.#say(record, 0);
    }
  }

  #say(record: FlowRecord, repeated: number): void {
    this.#rateLimited += repeated;
    const { endedAt } = record;
    if (record.stage === 'early') this.#write('warn', FAILED, failedLine(record, repeated), endedAt);
    else this.#write(record.ended === 'clean' ? 'info' : 'error', COMPLETE, completeLine(record, repeated), endedAt);
  }

  #write(level: Level, message: string, line: Line, atMs: number): void {
    const time = rfc3339(atMs);
    if (this.#isText) {
      this.#writer.write(textLine(time, level, message, line));
      return;
    }
    this.#time = time;
    // As a field, so that it comes before the others.
    this.#json[level]({ message, ...line });
  }

  #modeOf(subject: FlowSubject): AccessLogMode {
    if (this.#namespaces.size === 0) return this.#mode;
    return this.#namespaces.get(localNamespaceOf(subject) ?? '') ?? this.#mode;
  }

  #isSampled(id: string): boolean {
    return this.#sample >= 1 || shareOf(id) < this.#sample;
  }
}

/** A number from 0 up to 1 that an id always has: FNV-1a. */
function shareOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < id.length; at += 1) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193);
  return (hash >>> 0) / 2 ** 32;
}

/** With microseconds, as far as they are known. */
function rfc3339(ms: number): string {
  const micros = Math.floor((ms - Math.floor(ms)) * 1000);
  return `${new Date(ms).toISOString().slice(0, -1)}${String(micros).padStart(3, '0')}Z`;
}
