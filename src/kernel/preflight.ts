import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import * as addon from '../../native/addon/index.js';
import { agentPort } from '../gen/layout.ts';
import { messageOf } from '../mesh/index.ts';
import { attachType } from './constants.ts';
import { bpfFileSystem, pinnedProgramIds } from './programs.ts';
import { selfTest } from './self-test.ts';

/** One line of the preflight report. A `warning` does not keep the agent from running. */
export interface Check {
  readonly check: string;
  readonly result: 'ok' | 'warning' | 'failed';
  /** What was found, and where it is not ok what to do. */
  readonly detail: string;
}

export interface PreflightOptions {
  readonly cgroup: string;
  readonly bpffs: string;
}

const ok = (check: string, detail: string): Check => ({ check, result: 'ok', detail });
const warning = (check: string, detail: string): Check => ({ check, result: 'warning', detail });
const failed = (check: string, detail: string): Check => ({ check, result: 'failed', detail });

/** Bits of linux/capability.h that the agent needs. */
const capabilities = { CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21, CAP_PERFMON: 38, CAP_BPF: 39 } as const;

/** The floor of docs/kernel.md. Behaviour decides; the version only explains a failed self-test. */
const oldestKernel = [6, 1] as const;

function kernelVersion(): Check {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const old = major < oldestKernel[0] || (major === oldestKernel[0] && minor < oldestKernel[1]);
  return old
    ? warning(
        'kernel',
        `${release()} is older than ${oldestKernel.join('.')}: only the self-test can tell whether it is fit`,
      )
    : ok('kernel', release());
}

function btf(): Check {
  const path = '/sys/kernel/btf/vmlinux';
  return existsSync(path)
    ? ok('BTF', path)
    : failed('BTF', `${path} is missing: use a kernel with CONFIG_DEBUG_INFO_BTF=y`);
}

function effectiveCapabilities(): Check {
  const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const held = BigInt(`0x${line}`);
  const missing = Object.entries(capabilities).flatMap(([name, bit]) => ((held >> BigInt(bit)) & 1n ? [] : [name]));
  return missing.length === 0
    ? ok('capabilities', Object.keys(capabilities).join(', '))
    : failed('capabilities', `${missing.join(', ')} missing: run as root, or grant them in the DaemonSet`);
}

function cgroup(path: string): Check {
  return existsSync(join(path, 'cgroup.controllers'))
    ? ok('cgroup v2', path)
    : failed(
        'cgroup v2',
        `${path} is not a cgroup v2 directory: mount it (mount -t cgroup2 none DIR) and give it with --cgroup`,
      );
}

function bpffs(path: string): Check {
  const advice = 'mount one (mount -t bpf bpf DIR) and give it with --bpffs';
  if (!existsSync(path)) return failed('BPF file system', `${path} does not exist: ${advice}`);
  return statfsSync(path).type === bpfFileSystem
    ? ok('BPF file system', path)
    : failed('BPF file system', `${path} is not one: ${advice}`);
}

/** Prefixes of the program names of well-known socket load balancers. */
const socketLoadBalancers = {
  cil_: 'Cilium',
  calico_: 'Calico',
  cali_: 'Calico',
  sock4_: 'Cilium',
  sock6_: 'Cilium',
} as const;

/** Other owners' programs at our hooks. They stay where they are; the report says who runs beside us. */
function otherOwners(path: string, bpffs: string): Check {
  const name = 'other programs at our hooks';
  // By id: anybody may give a program a name of ours.
  const own = pinnedProgramIds(bpffs);
  const fd = openSync(path, 'r');
  try {
    const found = Object.entries(attachType)
      .filter(([hook]) => hook !== 'skLookup')
      .flatMap(([hook, type]) =>
        addon
          .attachedPrograms(fd, type)
          .filter((program) => !own.has(program.id))
          .map((program) => `${hook}: ${program.name} (id ${program.id})`),
      );
    if (found.length === 0) return ok(name, 'none');
    const balancer = Object.entries(socketLoadBalancers).find(([prefix]) =>
      found.some((text) => text.includes(` ${prefix}`)),
    );
    return warning(
      name,
      `${balancer === undefined ? '' : `socket load balancer: ${balancer[1]}; `}${found.join(', ')}`,
    );
  } finally {
    closeSync(fd);
  }
}

const agentPorts: ReadonlySet<number> = new Set(Object.values(agentPort));

/** Ports with a listening socket in a process's network namespace (proc_net_tcp: state 0A). */
function listeningPorts(pid: string): number[] {
  return ['tcp', 'tcp6'].flatMap((file) => {
    try {
      return readFileSync(`/proc/${pid}/net/${file}`, 'utf8')
        .split('\n')
        .slice(1)
        .flatMap((line) => {
          const [, local, , state] = line.trim().split(/\s+/);
          return state === '0A' && local !== undefined ? [Number.parseInt(local.split(':')[1] ?? '0', 16)] : [];
        });
    } catch {
      return []; // the process has just ended, or the kernel has no IPv6
    }
  });
}

/** Apps in other namespaces that listen on ports which an enrolled pod must leave to the agent. */
function conflictingListeners(): Check {
  const name = 'conflicting listeners';
  const seen = new Set<string>([readlinkSync('/proc/self/ns/net')]);
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    let netns: string;
    try {
      netns = readlinkSync(`/proc/${pid}/ns/net`);
    } catch {
      continue; // ended meanwhile
    }
    if (seen.has(netns)) continue;
    seen.add(netns);
    for (const port of new Set(listeningPorts(pid)))
      if (agentPorts.has(port)) found.push(`port ${port} in ${netns} (process ${pid})`);
  }
  if (found.length === 0) return ok(name, 'none');
  return warning(
    name,
    `${found.join(', ')}: in a pod that is enrolled by another agent this is as it should be; otherwise its app must move`,
  );
}

/** What an agent that starts can tell of its kernel without holding anybody up; whether its programs run shows at once. */
export function surroundings(options: PreflightOptions): Check[] {
  try {
    const checks = basics(options);
    return hasFailed(checks) ? checks : [...checks, otherOwners(options.cgroup, options.bpffs)];
  } catch (error) {
    return [failed('preflight', messageOf(error))];
  }
}

function basics(options: PreflightOptions): Check[] {
  return [kernelVersion(), btf(), effectiveCapabilities(), cgroup(options.cgroup), bpffs(options.bpffs)];
}

function hasFailed(checks: readonly Check[]): boolean {
  return checks.some(({ result }) => result === 'failed');
}

/**
 * Whether this node can run the agent. Changes nothing that stays: the self-test cleans up after itself.
 *
 * @returns the report; the node is fit when no check has failed
 */
export async function preflight(options: PreflightOptions): Promise<Check[]> {
  const checks = basics(options);
  if (hasFailed(checks)) return [...checks, failed('self-test', 'not tried: mend the above first')];
  const trials = await selfTest(options);
  return [
    ...checks,
    otherOwners(options.cgroup, options.bpffs),
    conflictingListeners(),
    ...trials.map(({ trial, passed, found }) => (passed ? ok : failed)(`self-test: ${trial}`, found)),
  ];
}
