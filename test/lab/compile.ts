/** The lab's own small C programs, built on demand into build/lab/. */
import { mkdir, readdir, rename, stat } from 'node:fs/promises';
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

/** When a source, or a header beside it, was last changed. */
async function changedMs(source: string): Promise<number> {
  const folder = dirname(source);
  const headers = (await readdir(folder)).filter((name) => name.endsWith('.h')).map((name) => join(folder, name));
  return Math.max(...(await Promise.all([source, ...headers].map(modifiedMs))));
}

/**
 * Compiles a C source if it, or a header beside it, is newer than its program.
 *
 * @param source path below test/lab, e.g. `forwarder/forwarder.c`
 * @returns the program's path
 */
export async function compile(source: string): Promise<string> {
  const from = join(projectRoot, 'test', 'lab', source);
  const to = join(outputDirectory, basename(source, '.c'));
  if ((await modifiedMs(to)) > (await changedMs(from))) return to;
  await mkdir(outputDirectory, { recursive: true });
  const scratch = `${to}.${process.pid}`;
  await command(['cc', '-O2', '-Wall', '-Wextra', '-Werror', '-o', scratch, from]);
  await rename(scratch, to);
  return to;
}
