import type { BpfMap } from '../../native/addon/index.js';
import { flowFields, flowState } from '../gen/layout.ts';
import type { NetnsCookie } from '../mesh/index.ts';
import { errnoOf } from './errors.ts';
import { type Namespace, SocketList } from './flow-sockets.ts';
import { deleteFlow, type FlowKind, type FlowPods, ownership } from './flows.ts';
import { type Entry, entriesOf } from './map-entries.ts';

export interface SweptPods extends FlowPods {
  hasPod(cookie: NetnsCookie): boolean;
}

/** Younger ones are left alone: their close has hardly been missed yet. */
const youngNs = 10_000_000_000n;
/** An approval that nobody has come for is lost: longer than the kernel retries a SYN (about 127 s). */
const approvalMaxAgeNs = 150_000_000_000n;
/** So many are looked at in one call. */
const entriesPerCall = 512;

interface Suspect {
  readonly key: Uint8Array;
  readonly sinceNs: bigint;
  readonly owner: bigint;
}

/**
 * Finds flows whose end nobody reported: another owner's program can switch a socket's callbacks off. The map is listed
 * once for many calls, each of which looks at some of the entries.
 */
export class FlowSweep {
  readonly #map: BpfMap;
  readonly #pods: SweptPods;
  /** Of the listing that is being gone through. */
  #entry: Entry | undefined;

  constructor(map: BpfMap, pods: SweptPods) {
    this.#map = map;
    this.#pods = pods;
  }

  /** @returns how many were deleted */
  run(nowNs = process.hrtime.bigint()): number {
    const entry = this.#entry ?? entriesOf(this.#map);
    const end = Math.min(entry.index + entriesPerCall, entry.count);
    const lost: Suspect[] = [];
    const asked = new Map<Namespace, { list: SocketList; suspects: Suspect[] }>();
    for (; entry.index < end; entry.index += 1) this.#look(entry, nowNs, lost, asked);
    this.#entry = end < entry.count ? entry : undefined;
    for (const { list, suspects } of asked.values()) {
      const areOpen = openOf(list);
      lost.push(...suspects.filter((_, index) => areOpen[index] === false));
    }
    return this.#delete(lost);
  }

  /** Tells what is lost for certain from what has a socket that can be asked after. */
  #look(
    entry: Entry,
    nowNs: bigint,
    lost: Suspect[],
    asked: Map<Namespace, { list: SocketList; suspects: Suspect[] }>,
  ): void {
    const sinceNs = entry.valueU64(flowFields.sinceNs.offset);
    const { kind, owner } = ownership(entry);
    const suspect = { key: entry.key(), sinceNs, owner };
    if (nowNs - sinceNs < youngNs) return;
    const isEstablished = entry.valueU32(flowFields.state.offset) === flowState.ESTABLISHED;
    if (!isEstablished && nowNs - sinceNs >= approvalMaxAgeNs) {
      lost.push(suspect);
      return;
    }
    const namespace = kind === 'probe' ? 'host' : this.#pods.namespaceOf(owner as NetnsCookie);
    if (namespace === undefined) {
      // Of a pod that is not enrolled nobody will report the end. Of one that an earlier agent left it may yet come.
      if (!this.#pods.hasPod(owner as NetnsCookie)) lost.push(suspect);
      return;
    }
    const group = asked.get(namespace) ?? { list: new SocketList(namespace), suspects: [] };
    asked.set(namespace, group);
    group.list.add(suspect.key, endOf(kind), entry.valueU64(cookieField(kind)));
    group.suspects.push(suspect);
  }

  #delete(lost: readonly Suspect[]): number {
    const swept = new Map<bigint, number>();
    let deleted = 0;
    for (const { key, sinceNs, owner } of lost) {
      if (!deleteFlow(this.#map, key, sinceNs)) continue;
      deleted += 1;
      swept.set(owner, (swept.get(owner) ?? 0) + 1);
    }
    for (const [owner, count] of swept) this.#pods.countSweptFlows(owner as NetnsCookie, count);
    return deleted;
  }
}

/** Nothing when they could not be asked after (no descriptor left, say): a later sweep will. */
function openOf(list: SocketList): boolean[] {
  try {
    return list.areOpen();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return [];
  }
}

/** Whose socket has the plan. */
function endOf(kind: FlowKind | undefined): 'client' | 'server' {
  return kind === 'plain' ? 'server' : 'client';
}

function cookieField(kind: FlowKind | undefined): number {
  return endOf(kind) === 'client' ? flowFields.clientSocket.offset : flowFields.serverSocket.offset;
}
