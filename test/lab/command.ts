/** Runs the tools a lab is made with (ip, nft, tc, mount, cc), to their end. */
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { LabError } from './names.ts';

/**
 * Runs a tool to its end.
 *
 * @returns its standard output
 * @throws LabError with its standard error when it fails
 */
export async function command(argv: readonly [string, ...string[]], input = ''): Promise<string> {
  const [file, ...rest] = argv;
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.on('error', () => undefined); // It ended without reading all: its exit code tells.
  child.stdin.end(input);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', (cause) => reject(new LabError(`cannot run ${file}`, { cause })));
    child.once('close', resolve);
  });
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (code !== 0) throw new LabError(`${argv.join(' ')} ended with ${code}: ${stderr.trim()}${input && `\n${input}`}`);
  return stdout;
}

/** Runs shell lines inside a network namespace; the first that fails ends it. */
export function shellIn(netns: string, script: string): Promise<string> {
  return command(['nsenter', `--net=${netns}`, '--', 'sh', '-eu'], script);
}
