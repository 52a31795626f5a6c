import type { BpfMap } from '../../native/addon/index.js';
import { CONNECTION_BYTES, connectionFields, FLOW_BYTES, flowFields, flowState } from '../gen/layout.ts';
import type { Endpoint, NetnsCookie } from '../mesh/index.ts';
import { viewOf } from './bytes.ts';
import { EndpointReader } from './endpoint-reader.ts';
import type { Place } from './epochs.ts';
import { errnoOf } from './errors.ts';
import { flowIdAt } from './flow-records.ts';
import { type Namespace, type SocketBytes, SocketList } from './flow-sockets.ts';
import { type FlowKind, type FlowPods, flowKinds, ownerOf } from './flows.ts';
import { listingOf } from './map-entries.ts';

/** What a connection that is still open has moved so far. */
export interface FlowSample {
  /** As its end will have it. */
  readonly id: string;
  readonly kind: FlowKind;
  readonly source: Place;
  readonly destination: Place;
  readonly client: Endpoint;
  readonly server: Endpoint;
  readonly asked: Endpoint | undefined;
  /** By the client, as far as it is acknowledged, and to it: never more than its end will tell. Undefined: not measured this time. */
  readonly bytes: { readonly sent: number; readonly received: number } | undefined;
}

export interface FlowSampling {
  /** Grows by one whenever all flows have been gone through, and it begins anew. */
  readonly round: number;
  readonly samples: readonly FlowSample[];
}

/** Younger ones are told of at their end soon enough. */
const youngNs = 5_000_000_000n;
/** A round takes no less, so no flow is measured more often. */
const roundNs = 5_000_000_000n;
/** So many are looked at in one call, some milliseconds of work. */
const flowsPerCall = 1024;

/** Of net/tcp_states.h. */
const FIN_WAIT2 = 5;
/** The other end's FIN has come. */
const afterFin: ReadonlySet<number> = new Set([8, 9, 11]);

interface Listing {
  readonly keys: Uint8Array;
  readonly keyView: DataView;
  readonly values: DataView;
  readonly count: number;
  /** The next one to look at. */
  next: number;
}

/**
 * Measures flows that live long, so that what they move can be counted while they do. The map is listed once for many calls,
 * each of which asks after some of the sockets.
 */
export class FlowSamples {
  readonly #map: BpfMap;
  readonly #pods: Pick<FlowPods, 'namespaceOf'>;
  readonly #endpoints = new EndpointReader();
  #listing: Listing | undefined;
  #begunNs: bigint | undefined;
  #round = 0;

  constructor(map: BpfMap, pods: Pick<FlowPods, 'namespaceOf'>) {
    this.#map = map;
    this.#pods = pods;
  }

