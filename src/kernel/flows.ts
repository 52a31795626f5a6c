import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import {
  CONNECTION_BYTES,
  connectionFields,
  encodeConnection,
  FLOW_BYTES,
  flowFields,
  flowKind,
  flowState,
} from '../gen/layout.ts';
import { type Endpoint, encodeAddress, type NetnsCookie } from '../mesh/index.ts';
import { readU64, viewOf } from './bytes.ts';
import { EndpointReader } from './endpoint-reader.ts';
import { outside, type Place } from './epochs.ts';
import { KernelError } from './errors.ts';
import { type Namespace, SocketLists } from './flow-sockets.ts';
import { deleteEntries, type Entry } from './map-entries.ts';

/** `outside`: from a pod to a destination that takes no tunnel; `plain`: from anybody to an open port; `probe`: of the kubelet. */
export type FlowKind = 'local' | 'outside' | 'plain' | 'probe';

/** A connection on the kernel path. */
export interface KernelFlow {
  readonly kind: FlowKind;
  readonly state: 'approved' | 'arrived' | 'established';
  /** 0: not a pod. */
  readonly source: Place;
  /** 0: outside. */
  readonly destination: Place;
  readonly client: Endpoint;
  readonly server: Endpoint;
  readonly sourceEpoch: bigint;
  readonly destinationEpoch: bigint;
  /** CLOCK_MONOTONIC, nanoseconds. */
  readonly sinceNs: bigint;
  /** Socket cookies; 0: not known. */
  readonly clientSocket: bigint;
  readonly serverSocket: bigint;
}

/** By layout.h's number. */
export const flowKinds: ReadonlyMap<number, FlowKind> = new Map([
  [flowKind.LOCAL, 'local'],
  [flowKind.OUTSIDE, 'outside'],
  [flowKind.PLAIN, 'plain'],
  [flowKind.PROBE, 'probe'],
]);

const states: ReadonlyMap<number, KernelFlow['state']> = new Map([
  [flowState.APPROVED, 'approved'],
  [flowState.ARRIVED, 'arrived'],
  [flowState.ESTABLISHED, 'established'],
]);

/** The pod that a flow is counted on: whose socket has the plan, so whose close ends the flow. Of a probe it is the pod probed. */
export function ownerOf(kind: FlowKind, source: bigint, destination: bigint): bigint {
  return kind === 'local' || kind === 'outside' ? source : destination;
}

/** What the flows need to know of pods. */
export interface FlowPods {
  /** The network namespace, if this process holds it open. */
  namespaceOf(cookie: NetnsCookie): Namespace | undefined;
  /** Flows of the pod have been deleted here: the kernel's counts do not know of it. */
  countSweptFlows(cookie: NetnsCookie, count: number): void;
}

/** So many that could not be ended are tried again; beyond that the oldest are not. */
const mostFailed = 4096;

/** The connections on the kernel path: who they are, and how they are ended. */
export class Flows {
  readonly #map: BpfMap;
  readonly #pods: FlowPods;
  readonly #endpoints = new EndpointReader();
  #failed: readonly KernelFlow[] = [];

  constructor(map: BpfMap, pods: FlowPods) {
    this.#map = map;
    this.#pods = pods;
  }

