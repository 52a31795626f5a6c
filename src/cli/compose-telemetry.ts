/** Joins what counts, writes down and exposes the connections of an agent. */
import process from 'node:process';
import type { AgentDeps } from '../agent/index.ts';
import { type FlowSink, messageOf } from '../mesh/index.ts';
import {
  AccessLog,
  FlowMetrics,
  LineWriter,
  type Log,
  type Metrics,
  openMetrics,
  ScrapeServer,
  SeriesBook,
  SeriesBudget,
} from '../telemetry/index.ts';
import type { TelemetryOptions } from './telemetry-options.ts';
import { version } from './version.ts';

const STDOUT = 1;
const SWEEP_MS = 1000;

export interface JoinedTelemetry {
  readonly metrics: Metrics;
  readonly book: SeriesBook;
  /** Access log and distributions. */
  readonly flows: FlowSink;
  readonly accessLog: AccessLog;
  /** Undefined: nobody is given metrics over HTTP. */
  readonly server: ScrapeServer | undefined;
  readonly services: NonNullable<AgentDeps['services']>;
}

export function joinTelemetry({ log }: { readonly log: Log }, options: TelemetryOptions): JoinedTelemetry {
  const metrics = openMetrics({ version: version() });
  const budget = new SeriesBudget(options.seriesBudget);
  const idleSeconds = options.seriesIdle;
  const book = new SeriesBook({ budget, idleSeconds });
  const flowMetrics = new FlowMetrics({ budget, idleSeconds });
  const writer = lineWriter(log, options.accessLogFile);
  const accessLog = new AccessLog(
    { writer },
    {
      mode: options.accessLog,
      namespaces: options.accessLogNamespace,
      sample: options.accessLogSample,
      rate: options.accessLogRate,
      format: options.accessLogFormat,
    },
  );
  const server = options.metrics && new ScrapeServer({ metrics, log }, { listen: options.metrics });
  metrics.add(book.families);
  metrics.add(flowMetrics.families);
  metrics.observe({
    series: () => book.counts(),
    accessLogLines: () => accessLog.counts(),
    ...(server === undefined ? {} : { scrapes: () => server.counts() }),
  });
  const sinks: readonly FlowSink[] = [accessLog, flowMetrics];
  return {
    metrics,
    book,
    flows: {
      add: (records) => {
        for (const sink of sinks) sink.add(records);
      },
    },
    accessLog,
    server,
    services: [upkeep({ accessLog, writer, book, flowMetrics }), ...(server === undefined ? [] : [server])],
  };
}

interface Kept {
  readonly accessLog: AccessLog;
  readonly writer: LineWriter;
  readonly book: SeriesBook;
  readonly flowMetrics: FlowMetrics;
}

/** Once a second, and at the end: the last lines are written. SIGUSR2: the file of the access log is opened anew. */
function upkeep({ accessLog, writer, book, flowMetrics }: Kept): JoinedTelemetry['services'][number] {
  let timer: NodeJS.Timeout | undefined;
  const reopen = (): void => writer.reopen();
  // From the beginning: without a handler the signal would end the process, and a log may be moved away at any time.
  process.on('SIGUSR2', reopen);
  return {
    async start() {
      timer = setInterval(() => {
        accessLog.sweep();
        book.sweep();
        flowMetrics.sweep();
      }, SWEEP_MS).unref();
    },
    async close() {
      clearInterval(timer);
      accessLog.flush();
      await writer.close();
    },
  };
}

function lineWriter(log: Log, path: string | undefined): LineWriter {
  return new LineWriter(
    {
      failed: (error) =>
        log.error({ error, ...(path === undefined ? {} : { path }) }, `access log: ${messageOf(error)}; trying again`),
    },
    path === undefined ? { fd: STDOUT } : { path },
  );
}
