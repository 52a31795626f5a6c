import type { BpfMap, BpfRing } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { FLOW_RECORD_BYTES, flowRecordFields as fields, flowEnd } from '../gen/layout.ts';
import type { Endpoint } from '../mesh/index.ts';
import { viewOf } from './bytes.ts';
import { EndpointReader } from './endpoint-reader.ts';
import type { Place } from './epochs.ts';
import { type FlowKind, flowKinds } from './flows.ts';

/** A connection of the kernel path that is over. */
export interface FlowEnd {
  /** 32 hexadecimal digits: the cookie of the socket that it was recorded at, and when it began. */
  readonly id: string;
  readonly kind: FlowKind;
  /** `refused`: the server answered with a reset; `aborted`: the client gave up before there was a connection. */
  readonly end: 'clean' | 'reset-by-client' | 'reset-by-server' | 'refused' | 'timed-out' | 'aborted';
  readonly source: Place;
  readonly destination: Place;
  readonly client: Endpoint;
  readonly server: Endpoint;
  /** The service that the client asked for; undefined: `server` itself. */
  readonly asked: Endpoint | undefined;
  /** How long ago it ended, when it was read. */
  readonly agoMs: number;
  readonly durationMs: number;
  /** From the connect until it was established; undefined: it never was, or (kind `plain`) was not measured. */
  readonly connectMs: number | undefined;
  /** By the client: what has left its socket, or of kind `plain` what has arrived at the server's. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Smoothed; 0: not measured. */
  readonly roundTripUs: number;
  readonly retransmits: number;
}

const ends: ReadonlyMap<number, FlowEnd['end']> = new Map([
  [flowEnd.CLEAN, 'clean'],
  [flowEnd.RESET_BY_CLIENT, 'reset-by-client'],
  [flowEnd.RESET_BY_SERVER, 'reset-by-server'],
  [flowEnd.REFUSED, 'refused'],
  [flowEnd.TIMED_OUT, 'timed-out'],
  [flowEnd.ABORTED, 'aborted'],
]);

const nsPerMs = 1e6;

/** Records one after the other, as the ring gives them. What this version does not know is left out. */
export function readFlowEnds(
  bytes: Uint8Array,
  endpoints: EndpointReader,
  nowNs = Number(process.hrtime.bigint()),
): FlowEnd[] {
  const view = viewOf(bytes);
  const read: FlowEnd[] = [];
  for (let at = 0; at + FLOW_RECORD_BYTES <= view.byteLength; at += FLOW_RECORD_BYTES) {
    const kind = flowKinds.get(view.getUint32(at + fields.kind.offset, true));
    const end = ends.get(view.getUint32(at + fields.end.offset, true));
    if (kind === undefined || end === undefined) continue;
    const asked = endpoints.read(view, at + fields.asked.offset);
    const connectNs = whole(view, at + fields.connectNs.offset);
    read.push({
      id: flowIdAt(view, at + fields.socket.offset, at + fields.sinceNs.offset),
      kind,
      end,
      source: view.getBigUint64(at + fields.source.offset, true) as Place,
      destination: view.getBigUint64(at + fields.destination.offset, true) as Place,
      client: endpoints.read(view, at + fields.client.offset),
      server: endpoints.read(view, at + fields.server.offset),
      asked: asked.port === 0 ? undefined : asked,
      agoMs: Math.max(0, (nowNs - whole(view, at + fields.timeNs.offset)) / nsPerMs),
      connectMs: connectNs === 0 ? undefined : connectNs / nsPerMs,
      durationMs: whole(view, at + fields.durationNs.offset) / nsPerMs,
      bytesSent: whole(view, at + fields.bytesSent.offset),
      bytesReceived: whole(view, at + fields.bytesReceived.offset),
      roundTripUs: view.getUint32(at + fields.roundTripUs.offset, true),
      retransmits: view.getUint32(at + fields.retransmits.offset, true),
    });
  }
  return read;
}

/** The name of a flow, out of its socket's cookie and its beginning, which stand at these offsets. */
export function flowIdAt(view: DataView, socket: number, sinceNs: number): string {
  return hex(view, socket + 4) + hex(view, socket) + hex(view, sinceNs + 4) + hex(view, sinceNs);
}

function hex(view: DataView, at: number): string {
  return view.getUint32(at, true).toString(16).padStart(8, '0');
}

/** Reads the ring of ended flows. */
export class FlowRecords {
  readonly #ring: BpfRing;
  readonly #endpoints = new EndpointReader();

  constructor(map: BpfMap) {
    this.#ring = addon.ringOpen(map);
  }

  /** @param most records to take; default 4096, some milliseconds of work */
  read(most = 4096): FlowEnd[] {
    return readFlowEnds(addon.ringRead(this.#ring, most), this.#endpoints);
  }

  close(): void {
    addon.close(this.#ring);
  }
}

/** A u64 as a number: exact below 2^53, which no time and no count of bytes reaches. */
function whole(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}
