#!/usr/bin/env node
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { codeOf, messageOf } from '../mesh/index.ts';
import { LOG_LEVELS, type LogLevel } from '../telemetry/index.ts';
import { type DashboardFlags, withDashboard } from './dashboard-options.ts';
import { defaultWorkers, MOST_WORKERS } from './default-workers.ts';
import { type ExitCode, exitCode, type Output, terminal } from './exit.ts';
import { addFlowCommands } from './flow-commands.ts';
import { addPolicyCommands } from './policy-command.ts';
import { type TelemetryFlags, telemetryOptions, withTelemetry } from './telemetry-options.ts';
import { version } from './version.ts';

/** Seconds. Below this a renewal that is tried once more would come too late. */
const SHORTEST_LIFE = 5;
/** 90 days (wire contract, section 3.4). */
const LONGEST_LIFE = 7_776_000;
const LEAST_SECONDS = 0.1;
/** 20 days: a timer ends at 24. */
const MOST_SECONDS = 1_728_000;
const RUN = '/run/culvert';
const BPFFS = '/sys/fs/bpf';
const CGROUP = '/sys/fs/cgroup';

/** The commands load their rooms when they run, so that `status` never opens the kernel's side. */
export function program(output: Output, ended: (code: ExitCode) => void): Command {
  const culvert = new Command('culvert');
  culvert
    .description('A sidecarless service mesh: one agent per node')
    .version(version())
    .showHelpAfterError(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.error(text),
      outputError: (text, write) => write(`culvert: ${text.replace(/^error: /, '')}`),
    });
  const command = (name: string, description: string): Command =>
    culvert.command(name).description(description).allowExcessArguments(false);

  withTelemetry(withDashboard(withLog(withNode(command('agent', 'serve the pods of this node until SIGTERM')))))
    .option('--node <name>', "this node's name; together with --control")
    .option('--control <path>', "this node's socket of the control process; without it connections are only relayed")
    .option(
      '--workers <count>',
      'tunnel workers, 1 to 64; default: half of the cores',
      wholeNumber(1, MOST_WORKERS),
      defaultWorkers(),
    )
    .option('--drain <seconds>', 'longest wait for open connections at a stop', seconds, 25)
    .option('--pool-idle <seconds>', 'how long a session without a connection is kept', someSeconds, 300)
    .option(
      '--ping-interval <seconds>',
      "silence of a session's peer before it is asked for a sign of life",
      someSeconds,
      10,
    )
    .option('--ping-timeout <seconds>', 'wait for that sign before the peer counts as gone', someSeconds, 20)
    .addOption(
      new Option('--kernel-path <switch>', 'whether connections that need no encryption go past the tunnel')
        .choices(['on', 'off'])
        .default('on'),
    )
    .option('--admin <place>', 'admin port, [ADDRESS:]PORT on loopback, or off', '127.0.0.1:15000')
    .option(
      '--kubelet-cgroup <dir>',
      "the kubelet's cgroup, whose probes are let in; default: where systemd usually has it",
      absolutePath,
    )
    .option(
      '--flows-per-pod <count>',
      'connections that are remembered of each pod, for flows and explain',
      wholeNumber(1, 100_000),
      1_000,
    )
    .action(
      async (options: NodeOptions & LogOption & AgentOptions & TelemetryFlags & DashboardFlags, self: Command) => {
        const { node, control, poolIdle, pingInterval, pingTimeout, kernelPath, kubeletCgroup, flowsPerPod, ...more } =
          options;
        const { admin, ...rest } = more;
        if ((node === undefined) !== (control === undefined))
          self.error('error: give --node and --control together, or neither');
        if (control === undefined && kubeletCgroup !== undefined)
          self.error(
            'error: --kubelet-cgroup needs --control: without a mesh there is no policy that could refuse a probe',
          );
        const { kubeletFault } = await import('./compose-mesh.ts');
        const fault = kubeletCgroup === undefined ? undefined : kubeletFault(kubeletCgroup);
        if (fault !== undefined) self.error(`error: --kubelet-cgroup: ${fault}`);
        const { adminAddress } = await import('./admin-address.ts');
        const at = adminAddress(admin, (text) => self.error(`error: --admin: ${text}`));
        const { dashboardOptions } = await import('./dashboard-address.ts');
        const dashboard = dashboardOptions(more, (text) => self.error(`error: ${text}`));
        const { runAgent } = await import('./compose-agent.ts');
        const mesh =
          node === undefined || control === undefined
            ? undefined
            : {
                node,
                control,
                poolIdle,
                pingInterval,
                pingTimeout,
                kernelPath: kernelPath === 'on',
                kubeletCgroup,
                flowsPerPod,
              };
        ended(await runAgent({ ...rest, mesh, admin: at, dashboard, telemetry: telemetryOptions(more) }));
      },
    );

  withLog(command('control', 'serve the mesh and its certificates to the agents until SIGTERM'))
    .requiredOption('--manifests <dir>', 'folder of Kubernetes YAML that describes the mesh; edits take effect at once')
    .requiredOption('--ca <dir>', "the CA's keys and certificates; made at the first start")
    .requiredOption('--run <dir>', "directory of the nodes' sockets, <node>.sock, this process's own")
    .option(
      '--certificate-life <seconds>',
      'longest life of a certificate; agents ask for a day, and renew at half of what they get',
      wholeNumber(SHORTEST_LIFE, LONGEST_LIFE),
      LONGEST_LIFE,
    )
    .option('--root-overlap <seconds>', 'how long a new root is trusted before it signs', seconds, 3600)
    .action(async (options: LogOption & ControlOptions) => {
      const { runControl } = await import('./compose-control.ts');
      ended(await runControl(options));
    });

  const ca = command('ca', 'the built-in CA of the control process');
  ca.command('rotate')
    .description('add a root: trusted at once, signed under an hour later')
    .allowExcessArguments(false)
    .requiredOption('--ca <dir>', "the CA's directory, that of the control process")
    .action(async (options: { ca: string }) => {
      const { rotateCa } = await import('./ca.ts');
      ended(await rotateCa(options.ca, output));
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
    .option('--pods', 'all pods, not only those that need a look', false)
    .option('--json', 'for machines; always with all pods', false)
    .action(async (options: RunOptions & JsonOption & { pods: boolean }) => {
      const { status } = await import('./status.ts');
      ended(await status(options, output));
    });

  withRun(command('dashboard', "the addresses of this agent's dashboard, with the token where one is needed")).action(
    async (options: RunOptions) => {
      const { dashboard } = await import('./dashboard.ts');
      ended(await dashboard(options, output));
    },
  );

  withRun(command('config-dump', 'what the agent knows of the mesh, as istioctl ztunnel-config reads it')).action(
    async (options: RunOptions) => {
      const { configDump } = await import('./config-dump.ts');
      ended(await configDump(options, output));
    },
  );

  withRun(command('log-level', "the level of the agent's log; sets it until the agent ends"))
    .argument('[level]', 'a level, or SCOPE=LEVEL, or several of these with commas in between')
    .option('--reset', 'as the agent was started', false)
    .action(async (level: string | undefined, options: RunOptions & { reset: boolean }, self: Command) => {
      if (level !== undefined && options.reset) self.error('error: give a level or --reset, not both');
      const { logLevel } = await import('./log-level.ts');
      ended(await logLevel(level, options, output));
    });

  addFlowCommands(
    {
      flows: command('flows', 'the connections of pods of this node that ended last'),
      explain: command('explain', 'what becomes of a connection and why, or what became of one'),
    },
    RUN,
    output,
    ended,
  );
  addPolicyCommands(command('policy', 'who may connect to whom: check, test, replay'), RUN, output, ended);

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
    output.error(`culvert: ${messageOf(error)}\n`);
    return isBadRequest(error) ? exitCode.usage : exitCode.failed;
  }
}

