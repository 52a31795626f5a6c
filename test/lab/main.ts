/**
 * `./dev lab`: the lab by hand.
 *
 *   lab up [--nodes N] [--pods N] [--delay MS] [--loss PERCENT] [--rate MBIT]   stays until Ctrl-C
 *   lab exec NODE[.POD] COMMAND...                                              in the lab that is up
 *   lab sweep                                                                   removes what dead labs have left
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { existingLabs, Lab, LabError, sweep } from './index.ts';
import { cgroupMount, cgroupName, netnsDirectory, netnsName, ownerLives } from './names.ts';

const usage =
  'usage: lab up [--nodes N] [--pods N] [--delay MS] [--loss PERCENT] [--rate MBIT] | lab exec NODE[.POD] COMMAND... | lab sweep';

async function up(argv: string[]): Promise<void> {
  const { values } = parseArgs({
    args: argv,
    options: {
      nodes: { type: 'string', default: '2' },
      pods: { type: 'string', default: '2' },
      delay: { type: 'string', default: '0' },
      loss: { type: 'string', default: '0' },
      rate: { type: 'string' },
    },
  });
  const lab = await Lab.create('./dev lab up', { shared: true });
  const podNames = [...'abcdefghijklmnopqrstuvwxyz'].slice(0, Number(values.pods));
  for (let at = 1; at <= Number(values.nodes); at++) {
    const node = await lab.node(`n${at}`);
    for (const other of lab.nodes.slice(0, -1))
      await lab.link(other, node, {
        delayMs: Number(values.delay),
        lossPercent: Number(values.loss),
        ...(values.rate === undefined ? {} : { rateMbit: Number(values.rate) }),
      });
    for (const name of podNames) await node.pod(name);
  }
  console.log(`Lab ${lab.id} is up. Enter with:\n`);
  for (const node of lab.nodes) {
    console.log(`  ./dev lab exec ${node.name} bash      # node ${node.name}: ${node.ipv4} ${node.ipv6}`);
    console.log(`      culvert agent --cgroup ${node.cgroup} --bpffs ${node.bpffs} --run ${node.runDirectory}`);
    for (const pod of node.pods)
      console.log(`  ./dev lab exec ${node.name}.${pod.name} bash    # pod ${pod.name}: ${pod.addresses.join(' ')}`);
  }
  console.log('\nCtrl-C takes it down.');
  setInterval(() => undefined, 3_600_000); // Keeps the process; the lab's own signal handlers end it.
}

/** Runs a command in a place of the newest lab that is up. Its output and exit code are the command's. */
function exec(place: string, argv: string[]): number {
  const [node = '', pod] = place.split('.');
  const id = existingLabs()
    .filter(ownerLives)
    .findLast((each) => existsSync(join(netnsDirectory, netnsName(each, node, pod))));
  if (id === undefined) throw new LabError(`no lab that is up has a ${place}`);
  const cgroup = join(cgroupMount(), cgroupName(id), node, ...(pod === undefined ? ['host'] : ['pods', pod]));
  const enter = ['-c', 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"', 'sh', cgroup];
  const netns = join(netnsDirectory, netnsName(id, node, pod));
  return spawnSync('sh', [...enter, 'nsenter', `--net=${netns}`, '--', ...argv], { stdio: 'inherit' }).status ?? 1;
}

const [verb, ...rest] = process.argv.slice(2);
try {
  if (verb === 'up') await up(rest);
  else if (verb === 'sweep') for (const id of sweep()) console.log(`removed ${id}`);
  else if (verb === 'exec' && rest[0] !== undefined && rest.length > 1) process.exitCode = exec(rest[0], rest.slice(1));
  else {
    console.error(usage);
    process.exitCode = 2;
  }
} catch (error) {
  console.error(error instanceof LabError ? `lab: ${error.message}` : error);
  process.exitCode = 2;
}
