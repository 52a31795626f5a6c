import type { FlowRecord, FlowSecurity, FlowSink } from '../../mesh/index.ts';
import type { MapEdge } from '../../telemetry/index.ts';
import { isDenied } from '../flow-query.ts';
import { SlidingLatency } from './latency.ts';
import { destinationEnd, edgeId, type MapEnd, sourceEnd } from './map-names.ts';
import { RecentCounts } from './recent-counts.ts';
import { SlidingCounts } from './sliding-counts.ts';

/** What the writers of the series count of an edge at this moment, as one of its ends sees it. */
export interface LiveEdge {
  readonly from: MapEnd;
  readonly to: MapEnd;
  readonly direction: FlowRecord['direction'];
  readonly open: number;
  readonly bytesPerSecond: number;
}

/** An edge, as the end that sees more of it does. */
export interface TrafficEdge {
  readonly from: MapEnd;
  readonly to: MapEnd;
  readonly edge: MapEdge;
  /** Which ends are on this node. */
  readonly isFromHere: boolean;
  readonly isToHere: boolean;
}

export interface TrafficDetails extends TrafficEdge {
  readonly ended: Readonly<Record<string, number>>;
  readonly paths: Readonly<Record<string, number>>;
  /** Key: both SPIFFE ids, with a space in between; empty where nobody has proven one. */
  readonly identities: Readonly<Record<string, number>>;
}

export interface TrafficMapOptions {
  /** Edges that are kept. Default: 5,000. */
  readonly most?: number;
}

const FIELD = { connections: 0, bytes: 1, failed: 2, denied: 3, mutual_tls: 4, kernel: 5, none: 6 } as const;
const FIELDS = 7;
const FORGOTTEN_MS = 600_000;
/** Of the connections of the last minute. */
const BAD_SHARE = 0.2;
const DEGRADED_SHARE = 0.01;

/** What one end of an edge has seen. A connection between two pods of this node is seen by both. */
class Side {
  readonly counts = new SlidingCounts(FIELDS);
  readonly latency = new SlidingLatency();
  readonly ended = new RecentCounts();
  readonly paths = new RecentCounts();
  readonly identities = new RecentCounts();

  add(record: FlowRecord, now: number): void {
    const { counts } = this;
    const isRefused = isDenied(record);
    counts.add(FIELD.connections, 1, now);
    counts.add(FIELD.bytes, record.bytesSent + record.bytesReceived, now);
    counts.add(FIELD[record.security], 1, now);
    if (isRefused) counts.add(FIELD.denied, 1, now);
    else if (isFailure(record.ended)) counts.add(FIELD.failed, 1, now);
    if (record.connectMs !== undefined) this.latency.add(record.connectMs, now);
    this.ended.add(record.ended, now);
    this.paths.add(record.path, now);
    this.identities.add(`${record.sourceIdentity ?? ''} ${record.destinationIdentity ?? ''}`, now);
  }
}

interface Edge {
  readonly id: string;
  readonly from: MapEnd;
  readonly to: MapEnd;
  outbound: Side | undefined;
  inbound: Side | undefined;
  seenAt: number;
  security: FlowSecurity;
}

/** Who has talked to whom in the last minutes. Bounded: an edge that finds no room is left out, and `isCut` says so. */
export class TrafficMap implements FlowSink {
  readonly #edges = new Map<string, Edge>();
  readonly #most: number;
  readonly #now: () => number;
  #cutAt = Number.NEGATIVE_INFINITY;

  constructor(deps: { readonly now: () => number }, options: TrafficMapOptions = {}) {
    this.#now = deps.now;
    this.#most = options.most ?? 5_000;
  }

  add(records: readonly FlowRecord[]): void {
    const now = this.#now();
    for (const record of records) {
      if (record.stage === 'early') continue;
      const edge = this.#edgeOf(sourceEnd(record), destinationEnd(record), now);
      if (edge === undefined) continue;
      edge.seenAt = now;
      edge.security = record.security;
      edge[record.direction] ??= new Side();
      edge[record.direction]?.add(record, now);
    }
  }

  /** Lets go of what is forgotten. To be called now and then: nobody may ever look. */
  sweep(): void {
    this.#forget(this.#now());
  }

  /** Edges that are kept. */
  get size(): number {
    return this.#edges.size;
  }

  get isCut(): boolean {
    return this.#now() - this.#cutAt < FORGOTTEN_MS;
  }

