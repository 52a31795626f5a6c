import { closeSync, existsSync, rmSync } from 'node:fs';
import type { BpfLink } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { agentPort, ownedRole, reason } from '../gen/layout.ts';
import { type Address, encodeAddress, type NetnsCookie, type Pod } from '../mesh/index.ts';
import { readU32, u32 } from './bytes.ts';
import { IPPROTO_TCP, SO_ACCEPTCONN, SOL_SOCKET, TCP_INFO, TCP_INFO_BYTES, TCPI_UNACKED } from './constants.ts';
import { netnsCookie } from './cookie.ts';
import { EarlierSockets } from './earlier-sockets.ts';
import { errnoOf, KernelError } from './errors.ts';
import { LookupPrograms } from './lookup.ts';
import { inodeAt, type OpenNetns, openNetns } from './netns.ts';
import type { PathTables } from './path-tables.ts';
import { type PinPaths, podPin } from './paths.ts';
import type { Maps } from './programs.ts';
import { relayListenerOptions, tunnelListenerOptions } from './socket-options.ts';
import type { Tables } from './tables.ts';

/** A listener of the agent in a pod: slot N belongs to worker N. */
export interface PodListener {
  readonly port: number;
  readonly slot: number;
  readonly fd: number;
}

/** A pod made ready: its listeners exist, nothing is captured yet. */
export interface PreparedPod {
  readonly cookie: NetnsCookie;
  /** Owned by the kernel room until `close`. */
  readonly netnsFd: number;
  readonly listeners: readonly PodListener[];
}

/** What a check of an enrolled pod found. */
export type PodCheck = 'live' | 'gone' | 'reopened';

export interface PodsOptions {
  readonly paths: PinPaths;
  /** Listener slots per pod, one per worker. */
  readonly workers: number;
  /** Longest queue of connections that no worker has accepted yet; the pod's net.core.somaxconn bounds it too. Default 4096. */
  readonly backlog?: number;
  /** How long a withdrawn pod's clients have to finish a handshake that has begun. Milliseconds, default 500. */
  readonly handshakeGraceMs?: number;
  /** How long after that its connections may still be handed over and accepted. Milliseconds, default 1000. */
  readonly handoverGraceMs?: number;
}

/** What the agent listens on in every pod, and what the sockets accepted there inherit (wire contract, section 1.2). */
const listenPorts = [
  { port: agentPort.OUTBOUND, inherited: relayListenerOptions },
  { port: agentPort.INBOUND, inherited: relayListenerOptions },
  { port: agentPort.HBONE, inherited: tunnelListenerOptions },
] as const;

/**
 * IPv4 loopback in its v4-mapped form on an AF_INET6 socket: sk_lookup may lead both families to it, and nothing that
 * is not led can reach it from outside the pod. (::1 would make the socket IPv6-only.)
 */
const listenAddress = encodeAddress('127.0.0.1' as Address);

interface OpenPod extends OpenNetns {
  listeners: PodListener[];
  link: BpfLink | undefined;
  pod: Pod | undefined;
}

function isListening(fd: number): boolean {
  const value = addon.socketOption(fd, SOL_SOCKET, SO_ACCEPTCONN, 4);
  return value[0] === 1;
}

/** Connections that wait to be accepted: of a listener, TCP_INFO tells its queue's length as tcpi_unacked. */
function waitingOn(fd: number): number {
  return readU32(addon.socketOption(fd, IPPROTO_TCP, TCP_INFO, TCP_INFO_BYTES), TCPI_UNACKED);
}

function isSame(a: readonly Address[], b: readonly Address[]): boolean {
  return a.length === b.length && a.every((address, index) => address === b[index]);
}

/** What the agent keeps in each enrolled pod's network namespace. */
export class Pods {
  readonly #options: PodsOptions;
  readonly #maps: Maps;
  readonly #tables: Tables;
  readonly #kernelPath: PathTables;
  readonly #lookup: LookupPrograms;
  readonly #hostCookie: NetnsCookie;
  readonly #open = new Map<NetnsCookie, OpenPod>();
  readonly #earlier: EarlierSockets;

