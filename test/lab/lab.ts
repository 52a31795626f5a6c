/** The lab: nodes, pods and links on one kernel, made for one test and gone after it. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Capture } from './capture.ts';
import { command } from './command.ts';
import { compile } from './compile.ts';
import { type ControlOptions, LabControl } from './control.ts';
import { LabLink, type LinkOptions } from './link.ts';
import { takeLock } from './lock.ts';
import { cgroupMount, cgroupName, LabError, type LabId, labsDirectory, newLabId } from './names.ts';
import { LabNode } from './node.ts';
import type { LabPod } from './pod.ts';
import { LabProcess } from './process.ts';
import { removeLab, sweep } from './remnants.ts';

export interface LabOptions {
  /** How long to wait for another lab to end. Default: ten minutes. */
  lockWaitMs?: number;
  /** Run beside other labs. Default: false. For use by hand, never in tests. */
  shared?: boolean;
}

const defaultLockWaitMs = 600_000;
const mostLinks = 255;
const mostNodes = 200;

/** Labs of this process that exist, for its last breath. */
const living = new Map<LabId, Lab>();

export class Lab implements AsyncDisposable {
  readonly id: LabId;
  /** Run directory of the whole lab. */
  readonly directory: string;
  /** Cgroup of the whole lab; never the machine's root. */
  readonly cgroup: string;
  /** Cgroup of what the lab itself runs: forwarders and captures. */
  readonly toolsCgroup: string;
  /** Mount point of the lab's own bpffs. */
  readonly bpffs: string;
  readonly #nodes = new Map<string, LabNode>();
  readonly #links: LabLink[] = [];
  readonly #unlock: () => Promise<void>;
  #captures = 0;

  private constructor(id: LabId, unlock: () => Promise<void>) {
    this.id = id;
    this.directory = join(labsDirectory, id);
    this.cgroup = join(cgroupMount(), cgroupName(id));
    this.toolsCgroup = join(this.cgroup, 'tools');
    this.bpffs = join(this.directory, 'bpf');
    this.#unlock = unlock;
  }

  /**
   * Makes an empty lab: waits until no other runs, and removes what labs of dead processes have left.
   *
   * @param title who it is for, shown to those that wait
   */
  static async create(title = 'a lab', options: LabOptions = {}): Promise<Lab> {
    if (process.geteuid?.() !== 0)
      throw new LabError('the lab needs root: it makes network namespaces, cgroups and mounts');
    const unlock = options.shared
      ? async () => undefined
      : await takeLock(title, options.lockWaitMs ?? defaultLockWaitMs);
    const lab = new Lab(newLabId(), unlock);
    watchForTheEnd();
    living.set(lab.id, lab);
    try {
      sweep();
      await mkdir(lab.bpffs, { recursive: true });
      await mkdir(lab.toolsCgroup, { recursive: true });
      await command(['mount', '-t', 'bpf', '-o', 'mode=0700', 'bpf', lab.bpffs]);
    } catch (cause) {
      await lab.dispose();
      throw new LabError('cannot make a lab', { cause });
    }
    return lab;
  }

  get nodes(): readonly LabNode[] {
    return [...this.#nodes.values()];
  }

  get links(): readonly LabLink[] {
    return this.#links;
  }

  /** Makes a node. */
  async node(name: string): Promise<LabNode> {
    if (this.#nodes.has(name)) throw new LabError(`the lab has a node ${name} already`);
    if (this.#nodes.size === mostNodes) throw new LabError(`a lab has room for ${mostNodes} nodes`);
    const node = new LabNode(this, name, this.#nodes.size + 1);
    this.#nodes.set(name, node);
    await node.make();
    return node;
  }

  /** Joins two nodes; their pods reach each other by routes. A third node is not reached through them. */
  async link(one: LabNode, other: LabNode, options: LinkOptions = {}): Promise<LabLink> {
    if (this.#links.length === mostLinks) throw new LabError(`a lab has room for ${mostLinks} links`);
    const link = new LabLink(this, [one, other], this.#links.length, options);
    this.#links.push(link);
    await link.make();
    return link;
  }

  /**
   * Captures what crosses a link (seen from its first node), or an interface of a pod or node.
   *
   * @param interfaceName default: `eth0` of a pod, `pods` (the bridge) of a node. `lo` shows each packet once.
   */
  async capture(target: LabLink | LabPod | LabNode, interfaceName?: string): Promise<Capture> {
    const program = await compile('capture/capture.c');
    this.#captures += 1;
    const file = join(this.directory, `capture-${this.#captures}.pcap`);
    const netns = target instanceof LabLink ? target.nodes[0].netns : target.netns;
    const usual = target instanceof LabLink ? target.interfaces[0] : target instanceof LabNode ? 'pods' : 'eth0';
    const running = new LabProcess({ netns, cgroup: this.toolsCgroup }, [program, file, interfaceName ?? usual]);
    await running.line(/^ready$/);
    return new Capture(running, file);
  }

  /** Starts the lab's control process and waits until it is ready. One per lab. */
  control(options: ControlOptions = {}): Promise<LabControl> {
    return LabControl.start(this, options);
  }

  /** Removes the lab, whole. Calling it twice does nothing. */
  async dispose(): Promise<void> {
    if (!living.has(this.id)) return;
    removeLab(this.id);
    living.delete(this.id);
    await this.#unlock();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/**
 * Goes on with what is made in several steps: a lab and what is in it. If that fails it is removed, for nobody else has it
 * yet who could; and what is left of a lab keeps its test file from ending.
 *
 * @returns what `steps` returns
 */
export async function furnish<Made extends AsyncDisposable, Result>(
  made: Made,
  steps: (made: Made) => Promise<Result>,
): Promise<Result> {
  try {
    return await steps(made);
  } catch (error) {
    await made[Symbol.asyncDispose]();
    throw error;
  }
}

let watching = false;

/**
 * Labs end with their process, whatever ends it. `exit` covers its own end and an uncaught error; signals have no `exit` by
 * themselves. SIGKILL is covered by the next lab's sweep.
 */
function watchForTheEnd(): void {
  if (watching) return;
  watching = true;
  process.once('exit', removeAll);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      removeAll();
      process.kill(process.pid, signal);
    });
}

function removeAll(): void {
  for (const id of living.keys()) removeLab(id);
  living.clear();
}
