/** What the kernel path keeps in maps, written and read by hand: as an agent would write it, and as it must not. */
import { join } from 'node:path';
import * as addon from '../../native/addon/index.js';
import {
  type Connection,
  decodeFlow,
  decodeFlowRecord,
  decodePod,
  decodePodUsage,
  direction,
  encodeConnection,
  encodeEndpoint,
  encodeExcludedPort,
  encodeFlow,
  encodeKubelet,
  encodeOpenPort,
  encodePod,
  encodePodUsage,
  encodeService,
  encodeVerdictKey,
  encodeVerdictValue,
  FLOW_RECORD_BYTES,
  type Flow,
  type FlowRecord,
  flowKind,
  flowState,
  limit,
  type Pod,
  podFlag,
  verdictKind,
} from '../../src/gen/layout.ts';
import { u32, u64 } from '../../src/kernel/bytes.ts';
import type { Kernel, KernelEvent, Reason } from '../../src/kernel/index.ts';
import { type Address, encodeAddress } from '../../src/mesh/index.ts';

/** Every app listens here. */
export const appPort = 8080;
export const second = 1_000_000_000n;

export const endpoint = (address: string, port: number) => ({
  address: { bytes: encodeAddress(address as Address) },
  port,
});

interface Enrolled {
  readonly cookie: bigint;
}

export abstract class PathMaps {
  readonly kernel: Kernel;
  /** Who connects, and whom to: what is decided is about them, unless it says otherwise. */
  abstract readonly client: Enrolled;
  abstract readonly server: Enrolled;
  readonly #bpffs: string;
  readonly #maps = new Map<string, addon.BpfMap>();
  readonly #records: addon.BpfRing;

  constructor(bpffs: string, kernel: Kernel) {
    this.#bpffs = bpffs;
    this.kernel = kernel;
    this.#records = addon.ringOpen(this.map('flow_records'));
  }

