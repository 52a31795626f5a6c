/** What an agent holds in the kernel, read from outside of it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { limit } from '../../src/gen/layout.ts';
import { command } from '../lab/command.ts';
import type { LabAgent, LabNode, LabPod } from '../lab/index.ts';

/** Longest wait for what should happen at once: a guard against hanging. */
const hangMs = 60_000;
const lookAgainMs = 20;
const sameInARow = 25;

/** Maps whose entries can be listed; socket storage and the ring buffer have no keys. */
const listed = [
  'pods',
  'pod_usage',
  'handovers',
  'listeners',
  'excluded_ports',
  'excluded_cidrs',
  'counters',
  'cgroups',
] as const;

export type Entries = Readonly<Record<(typeof listed)[number], number>>;

/** As `bpftool map dump` gives an empty map of each. */
export const noEntries: Entries = {
  pods: 0,
  pod_usage: 0,
  handovers: 0,
  listeners: 0,
  excluded_ports: 0,
  excluded_cidrs: 0,
  counters: 0,
  cgroups: 0,
};

/** How many entries each of the node's maps has. */
export async function entries(node: LabNode): Promise<Entries> {
  const counted = await Promise.all(
    listed.map(async (name) => {
      const path = join(pinRoot(node), 'maps', name);
      const dump: unknown = JSON.parse(await command(['bpftool', '-j', 'map', 'dump', 'pinned', path]));
      return [name, Array.isArray(dump) ? dump.length : -1] as const;
    }),
  );
  return Object.fromEntries(counted) as Record<(typeof listed)[number], number>;
}

/** Where the node's agent pins what is its own. */
export function pinRoot(node: LabNode): string {
  return join(node.bpffs, 'culvert', `v${limit.SCHEMA}`);
}

/** Pins of pods' lookup links: their netns cookies. */
export function podPins(node: LabNode): string[] {
  return readdirSync(join(pinRoot(node), 'pods')).sort();
}

/** What the agent's descriptors lead to, sorted, without the numbers that tell one socket from another. */
export function descriptors(agent: LabAgent): string[] {
  const directory = `/proc/${agent.process.pid}/fd`;
  return readdirSync(directory)
    .flatMap((fd) => {
      try {
        return [readlinkSync(join(directory, fd)).replace(/:\[\d+\]$/, '')];
      } catch {
        return []; // closed meanwhile
      }
    })
    .sort();
}

/** Resident memory of an agent, in bytes: now (VmRSS) or at its highest (VmHWM). */
export function residentBytes(agent: LabAgent, which: 'VmRSS' | 'VmHWM' = 'VmRSS'): number {
  const status = readFileSync(`/proc/${agent.process.pid}/status`, 'utf8');
  return Number(new RegExp(`${which}:\\s+(\\d+)`).exec(status)?.[1]) * 1024;
}

/** The agent's sockets that listen in a pod, each with its port and inode. */
export async function agentListeners(pod: LabPod, ports: readonly number[] = agentPorts): Promise<string[]> {
  const { stdout } = await pod.exec(['ss', '-ltneH', `( ${ports.map((port) => `sport = :${port}`).join(' or ')} )`]);
  return [...stdout.matchAll(/:(15\d+) .* ino:(\d+)/g)].map(([, port, inode]) => `${port} ${inode}`).sort();
}

const agentPorts = [15001, 15006, 15008];

/** Links of the whole kernel that lead to a network namespace, by its inode. */
export async function lookupLinks(netnsInode: number): Promise<number> {
  const links: unknown = JSON.parse(await command(['bpftool', '-j', 'link', 'show']));
  return (Array.isArray(links) ? links : []).filter((link) => link.netns_ino === netnsInode).length;
}

/** Waits until `probe` gives what is wanted. The last thing it gave is returned: compare it. */
export async function settled<T>(probe: () => T | Promise<T>, wanted: (value: T) => boolean): Promise<T> {
  const deadline = Date.now() + hangMs;
  for (;;) {
    const value = await probe();
    if (wanted(value) || Date.now() > deadline) return value;
    await pause(lookAgainMs);
  }
}

/** Waits until `probe` gives the same several times in a row. */
export async function steady<T>(probe: () => T | Promise<T>): Promise<T> {
  let last = JSON.stringify(await probe());
  let same = 0;
  return settled(probe, (value) => {
    const now = JSON.stringify(value);
    same = now === last ? same + 1 : 0;
    last = now;
    return same === sameInARow;
  });
}

/** As much of the agent's `status` as the tests read. */
export interface Status {
  readonly agent: { readonly pid: number; readonly state: string };
  readonly pods: ReadonlyArray<{
    readonly uid: string;
    readonly path: string;
    readonly netnsCookie?: string;
    readonly openConnections: number;
    readonly error?: string;
  }>;
  readonly unclaimed: readonly string[];
  readonly workers: ReadonlyArray<{ readonly state: string; readonly openConnections: number }>;
  readonly totals: { readonly accepted: number; readonly closed: number; readonly failed: number };
}

export async function statusOf(agent: LabAgent): Promise<Status> {
  const { status } = await agent.status();
  return status as Status;
}

/** Connections that pass the agent, those of withdrawn pods too. */
export async function relayed(agent: LabAgent): Promise<number> {
  return (await statusOf(agent)).workers.reduce((sum, { openConnections }) => sum + openConnections, 0);
}

/** Connections that the agent has accepted since it was started. */
export async function accepted(agent: LabAgent): Promise<number> {
  return (await statusOf(agent)).totals.accepted;
}

/** True when the node's end of a pod's link is gone: then the kernel has freed the pod's namespace. */
export async function isFreed(pod: LabPod): Promise<boolean> {
  const { code } = await pod.node.exec(['ip', 'link', 'show', 'dev', pod.nodeInterface]);
  return code !== 0;
}