  take(nowNs = process.hrtime.bigint()): FlowSampling {
    const listing = this.#listing ?? this.#begin(nowNs);
    if (listing === undefined) return { round: this.#round, samples: [] };
    const end = Math.min(listing.next + flowsPerCall, listing.count);
    const samples = this.#measure(listing, end, nowNs);
    listing.next = end;
    if (end === listing.count) this.#listing = undefined;
    return { round: this.#round, samples };
  }

  /** Undefined: it is too early. */
  #begin(nowNs: bigint): Listing | undefined {
    if (this.#begunNs !== undefined && nowNs - this.#begunNs < roundNs) return undefined;
    this.#begunNs = nowNs;
    this.#round += 1;
    const { keys, values } = listingOf(this.#map);
    const count = keys.length / CONNECTION_BYTES;
    this.#listing = { keys, keyView: viewOf(keys), values: viewOf(values), count, next: 0 };
    return this.#listing;
  }

  #measure(listing: Listing, end: number, nowNs: bigint): FlowSample[] {
    const lists = new Map<Namespace, { readonly list: SocketList; readonly indexes: number[] }>();
    const unmeasured: number[] = [];
    for (let index = listing.next; index < end; index += 1) {
      const at = index * FLOW_BYTES;
      if (listing.values.getUint32(at + flowFields.state.offset, true) !== flowState.ESTABLISHED) continue;
      if (nowNs - listing.values.getBigUint64(at + flowFields.sinceNs.offset, true) < youngNs) continue;
      const namespace = this.#namespaceOf(listing, at);
      if (namespace === undefined) {
        unmeasured.push(index);
        continue;
      }
      const group = lists.get(namespace) ?? { list: new SocketList(namespace), indexes: [] };
      lists.set(namespace, group);
      const key = listing.keys.subarray(index * CONNECTION_BYTES, (index + 1) * CONNECTION_BYTES);
      group.list.add(key, isServers(listing, at) ? 'server' : 'client', socketOf(listing, at));
      group.indexes.push(index);
    }
    const samples = unmeasured.flatMap((index) => this.#sample(listing, index, undefined));
    for (const { list, indexes } of lists.values()) {
      const measured = bytesOf(list);
      for (const [place, index] of indexes.entries()) {
        const bytes = measured?.[place];
        // What is no more since the map was listed has its end to tell of it.
        if (bytes?.state !== 0) samples.push(...this.#sample(listing, index, bytes));
      }
    }
    return samples;
  }

  #namespaceOf({ values }: Listing, at: number): Namespace | undefined {
    const kind = flowKinds.get(values.getUint32(at + flowFields.kind.offset, true));
    if (kind === undefined) return undefined;
    if (kind === 'probe') return 'host';
    const source = values.getBigUint64(at + flowFields.source.offset, true);
    const destination = values.getBigUint64(at + flowFields.destination.offset, true);
    return this.#pods.namespaceOf(ownerOf(kind, source, destination) as NetnsCookie);
  }

  /** None of a kind that this version does not know. */
  #sample(listing: Listing, index: number, bytes: SocketBytes | undefined): FlowSample[] {
    const { keyView, values } = listing;
    const [key, at] = [index * CONNECTION_BYTES, index * FLOW_BYTES];
    const kind = flowKinds.get(values.getUint32(at + flowFields.kind.offset, true));
    if (kind === undefined) return [];
    const isServer = isServers(listing, at);
    const asked = this.#endpoints.read(values, at + flowFields.asked.offset);
    return [
      {
        id: flowIdAt(values, at + socketField(isServer), at + flowFields.sinceNs.offset),
        kind,
        source: values.getBigUint64(at + flowFields.source.offset, true) as Place,
        destination: values.getBigUint64(at + flowFields.destination.offset, true) as Place,
        client: this.#endpoints.read(keyView, key + connectionFields.client.offset),
        server: this.#endpoints.read(keyView, key + connectionFields.server.offset),
        asked: asked.port === 0 ? undefined : asked,
        bytes: bytes && payloadOf(bytes, isServer),
      },
    ];
  }
}

/** Of the socket that has the plan, without what the SYN of a connect, and a FIN, count. */
function payloadOf({ state, acked, received }: SocketBytes, isServers: boolean): { sent: number; received: number } {
  const out = Math.max(0, acked - (isServers ? 0 : 1) - (state === FIN_WAIT2 ? 1 : 0));
  const back = Math.max(0, received - (afterFin.has(state) ? 1 : 0));
  return isServers ? { sent: back, received: out } : { sent: out, received: back };
}

/** Whose socket has the plan: the server's only of plaintext. */
function isServers({ values }: Listing, at: number): boolean {
  return flowKinds.get(values.getUint32(at + flowFields.kind.offset, true)) === 'plain';
}

function socketField(isServer: boolean): number {
  return isServer ? flowFields.serverSocket.offset : flowFields.clientSocket.offset;
}

function socketOf(listing: Listing, at: number): bigint {
  return listing.values.getBigUint64(at + socketField(isServers(listing, at)), true);
}

/** Undefined when they could not be asked after (no descriptor left, say): a later round will. */
function bytesOf(list: SocketList): SocketBytes[] | undefined {
  try {
    return list.measure();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}
