/** What the process ends with. */
export const exitCode = { ok: 0, failed: 1, usage: 2 } as const;
export type ExitCode = (typeof exitCode)[keyof typeof exitCode];

/** Where a command writes. */
export interface Output {
  out(text: string): void;
  error(text: string): void;
}

export const terminal: Output = {
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
};
