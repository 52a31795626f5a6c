import { type ExitCode, exitCode, type Output } from './exit.ts';
import { table } from './table.ts';

/** One line of the report. A `warning` does not keep the agent from running. */
interface PreflightCheck {
  readonly check: string;
  readonly result: 'ok' | 'warning' | 'failed';
  /** What was found, and where it is not ok what to do. */
  readonly detail: string;
}

interface PreflightDeps {
  preflight(options: { cgroup: string; bpffs: string }): Promise<readonly PreflightCheck[]>;
}

/** `culvert preflight`: whether this node can run the agent. */
export async function preflight(
  deps: PreflightDeps,
  options: { cgroup: string; bpffs: string; json: boolean },
  output: Output,
): Promise<ExitCode> {
  const checks = await deps.preflight({ cgroup: options.cgroup, bpffs: options.bpffs });
  const failed = checks.filter(({ result }) => result === 'failed').length;
  if (options.json) output.out(`${JSON.stringify({ fit: failed === 0, checks }, undefined, 2)}\n`);
  else {
    output.out(
      table(
        ['CHECK', 'RESULT', 'DETAIL'],
        checks.map(({ check, result, detail }) => [check, result, detail]),
      ),
    );
    output.out(
      failed === 0 ? '\nthis node can run the agent\n' : `\nthis node cannot run the agent: ${failed} failed\n`,
    );
  }
  return failed === 0 ? exitCode.ok : exitCode.failed;
}
