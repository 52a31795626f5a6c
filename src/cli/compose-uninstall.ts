/** Joins what the rooms leave on a node to the command that removes it. */
import { claimRunDirectory } from '../agent/index.ts';
import { removePrograms } from '../kernel/index.ts';
import type { ExitCode, Output } from './exit.ts';
import { uninstall } from './uninstall.ts';

export function runUninstall(
  options: { cgroup: string; bpffs: string; run: string; json: boolean },
  output: Output,
): Promise<ExitCode> {
  const removeAll = async ({ bpffs, run }: { bpffs: string; run: string }): Promise<string[]> => {
    // Refuses while an agent runs: it would attach again what is removed here.
    const claimed = claimRunDirectory(run, process.geteuid?.() ?? 0);
    const removed = removePrograms(bpffs);
    claimed.remove();
    return removed;
  };
  return uninstall({ uninstall: removeAll }, options, output);
}
