import { closeSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import * as addon from '../../native/addon/index.js';
import { agentPort, encodeConnection } from '../gen/layout.ts';
import {
  type Address,
  type Endpoint,
  encodeAddress,
  formatEndpoint,
  messageOf,
  type NetnsCookie,
  type Pod,
} from '../mesh/index.ts';
import { readU32, u32 } from './bytes.ts';
import { IPPROTO_TCP, TCP_USER_TIMEOUT } from './constants.ts';
import { descriptorOf } from './descriptor.ts';
import { errnoOf } from './errors.ts';
import { SocketList } from './flow-sockets.ts';
import { Kernel } from './kernel.ts';
import { removePrograms } from './programs.ts';
import { createPodSockets, type PodSockets } from './sockets.ts';

/** One thing that the self-test has tried. `found` says what happened where it is not what should. */
export interface Trial {
  readonly trial: string;
  readonly passed: boolean;
  readonly found: string;
}

export interface SelfTestOptions {
  /** cgroup v2 directory below which a scratch cgroup may be made. */
  readonly cgroup: string;
  /** Mount point of a BPF file system. Pins are made under a name of their own and removed. */
  readonly bpffs: string;
  /** How long one connection may take. Milliseconds, default 2000. */
  readonly timeoutMs?: number;
}

const address = (text: string): Address => text as Address;

/* Addresses reserved for documentation (RFC 5737, RFC 3849): nobody has them, so whoever answers was led to. */
const families = [
  {
    name: 'IPv4',
    family: 4,
    asked: address('198.51.100.7'),
    own: address('192.0.2.77'),
    client: address('203.0.113.9'),
    local: address('127.0.0.1'),
  },
  {
    name: 'IPv6',
    family: 6,
    asked: address('2001:db8:1::7'),
    // The loopback's, because an IPv6 connect is led to the pod's own address, and this namespace has no other.
    own: address('::1'),
    client: address('2001:db8:3::9'),
    local: address('::1'),
  },
] as const;

/** Resolves with the first connection that the listener behind `fd` accepts. */
function firstConnection(fd: number): { server: net.Server; accepted: Promise<net.Socket> } {
  const server = net.createServer({ allowHalfOpen: true });
  const accepted = new Promise<net.Socket>((resolve, reject) => {
    server.once('connection', resolve);
    server.once('error', reject);
  });
  accepted.catch(() => undefined);
  server.listen({ fd });
  return { server, accepted };
}

async function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  const timeout = Promise.withResolvers<never>();
  const timer = setTimeout(() => timeout.reject(new Error(`nothing happened within ${timeoutMs} ms`)), timeoutMs);
  try {
    return await Promise.race([promise, timeout.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function connected(socket: net.Socket, to: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
    socket.connect({ host: to.address, port: to.port });
  });
}

async function attempt(trial: string, run: () => Promise<string>): Promise<Trial> {
  try {
    return { trial, passed: true, found: await run() };
  } catch (error) {
    return { trial, passed: false, found: messageOf(error) };
  }
}

function expectEqual(what: string, actual: string, wanted: string): void {
  if (actual !== wanted) throw new Error(`${what} is ${actual}, not ${wanted}`);
}

/** What the self-test's app sets before it connects, and later. */
const firstUserMs = 12_345;
const laterUserMs = 23_456;

function userTimeout(milliseconds: number): addon.SocketOption {
  return { level: IPPROTO_TCP, option: TCP_USER_TIMEOUT, value: u32(milliseconds) };
}

class Scratch {
  readonly kernel: Kernel;
  readonly sockets: PodSockets;
  readonly netnsFd: number;
  readonly #timeoutMs: number;
  readonly #cookie: NetnsCookie;
  readonly #listeners: ReadonlyArray<{ port: number; fd: number }>;

  constructor(cgroup: string, bpffs: string, pinName: string, netnsFd: number, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.netnsFd = netnsFd;
    this.kernel = new Kernel({ cgroup, bpffs, pinName, workers: 1 });
    const pod: Pod = {
      uid: 'self-test',
      name: 'self-test',
      namespace: 'culvert',
      serviceAccount: 'culvert',
      netns: `/proc/self/fd/${netnsFd}`,
      addresses: families.map(({ own }) => own),
      exclusions: { outboundPorts: [], outboundCidrs: [], inboundPorts: [], inboundCidrs: [] },
    };
    const prepared = this.kernel.prepare(pod);
    this.kernel.capture(pod, prepared.cookie);
    this.#cookie = prepared.cookie;
    this.#listeners = prepared.listeners;
    this.sockets = createPodSockets(bpffs, pinName);
  }

  /**
   * A connect() to an address that nobody has arrives at the agent's listener with its destination and the app's time-outs,
   * and shows it.
   */
  async outbound(asked: Endpoint, family: 4 | 6): Promise<string> {
    const listener = this.#listeners.find(({ port }) => port === agentPort.OUTBOUND);
    if (listener === undefined) throw new Error('there is no outbound listener');
    const { server, accepted } = firstConnection(addon.duplicate(listener.fd));
    const options = [userTimeout(firstUserMs)];
    const client = new net.Socket({
      fd: addon.socketOpen({ netnsFd: this.netnsFd, family, options }),
      readable: false,
    });
    try {
      await within(connected(client, asked), this.#timeoutMs);
      const socket = await within(accepted, this.#timeoutMs);
      const original = this.sockets.originalDestination(socket);
      const later = this.#laterUserMs(client, socket, asked);
      // Before the socket goes, which resets the client.
      const peer = formatEndpoint({ address: address(client.remoteAddress ?? ''), port: client.remotePort ?? 0 });
      socket.destroy();
      const told = original === undefined ? 'missing' : formatEndpoint(original.endpoint);
      expectEqual('the original destination', told, formatEndpoint(asked));
      expectEqual("the client's peer address", peer, formatEndpoint(asked));
      expectEqual("the app's user time-out", `${original?.timeouts?.userMs} ms`, `${firstUserMs} ms`);
      expectEqual("the app's later user time-out, on the agent's leg", `${later} ms`, `${laterUserMs} ms`);
      return `led to the agent with ${formatEndpoint(asked)}`;
    } finally {
      client.destroy();
      server.close();
    }
  }

  /** What the agent's other leg gets when the client changes its user time-out. */
  #laterUserMs(client: net.Socket, socket: net.Socket, asked: Endpoint): number {
    const far = this.sockets.openOutbound(this.netnsFd, asked, undefined);
    try {
      const { level, option, value } = userTimeout(laterUserMs);
      addon.socketOption(descriptorOf(client), level, option, value);
      this.sockets.followTimeouts(socket, far, undefined);
      this.sockets.pollTimeouts();
      return readU32(addon.socketOption(descriptorOf(far), level, option, 4));
    } finally {
      far.destroy();
    }
  }

  /** An app that accepts a connection dialled by the agent sees the client for whom the agent speaks. */
  async inbound(local: Address, client: Endpoint, family: 4 | 6): Promise<string> {
    const fd = addon.socketOpen({
      netnsFd: this.netnsFd,
      family,
      bind: { address: encodeAddress(local), port: 8080 },
      backlog: 1,
    });
    const { server, accepted } = firstConnection(fd);
    const dialled = this.sockets.openInbound(this.netnsFd, { address: local, port: 8080 }, client);
    try {
      await within(connected(dialled, { address: local, port: 8080 }), this.#timeoutMs);
      const socket = await within(accepted, this.#timeoutMs);
      const seen = formatEndpoint({ address: address(socket.remoteAddress ?? ''), port: socket.remotePort ?? 0 });
      socket.destroy();
      expectEqual('the client that the app sees', seen, formatEndpoint(client));
      return `the app sees ${seen}`;
    } finally {
      dialled.destroy();
      server.close();
    }
  }

  /**
   * A connect that has a verdict is left to the kernel. Nobody is at its destination and no route leads there, so it fails
   * where one that is led to the agent succeeds.
   */
  async direct(asked: Endpoint, family: 4 | 6): Promise<string> {
    const { kernel } = this;
    const counted = (): number =>
      kernel
        .counts()
        .filter(({ cookie, reason }) => cookie === this.#cookie && reason === 'direct_outside')
        .reduce((sum, { count }) => sum + count, 0);
    const before = counted();
    kernel.setKernelPath(this.#cookie, true);
    kernel.beat();
    kernel.putVerdict({
      kind: 'outside',
      source: this.#cookie,
      destination: asked,
      to: 0n,
      sourceEpoch: kernel.epochOf(this.#cookie),
      destinationEpoch: kernel.epochOf(0n),
    });
    const client = new net.Socket({ fd: addon.socketOpen({ netnsFd: this.netnsFd, family }), readable: false });
    try {
      const end = await within(connected(client, asked).catch(errnoOf), this.#timeoutMs);
      expectEqual('the end of the connect', end ?? 'a connection', 'ENETUNREACH');
      expectEqual('the number of connects left to the kernel', String(counted() - before), '1');
      return 'a connect with a verdict is left to the kernel';
    } finally {
      client.destroy();
      kernel.clearPaths();
    }
  }

  /** The agent ends a connection between others (SOCK_DESTROY), as it must when policy no longer allows it. */
  async ended(local: Address, family: 4 | 6): Promise<string> {
    const at: Endpoint = { address: local, port: 8081 };
    const bind = { address: encodeAddress(local), port: at.port };
    const { server, accepted } = firstConnection(addon.socketOpen({ netnsFd: this.netnsFd, family, bind, backlog: 1 }));
    const client = new net.Socket({ fd: addon.socketOpen({ netnsFd: this.netnsFd, family }) });
    try {
      await within(connected(client, at), this.#timeoutMs);
      const socket = await within(accepted, this.#timeoutMs);
      socket.on('error', () => undefined); // It is reset, or ended too.
      const end = new Promise<string | undefined>((resolve) =>
        client.once('error', (error) => resolve(errnoOf(error))),
      );
      client.resume();
      const address = { bytes: bind.address };
      const key = {
        netns: this.#cookie,
        client: { address, port: client.localPort ?? 0 },
        server: { address, port: at.port },
      };
      const list = new SocketList(this.netnsFd);
      list.add(encodeConnection(key), 'client', 0n);
      expectEqual('the number of sockets ended', String(list.destroy()), '1');
      expectEqual("the client's end", (await within(end, this.#timeoutMs)) ?? 'none', 'ECONNABORTED');
      socket.destroy();
      return 'a connection between others is ended';
    } finally {
      client.destroy();
      server.close();
    }
  }

  /** Nobody but the agent binds the agent's ports. */
  reserved(): string {
    try {
      const fd = addon.socketOpen({
        netnsFd: this.netnsFd,
        family: 4,
        bind: { address: encodeAddress(address('127.0.0.1')), port: agentPort.OUTBOUND },
        reusePort: true,
      });
      closeSync(fd);
    } catch (error) {
      if (errnoOf(error) === 'EADDRINUSE') return 'refused';
      throw error;
    }
    throw new Error(`a socket without the agent's tag could bind port ${agentPort.OUTBOUND}`);
  }

  dispose(): void {
    try {
      this.sockets.close();
    } finally {
      this.kernel.dispose();
    }
  }
}

/**
 * Tries on this kernel, in a scratch cgroup and network namespace, what culvert depends on. Leaves nothing behind.
 * The calling process moves into the scratch cgroup meanwhile: for a process of its own only.
 */
export async function selfTest(options: SelfTestOptions): Promise<Trial[]> {
  const name = `culvert-preflight-${process.pid}`;
  const scratchCgroup = join(options.cgroup, name);
  const home = ownCgroup(options.cgroup);
  // Run in reverse, each whether or not another fails.
  using cleanUps = new DisposableStack();
  mkdirSync(scratchCgroup);
  cleanUps.defer(() => rmdirSync(scratchCgroup));
  cleanUps.defer(() => writeFileSync(join(home, 'cgroup.procs'), String(process.pid)));
  writeFileSync(join(scratchCgroup, 'cgroup.procs'), String(process.pid));
  const netnsFd = addon.netnsCreate();
  cleanUps.defer(() => closeSync(netnsFd));
  cleanUps.defer(() => removePrograms(options.bpffs, name));
  let scratch: Scratch | undefined;
  const trials: Trial[] = [];
  const loaded = await attempt('programs load, attach and pin', async () => {
    scratch = new Scratch(scratchCgroup, options.bpffs, name, netnsFd, options.timeoutMs ?? 2000);
    return 'attached in a scratch cgroup';
  });
  trials.push(loaded);
  const test = scratch;
  if (test === undefined) return trials;
  cleanUps.defer(() => test.dispose());
  for (const { name: version, family, asked, client, local } of families) {
    trials.push(
      await attempt(`outbound capture, ${version}`, () => test.outbound({ address: asked, port: 80 }, family)),
      await attempt(`the app sees the client, ${version}`, () =>
        test.inbound(local, { address: client, port: 40_000 }, family),
      ),
      await attempt(`the kernel path, ${version}`, () => test.direct({ address: asked, port: 81 }, family)),
      await attempt(`connections are ended, ${version}`, () => test.ended(local, family)),
    );
  }
  trials.push(await attempt("the agent's ports are reserved", async () => test.reserved()));
  return trials;
}

/** Directory of the cgroup v2 that this process is in. */
function ownCgroup(fallback: string): string {
  const line = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('0::'));
  const mount = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((entry) => entry.includes(' - cgroup2 '))
    ?.split(' ')[4];
  return line === undefined || mount === undefined ? fallback : join(mount, line.slice(3));
}
