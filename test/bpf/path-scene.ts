/**
 * Pods whose connections may go past the agent, without an agent: this process listens as one, and what an agent would
 * write into the maps is written by hand. Whoever is connected is told by whom: the app, or the agent's listener.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import * as addon from '../../native/addon/index.js';
import { parsePod } from '../../src/agent/index.ts';
import { encodePodUsage, podFlag } from '../../src/gen/layout.ts';
import { u32, u64 } from '../../src/kernel/bytes.ts';
import { attachType } from '../../src/kernel/constants.ts';
import { netnsCookie } from '../../src/kernel/cookie.ts';
import { createPodSockets, type Kernel, openKernel, type PodSockets, removePrograms } from '../../src/kernel/index.ts';
import { openNetns } from '../../src/kernel/netns.ts';
import { pinPaths, redirectObject } from '../../src/kernel/paths.ts';
import { mapNames, openWithPinnedMaps } from '../../src/kernel/programs.ts';
import { type Address, type Endpoint, encodeAddress } from '../../src/mesh/index.ts';
import { enterCgroup } from '../contract/enter-cgroup.ts';
import { Lab, type LabNode, type LabPod } from '../lab/index.ts';
import { LabProcess, type Place } from '../lab/process.ts';
import { labOptions } from '../node/conversation.ts';
import { appPort, PathMaps, second } from './path-maps.ts';

type Order = Readonly<Record<string, unknown>> & { readonly do: string };
export type Told = Readonly<Record<string, string | number | null | undefined>>;

/** A process in a pod, or on the node, that makes and accepts connections. */
export class Party {
  readonly process: LabProcess;

  constructor(place: Place, options: { restricted?: boolean } = {}) {
    this.process = new LabProcess(place, ['/usr/bin/python3', join(import.meta.dirname, 'parties.py')], options);
  }

  async ask(order: Order): Promise<Told> {
    const next = this.process.json();
    this.process.write(`${JSON.stringify(order)}\n`);
    return (await next) as Told;
  }
}

export interface Connect {
  readonly to: string;
  readonly port?: number;
  /** Of the connection, to be told apart by later orders. Default `it`. */
  readonly name?: string;
  readonly mapped?: boolean;
  readonly bind?: string;
  readonly bindPort?: number;
  readonly device?: string;
  readonly mptcp?: boolean;
  readonly fastopen?: 'connect' | 'sendto';
  readonly again?: boolean;
  readonly start?: boolean;
  readonly userMs?: number;
}

/** By whom a client was answered, or the error that it got. */
export interface Answer {
  readonly who: string;
  /** As the answering end has them. */
  readonly peer?: string;
  readonly local?: string;
  /** As the agent was told at its outbound listener. */
  readonly asked?: string;
  readonly picked?: string;
  /** As the client has them. */
  readonly shown?: string;
  readonly from?: string;
}

/** An enrolled pod, or a stranger of which the kernel side knows nothing. */
export interface Seat {
  readonly pod: LabPod;
  readonly cookie: bigint;
  readonly party: Party;
}

const plain = (address: string | undefined): string => (address ?? '').replace('::ffff:', '');
export const written = (address: string, port: number | undefined): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
function textOf({ address, port }: Endpoint): string {
  return written(plain(address), port);
}

export class PathScene extends PathMaps implements AsyncDisposable {
  readonly lab: Lab;
  readonly node: LabNode;
  readonly client: Seat;
  readonly server: Seat;
  readonly other: Seat;
  /** Not enrolled: for its pod neighbours it is the world outside. */
  readonly stranger: Seat;
  readonly #sockets: PodSockets;
  readonly #undo: DisposableStack;

