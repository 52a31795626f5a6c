import { callAgent, parsePod, runDirectory, type WirePod } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

/** `culvert enrol`: asks the agent of this node to enrol a pod. */
export async function enrol(pod: WirePod, options: { run: string }, output: Output): Promise<ExitCode> {
  const reply = await callAgent<'enrol'>(
    { method: 'enrol', pod: parsePod(pod) },
    { path: runDirectory(options.run).socket },
  );
  output.out(`${reply.result} ${pod.uid} (netns cookie ${reply.netnsCookie})\n`);
  return exitCode.ok;
}
