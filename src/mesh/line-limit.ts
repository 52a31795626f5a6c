/** Which of the lines that say the same thing are said: so many a second, and then only how many more there were. */
export class LineLimit<Level extends string> {
  readonly #mostInASecond: Readonly<Record<Level, number>>;
  /** How often each message was to be said in this second. */
  readonly #said = new Map<string, { readonly level: Level; times: number }>();

  /** @param mostInASecond of one message, by its level */
  constructor(mostInASecond: Readonly<Record<Level, number>>) {
    this.#mostInASecond = mostInASecond;
  }

  /** @param message its kind: a fixed text, since each one is remembered until the second is over */
  allows(level: Level, message: string): boolean {
    const said = this.#said.get(message) ?? { level, times: 0 };
    said.times += 1;
    this.#said.set(message, said);
    return said.times <= this.#mostInASecond[level];
  }

  /** Begins a new second. Returns what is left to be said of the one before. */
  nextSecond(): ReadonlyArray<{ readonly level: Level; readonly message: string; readonly count: number }> {
    const untold = [...this.#said].flatMap(([message, { level, times }]) => {
      const count = times - this.#mostInASecond[level];
      return count > 0 ? [{ level, message: `${message}: more of them`, count }] : [];
    });
    this.#said.clear();
    return untold;
  }
}
