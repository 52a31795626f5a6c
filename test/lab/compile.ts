/** The lab's own small C programs, built on demand into build/lab/. */
import { mkdir, rename, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command } from './command.ts';

/** The project's root. */
export const projectRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const outputDirectory = join(projectRoot, 'build', 'lab');

async function modifiedMs(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.mtimeMs,
    () => 0,
  );
}

/**
 * Compiles a C source if it is newer than its program.
 *
 * @param source path below test/lab, e.g. `forwarder/forwarder.c`
 * @returns the program's path
 */
export async function compile(source: string): Promise<string> {
  const from = join(projectRoot, 'test', 'lab', source);
  const to = join(outputDirectory, basename(source, '.c'));
  if ((await modifiedMs(to)) > (await modifiedMs(from))) return to;
  await mkdir(outputDirectory, { recursive: true });
  const scratch = `${to}.${process.pid}`;
  await command(['cc', '-O2', '-Wall', '-Wextra', '-Werror', '-o', scratch, from]);
  await rename(scratch, to);
  return to;
}
