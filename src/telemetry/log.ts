import { type DestinationStream, type Logger, type LoggerOptions, pino, stdTimeFunctions } from 'pino';

/** Names are the glossary's nouns: `pod`, `netns_cookie`, `reason`, `error`. */
export type Log = Pick<Logger, 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace'> & {
  child(fields: Record<string, unknown>): Log;
};

/** A log whose level can be changed while it runs; so can that of its children, each by itself. */
export type OpenLog = Omit<Log, 'child'> & { level: string; child(fields: Record<string, unknown>): OpenLog };

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LogOptions {
  /** Least severe level that is written. Default: info. */
  readonly level?: LogLevel;
}

/**
 * A log that writes one JSON object per line: `level` (a word), `time` (ISO 8601, UTC), fields, `message`.
 *
 * @param destination default: standard output, written synchronously so that the last lines of a dying process are kept
 */
export function openLog(options: LogOptions = {}, destination?: DestinationStream): OpenLog {
  const settings: LoggerOptions = {
    level: options.level ?? 'info',
    base: null,
    messageKey: 'message',
    errorKey: 'error',
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { error: serializeError },
  };
  return pino(settings, destination ?? pino.destination({ fd: 1, sync: true }));
}

/** A log that writes nothing. */
export function silentLog(): Log {
  return pino({ level: 'silent' });
}

/** Errors with their code and, to a depth of four, their causes; a stack only where there is no code to go by. */
function serializeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return {
    message: error.message,
    ...(code === undefined ? { stack: error.stack } : { code }),
    ...(error.cause === undefined || depth === 3 ? {} : { cause: serializeError(error.cause, depth + 1) }),
  };
}
