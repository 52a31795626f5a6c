import { LineLimit } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';

/** Of one message, a second. */
const MOST_IN_A_SECOND = { info: 10, warn: 10, error: 10 } as const;
type Level = keyof typeof MOST_IN_A_SECOND;

/** A log for what others can make happen as often as they like: each kind of thing is said 10 times a second at most. */
export class LimitedLog {
  readonly #log: Pick<Log, Level>;
  readonly #limit = new LineLimit(MOST_IN_A_SECOND);

  constructor(log: Pick<Log, Level>) {
    this.#log = log;
  }

  /** @param message its kind: a fixed text */
  info(fields: Readonly<Record<string, unknown>>, message: string): void {
    this.#say('info', fields, message);
  }

  /** As `info`. */
  warn(fields: Readonly<Record<string, unknown>>, message: string): void {
    this.#say('warn', fields, message);
  }

  /** As `info`. */
  error(fields: Readonly<Record<string, unknown>>, message: string): void {
    this.#say('error', fields, message);
  }

  /** To be called each second: says how many lines were not said in the one before. */
  nextSecond(): void {
    for (const { level, message, count } of this.#limit.nextSecond()) this.#log[level]({ count }, message);
  }

  #say(level: Level, fields: Readonly<Record<string, unknown>>, message: string): void {
    if (this.#limit.allows(level, message)) this.#log[level](fields, message);
  }
}
