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
  limit,
  podFlag,
  reason,
} from '../gen/layout.ts';
import { encodeAddress, encodeCidr, type NetnsCookie, type Pod } from '../mesh/index.ts';
import { readU64, u64 } from './bytes.ts';
import { mapFlag } from './constants.ts';
import { errnoOf, KernelError } from './errors.ts';
import type { Maps } from './programs.ts';

const present = Uint8Array.of(1);

function* records(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at + size <= bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The sum over all CPUs of a per-CPU u64. */
function sum(values: Uint8Array): bigint {
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

/** Puts an entry; `full` makes the error for a map that has no room. */
function put(map: BpfMap, key: Uint8Array, value: Uint8Array, full: () => KernelError): void {
  try {
    addon.mapUpdate(map, key, value, mapFlag.any);
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === 'E2BIG' || errno === 'ENOSPC' || errno === 'ENOMEM') throw full();
    throw cause;
  }
}

/**
 * A map whose keys belong to pods, and which pod's are which. The map itself could only tell by being listed whole, so
 * that is done once, to learn what an earlier agent left.
 */
class KeysOfPods {
  readonly #map: BpfMap;
  readonly #held = new Map<NetnsCookie, Map<string, Uint8Array>>();

  constructor(map: BpfMap, keyBytes: number, ownerOf: (key: Uint8Array) => bigint) {
    this.#map = map;
    for (const key of records(addon.mapKeys(map), keyBytes)) {
      const cookie = ownerOf(key) as NetnsCookie;
      this.#held.set(cookie, (this.#held.get(cookie) ?? new Map()).set(nameOf(key), key));
    }
  }

  of(cookie: NetnsCookie): Uint8Array[] {
    return [...(this.#held.get(cookie)?.values() ?? [])];
  }

  /**
   * Makes the pod's keys exactly these: adds what is missing first, then deletes what is too much.
   *
   * @throws KernelError TOO_MANY_EXCLUSIONS when the map is full; the pod's keys are then as before
   */
  replace(cookie: NetnsCookie, keys: readonly Uint8Array[]): void {
    const before = this.#held.get(cookie) ?? new Map<string, Uint8Array>();
    const after = new Map(keys.map((key) => [nameOf(key), key]));
    const full = (): KernelError =>
      new KernelError('TOO_MANY_EXCLUSIONS', 'the node has no room for more exclusions: give fewer, or larger blocks');
    try {
      for (const key of after.values()) put(this.#map, key, present, full);
    } catch (error) {
      for (const [name, key] of after) if (!before.has(name)) addon.mapDelete(this.#map, key);
      throw error;
    }
    for (const [name, key] of before) if (!after.has(name)) addon.mapDelete(this.#map, key);
    if (after.size > 0) this.#held.set(cookie, after);
    else this.#held.delete(cookie);
  }
}

function nameOf(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1');
}

/** What the agent writes into the kernel's maps, and what it reads back. The maps' only user in TypeScript. */
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
    const flags =
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
      swept: this.#sweptOf(cookie),
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
        encodePodUsage({ given: 0n, taken: 0n }),
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
    return given - taken - BigInt(this.#sweptOf(cookie));
  }

  hasPod(cookie: NetnsCookie): boolean {
    return addon.mapLookup(this.#maps.pods, u64(cookie)) !== undefined;
  }

  /** Cookies of all enrolled pods, as the kernel knows them. */
  enrolled(): NetnsCookie[] {
    return [...records(addon.mapKeys(this.#maps.pods), 8)].map((key) => readU64(key) as NetnsCookie);
  }

  /** Deletes everything that any map holds for a pod. */
  forget(cookie: NetnsCookie): void {
    const held = this.handoversOf(cookie);
    addon.mapDelete(this.#maps.pods, u64(cookie));
    this.restoreExclusions(cookie, { ports: [], cidrs: [] });
    // Listing them costs every other pod's hand-overs a look. One that is given at this moment is swept.
    if (held !== 0n)
      for (const key of records(addon.mapKeys(this.#maps.handovers), CONNECTION_BYTES))
        if (decodeConnection(key).netns === cookie) addon.mapDelete(this.#maps.handovers, key);
    for (const number of Object.values(reason))
      addon.mapDelete(this.#maps.counters, encodeCounter({ netns: cookie, reason: number }));
    for (const key of records(addon.mapKeys(this.#maps.cgroups), 8)) {
      const owner = addon.mapLookup(this.#maps.cgroups, key);
      if (owner !== undefined && readU64(owner) === cookie) addon.mapDelete(this.#maps.cgroups, key);
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
      if (!addon.mapDelete(this.#maps.handovers, key)) continue;
      swept += 1;
      this.#countSwept(decodeConnection(key).netns as NetnsCookie);
    }
    return swept;
  }

  /**
   * Deletes counters of pods that are not enrolled: a program that was running when its pod was forgotten counts once
   * more.
   */
  forgetStrangers(): void {
    const enrolled = new Set<bigint>(this.enrolled());
    for (const key of records(addon.mapKeys(this.#maps.counters), COUNTER_BYTES))
      if (!enrolled.has(decodeCounter(key).netns)) addon.mapDelete(this.#maps.counters, key);
  }

  counters(): PodCounter[] {
    return [...records(addon.mapKeys(this.#maps.counters), COUNTER_BYTES)].flatMap((key) => {
      const { netns, reason } = decodeCounter(key);
      const values = addon.mapLookup(this.#maps.counters, key);
      return values === undefined ? [] : [{ cookie: netns as NetnsCookie, reason, count: sum(values) }];
    });
  }

  /** Hand-overs of a pod that were deleted here: the kernel's counts do not know of them. */
  #sweptOf(cookie: NetnsCookie): number {
    const pod = addon.mapLookup(this.#maps.pods, u64(cookie));
    return pod === undefined ? 0 : decodePod(pod).swept;
  }

  #countSwept(cookie: NetnsCookie): void {
    const bytes = addon.mapLookup(this.#maps.pods, u64(cookie));
    if (bytes === undefined) return;
    const pod = decodePod(bytes);
    addon.mapUpdate(this.#maps.pods, u64(cookie), encodePod({ ...pod, swept: pod.swept + 1 }), mapFlag.mustExist);
  }
}
