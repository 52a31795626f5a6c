import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import {
  CONNECTION_BYTES,
  COUNTER_BYTES,
  decodeConnection,
  decodeCounter,
  decodeExcludedCidr,
  decodeExcludedPort,
  decodeHandover,
  decodePodUsage,
  direction,
  EXCLUDED_CIDR_BYTES,
  EXCLUDED_CIDR_EXACT_BITS,
  EXCLUDED_PORT_BYTES,
  encodeExcludedCidr,
  encodeExcludedPort,
  encodeListener,
  encodePod,
  encodePodUsage,
  limit,
  podFlag,
} from '../gen/layout.ts';
import { encodeAddress, encodeCidr, type NetnsCookie, type Pod } from '../mesh/index.ts';
import { mapFlag } from './constants.ts';
import { errnoOf, KernelError } from './errors.ts';
import type { Maps } from './programs.ts';

const present = Uint8Array.of(1);

function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

function* records(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at + size <= bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The sum over all CPUs of a per-CPU u64. */
function sum(values: Uint8Array): bigint {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  let total = 0n;
  for (let at = 0; at + 8 <= values.byteLength; at += 8) total += view.getBigUint64(at, true);
  return total;
}

/** A counter of one pod, by layout.h's `enum reason`. */
export interface PodCounter {
  readonly cookie: NetnsCookie;
  readonly reason: number;
  readonly count: bigint;
}

/** What the agent writes into the kernel's maps, and what it reads back. The maps' only user in TypeScript. */
export class Tables {
  readonly #maps: Maps;

  constructor(maps: Maps) {
    this.#maps = maps;
  }

  /** @throws KernelError TOO_MANY_PODS when the map is full */
  putPod(cookie: NetnsCookie, pod: Pod, workers: number, generation: number, withdrawing: boolean): void {
    const { exclusions } = pod;
    const flags =
      (withdrawing ? podFlag.WITHDRAWING : 0) |
      (exclusions.outboundPorts.length + exclusions.outboundCidrs.length > 0 ? podFlag.EXCLUDES_OUTBOUND : 0) |
      (exclusions.inboundPorts.length + exclusions.inboundCidrs.length > 0 ? podFlag.EXCLUDES_INBOUND : 0);
    const empty = { bytes: new Uint8Array(16) };
    const addresses = Array.from({ length: limit.POD_ADDRESSES }, (_, index) => {
      const address = pod.addresses[index];
      return address === undefined ? empty : { bytes: encodeAddress(address) };
    });
    const value = encodePod({ flags, workers, generation, addressCount: pod.addresses.length, addresses });
    const full = (): KernelError =>
      new KernelError('TOO_MANY_PODS', `this node has ${limit.PODS} enrolled pods already: no more fit`);
    this.#put(this.#maps.pods, u64(cookie), value, full);
    try {
      addon.mapUpdate(this.#maps.pod_usage, u64(cookie), encodePodUsage({ handovers: 0n }), mapFlag.mustNotExist);
    } catch (cause) {
      if (errnoOf(cause) !== 'EEXIST') throw full();
    }
  }

  /** Makes the pod's exclusions exactly these: adds what is missing first, then deletes what is too much. */
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
    this.#replace(this.#maps.excluded_ports, this.#excludedPorts(cookie), ports);
    this.#replace(this.#maps.excluded_cidrs, this.#excludedCidrs(cookie), blocks);
  }

  putListener(cookie: NetnsCookie, port: number, slot: number, fd: number): void {
    addon.mapUpdate(this.#maps.listeners, encodeListener({ netns: cookie, port, slot }), u64(BigInt(fd)), mapFlag.any);
  }

  /** Hand-overs that the pod's connections have under way. */
  handoversOf(cookie: NetnsCookie): bigint {
    const usage = addon.mapLookup(this.#maps.pod_usage, u64(cookie));
    return usage === undefined ? 0n : decodePodUsage(usage).handovers;
  }

  hasPod(cookie: NetnsCookie): boolean {
    return addon.mapLookup(this.#maps.pods, u64(cookie)) !== undefined;
  }

  /** Cookies of all enrolled pods, as the kernel knows them. */
  enrolled(): NetnsCookie[] {
    return [...records(addon.mapKeys(this.#maps.pods), 8)].map(
      (key) => new DataView(key.buffer, key.byteOffset, 8).getBigUint64(0, true) as NetnsCookie,
    );
  }

  /** Deletes everything that any map holds for a pod. */
  forget(cookie: NetnsCookie): void {
    addon.mapDelete(this.#maps.pods, u64(cookie));
    this.#replace(this.#maps.excluded_ports, this.#excludedPorts(cookie), []);
    this.#replace(this.#maps.excluded_cidrs, this.#excludedCidrs(cookie), []);
    for (const key of records(addon.mapKeys(this.#maps.handovers), CONNECTION_BYTES))
      if (decodeConnection(key).netns === cookie) addon.mapDelete(this.#maps.handovers, key);
    for (const key of records(addon.mapKeys(this.#maps.counters), COUNTER_BYTES))
      if (decodeCounter(key).netns === cookie) addon.mapDelete(this.#maps.counters, key);
    for (const key of records(addon.mapKeys(this.#maps.cgroups), 8)) {
      const owner = addon.mapLookup(this.#maps.cgroups, key);
      if (owner !== undefined && new DataView(owner.buffer, owner.byteOffset, 8).getBigUint64(0, true) === cookie)
        addon.mapDelete(this.#maps.cgroups, key);
    }
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
    let swept = 0;
    for (const key of records(addon.mapKeys(this.#maps.handovers), CONNECTION_BYTES)) {
      const value = addon.mapLookup(this.#maps.handovers, key);
      if (value === undefined || nowNs - decodeHandover(value).sinceNs < olderThanNs) continue;
      if (addon.mapDelete(this.#maps.handovers, key)) swept += 1;
    }
    return swept;
  }

  /** Sets what the pod holds to what the map holds, after a sweep that the kernel did not count. */
  recountHandovers(): void {
    const held = new Map<bigint, bigint>();
    for (const key of records(addon.mapKeys(this.#maps.handovers), CONNECTION_BYTES)) {
      const { netns } = decodeConnection(key);
      held.set(netns, (held.get(netns) ?? 0n) + 1n);
    }
    for (const cookie of this.enrolled())
      addon.mapUpdate(this.#maps.pod_usage, u64(cookie), encodePodUsage({ handovers: held.get(cookie) ?? 0n }));
  }

  counters(): PodCounter[] {
    return [...records(addon.mapKeys(this.#maps.counters), COUNTER_BYTES)].flatMap((key) => {
      const { netns, reason } = decodeCounter(key);
      const values = addon.mapLookup(this.#maps.counters, key);
      return values === undefined ? [] : [{ cookie: netns as NetnsCookie, reason, count: sum(values) }];
    });
  }

  #excludedPorts(cookie: NetnsCookie): Uint8Array[] {
    return [...records(addon.mapKeys(this.#maps.excluded_ports), EXCLUDED_PORT_BYTES)].filter(
      (key) => decodeExcludedPort(key).netns === cookie,
    );
  }

  #excludedCidrs(cookie: NetnsCookie): Uint8Array[] {
    return [...records(addon.mapKeys(this.#maps.excluded_cidrs), EXCLUDED_CIDR_BYTES)].filter((key) => {
      const { netnsLow, netnsHigh } = decodeExcludedCidr(key);
      return ((BigInt(netnsHigh) << 32n) | BigInt(netnsLow)) === cookie;
    });
  }

  #replace(map: BpfMap, before: Uint8Array[], after: Uint8Array[]): void {
    const wanted = new Set(after.map((key) => Buffer.from(key).toString('hex')));
    const full = (): KernelError =>
      new KernelError('TOO_MANY_EXCLUSIONS', 'the node has no room for more exclusions: give fewer, or larger blocks');
    for (const key of after) this.#put(map, key, present, full);
    for (const key of before) if (!wanted.has(Buffer.from(key).toString('hex'))) addon.mapDelete(map, key);
  }

  #put(map: BpfMap, key: Uint8Array, value: Uint8Array, full: () => KernelError): void {
    try {
      addon.mapUpdate(map, key, value, mapFlag.any);
    } catch (cause) {
      const errno = errnoOf(cause);
      if (errno === 'E2BIG' || errno === 'ENOSPC' || errno === 'ENOMEM') throw full();
      throw cause;
    }
  }
}
