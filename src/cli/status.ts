import { callAgent, runDirectory, type StatusReply } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { printable } from './paint.ts';
import {
  certificateTable,
  connectionLines,
  headLine,
  kernelLines,
  meshLines,
  podLine,
  podTable,
  telemetryLines,
  uncapturedTable,
  workerTable,
} from './status-counts.ts';
import { problemsOf } from './status-problems.ts';
import { wrapped } from './words.ts';

interface StatusOptions {
  readonly run: string;
  readonly json: boolean;
  /** Every pod, not only those that need a look. */
  readonly pods: boolean;
}

/** `culvert status`: what the agent of this node does. */
export async function status(options: StatusOptions, output: Output): Promise<ExitCode> {
  const reply = await callAgent<'status'>({ method: 'status' }, { path: runDirectory(options.run).socket });
  output.out(
    options.json
      ? `${JSON.stringify(reply.status, undefined, 2)}\n`
      : formatStatus(reply.status, { allPods: options.pods, now: Date.now() }),
  );
  return exitCode.ok;
}

const WIDTH = 100;

/** The tables for people: what needs a look first, then the counts. */
export function formatStatus(
  status: StatusReply,
  { allPods, now }: { readonly allPods: boolean; readonly now: number },
): string {
  const problems = problemsOf(status, now);
  const parts = [
    headLine(status),
    problems.length === 0
      ? 'all is well\n'
      : `${problems.map((text) => wrapped(`! ${printable(text)}`, '  ', WIDTH)).join('\n')}\n`,
    `${meshLines(status)}${podLine(status)}`,
    allPods ? podTable(status) : '',
    uncapturedTable(status, allPods),
    certificateTable(status, now, allPods),
    workerTable(status),
    connectionLines(status),
    `${kernelLines(status)}${telemetryLines(status)}`,
  ];
  return parts.filter((part) => part !== '').join('\n');
}