  constructor(maps: Maps, tables: Tables, kernelPath: PathTables, options: PodsOptions) {
    this.#maps = maps;
    this.#tables = tables;
    this.#kernelPath = kernelPath;
    this.#options = options;
    this.#lookup = new LookupPrograms(maps, options.paths);
    this.#earlier = new EarlierSockets(maps.earlier_sockets);
    this.#hostCookie = netnsCookie();
  }

  /**
   * Opens the pod's namespace and the agent's listeners in it. Idempotent; on failure nothing is left open.
   *
   * @throws KernelError NOT_A_NETNS, NETNS_IS_HOST, PORT_TAKEN, TOO_MANY_PODS, KERNEL_REFUSED
   */
  prepare(pod: Pod): PreparedPod {
    const netns = this.#openPodNetns(pod.netns);
    const { netnsFd, cookie } = netns;
    const known = this.#open.get(cookie);
    if (known !== undefined) {
      closeSync(netnsFd);
      this.#reopenListeners(known);
      return known;
    }
    const opened: OpenPod = { ...netns, listeners: [], link: undefined, pod: undefined };
    try {
      this.#reopenListeners(opened);
    } catch (error) {
      for (const { fd } of opened.listeners) closeSync(fd);
      closeSync(netnsFd);
      throw error;
    }
    this.#open.set(cookie, opened);
    return opened;
  }

