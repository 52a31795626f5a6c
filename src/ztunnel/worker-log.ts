import { LineLimit } from '../mesh/index.ts';

/** What a worker says of itself; the main thread writes it. */
export interface LogLine {
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  /** Names: wire contract, section 9.2. */
  readonly fields: Readonly<Record<string, string | number>>;
}

const MOST_IN_A_SECOND = { warn: 10, info: 10 } as const;
type Level = keyof typeof MOST_IN_A_SECOND;

/** Peers choose some of the texts. */
const MOST_CHARACTERS = 512;

/** Says each kind of thing at most so often a second, and then how many it kept to itself. */
export class WorkerLog {
  readonly #write: (line: LogLine) => void;
  readonly #limit = new LineLimit(MOST_IN_A_SECOND);

  constructor(write: (line: LogLine) => void) {
    this.#write = write;
  }

  /** @param message its kind: a fixed text */
  warn(message: string, fields: Readonly<Record<string, string | number | undefined>>): void {
    this.#say('warn', message, fields);
  }

  /** As `warn`, where nothing is wrong. */
  info(message: string, fields: Readonly<Record<string, string | number | undefined>>): void {
    this.#say('info', message, fields);
  }

  /** Begins a new second. */
  nextSecond(): void {
    for (const { level, message, count } of this.#limit.nextSecond())
      this.#write({ level, message, fields: { count } });
  }

  #say(level: Level, message: string, fields: Readonly<Record<string, string | number | undefined>>): void {
    if (this.#limit.allows(level, message)) this.#write({ level, message, fields: withoutEmpty(fields) });
  }
}

function withoutEmpty(fields: Readonly<Record<string, string | number | undefined>>): Record<string, string | number> {
  const kept: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(fields))
    if (value !== undefined) kept[name] = typeof value === 'string' ? value.slice(0, MOST_CHARACTERS) : value;
  return kept;
}