  map(name: string): addon.BpfMap {
    const known = this.#maps.get(name);
    if (known !== undefined) return known;
    const map = addon.pinOpen(join(this.#bpffs, 'culvert', `v${limit.SCHEMA}`, 'maps', name), 'map');
    this.#maps.set(name, map);
    return map;
  }

  keys(name: string): Uint8Array[] {
    const { keyBytes } = addon.info(this.map(name));
    const { keys } = addon.mapEntries(this.map(name));
    return Array.from({ length: keys.length / keyBytes }, (_, at) => keys.subarray(at * keyBytes, (at + 1) * keyBytes));
  }

  /** @param ageNs how long ago the agent's last sign of life was; negative: it is yet to come, and so never old */
  beat(ageNs: bigint): void {
    addon.mapUpdate(this.map('heartbeat'), u32(0), u64(process.hrtime.bigint() - ageNs));
  }

  neverBeaten(): void {
    addon.mapUpdate(this.map('heartbeat'), u32(0), u64(0n));
  }

  setEpoch(cookie: bigint, epoch: bigint): void {
    addon.mapUpdate(this.map('epochs'), u64(cookie), u64(epoch));
  }

  forgetEpoch(cookie: bigint): void {
    addon.mapDelete(this.map('epochs'), u64(cookie));
  }

  setPod(cookie: bigint, change: (pod: Pod) => Partial<Pod>): void {
    const bytes = addon.mapLookup(this.map('pods'), u64(cookie));
    if (bytes === undefined) throw new Error('no such pod');
    const pod = decodePod(bytes);
    addon.mapUpdate(this.map('pods'), u64(cookie), encodePod({ ...pod, ...change(pod) }));
  }

  usage(cookie: bigint): ReturnType<typeof decodePodUsage> {
    const bytes = addon.mapLookup(this.map('pod_usage'), u64(cookie));
    if (bytes === undefined) throw new Error('no such pod');
    return decodePodUsage(bytes);
  }

  setUsage(cookie: bigint, flowsBegun: bigint, flowsOver = 0n): void {
    addon.mapUpdate(
      this.map('pod_usage'),
      u64(cookie),
      encodePodUsage({ ...this.usage(cookie), flowsBegun, flowsOver }),
    );
  }

  flowsHeld(cookie: bigint): bigint {
    const { flowsBegun, flowsOver } = this.usage(cookie);
    return flowsBegun - flowsOver;
  }

  /** A verdict for the client pod. */
  allow(
    to: string,
    by: { port?: number; source?: bigint; to?: bigint; epochs?: [bigint, bigint]; kind?: number } = {},
  ): void {
    const { port = appPort, source = this.client.cookie, to: destination = this.server.cookie, epochs = [1n, 1n] } = by;
    addon.mapUpdate(
      this.map('verdicts'),
      encodeVerdictKey({ source, destination: endpoint(to, port) }),
      encodeVerdictValue({
        destination,
        sourceEpoch: epochs[0],
        destinationEpoch: epochs[1],
        kind: by.kind ?? verdictKind.LOCAL,
      }),
    );
  }

  allowOutside(to: string, port = appPort): void {
    this.allow(to, { port, to: 0n, kind: verdictKind.OUTSIDE });
  }

  service(address: string, port: number, backends: ReadonlyArray<readonly [string, number, number]>): void {
    let total = 0;
    const summed = backends.map(([at, backendPort, weight]) => {
      total += weight;
      return { endpoint: endpoint(at, backendPort), sum: total };
    });
    addon.mapUpdate(
      this.map('services'),
      encodeEndpoint(endpoint(address, port)),
      encodeService({ count: backends.length, total, backends: summed }),
    );
  }

  open(cookie: bigint, port: number, isOpen: boolean): void {
    addon.mapUpdate(this.map('open_ports'), encodeOpenPort({ netns: cookie, port }), Uint8Array.of(isOpen ? 1 : 0));
  }

  /** Excludes a port of the pod's from capture, and no other; undefined: none. */
  exclude({ cookie }: Enrolled, port: number | undefined): void {
    for (const key of this.keys('excluded_ports')) addon.mapDelete(this.map('excluded_ports'), key);
    const flag = podFlag.EXCLUDES_INBOUND;
    this.setPod(cookie, ({ flags }) => ({ flags: port === undefined ? flags & ~flag : flags | flag }));
    if (port === undefined) return;
    const key = encodeExcludedPort({ netns: cookie, direction: direction.INBOUND, port });
    addon.mapUpdate(this.map('excluded_ports'), key, Uint8Array.of(1));
  }

  setKubelet(cgroup: bigint): void {
    addon.mapUpdate(this.map('kubelet'), u32(0), encodeKubelet({ cgroup }));
  }

  /** An approval by hand, as sockops writes it. */
  approve(connection: Connection, flow: Partial<Flow> = {}): void {
    addon.mapUpdate(
      this.map('flows'),
      encodeConnection(connection),
      encodeFlow({
        source: this.client.cookie,
        destination: this.server.cookie,
        sourceEpoch: 1n,
        destinationEpoch: 1n,
        sinceNs: process.hrtime.bigint(),
        clientSocket: 0n,
        serverSocket: 0n,
        kind: flowKind.LOCAL,
        state: flowState.APPROVED,
        asked: endpoint('0.0.0.0', 0),
        ...flow,
      }),
    );
  }

  flow(connection: Connection): Flow | undefined {
    const bytes = addon.mapLookup(this.map('flows'), encodeConnection(connection));
    return bytes === undefined ? undefined : decodeFlow(bytes);
  }

  flows(): Flow[] {
    return this.keys('flows').flatMap((key) => {
      const bytes = addon.mapLookup(this.map('flows'), key);
      return bytes === undefined ? [] : [decodeFlow(bytes)];
    });
  }

  /** Flows that have ended since the last time. */
  records(): FlowRecord[] {
    const found: FlowRecord[] = [];
    for (;;) {
      const bytes = addon.ringRead(this.#records, 512);
      for (let at = 0; at < bytes.length; at += FLOW_RECORD_BYTES)
        found.push(decodeFlowRecord(bytes.subarray(at, at + FLOW_RECORD_BYTES)));
      if (bytes.length < 512 * FLOW_RECORD_BYTES) return found;
    }
  }

  events(): KernelEvent[] {
    return this.kernel.events();
  }

  /** How often the kernel gave a reason at a pod so far. */
  count(cookie: bigint, reason: Reason): number {
    return this.kernel.counts().find((each) => each.cookie === cookie && each.reason === reason)?.count ?? 0;
  }

  /** Runs something; how often it made the kernel give each of these reasons, at all pods together. */
  async counting<T>(reasons: readonly Reason[], run: () => Promise<T>): Promise<{ result: T; counts: number[] }> {
    const all = (): number[] =>
      reasons.map((reason) =>
        this.kernel.counts().reduce((sum, each) => sum + (each.reason === reason ? each.count : 0), 0),
      );
    const before = all();
    const result = await run();
    return { result, counts: all().map((now, at) => now - (before[at] ?? 0)) };
  }

  protected closeMaps(): void {
    addon.close(this.#records);
    for (const map of this.#maps.values()) addon.close(map);
  }
}
