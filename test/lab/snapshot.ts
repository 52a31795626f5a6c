/** What is attached, loaded, pinned, configured and listening, as comparable text: to show that an agent has left nothing. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { command, shellIn } from './command.ts';
import type { LabNode } from './node.ts';

/** Each a sorted list of lines; two snapshots are equal if nothing was left or lost. */
export interface Snapshot {
  /** Programs of the whole kernel: `id type name`. */
  readonly programs: readonly string[];
  /** Links of the whole kernel: `id type program`. */
  readonly links: readonly string[];
  /** Maps of the whole kernel: `id type name`. */
  readonly maps: readonly string[];
  /** Programs attached in the node's cgroup subtree: `cgroup id attach-type`. */
  readonly attached: readonly string[];
  /** Paths in the node's bpffs directory. */
  readonly pins: readonly string[];
  /** Files in the node's run directory. */
  readonly files: readonly string[];
  /** nft rules, `ip rule` and routes of the node's and its pods' namespaces: `namespace: line`. */
  readonly rules: readonly string[];
  /** Listening TCP sockets of the same: `namespace: address`. */
  readonly listeners: readonly string[];
}

interface Row {
  id?: number;
  type?: string;
  name?: string;
  prog_id?: number;
  cgroup?: string;
  attach_type?: string;
  programs?: Row[];
}

async function bpftool(...argv: readonly string[]): Promise<Row[]> {
  const output = await command(['bpftool', '-j', ...argv]);
  const rows: unknown = output.trim() === '' ? [] : JSON.parse(output);
  return Array.isArray(rows) ? (rows as Row[]) : [];
}

/** Empty for a directory that is not there: `culvert uninstall` removes the run directory. */
function below(directory: string): string[] {
  return !existsSync(directory) ? [] : readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
}

/** Takes stock of a node. */
export async function snapshot(node: LabNode): Promise<Snapshot> {
  const [programs, links, maps, tree] = await Promise.all([
    bpftool('prog', 'show'),
    bpftool('link', 'show'),
    bpftool('map', 'show'),
    bpftool('cgroup', 'tree', node.cgroup),
  ]);
  const rules: string[] = [];
  const listeners: string[] = [];
  for (const { name, netns } of [{ name: node.name, netns: node.netns }, ...node.pods]) {
    const config = await shellIn(
      netns,
      'nft --stateless list ruleset; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all',
    );
    const said = await shellIn(netns, 'ss --no-header --listening --tcp --numeric');
    rules.push(...lines(config).map((line) => `${name}: ${line}`));
    listeners.push(
      ...lines(said)
        .map((line) => `${name}: ${line.split(/\s+/)[3]}`)
        .sort(),
    );
  }
  return {
    programs: programs.map((row) => `${row.id} ${row.type} ${row.name ?? ''}`),
    links: links.map((row) => `${row.id} ${row.type} ${row.prog_id}`),
    maps: maps.map((row) => `${row.id} ${row.type} ${row.name ?? ''}`),
    attached: tree
      .flatMap((row) => (row.programs ?? []).map((each) => `${row.cgroup} ${each.id} ${each.attach_type}`))
      .sort(),
    pins: below(node.bpffs),
    files: below(node.runDirectory).map((path) => join('.', path)),
    rules,
    listeners,
  };
}

/** Lines without those that the kernel changes by itself: learned neighbours, counters, expiry. */
function lines(output: string): string[] {
  return output
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '' && !line.includes(' expires '));
}
