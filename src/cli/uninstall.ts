import { type ExitCode, exitCode, type Output } from './exit.ts';

interface UninstallDeps {
  /** Detaches and unpins everything that is culvert's own; returns what was removed, one line each. */
  uninstall(options: { cgroup: string; bpffs: string; run: string }): Promise<readonly string[]>;
}

/** `culvert uninstall`: returns the node to as it was. Enrolled pods' traffic is no longer captured. */
export async function uninstall(
  deps: UninstallDeps,
  options: { cgroup: string; bpffs: string; run: string; json: boolean },
  output: Output,
): Promise<ExitCode> {
  const removed = await deps.uninstall({ cgroup: options.cgroup, bpffs: options.bpffs, run: options.run });
  if (options.json) output.out(`${JSON.stringify({ removed }, undefined, 2)}\n`);
  else
    output.out(
      removed.length === 0 ? 'nothing to remove\n' : `${removed.map((line) => `removed ${line}`).join('\n')}\n`,
    );
  return exitCode.ok;
}
