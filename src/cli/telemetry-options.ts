/** The options of `culvert agent` about metrics and the access log. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseAddress } from '../mesh/index.ts';
import {
  ACCESS_LOG_FORMATS,
  ACCESS_LOG_MODES,
  type AccessLogFormat,
  type AccessLogMode,
  type ListenAddress,
} from '../telemetry/index.ts';

const LEAST_BUDGET = 1000;
const MOST_BUDGET = 1_000_000;
const MOST_IDLE = 86_400;
const METRICS_PORT = 15020;
const EVERYWHERE: ListenAddress = { address: undefined, port: METRICS_PORT };

export interface TelemetryOptions {
  /** Undefined: nobody is given metrics over HTTP. */
  readonly metrics: ListenAddress | undefined;
  readonly accessLog: AccessLogMode;
  readonly accessLogNamespace: ReadonlyMap<string, AccessLogMode>;
  readonly accessLogSample: number;
  /** Lines of clean ends a second, at most. */
  readonly accessLogRate: number;
  readonly accessLogStart: boolean;
  readonly accessLogFormat: AccessLogFormat;
  /** Undefined: standard output. */
  readonly accessLogFile: string | undefined;
  readonly seriesBudget: number;
  /** Seconds. */
  readonly seriesIdle: number;
  readonly kernelPathSecurity: 'kernel' | 'mutual_tls';
}

/** As commander gives them. */
export type TelemetryFlags = Omit<TelemetryOptions, 'accessLogFile' | 'metrics'> & {
  readonly metrics: ListenAddress | 'off';
  readonly accessLogFile?: string;
};

export function withTelemetry(command: Command): Command {
  return command
    .addOption(
      new Option('--metrics <place>', 'port of the metrics, [ADDRESS:]PORT, or off')
        .argParser(metricsPlace)
        .default(EVERYWHERE, `${METRICS_PORT} of every address`),
    )
    .option('--series-budget <count>', 'series of connections that are exposed at most', budget, 20_000)
    .option('--series-idle <seconds>', 'series of which nothing is counted leave after this long', idleSeconds, 600)
    .addOption(
      new Option('--kernel-path-security <name>', 'what the metrics call the security of the kernel path')
        .choices(['kernel', 'mutual_tls'])
        .default('kernel'),
    )
    .addOption(
      new Option('--access-log <mode>', 'which connections have a line in the log')
        .choices([...ACCESS_LOG_MODES])
        .default('all'),
    )
    .addOption(
      new Option(
        '--access-log-namespace <namespace=mode>',
        'the same for pods of a namespace; may be given several times',
      )
        .argParser(namespaceMode)
        .default(new Map<string, AccessLogMode>(), 'none'),
    )
    .option('--access-log-sample <fraction>', 'share of the clean ends that have a line, 0 to 1', fraction, 1)
    .option('--access-log-rate <lines>', 'lines of clean ends in a second, at most', lineRate, 2000)
    .option('--access-log-start', 'also a line when a connection is opened', false)
    .addOption(
      new Option('--access-log-format <format>', 'of these lines').choices([...ACCESS_LOG_FORMATS]).default('json'),
    )
    .option('--access-log-file <path>', 'a file that they are appended to; default: standard output');
}

export function telemetryOptions(flags: TelemetryFlags): TelemetryOptions {
  const { metrics, accessLog, accessLogNamespace, accessLogSample, accessLogStart, accessLogFormat, accessLogFile } =
    flags;
  const { accessLogRate, seriesBudget, seriesIdle, kernelPathSecurity } = flags;
  return {
    metrics: metrics === 'off' ? undefined : metrics,
    ...{ accessLog, accessLogNamespace, accessLogSample, accessLogStart, accessLogFormat, accessLogFile },
    ...{ accessLogRate, seriesBudget, seriesIdle, kernelPathSecurity },
  };
}

function lineRate(text: string): number {
  const lines = /^\d{1,7}$/.test(text) ? Number(text) : 0;
  if (lines >= 1) return lines;
  throw new InvalidArgumentError('It must be a whole number from 1 to 9999999.');
}

/** Not undefined: commander would make an empty text of it. */
function metricsPlace(text: string): ListenAddress | 'off' {
  if (text === 'off') return text;
  const [, bracketed, bare, port] = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? bare;
  const address = host === undefined ? undefined : parseAddress(host);
  const number = Number(port);
  if (number >= 1 && number <= 65_535 && (host === undefined || address !== undefined))
    return { address, port: number };
  throw new InvalidArgumentError('It must be a port, or an address and a port such as 127.0.0.1:15020, or off.');
}

function namespaceMode(text: string, before: ReadonlyMap<string, AccessLogMode>): ReadonlyMap<string, AccessLogMode> {
  const [namespace = '', name] = text.split('=', 2);
  const mode = ACCESS_LOG_MODES.find((each) => each === name);
  if (namespace !== '' && mode !== undefined) return new Map([...before, [namespace, mode]]);
  throw new InvalidArgumentError(`It must be NAMESPACE=MODE, and the mode one of ${ACCESS_LOG_MODES.join(', ')}.`);
}

function fraction(text: string): number {
  const number = /^\d*\.?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (number >= 0 && number <= 1) return number;
  throw new InvalidArgumentError('It must be a number from 0 to 1.');
}

function budget(text: string): number {
  return within(text, LEAST_BUDGET, MOST_BUDGET);
}

function idleSeconds(text: string): number {
  return within(text, 1, MOST_IDLE);
}

function within(text: string, least: number, most: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
}
