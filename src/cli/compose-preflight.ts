/** Joins the kernel's checks to the command. */
import { preflight as kernelPreflight } from '../kernel/index.ts';
import type { ExitCode, Output } from './exit.ts';
import { preflight } from './preflight.ts';

export function runPreflight(
  options: { cgroup: string; bpffs: string; json: boolean },
  output: Output,
): Promise<ExitCode> {
  return preflight({ preflight: kernelPreflight }, options, output);
}
