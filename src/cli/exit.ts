/** What the process ends with. `undecided`: a command that answers yes or no could tell neither. */
export const exitCode = { ok: 0, failed: 1, usage: 2, undecided: 2 } as const;
export type ExitCode = (typeof exitCode)[keyof typeof exitCode];

/** Where a command writes. */
export interface Output {
  out(text: string): void;
  error(text: string): void;
  /** Whether `out` leads to somebody who sees colours. Default: no. */
  readonly hasColors?: boolean;
}

export const terminal: Output = {
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
  // Knows of NO_COLOR and of TERM; only a terminal's stream has it at all.
  hasColors: process.stdout.isTTY === true && process.stdout.hasColors(),
};