  /**
   * Begins to capture, or brings a captured pod's addresses and exclusions up to date.
   *
   * @throws KernelError NOT_PREPARED, TOO_MANY_PODS, TOO_MANY_EXCLUSIONS, KERNEL_REFUSED
   */
  capture(pod: Pod, cookie: NetnsCookie): void {
    const opened = this.#mustBeOpen(cookie);
    const { workers } = this.#options;
    const captured = opened.link !== undefined;
    /* An earlier agent captured the pod, and its connections are refused until somebody listens again. That must not end
     * because this fails. */
    const taken = captured || existsSync(podPin(this.#options.paths, cookie)) || this.#tables.hasPod(cookie);
    const exclusions = this.#tables.exclusionsOf(cookie);
    const addresses = this.#tables.addressesOf(cookie);
    try {
      this.#tables.putExclusions(cookie, pod);
      // Not yet capturing: the connect hook must not lead anybody before sk_lookup is there to take them.
      const earlier = taken ? 0 : this.#earlier.note(cookie, opened.netnsFd, pod.addresses);
      if (!taken) this.#tables.putPod(cookie, pod, workers, true);
      if (!captured || !isSame(addresses, pod.addresses)) this.#kernelPath.begin(cookie, addresses, pod.addresses);
      if (!captured) opened.link = this.#lookup.attach(opened);
      if (!captured && taken) this.#earlier.resume(cookie, opened.netnsFd);
      this.#tables.putPod(cookie, pod, workers, false);
      if (earlier > 0) this.#tables.count(cookie, reason.OPENED_BEFORE_ENROLMENT, earlier);
      opened.pod = pod;
    } catch (error) {
      if (taken) this.#tables.restoreExclusions(cookie, exclusions);
      else this.#undoCapture(opened);
      throw error;
    }
  }

  /**
   * New connections are no longer captured; returns when those under way have reached a worker, or after the grace. Those
   * are, in order: led by the connect hook but without a hand-over yet, with a hand-over, half-way through the handshake
   * with a client far away, waiting to be accepted. Closing the listeners on any of them would reset it.
   */
  async release(cookie: NetnsCookie): Promise<void> {
    const opened = this.#open.get(cookie);
    if (opened === undefined) {
      // An earlier agent's pod: nobody listens for it, so there is nothing to hand over.
      rmSync(podPin(this.#options.paths, cookie), { force: true });
      return;
    }
    if (opened.pod !== undefined && inodeAt(opened.pod.netns) === opened.inode) {
      this.#tables.putPod(cookie, opened.pod, this.#options.workers, true);
      // Nothing tells of a handshake half-way, so its time is given in any case.
      await new Promise((resolve) => setTimeout(resolve, this.#options.handshakeGraceMs ?? 500));
      const deadline = Date.now() + (this.#options.handoverGraceMs ?? 1000);
      while (this.#isReceiving(opened) && Date.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    this.#detachLookup(opened);
  }

  /** Closes listeners and namespace, and deletes what maps still hold. Idempotent. */
  close(cookie: NetnsCookie): void {
    const opened = this.#open.get(cookie);
    // First what counts and leads, then what it counted and was told.
    if (opened === undefined) rmSync(podPin(this.#options.paths, cookie), { force: true });
    else this.#detachLookup(opened);
    this.#forget(cookie);
    this.#earlier.forget(cookie);
    if (opened === undefined) return;
    for (const { fd } of opened.listeners) closeSync(fd);
    closeSync(opened.netnsFd);
    this.#open.delete(cookie);
  }

  /**
   * Is the namespace still where it was, is its lookup program attached and pinned, and do the listeners live? What is
   * detached is attached again, dead listeners (`ss -K`) are opened again. Of a pod that this process has not prepared
   * only the first can be told.
   *
   * @throws KernelError KERNEL_REFUSED when it cannot be told (no descriptor left, say): that is never `gone`
   */
  check(pod: Pod, cookie: NetnsCookie): PodCheck {
    const opened = this.#open.get(cookie);
    if (opened === undefined) return this.#cookieAt(pod.netns) === cookie ? 'live' : 'gone';
    if (inodeAt(pod.netns) !== opened.inode) return 'gone';
    const relinked = this.#mendLookup(opened);
    return this.#reopenListeners(opened) || relinked ? 'reopened' : 'live';
  }

  /** The network namespace of a pod that this process has prepared. Owned by the kernel room until `close`. */
  netnsFdOf(cookie: NetnsCookie): number | undefined {
    return this.#open.get(cookie)?.netnsFd;
  }

  /** Connections of captured pods that were open before, and still are; at most 10 s old. */
  earlierConnections(): ReadonlyMap<NetnsCookie, number> {
    return this.#earlier.counts();
  }

  /** Pods that are captured, by this process or by an earlier one. */
  captured(): NetnsCookie[] {
    return this.#tables.enrolled();
  }

  /**
   * Forgets pods of an earlier agent whose network namespace is gone: their links have lost their target.
   *
   * @returns the cookies that were cleaned up
   */
  forgetDead(): NetnsCookie[] {
    const { paths } = this.#options;
    const dead = this.#tables.enrolled().filter((cookie) => {
      const path = podPin(paths, cookie);
      if (this.#open.has(cookie)) return false;
      if (!existsSync(path)) return true;
      const link = addon.pinOpen(path, 'link');
      const { target } = addon.info(link);
      addon.close(link);
      return target === 0n;
    });
    for (const cookie of dead) this.close(cookie);
    return dead;
  }

  /**
   * Closes all listeners: where nobody else has duplicates, what is captured is refused. To listen again, `prepare`.
   */
  refuseAll(): void {
    for (const opened of this.#open.values()) {
      for (const { fd } of opened.listeners) closeSync(fd);
      opened.listeners = [];
    }
  }

  /** Closes what this process holds. The kernel keeps leading connections, which are refused: failure is closed. */
  dispose(): void {
    for (const { listeners, netnsFd, link } of this.#open.values()) {
      for (const { fd } of listeners) closeSync(fd);
      closeSync(netnsFd);
      if (link !== undefined) addon.close(link);
    }
    this.#open.clear();
  }

  #mustBeOpen(cookie: NetnsCookie): OpenPod {
    const opened = this.#open.get(cookie);
    if (opened === undefined)
      throw new KernelError('NOT_PREPARED', `the pod with netns cookie ${cookie} is not prepared`);
    return opened;
  }

  /** Cookie of the namespace that a path leads to, or undefined when it leads to none. */
  #cookieAt(path: string): NetnsCookie | undefined {
    try {
      const { netnsFd, cookie } = openNetns(path);
      closeSync(netnsFd);
      return cookie;
    } catch (error) {
      if (error instanceof KernelError && error.code === 'NOT_A_NETNS') return undefined;
      throw error;
    }
  }

  #openPodNetns(path: string): OpenNetns {
    const netns = openNetns(path);
    if (netns.cookie !== this.#hostCookie) return netns;
    closeSync(netns.netnsFd);
    throw new KernelError(
      'NETNS_IS_HOST',
      `${path} is the host's network namespace: host-network pods are never enrolled`,
    );
  }

  /** Somebody is led to the pod's listeners and has not been accepted. */
  #isReceiving({ cookie, listeners }: OpenPod): boolean {
    return this.#tables.handoversOf(cookie) > 0n || listeners.some(({ fd }) => waitingOn(fd) > 0);
  }

  /** Opens the listeners that are missing or dead. True if there were any. */
  #reopenListeners(opened: OpenPod): boolean {
    const dead = opened.listeners.filter(({ fd }) => !isListening(fd));
    for (const { fd } of dead) closeSync(fd);
    opened.listeners = opened.listeners.filter((listener) => !dead.includes(listener));
    let changed = false;
    for (const { port, inherited } of listenPorts)
      for (let slot = 0; slot < this.#options.workers; slot += 1) {
        if (opened.listeners.some((listener) => listener.port === port && listener.slot === slot)) continue;
        opened.listeners = [...opened.listeners, { port, slot, fd: this.#listen(opened, port, slot, inherited) }];
        changed = true;
      }
    return changed;
  }

  #listen(opened: OpenPod, port: number, slot: number, inherited: readonly addon.SocketOption[]): number {
    const options = {
      netnsFd: opened.netnsFd,
      storage: [{ map: this.#maps.owned, value: u32(ownedRole.LISTENER) }],
      options: inherited,
      bind: { address: listenAddress, port },
      reusePort: true,
      backlog: this.#options.backlog ?? 4096,
    };
    let fd: number;
    try {
      fd = this.#openEitherFamily(options);
    } catch (cause) {
      if (errnoOf(cause) !== 'EADDRINUSE')
        throw new KernelError(
          'KERNEL_REFUSED',
          `the agent cannot listen on port ${port} in the pod: see the cause`,
          cause,
        );
      throw new KernelError(
        'PORT_TAKEN',
        `port ${port} is in use in the pod, but the mesh needs it: let the app listen on another port`,
        cause,
      );
    }
    try {
      this.#tables.putListener(opened.cookie, port, slot, fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  }

  /** Kernels without IPv6 have no AF_INET6. */
  #openEitherFamily(options: Omit<addon.SocketOptions, 'family'>): number {
    try {
      return addon.socketOpen({ ...options, family: 6 });
    } catch (cause) {
      if (errnoOf(cause) !== 'EAFNOSUPPORT') throw cause;
      return addon.socketOpen({ ...options, family: 4 });
    }
  }

  /** Attaches the pod's lookup program again, or pins its link again, where somebody has taken it away. True if so. */
  #mendLookup(opened: OpenPod): boolean {
    const { link } = opened;
    if (link === undefined) return false;
    const path = podPin(this.#options.paths, opened.cookie);
    if (addon.info(link).target === opened.inode) {
      if (existsSync(path)) return false;
      addon.pin(link, path);
      return true;
    }
    rmSync(path, { force: true });
    opened.link = this.#lookup.attach(opened);
    addon.close(link);
    return true;
  }

  #detachLookup(opened: OpenPod): void {
    rmSync(podPin(this.#options.paths, opened.cookie), { force: true });
    if (opened.link !== undefined) addon.close(opened.link);
    opened.link = undefined;
  }

  #undoCapture(opened: OpenPod): void {
    this.#detachLookup(opened);
    this.#forget(opened.cookie);
  }

  #forget(cookie: NetnsCookie): void {
    this.#kernelPath.forget(cookie);
    this.#tables.forget(cookie);
  }
}
