import { existsSync } from 'node:fs';
import { addRoot } from '../identity/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

/** `culvert ca rotate`: adds a root to the built-in CA's directory, where a running control process finds it. */
export async function rotateCa(directory: string, output: Output): Promise<ExitCode> {
  if (!existsSync(directory)) throw new Error(`there is no CA at ${directory}; name the --ca of the control process`);
  const file = await addRoot(directory);
  output.out(
    `added ${file}\n` +
      'Every agent trusts it from now on; certificates are signed under it when it has been there for --root-overlap (an hour).\n' +
      'When all have been renewed (a day later), delete the old root.\n',
  );
  return exitCode.ok;
}
