import { callAgent, runDirectory } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

interface LogLevelOptions {
  readonly run: string;
  readonly reset: boolean;
}

/** `culvert log-level`: tells the level of the agent's log, sets it, or has it as it was at the start. */
export async function logLevel(
  level: string | undefined,
  { run, reset }: LogLevelOptions,
  output: Output,
): Promise<ExitCode> {
  const reply = await callAgent<'log-level'>(
    { method: 'log-level', reset, ...(level === undefined ? {} : { level }) },
    { path: runDirectory(run).socket },
  );
  output.out(`${reply.level}\n`);
  return exitCode.ok;
}
