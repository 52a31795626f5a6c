import { callAgent, runDirectory } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

/** `culvert config-dump`: what the agent knows, as `istioctl ztunnel-config --file` reads it. */
export async function configDump(options: { run: string }, output: Output): Promise<ExitCode> {
  const reply = await callAgent<'config-dump'>(
    { method: 'config-dump' },
    { path: runDirectory(options.run).socket, deadlineMs: 60_000 },
  );
  output.out(`${JSON.stringify(reply.dump, undefined, 2)}\n`);
  return exitCode.ok;
}