  private constructor(
    lab: Lab,
    node: LabNode,
    kernel: Kernel,
    undo: DisposableStack,
    seats: readonly [Seat, Seat, Seat, Seat],
  ) {
    super(node.bpffs, kernel);
    this.lab = lab;
    this.node = node;
    this.#undo = undo;
    [this.client, this.server, this.other, this.stranger] = seats;
    this.#sockets = createPodSockets(node.bpffs);
    undo.defer(() => this.#sockets.close());
    undo.defer(() => this.closeMaps());
  }

  static async create(title: string): Promise<PathScene> {
    const undo = new DisposableStack();
    const lab = await Lab.create(title, labOptions);
    try {
      const node = await lab.node('n1');
      undo.defer(enterCgroup(node));
      const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
      undo.defer(() => removePrograms(node.bpffs));
      undo.defer(() => kernel.dispose());
      takeForHost(node);
      const seat = async (name: string): Promise<Seat> => {
        const pod = await node.pod(name);
        const { netnsFd } = openNetns(pod.netns);
        const cookie = netnsCookie(netnsFd);
        closeSync(netnsFd);
        const party = new Party(pod, { restricted: true });
        for (const bind of pod.addresses) await party.ask({ do: 'listen', bind, port: appPort });
        return { pod, cookie, party };
      };
      const seats = [await seat('client'), await seat('server'), await seat('other'), await seat('stranger')] as const;
      const scene = new PathScene(lab, node, kernel, undo, seats);
      for (const { pod } of seats.slice(0, 3)) scene.#enrol(pod);
      scene.begin();
      return scene;
    } catch (error) {
      undo.dispose();
      await lab.dispose();
      throw error;
    }
  }

  /** Enrols a pod, and answers at its agent's listeners. */
  #enrol(pod: LabPod): void {
    const request = parsePod(pod.request());
    const { cookie, listeners } = this.kernel.prepare(request);
    this.kernel.capture(request, cookie);
    for (const { port, fd } of listeners) {
      const server = net.createServer({ allowHalfOpen: true }, (socket) => {
        socket.on('error', () => undefined);
        socket.end(`${JSON.stringify(this.#seen(socket, port))}\n`);
        socket.resume();
      });
      server.listen({ fd: addon.duplicate(fd) });
      this.#undo.defer(() => void server.close());
    }
  }