  /** @param of only those with one of these for source or destination. Default: all */
  list(of?: ReadonlySet<bigint>): KernelFlow[] {
    const { keys, values } = addon.mapEntries(this.#map);
    const [keyView, valueView] = [viewOf(keys), viewOf(values)];
    const flows: KernelFlow[] = [];
    for (let at = 0, key = 0; at < values.length; at += FLOW_BYTES, key += CONNECTION_BYTES) {
      const source = valueView.getBigUint64(at + flowFields.source.offset, true);
      const destination = valueView.getBigUint64(at + flowFields.destination.offset, true);
      if (of !== undefined && !of.has(source) && !of.has(destination)) continue;
      const kind = flowKinds.get(valueView.getUint32(at + flowFields.kind.offset, true));
      const state = states.get(valueView.getUint32(at + flowFields.state.offset, true));
      if (kind === undefined || state === undefined) continue;
      flows.push({
        kind,
        state,
        source: source as Place,
        destination: destination as Place,
        client: this.#endpoints.read(keyView, key + connectionFields.client.offset),
        server: this.#endpoints.read(keyView, key + connectionFields.server.offset),
        sourceEpoch: valueView.getBigUint64(at + flowFields.sourceEpoch.offset, true),
        destinationEpoch: valueView.getBigUint64(at + flowFields.destinationEpoch.offset, true),
        sinceNs: valueView.getBigUint64(at + flowFields.sinceNs.offset, true),
        clientSocket: valueView.getBigUint64(at + flowFields.clientSocket.offset, true),
        serverSocket: valueView.getBigUint64(at + flowFields.serverSocket.offset, true),
      });
    }
    return flows;
  }

  /**
   * Ends these flows: resets both of their sockets, as far as they are in namespaces that this process knows, and takes back
   * what the kernel has not taken back itself (approvals whose SYN is under way, sockets whose end nobody reported). Those of
   * which it knows no namespace stay, and stay listed. So do those of a namespace that fails, until `retry`.
   *
   * @returns how many sockets were ended
   * @throws KernelError KERNEL_REFUSED when several namespaces were asked and each has failed
   */
  destroy(flows: readonly KernelFlow[]): number {
    // The client's first: its end is what the kernel records.
    const clients = new SocketLists();
    const servers = new SocketLists();
    const keys = flows.map(keyOf);
    for (const [index, flow] of flows.entries()) {
      const key = keys[index];
      if (key === undefined) continue;
      clients.add(this.#clientNamespace(flow), key, 'client', flow.clientSocket);
      servers.add(this.#serverNamespace(flow), key, 'server', flow.serverSocket);
    }
    const failures = new Map<Namespace, unknown>();
    const destroyed = clients.destroy(failures) + servers.destroy(failures);
    this.#withdraw(flows, keys, failures);
    if (failures.size === 0) return destroyed;
    this.#failed = [...this.#failed, ...flows.filter((flow) => this.#hasFailed(flow, failures))].slice(-mostFailed);
    const [failure] = failures.values();
    if (failures.size > 1 && failures.size === new Set([...clients.namespaces, ...servers.namespaces]).size)
      throw new KernelError('KERNEL_REFUSED', 'the kernel did not end any connection: see the cause', failure);
    return destroyed;
  }

  /** Ends what `destroy` could not. Of what fails once more it has told already. */
  retry(): void {
    const failed = this.#failed;
    this.#failed = [];
    try {
      if (failed.length > 0) this.destroy(failed);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
    }
  }

  #hasFailed(flow: KernelFlow, failures: ReadonlyMap<Namespace | undefined, unknown>): boolean {
    return failures.has(this.#clientNamespace(flow)) || failures.has(this.#serverNamespace(flow));
  }

  #clientNamespace({ kind, source }: KernelFlow): Namespace | undefined {
    if (kind === 'probe') return 'host';
    return source === outside ? undefined : this.#pods.namespaceOf(source);
  }

  #serverNamespace({ destination }: KernelFlow): Namespace | undefined {
    return destination === outside ? undefined : this.#pods.namespaceOf(destination);
  }

  /** Deletes the entries that are still there. Not one that a newer connection of the same addresses has written. */
  #withdraw(
    flows: readonly KernelFlow[],
    keys: readonly Uint8Array[],
    failures: ReadonlyMap<Namespace, unknown>,
  ): void {
    const swept = new Map<bigint, number>();
    for (const [index, flow] of flows.entries()) {
      const key = keys[index];
      if (key === undefined || !this.#isOver(flow, failures) || !deleteFlow(this.#map, key, flow.sinceNs)) continue;
      const owner = ownerOf(flow.kind, flow.source, flow.destination);
      swept.set(owner, (swept.get(owner) ?? 0) + 1);
    }
    for (const [owner, count] of swept) this.#pods.countSweptFlows(owner as NetnsCookie, count);
  }

  /**
   * Nothing of the flow is left but its entry. One whose socket could not be looked for stays listed: it may live. But an
   * approval is taken back in any case where that keeps the connection from its destination.
   */
  #isOver(flow: KernelFlow, failures: ReadonlyMap<Namespace, unknown>): boolean {
    if (flow.state !== 'established' && flow.kind !== 'outside') return true;
    const namespace = flow.kind === 'plain' ? this.#serverNamespace(flow) : this.#clientNamespace(flow);
    return namespace !== undefined && !failures.has(namespace);
  }
}

/** Whose a flow is, out of its entry. */
export function ownership(entry: Entry): { kind: FlowKind | undefined; owner: bigint } {
  const kind = flowKinds.get(entry.valueU32(flowFields.kind.offset));
  const source = entry.valueU64(flowFields.source.offset);
  const destination = entry.valueU64(flowFields.destination.offset);
  return { kind, owner: kind === undefined ? destination : ownerOf(kind, source, destination) };
}

/**
 * Deletes the entry if it is still the same. True for the one who deleted it, who alone may count it off.
 *
 * Between the look and the deletion the kernel may put another in its place: then a new connection goes without an entry,
 * which means that its destination's agent is asked, and that it is not listed. Two calls in a row make that all but impossible.
 */
export function deleteFlow(map: BpfMap, key: Uint8Array, sinceNs: bigint): boolean {
  const value = addon.mapLookup(map, key);
  return value !== undefined && readU64(value, flowFields.sinceNs.offset) === sinceNs && addon.mapDelete(map, key);
}

/** Deletes what is counted on a pod: its sockets' ends will find no such pod. */
export function forgetFlows(map: BpfMap, cookie: NetnsCookie): void {
  deleteEntries(map, (entry) => ownership(entry).owner === cookie);
}

function keyOf({ kind, source, destination, client, server }: KernelFlow): Uint8Array {
  const structOf = ({ address, port }: Endpoint): { address: { bytes: Uint8Array }; port: number } => ({
    address: { bytes: encodeAddress(address) },
    port,
  });
  return encodeConnection({
    netns: kind === 'outside' ? source : destination,
    client: structOf(client),
    server: structOf(server),
  });
}
