import { LOG_LEVELS, type LogLevel } from './log.ts';

/** What of a log can be told apart: each has a level of its own. */
export interface LeveledLog {
  level: string;
}

/** Other names of levels: Istio's tools say `off`. */
const ALIASES: ReadonlyMap<string, LogLevel> = new Map([
  ['off', 'silent'],
  ['warning', 'warn'],
]);
/** `scope=level`, or a level for all. */
const CLAUSE = /^(?:([a-z-]+)=)?([a-z]+)$/;
/** Longest text that is looked at. */
const MOST_CHARACTERS = 1024;

/** The levels of an agent's log while it runs, by scope. */
export class LogLevels<Scope extends string = string> {
  readonly #logs: Readonly<Record<Scope, LeveledLog>>;
  readonly #initial: LogLevel;

  /** @param initial what `reset` goes back to, and what all are set to now */
  constructor(logs: Readonly<Record<Scope, LeveledLog>>, initial: LogLevel) {
    this.#logs = logs;
    this.#initial = initial;
    this.reset();
  }

  get scopes(): readonly string[] {
    return Object.keys(this.#logs);
  }

  /** E.g. `info`, or `info,tunnel=debug` where a scope differs: what most have comes first. `set` reads it back. */
  text(): string {
    const levels = Object.entries<LeveledLog>(this.#logs).map(([scope, { level }]) => ({ scope, level }));
    const usual = mostFrequent(levels.map(({ level }) => level)) ?? this.#initial;
    const others = levels.filter(({ level }) => level !== usual).map(({ scope, level }) => `${scope}=${level}`);
    return [usual, ...others].join(',');
  }

  /**
   * Sets what is named and leaves the rest; a level without a scope sets all, before the others. Nothing is changed if
   * anything is wrong.
   *
   * @param text clauses with commas in between, e.g. `info,tunnel=debug`
   * @returns what is wrong; undefined: it has been done
   */
  set(text: string): string | undefined {
    if (text.length > MOST_CHARACTERS) return `longer than ${MOST_CHARACTERS} characters`;
    const changes: Array<{ readonly scope: string | undefined; readonly level: LogLevel }> = [];
    for (const clause of text.split(',')) {
      const [, scope, name] = CLAUSE.exec(clause.trim().toLowerCase()) ?? [];
      const level = name === undefined ? undefined : levelOf(name);
      if (level === undefined) return `${JSON.stringify(clause)} is no level; there are ${LOG_LEVELS.join(', ')}, off`;
      if (scope !== undefined && !Object.hasOwn(this.#logs, scope))
        return `${JSON.stringify(scope)} is no scope; there are ${this.scopes.join(', ')}`;
      changes.push({ scope, level });
    }
    for (const { scope, level } of changes) if (scope === undefined) this.#setAll(level);
    for (const [scope, log] of Object.entries<LeveledLog>(this.#logs)) {
      const own = changes.findLast((change) => change.scope === scope);
      if (own !== undefined) log.level = own.level;
    }
    return undefined;
  }

  reset(): void {
    this.#setAll(this.#initial);
  }

  #setAll(level: LogLevel): void {
    for (const log of Object.values<LeveledLog>(this.#logs)) log.level = level;
  }
}

function levelOf(name: string): LogLevel | undefined {
  return ALIASES.get(name) ?? LOG_LEVELS.find((level) => level === name);
}

/** The first of those that are there most often. */
function mostFrequent(texts: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return texts.find((text) => counts.get(text) === most);
}