interface RunOptions {
  readonly run: string;
}
interface LogOption {
  readonly logLevel: LogLevel;
}
interface AgentOptions {
  readonly workers: number;
  readonly node?: string;
  readonly control?: string;
  /** Seconds, as all that follow. */
  readonly drain: number;
  readonly poolIdle: number;
  readonly pingInterval: number;
  readonly pingTimeout: number;
  readonly kernelPath: 'on' | 'off';
  readonly kubeletCgroup?: string;
  readonly admin: string;
  readonly flowsPerPod: number;
}
interface ControlOptions {
  readonly manifests: string;
  readonly ca: string;
  readonly run: string;
  /** Seconds. */
  readonly certificateLife: number;
  /** Seconds. */
  readonly rootOverlap: number;
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

function withLog(command: Command): Command {
  return command.addOption(
    new Option('--log-level <level>', 'least severe level that is logged').choices([...LOG_LEVELS]).default('info'),
  );
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

/** Any length, with a fraction if need be. */
function seconds(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be a number of seconds.');
}

/** More than none, and within what a timer can wait. */
function someSeconds(text: string): number {
  const number = seconds(text);
  if (number >= LEAST_SECONDS && number <= MOST_SECONDS) return number;
  throw new InvalidArgumentError(`It must be from ${LEAST_SECONDS} to ${MOST_SECONDS} seconds.`);
}

function absolutePath(text: string): string {
  if (text.startsWith('/')) return text;
  throw new InvalidArgumentError('It must be an absolute path.');
}

function commaList(text: string): string[] {
  return text.split(',').filter((part) => part !== '');
}

function portList(text: string): number[] {
  return commaList(text).map(wholeNumber(1, 65_535));
}

/** What the caller wrote is wrong, so it is a usage error even though the agent's room found it. */
function isBadRequest(error: unknown): boolean {
  return codeOf(error) === 'BAD_REQUEST';
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
