/**
 * What policy costs: `./dev bench policy` runs the benches of bench/policy one after the other: how long one decision takes,
 * how soon a change ends what it forbids, and what a change costs when many verdicts are written down.
 * Arguments (`--rounds`, `--json`) go to each of them.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

for (const name of ['decide', 'change']) {
  const { status } = spawnSync(
    process.execPath,
    [join(import.meta.dirname, 'policy', `${name}.ts`), ...process.argv.slice(2)],
    { stdio: 'inherit' },
  );
  if (status !== 0) process.exit(status ?? 1);
  console.log();
}
