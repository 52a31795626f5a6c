#!/usr/bin/env node
import { availableParallelism } from 'node:os';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../telemetry/index.ts';
import { type ExitCode, exitCode, type Output, terminal } from './exit.ts';

const MAX_WORKERS = 64;
const RUN = '/run/culvert';
const BPFFS = '/sys/fs/bpf';
const CGROUP = '/sys/fs/cgroup';

/** The commands load their rooms when they run, so that `status` never opens the kernel's side. */
export function program(output: Output, ended: (code: ExitCode) => void): Command {
  const culvert = new Command('culvert');
  culvert
    .description('A sidecarless service mesh: one agent per node')
    .showHelpAfterError(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.error(text),
      outputError: (text, write) => write(`culvert: ${text.replace(/^error: /, '')}`),
    });
  const command = (name: string, description: string): Command =>
    culvert.command(name).description(description).allowExcessArguments(false);

  withNode(command('agent', 'serve the pods of this node until SIGTERM'))
    .option(
      '--workers <count>',
      'tunnel workers, 1 to 64',
      wholeNumber(1, MAX_WORKERS),
      Math.min(availableParallelism(), MAX_WORKERS),
    )
    .addOption(
      new Option('--log-level <level>', 'least severe level that is logged').choices([...LOG_LEVELS]).default('info'),
    )
    .option(
      '--drain-deadline-ms <ms>',
      'longest wait for open connections at a stop',
      wholeNumber(0, 3_600_000),
      30_000,
    )
    .action(async (options: NodeOptions & { workers: number; logLevel: LogLevel; drainDeadlineMs: number }) => {
      const { runAgent } = await import('./compose-agent.ts');
      ended(await runAgent(options));
    });

  withRun(command('enrol', 'enrol a pod of this node'))
    .requiredOption('--uid <uid>', "the pod's UID")
    .requiredOption('--name <name>', "the pod's name")
    .requiredOption('--namespace <namespace>', "the pod's namespace")
    .requiredOption('--netns <path>', "the pod's network namespace, e.g. /run/netns/cni-1234")
    .requiredOption('--address <address...>', "the pod's addresses")
    .option('--service-account <name>', "the pod's service account", 'default')
    .option('--exclude-outbound-ports <ports>', 'comma-separated', portList, [])
    .option('--exclude-outbound-cidrs <blocks>', 'comma-separated', commaList, [])
    .option('--exclude-inbound-ports <ports>', 'comma-separated', portList, [])
    .option('--exclude-inbound-cidrs <blocks>', 'comma-separated', commaList, [])
    .action(async (options: RunOptions & EnrolOptions) => {
      const { enrol } = await import('./enrol.ts');
      const { run, address, ...pod } = options;
      ended(await enrol({ ...pod, addresses: address }, { run }, output));
    });

  withRun(command('withdraw', 'withdraw a pod of this node; its open connections live on'))
    .argument('<uid>', "the pod's UID")
    .action(async (uid: string, options: RunOptions) => {
      const { withdraw } = await import('./withdraw.ts');
      ended(await withdraw(uid, options, output));
    });

  withRun(command('status', 'what the agent of this node does'))
    .option('--json', 'for machines', false)
    .action(async (options: RunOptions & JsonOption) => {
      const { status } = await import('./status.ts');
      ended(await status(options, output));
    });

  withKernel(command('preflight', 'whether this node can run the agent'))
    .option('--json', 'for machines', false)
    .action(async (options: KernelOptions & JsonOption) => {
      const { runPreflight } = await import('./compose-preflight.ts');
      ended(await runPreflight(options, output));
    });

  withNode(command('uninstall', 'detach and unpin everything, so that nothing is captured any more'))
    .option('--json', 'for machines', false)
    .action(async (options: NodeOptions & JsonOption) => {
      const { runUninstall } = await import('./compose-uninstall.ts');
      ended(await runUninstall(options, output));
    });

  return culvert;
}

/**
 * Runs one command line.
 *
 * @param args without the names of node and script
 */
export async function main(args: readonly string[], output: Output = terminal): Promise<ExitCode> {
  let code: ExitCode = exitCode.ok;
  const culvert = program(output, (ended) => {
    code = ended;
  });
  try {
    if (args.length === 0) throw new CommanderError(exitCode.usage, 'culvert.noCommand', 'no command');
    await culvert.parseAsync([...args], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.code === 'culvert.noCommand') output.error('culvert: name a command; culvert --help lists them\n');
      return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
    }
    output.error(`culvert: ${error instanceof Error ? error.message : String(error)}\n`);
    return isBadRequest(error) ? exitCode.usage : exitCode.failed;
  }
}

interface RunOptions {
  readonly run: string;
}
interface KernelOptions {
  readonly cgroup: string;
  readonly bpffs: string;
}
type NodeOptions = RunOptions & KernelOptions;
interface JsonOption {
  readonly json: boolean;
}
interface EnrolOptions {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly netns: string;
  readonly address: string[];
  readonly serviceAccount: string;
  readonly excludeOutboundPorts: number[];
  readonly excludeOutboundCidrs: string[];
  readonly excludeInboundPorts: number[];
  readonly excludeInboundCidrs: string[];
}

function withRun(command: Command): Command {
  return command.option('--run <dir>', "the agent's run directory", RUN);
}

function withKernel(command: Command): Command {
  return command
    .option('--cgroup <dir>', 'cgroup v2 directory under which sockets are captured', CGROUP)
    .option('--bpffs <dir>', 'mount point of the BPF file system', BPFFS);
}

function withNode(command: Command): Command {
  return withRun(withKernel(command));
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (number >= least && number <= most) return number;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}

function commaList(text: string): string[] {
  return text.split(',').filter((part) => part !== '');
}

function portList(text: string): number[] {
  return commaList(text).map(wholeNumber(1, 65_535));
}

/** What the caller wrote is wrong, so it is a usage error even though the agent's room found it. */
function isBadRequest(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'BAD_REQUEST';
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