  /** @param live what is open, also of edges on which nothing has ended yet */
  edges(live: readonly LiveEdge[]): readonly TrafficEdge[] {
    const now = this.#now();
    for (const { from, to, open } of live) {
      const edge = open > 0 ? this.#edgeOf(from, to, now) : undefined;
      if (edge !== undefined) edge.seenAt = now;
    }
    const alive = Map.groupBy(live, ({ from, to }) => edgeId(from, to));
    this.#forget(now);
    return [...this.#edges.values()].map((edge) => this.#view(edge, alive.get(edge.id) ?? [], now));
  }

  details(id: string, live: readonly LiveEdge[]): TrafficDetails | undefined {
    const edge = this.#edges.get(id);
    if (edge === undefined) return undefined;
    const now = this.#now();
    const side = sideOf(edge, now);
    const view = this.#view(
      edge,
      live.filter(({ from, to }) => edgeId(from, to) === id),
      now,
    );
    return {
      ...view,
      ended: side?.ended.read(now) ?? {},
      paths: side?.paths.read(now) ?? {},
      identities: side?.identities.read(now) ?? {},
    };
  }

  #edgeOf(from: MapEnd, to: MapEnd, now: number): Edge | undefined {
    const id = edgeId(from, to);
    const known = this.#edges.get(id);
    if (known !== undefined) return known;
    if (this.#edges.size >= this.#most) this.#forget(now);
    if (this.#edges.size >= this.#most) {
      this.#cutAt = now;
      return undefined;
    }
    const made: Edge = { id, from, to, outbound: undefined, inbound: undefined, seenAt: now, security: 'none' };
    this.#edges.set(id, made);
    return made;
  }

  #forget(now: number): void {
    for (const [id, { seenAt }] of this.#edges) if (now - seenAt > FORGOTTEN_MS) this.#edges.delete(id);
  }

  #view(edge: Edge, live: readonly LiveEdge[], now: number): TrafficEdge {
    const { id, from, to } = edge;
    const side = sideOf(edge, now);
    const rate = (field: number): number => side?.counts.rate(field, now) ?? 0;
    // Each end counts all of it, so the one that has counted more is believed.
    const open = Math.max(0, ...live.map((each) => each.open));
    const bytesPerSecond = Math.max(rate(FIELD.bytes), ...live.map((each) => each.bytesPerSecond));
    return {
      from,
      to,
      isFromHere: edge.outbound !== undefined || live.some(({ direction }) => direction === 'outbound'),
      isToHere: edge.inbound !== undefined || live.some(({ direction }) => direction === 'inbound'),
      edge: {
        id,
        from: from.id,
        to: to.id,
        connectionsPerSecond: rate(FIELD.connections),
        bytesPerSecond,
        open,
        failedPerSecond: rate(FIELD.failed),
        deniedPerSecond: rate(FIELD.denied),
        p50Ms: side?.latency.quantile(0.5, now),
        p99Ms: side?.latency.quantile(0.99, now),
        security: securityOf(edge, side, now),
        health: healthOf(side, open, now),
      },
    };
  }
}

/** The side that has seen more in the last minute; of two that have seen as much, the client's. */
function sideOf({ outbound, inbound }: Edge, now: number): Side | undefined {
  if (outbound === undefined || inbound === undefined) return outbound ?? inbound;
  const more = inbound.counts.sum(FIELD.connections, now) > outbound.counts.sum(FIELD.connections, now);
  return more ? inbound : outbound;
}

/** Ends that nobody on the way has to answer for. */
function isFailure(ended: string): boolean {
  return ended !== 'clean' && ended !== 'drain-deadline' && ended !== 'pod-dropped';
}

function healthOf(side: Side | undefined, open: number, now: number): MapEdge['health'] {
  const all = side?.counts.sum(FIELD.connections, now) ?? 0;
  if (all === 0) return open > 0 ? 'good' : 'idle';
  const wrong = (side?.counts.sum(FIELD.failed, now) ?? 0) + (side?.counts.sum(FIELD.denied, now) ?? 0);
  if (wrong / all >= BAD_SHARE) return 'bad';
  return wrong / all >= DEGRADED_SHARE ? 'degraded' : 'good';
}

function securityOf(edge: Edge, side: Side | undefined, now: number): MapEdge['security'] {
  const secured = (['mutual_tls', 'kernel', 'none'] as const).map(
    (security) => [security, side?.counts.sum(FIELD[security], now) ?? 0] as const,
  );
  const used = secured.filter(([, count]) => count > 0);
  if (used.length === 0) return edge.security;
  const isMixed = used.length > 1 && used.some(([security]) => security === 'none');
  const [most] = used.sort((a, b) => b[1] - a[1]);
  return isMixed ? 'mixed' : (most?.[0] ?? edge.security);
}
