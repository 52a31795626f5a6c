/** The culvert agent of a lab node, started from the sources, and the socket it is spoken to by. */
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './compile.ts';
import type { LabControl } from './control.ts';
import { LabError } from './names.ts';
import type { LabNode } from './node.ts';
import type { LabPod, PodRequest } from './pod.ts';
import { type Exit, LabProcess, type ToldOptions } from './process.ts';

export interface AgentOptions {
  /** Tunnel workers. Default: 2. */
  workers?: number;
  /** The control process that it follows, under the lab node's name. Default: none, so that it only relays. */
  control?: LabControl;
  /**
   * Whether connections may go past the tunnel; needs a control process. Default: not, so that a test sees the tunnel unless
   * it asks for more.
   */
  kernelPath?: boolean;
  /** The kubelet's cgroup. Default: none, since a lab node's cgroup has none of the usual ones. */
  kubeletCgroup?: string;
  /** Further arguments of `culvert agent`. */
  args?: readonly string[];
  /** Default: `debug`. */
  logLevel?: string;
  /** RLIMIT_NOFILE. Default: the hard limit of this process. */
  maxFiles?: number;
  env?: Readonly<Record<string, string>>;
  /** Arguments of Node itself, before the script. */
  nodeArgs?: readonly string[];
  /** How long it may take to be ready. Default: 20 s. */
  readyMs?: number;
  /** Is given every line of its log. */
  onLine?: (line: string) => void;
}

const defaultReadyMs = 20_000;
const answerMs = 30_000;

export class LabAgent {
  readonly node: LabNode;
  readonly process: LabProcess;
  /** Path of its socket. */
  readonly socket: string;

  private constructor(node: LabNode, running: LabProcess) {
    this.node = node;
    this.process = running;
    this.socket = join(node.runDirectory, 'agent.sock');
  }

  /** Starts the agent and waits for its log line "ready". Use `LabNode.agent`. */
  static async start(node: LabNode, options: AgentOptions = {}): Promise<LabAgent> {
    const argv = [
      ...[process.execPath, ...(options.nodeArgs ?? []), join(projectRoot, 'src/cli/main.ts'), 'agent'],
      ...['--cgroup', node.cgroup, '--bpffs', node.bpffs, '--run', node.runDirectory],
      ...['--workers', `${options.workers ?? 2}`, '--log-level', options.logLevel ?? 'debug'],
      ...(options.control === undefined ? [] : ['--node', node.name, '--control', options.control.socket(node)]),
      ...['--kernel-path', options.kernelPath === true ? 'on' : 'off'],
      // Tests read what the log says of a connection, whatever else ends in that second.
      ...['--access-log-rate', '1000000'],
      ...(options.kubeletCgroup === undefined ? [] : ['--kubelet-cgroup', options.kubeletCgroup]),
      ...(options.args ?? []),
    ];
    const place = { netns: node.netns, cgroup: join(node.cgroup, 'agent') };
    const running = new LabProcess(place, argv, {
      ...(options.maxFiles === undefined ? {} : { maxFiles: options.maxFiles }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
    });
    await running.json({ message: 'ready' }, options.readyMs ?? defaultReadyMs);
    return new LabAgent(node, running);
  }

  /** Waits for the next log line with these fields: one that is sure to come after the last that was waited for. */
  log(fields: Readonly<Record<string, unknown>>, deadlineMs?: number): Promise<Record<string, unknown>> {
    return this.process.json(fields, deadlineMs);
  }

  /** Waits until a log line with these fields is there, however long ago it was written. */
  told(fields: Readonly<Record<string, unknown>>, options?: ToldOptions): Promise<Record<string, unknown>> {
    return this.process.told(fields, options);
  }

  /** Waits until it has a certificate of the pod's identity. It may have had it before it was ready. */
  async issued(pod: LabPod): Promise<void> {
    await this.told({ message: 'certificate issued', identity: pod.identity });
  }

  /** Sends a signal (default: SIGKILL) and waits for its end. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    return this.process.kill(signal);
  }

  /** Asks it to end in good order, and waits for it. */
  stop(): Promise<Exit> {
    return this.process.kill('SIGTERM');
  }

  /** Sends one request to its socket; returns the reply, be it good or bad. */
  async request(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    return JSON.parse(await this.raw(`${JSON.stringify(request)}\n`)) as Record<string, unknown>;
  }

  /** Sends bytes to its socket; returns the first line that comes back. */
  async raw(bytes: string | Uint8Array): Promise<string> {
    const socket = createConnection(this.socket);
    const signal = AbortSignal.timeout(answerMs);
    try {
      await once(socket, 'connect', { signal });
      const lines = createInterface({ input: socket });
      // readline passes its input's errors on since Node 16; so does `once`.
      const answer = Promise.race([
        once(lines, 'line', { signal }),
        once(lines, 'close', { signal }).then(() => [undefined]),
      ]);
      socket.write(bytes);
      const [line] = (await answer) as [string | undefined];
      if (line === undefined) throw new LabError('the agent closed the connection without a reply');
      return line;
    } finally {
      socket.destroy();
    }
  }

  /** Enrols a pod. Throws if the agent refuses. */
  enrol(pod: LabPod, changes: Partial<PodRequest> = {}): Promise<Record<string, unknown>> {
    return this.#ask({ method: 'enrol', pod: pod.request(changes) });
  }

  /** Withdraws a pod. Throws if the agent refuses. */
  withdraw(pod: LabPod): Promise<Record<string, unknown>> {
    return this.#ask({ method: 'withdraw', uid: pod.uid });
  }

  /** What the agent says of itself. */
  status(): Promise<Record<string, unknown>> {
    return this.#ask({ method: 'status' });
  }

  async #ask(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    const reply = await this.request(request);
    if (reply.ok !== true)
      throw new LabError(`the agent refuses ${JSON.stringify(request)}: ${JSON.stringify(reply.error)}`);
    return reply;
  }
}
