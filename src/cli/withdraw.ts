import { callAgent, runDirectory } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

/** `culvert withdraw`: asks the agent of this node to withdraw a pod; its open connections live on. */
export async function withdraw(uid: string, options: { run: string }, output: Output): Promise<ExitCode> {
  const reply = await callAgent<'withdraw'>({ method: 'withdraw', uid }, { path: runDirectory(options.run).socket });
  output.out(reply.result === 'unchanged' ? `unchanged: ${uid} was not enrolled\n` : `withdrawn ${uid}\n`);
  return exitCode.ok;
}
