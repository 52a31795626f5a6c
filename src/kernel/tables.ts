import * as addon from '../../native/addon/index.js';
import {
  COUNTER_BYTES,
  connectionFields,
  counterFields,
  decodeCounter,
  decodeExcludedCidr,
  decodeExcludedPort,
  decodePod,
  decodePodUsage,
  direction,
  EXCLUDED_CIDR_BYTES,
  EXCLUDED_CIDR_EXACT_BITS,
  EXCLUDED_PORT_BYTES,
  encodeCounter,
  encodeExcludedCidr,
  encodeExcludedPort,
  encodeListener,
  encodePod,
  encodePodUsage,
  handoverFields,
  limit,
  type Pod as PodValue,
  podFlag,
  reason,
} from '../gen/layout.ts';
import { type Address, decodeAddress, encodeAddress, encodeCidr, type NetnsCookie, type Pod } from '../mesh/index.ts';
import { readU64, u32, u64 } from './bytes.ts';
import { mapFlag } from './constants.ts';
import { errnoOf, KernelError } from './errors.ts';
import { KeysOfPods } from './keys-of-pods.ts';
import { deleteEntries, entriesOf, put, records, tryPut } from './map-entries.ts';
import type { Maps } from './programs.ts';

/** The sum over all CPUs of a per-CPU u64. */
export function sum(values: Uint8Array): bigint {
  let total = 0n;
  for (let at = 0; at + 8 <= values.byteLength; at += 8) total += readU64(values, at);
  return total;
}

/** A counter of one pod, by layout.h's `enum reason`. */
export interface PodCounter {
  readonly cookie: NetnsCookie;
  readonly reason: number;
  readonly count: bigint;
}

/** A pod's keys in the maps of exclusions. */
export interface ExclusionKeys {
  readonly ports: readonly Uint8Array[];
  readonly cidrs: readonly Uint8Array[];
}

/** What the agent writes into the kernel's maps about pods, and what it reads back. Of the kernel path: path-tables.ts. */
export class Tables {
  readonly #maps: Maps;
  readonly #excludedPorts: KeysOfPods;
  readonly #excludedCidrs: KeysOfPods;