  #seen(socket: net.Socket, port: number): Answer {
    const who = port === 15_001 ? 'outbound' : port === 15_006 ? 'inbound' : 'hbone';
    const asked = who === 'outbound' ? this.#sockets.originalDestination(socket) : undefined;
    return {
      who,
      peer: written(plain(socket.remoteAddress), socket.remotePort),
      local: written(plain(socket.localAddress), socket.localPort),
      ...(asked === undefined ? {} : { asked: textOf(asked.endpoint) }),
      ...(asked?.picked === undefined ? {} : { picked: textOf(asked.picked) }),
    };
  }

  /** Nothing decided; all pods on the kernel path, all epochs 1, the agent alive. */
  begin(): void {
    for (const name of ['verdicts', 'services', 'open_ports', 'flows'])
      for (const key of this.keys(name)) addon.mapDelete(this.map(name), key);
    for (const { cookie } of [this.client, this.server, this.other]) {
      this.setPod(cookie, (pod) => ({ flags: pod.flags | podFlag.KERNEL_PATH }));
      this.setEpoch(cookie, 1n);
      addon.mapUpdate(
        this.map('pod_usage'),
        u64(cookie),
        encodePodUsage({ ...this.usage(cookie), flowsBegun: 0n, flowsOver: 0n }),
      );
    }
    this.setEpoch(0n, 1n);
    this.setKubelet(0n);
    this.beat(-3600n * second);
    this.records();
    this.events();
  }

  /** An address of each family that the pod has and of which nobody was told. */
  async addAddresses({ pod }: Seat): Promise<readonly [string, string]> {
    const ordinal = 51_200 + this.node.pods.indexOf(pod);
    const [ipv4, ipv6] = [this.node.ipv4Of(ordinal), this.node.ipv6Of(ordinal)];
    await asRoot(pod, ['ip', 'address', 'replace', `${ipv4}/16`, 'dev', 'eth0']);
    await asRoot(pod, ['ip', 'address', 'replace', `${ipv6}/64`, 'dev', 'eth0', 'nodad']);
    return [ipv4, ipv6];
  }

  /** Handshakes under way at a pod: SYNs that were let through and answered. */
  halfOpen({ party }: Seat): number {
    const lines = ['tcp', 'tcp6'].map((name) => readFileSync(`/proc/${party.process.pid}/net/${name}`, 'utf8'));
    return lines.flatMap((text) => text.split('\n')).filter((line) => line.trim().split(/\s+/)[3] === '03').length;
  }

  /** Destroys one end of a connection, as the agent does. True if there was one. */
  destroy({ pod }: Seat, cookie: bigint, local: string, remote: string): boolean {
    const netnsFd = openSync(pod.netns, 'r');
    try {
      const ends = [local, remote].map((text) => {
        const colon = text.lastIndexOf(':');
        const address = text.slice(0, colon).replace(/^\[|\]$/g, '');
        return [encodeAddress(address as Address), u32(Number(text.slice(colon + 1)))];
      });
      return addon.sockDiag(netnsFd, 'destroy', Buffer.concat([...ends.flat(), u64(cookie)]))[0] === 1;
    } finally {
      closeSync(netnsFd);
    }
  }

  /** Attaches another owner's program beside ours, and returns what takes it away. */
  foreignSockops(): () => void {
    const file = join(this.lab.directory, 'foreign.bpf.o');
    const include = `/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
    const source = join(import.meta.dirname, 'foreign.bpf.c');
    execFileSync('clang', ['-target', 'bpf', '-O2', '-g', '-idirafter', include, '-c', source, '-o', file]);
    const object = addon.objectOpen(file);
    addon.objectLoad(object);
    const cgroupFd = openSync(this.node.cgroup, 'r');
    const link = addon.linkAttach(object, 'on_foreign', cgroupFd, attachType.sockOps);
    closeSync(cgroupFd);
    return () => {
      addon.close(link);
      addon.close(object);
    };
  }

  // --- connections ---------------------------------------------------------------------------------------------------------

  /** Connects, and hears from whoever has accepted. */
  async connect(party: Party, row: Connect): Promise<Answer> {
    const { name = 'it', port = appPort } = row;
    const said = await party.ask({ do: 'connect', ...row, name, port });
    if (said.error !== undefined) return { who: String(said.error) };
    return await this.answer(party, name, said);
  }

  async answer(party: Party, name = 'it', said: Told = {}): Promise<Answer> {
    const { line, error } = await party.ask({ do: 'hear', name });
    if (typeof line !== 'string') return { who: String(error ?? 'EOF') };
    return {
      ...(JSON.parse(line) as Answer),
      ...(said.peer === undefined ? {} : { shown: String(said.peer) }),
      ...(said.local === undefined ? {} : { from: String(said.local) }),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#undo.dispose();
    return this.lab.dispose();
  }
}

/** Runs something in a pod with all capabilities. */
export async function asRoot(pod: LabPod, argv: string[]): Promise<void> {
  const { code, stderr } = await pod.exec(argv, { restricted: false });
  if (code !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
}

/** Drops packets in a pod until it is told to stop. */
export async function dropping(pod: LabPod, chain: 'input' | 'output', match: string): Promise<() => Promise<void>> {
  const table = `nft add table ip loss && nft 'add chain ip loss c { type filter hook ${chain} priority 0; }'`;
  await asRoot(pod, ['sh', '-c', `${table} && nft add rule ip loss c ${match} drop`]);
  return () => asRoot(pod, ['nft', 'delete', 'table', 'ip', 'loss']);
}

/** Maps tell nobody of a change. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** The programs take the namespace of who loads them for the host's: here it is the node's. */
function takeForHost(node: LabNode): void {
  const paths = pinPaths(node.bpffs);
  const object = openWithPinnedMaps(redirectObject, paths, mapNames);
  const netnsFd = openSync(node.netns, 'r');
  addon.objectSetGlobal(object, 'has_mptcp', Uint8Array.of(1));
  addon.objectSetGlobal(object, 'host_netns', u64(netnsCookie(netnsFd)));
  closeSync(netnsFd);
  addon.objectLoad(object);
  for (const name of ['on_connect4', 'on_connect6', 'on_sockops']) {
    const link = addon.pinOpen(join(paths.links, name), 'link');
    addon.linkUpdate(link, object, name);
    addon.close(link);
  }
  addon.close(object);
}