  constructor(maps: Maps) {
    this.#maps = maps;
    this.#excludedPorts = new KeysOfPods(
      maps.excluded_ports,
      EXCLUDED_PORT_BYTES,
      (key) => decodeExcludedPort(key).netns,
    );
    this.#excludedCidrs = new KeysOfPods(maps.excluded_cidrs, EXCLUDED_CIDR_BYTES, (key) => {
      const { netnsLow, netnsHigh } = decodeExcludedCidr(key);
      return (BigInt(netnsHigh) << 32n) | BigInt(netnsLow);
    });
  }

  /** @throws KernelError TOO_MANY_PODS when the map is full */
  putPod(cookie: NetnsCookie, pod: Pod, workers: number, withdrawing: boolean): void {
    const { exclusions } = pod;
    const { flags: present, swept, flowsSwept } = this.#present(cookie);
    const flags =
      (present & podFlag.KERNEL_PATH) |
      (withdrawing ? podFlag.WITHDRAWING : 0) |
      (exclusions.outboundPorts.length + exclusions.outboundCidrs.length > 0 ? podFlag.EXCLUDES_OUTBOUND : 0) |
      (exclusions.inboundPorts.length + exclusions.inboundCidrs.length > 0 ? podFlag.EXCLUDES_INBOUND : 0);
    const empty = { bytes: new Uint8Array(16) };
    const addresses = Array.from({ length: limit.POD_ADDRESSES }, (_, index) => {
      const address = pod.addresses[index];
      return address === undefined ? empty : { bytes: encodeAddress(address) };
    });
    const value = encodePod({
      flags,
      workers,
      swept,
      flowsSwept,
      addressCount: pod.addresses.length,
      addresses,
    });
    const full = (): KernelError =>
      new KernelError('TOO_MANY_PODS', `this node has ${limit.PODS} enrolled pods already: no more fit`);
    put(this.#maps.pods, u64(cookie), value, full);
    try {
      addon.mapUpdate(
        this.#maps.pod_usage,
        u64(cookie),
        encodePodUsage({ given: 0n, taken: 0n, flowsBegun: 0n, flowsOver: 0n }),
        mapFlag.mustNotExist,
      );
    } catch (cause) {
      if (errnoOf(cause) !== 'EEXIST') throw full();
    }
  }

  /**
   * Makes the pod's exclusions exactly these.
   *
   * @throws KernelError TOO_MANY_EXCLUSIONS
   */
  putExclusions(cookie: NetnsCookie, pod: Pod): void {
    const { exclusions } = pod;
    const ports = [
      ...exclusions.outboundPorts.map((port) => ({ netns: cookie, direction: direction.OUTBOUND, port })),
      ...exclusions.inboundPorts.map((port) => ({ netns: cookie, direction: direction.INBOUND, port })),
    ].map(encodeExcludedPort);
    const blocks = [
      ...exclusions.outboundCidrs.map((cidr) => ({ cidr, direction: direction.OUTBOUND })),
      ...exclusions.inboundCidrs.map((cidr) => ({ cidr, direction: direction.INBOUND })),
    ].map(({ cidr, direction }) => {
      const { address, bits, family } = encodeCidr(cidr);
      return encodeExcludedCidr({
        prefixBits: EXCLUDED_CIDR_EXACT_BITS + bits,
        direction,
        family,
        netnsLow: Number(cookie & 0xffffffffn),
        netnsHigh: Number(cookie >> 32n),
        address: { bytes: address },
      });
    });
    this.#excludedPorts.replace(cookie, ports);
    this.#excludedCidrs.replace(cookie, blocks);
  }

  /** What `restoreExclusions` takes. */
  exclusionsOf(cookie: NetnsCookie): ExclusionKeys {
    return { ports: this.#excludedPorts.of(cookie), cidrs: this.#excludedCidrs.of(cookie) };
  }

  restoreExclusions(cookie: NetnsCookie, keys: ExclusionKeys): void {
    this.#excludedPorts.replace(cookie, keys.ports);
    this.#excludedCidrs.replace(cookie, keys.cidrs);
  }

  /** @throws KernelError TOO_MANY_PODS when the map is full */
  putListener(cookie: NetnsCookie, port: number, slot: number, fd: number): void {
    const full = (): KernelError =>
      new KernelError('TOO_MANY_PODS', `this node has ${limit.LISTENERS} listeners in pods already: no more fit`);
    put(this.#maps.listeners, encodeListener({ netns: cookie, port, slot }), u64(BigInt(fd)), full);
  }

  /** Hand-overs that the pod's connections have under way. */
  handoversOf(cookie: NetnsCookie): bigint {
    const usage = addon.mapLookup(this.#maps.pod_usage, u64(cookie));
    if (usage === undefined) return 0n;
    const { given, taken } = decodePodUsage(usage);
    return given - taken - BigInt(this.#present(cookie).swept);
  }

  /** Hand-overs of all pods. */
  handoverCount(): number {
    return this.enrolled().reduce((sum, cookie) => sum + Math.max(0, Number(this.handoversOf(cookie))), 0);
  }

  hasPod(cookie: NetnsCookie): boolean {
    return addon.mapLookup(this.#maps.pods, u64(cookie)) !== undefined;
  }

  /** Cookies of all enrolled pods, as the kernel knows them. */
  enrolled(): NetnsCookie[] {
    return [...records(addon.mapEntries(this.#maps.pods).keys, 8)].map((key) => readU64(key) as NetnsCookie);
  }

  /** The addresses that the kernel knows of a pod. */
  addressesOf(cookie: NetnsCookie): Address[] {
    const bytes = addon.mapLookup(this.#maps.pods, u64(cookie));
    if (bytes === undefined) return [];
    const { addresses, addressCount } = decodePod(bytes);
    return addresses.slice(0, addressCount).map((address) => decodeAddress(address.bytes));
  }

  /** Whether the pod's connects may be answered by verdicts and services, and plaintext to it by open ports. */
  setKernelPath(cookie: NetnsCookie, on: boolean): void {
    this.#change(cookie, (pod) => ({
      ...pod,
      flags: (pod.flags & ~podFlag.KERNEL_PATH) | (on ? podFlag.KERNEL_PATH : 0),
    }));
  }

  clearKernelPath(): void {
    for (const cookie of this.enrolled()) this.setKernelPath(cookie, false);
  }

  /** Flows of the pod on the kernel path. */
  flowsOf(cookie: NetnsCookie): bigint {
    const usage = addon.mapLookup(this.#maps.pod_usage, u64(cookie));
    if (usage === undefined) return 0n;
    const { flowsBegun, flowsOver } = decodePodUsage(usage);
    return flowsBegun - flowsOver - BigInt(this.#present(cookie).flowsSwept);
  }

  /** Flows of all pods. */
  flowCount(): number {
    return this.enrolled().reduce((sum, cookie) => sum + Math.max(0, Number(this.flowsOf(cookie))), 0);
  }

  /** Flows of the pod have been deleted here: the kernel's counts do not know of it. */
  countSweptFlows(cookie: NetnsCookie, count: number): void {
    this.#countSwept(cookie, { flowsSwept: count });
  }

  /** Deletes everything that any map holds for a pod. */
  forget(cookie: NetnsCookie): void {
    const held = this.handoversOf(cookie);
    addon.mapDelete(this.#maps.pods, u64(cookie));
    this.restoreExclusions(cookie, { ports: [], cidrs: [] });
    // Listing them costs every other pod's hand-overs a look. One that is given at this moment is swept.
    if (held !== 0n)
      deleteEntries(this.#maps.handovers, (entry) => entry.keyU64(connectionFields.netns.offset) === cookie);
    for (const number of Object.values(reason))
      addon.mapDelete(this.#maps.counters, encodeCounter({ netns: cookie, reason: number }));
    deleteEntries(this.#maps.cgroups, (entry) => entry.valueU64() === cookie);
    addon.mapDelete(this.#maps.pod_usage, u64(cookie));
  }

  /**
   * Deletes hand-overs that nobody took: the client's close should have, but another owner's program can switch that
   * callback off.
   *
   * @param olderThanNs age on CLOCK_MONOTONIC, nanoseconds
   * @returns how many
   */
  sweepHandovers(nowNs: bigint, olderThanNs: bigint): number {
    const { handovers } = this.#maps;
    const isOld = (sinceNs: bigint): boolean => nowNs - sinceNs >= olderThanNs;
    const at = handoverFields.sinceNs.offset;
    const entry = entriesOf(handovers);
    let deleted = 0;
    for (; entry.index < entry.count; entry.index += 1) {
      if (!isOld(entry.valueU64(at))) continue;
      const key = entry.key();
      // Once more: a new connection of the same addresses may have taken its place since.
      const value = addon.mapLookup(handovers, key);
      if (value === undefined || !isOld(readU64(value, at)) || !addon.mapDelete(handovers, key)) continue;
      deleted += 1;
      this.#countSwept(entry.keyU64(connectionFields.netns.offset) as NetnsCookie, { swept: 1 });
    }
    return deleted;
  }

  /**
   * Deletes counters of pods that are not enrolled: a program that was running when its pod was forgotten counts once
   * more.
   */
  forgetStrangers(): void {
    const enrolled = new Set<bigint>(this.enrolled());
    deleteEntries(this.#maps.counters, (entry) => !enrolled.has(entry.keyU64(counterFields.netns.offset)));
  }

  /** Adds to a counter that only the agent counts. */
  count(cookie: NetnsCookie, reason: number, more: number): void {
    const { counters, lost_records } = this.#maps;
    const key = encodeCounter({ netns: cookie, reason });
    const before = addon.mapLookup(counters, key);
    // An array has an entry for each CPU that there may be, from the start.
    const ofCpus = new Uint8Array(addon.mapLookup(lost_records, u32(0))?.length ?? 8);
    ofCpus.set(u64((before === undefined ? 0n : sum(before)) + BigInt(more)));
    tryPut(counters, key, ofCpus);
  }

  counters(): PodCounter[] {
    const { keys, values } = addon.mapEntries(this.#maps.counters);
    const count = keys.length / COUNTER_BYTES;
    const valueBytes = values.length / count;
    return Array.from({ length: count }, (_, index) => {
      const { netns, reason } = decodeCounter(keys.subarray(index * COUNTER_BYTES, (index + 1) * COUNTER_BYTES));
      const ofCpus = values.subarray(index * valueBytes, (index + 1) * valueBytes);
      return { cookie: netns as NetnsCookie, reason, count: sum(ofCpus) };
    });
  }

  /** What the pod's entry says, whatever the agent knows of it. */
  #present(cookie: NetnsCookie): Pick<PodValue, 'flags' | 'swept' | 'flowsSwept'> {
    const bytes = addon.mapLookup(this.#maps.pods, u64(cookie));
    return bytes === undefined ? { flags: 0, swept: 0, flowsSwept: 0 } : decodePod(bytes);
  }

  /** Hand-overs and flows of a pod that were deleted here: the kernel's counts do not know of them. */
  #countSwept(cookie: NetnsCookie, { swept = 0, flowsSwept = 0 }: { swept?: number; flowsSwept?: number }): void {
    this.#change(cookie, (pod) => ({
      ...pod,
      swept: pod.swept + swept,
      flowsSwept: pod.flowsSwept + flowsSwept,
    }));
  }

  /** Nothing is changed of a pod that is not captured. The agent alone writes pods, so nobody else's change is lost. */
  #change(cookie: NetnsCookie, change: (pod: PodValue) => PodValue): void {
    const bytes = addon.mapLookup(this.#maps.pods, u64(cookie));
    if (bytes === undefined) return;
    addon.mapUpdate(this.#maps.pods, u64(cookie), encodePod(change(decodePod(bytes))), mapFlag.mustExist);
  }
}
