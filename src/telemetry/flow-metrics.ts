import { FLOW_PATHS, type FlowRecord, type FlowSink, type FlowSubject } from '../mesh/index.ts';
import type { TextFamily } from './exposition.ts';
import { MOST_NAMESPACES, OTHER } from './namespace-bound.ts';
import { type Group, GroupCounter, GroupHistogram, groupLabels } from './namespace-families.ts';
import { SeriesBudget } from './series-budget.ts';

export interface FlowMetricsOptions {
  /** Shared with `SeriesBook`. Default: one of its own. */
  readonly budget?: SeriesBudget;
  /** What was not counted for this long leaves. Default: 600. */
  readonly idleSeconds?: number;
}

/** Seconds. */
const CONNECT_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const DURATION_BOUNDS = [0.01, 0.1, 1, 10, 60, 300, 900, 3600];
const ROUND_TRIP_BOUNDS = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];

export type ResetBy = 'client' | 'server' | 'agent' | 'network';
const RESETTERS: readonly ResetBy[] = ['client', 'server', 'agent', 'network'];
const RESET_BY: Readonly<Record<string, ResetBy>> = {
  'reset-by-client': 'client',
  'client-gone': 'client',
  'reset-by-server': 'server',
  'client-lost': 'network',
  'server-lost': 'network',
  'tunnel-lost': 'network',
  'peer-silent': 'network',
};

/** Reporter and path. */
const OTHERS = 2 * FLOW_PATHS.length;
const OTHER_RESETS = FLOW_PATHS.length * RESETTERS.length;

/** The label sets of one reporter, path and namespace. */
interface FlowGroup {
  readonly flows: Group;
  readonly resets: Readonly<Record<ResetBy, Group>>;
  touchedAt: number;
}

/** How long connections took, and how well their legs did: distributions by reporter, path and namespace of the pod of this node. */
export class FlowMetrics implements FlowSink {
  readonly families: readonly TextFamily[];
  readonly #idleSeconds: number;
  readonly #duration: GroupHistogram;
  readonly #connect: GroupHistogram;
  readonly #firstByte: GroupHistogram;
  readonly #roundTrip: GroupHistogram;
  readonly #retransmits: GroupCounter;
  readonly #resets: GroupCounter;
  readonly #groups = new Map<string, FlowGroup>();
  readonly #namespaces = new Set<string>();

  constructor({ budget = new SeriesBudget(), idleSeconds = 600 }: FlowMetricsOptions = {}) {
    this.#idleSeconds = idleSeconds;
    const histogram = (name: string, help: string, bounds: readonly number[]): GroupHistogram =>
      new GroupHistogram(`culvert_${name}_seconds`, help, bounds, budget, OTHERS);
    this.#duration = histogram(
      'connection_duration',
      'How long connections lived that were connected',
      DURATION_BOUNDS,
    );
    this.#connect = histogram('connect_duration', 'Time until the server was connected', CONNECT_BOUNDS);
    this.#firstByte = histogram('first_byte', "Time until the server's first byte", CONNECT_BOUNDS);
    this.#roundTrip = histogram(
      'round_trip',
      'Smoothed round trip of the leg to the server, at the end',
      ROUND_TRIP_BOUNDS,
    );
    this.#retransmits = new GroupCounter(
      'culvert_retransmits_total',
      'Segments sent again on the leg to the server',
      budget,
      OTHERS,
    );
    this.#resets = new GroupCounter(
      'culvert_connection_resets_total',
      'Connections that were connected, or about to be, and did not end cleanly, by who ended them',
      budget,
      OTHER_RESETS,
    );
    this.families = [this.#duration, this.#connect, this.#firstByte, this.#roundTrip, this.#retransmits, this.#resets];
  }

  add(records: readonly FlowRecord[]): void {
    const now = performance.now() / 1000;
    for (const record of records) this.#add(record, now);
  }

  /**
   * Lets go of what is idle. To be called now and then.
   *
   * @param nowSeconds of `performance.now()`
   */
  sweep(nowSeconds = performance.now() / 1000): void {
    for (const family of [this.#duration, this.#connect, this.#firstByte, this.#roundTrip])
      family.sweep(nowSeconds, this.#idleSeconds);
    for (const family of [this.#retransmits, this.#resets]) family.sweep(nowSeconds, this.#idleSeconds);
    for (const [key, { touchedAt }] of this.#groups)
      if (nowSeconds - touchedAt >= this.#idleSeconds) this.#groups.delete(key);
    const used = new Set([...this.#groups.keys()].map((key) => key.slice(key.indexOf('/') + 1)));
    for (const namespace of this.#namespaces) if (!used.has(namespace)) this.#namespaces.delete(namespace);
  }

  #add(record: FlowRecord, now: number): void {
    if (record.stage === 'early') return;
    const { flows, resets } = this.#groupOf(record, now);
    if (record.stage === 'connected') this.#duration.observe(flows, record.durationMs / 1000, now);
    if (record.connectMs !== undefined) this.#connect.observe(flows, record.connectMs / 1000, now);
    if (record.firstByteMs !== undefined) this.#firstByte.observe(flows, record.firstByteMs / 1000, now);
    if (record.roundTripUs !== undefined) this.#roundTrip.observe(flows, record.roundTripUs / 1e6, now);
    if (record.retransmits !== undefined) this.#retransmits.add(flows, record.retransmits, now);
    const by = resetBy(record);
    if (by !== undefined) this.#resets.add(resets[by], 1, now);
  }

  #groupOf(record: FlowRecord, now: number): FlowGroup {
    const namespace = this.#labelOf(localNamespaceOf(record) ?? 'unknown');
    const key = `${record.direction} ${record.path}/${namespace}`;
    const known = this.#groups.get(key) ?? groupOf(record, namespace);
    known.touchedAt = now;
    this.#groups.set(key, known);
    return known;
  }

  #labelOf(namespace: string): string {
    if (this.#namespaces.has(namespace)) return namespace;
    if (this.#namespaces.size >= MOST_NAMESPACES) return OTHER;
    this.#namespaces.add(namespace);
    return namespace;
  }
}

function groupOf({ direction, path }: FlowRecord, namespace: string): FlowGroup {
  const reporter = direction === 'outbound' ? 'source' : 'destination';
  const group = (labels: (namespace: string) => Record<string, string>): Group => {
    const other: Group = { labels: groupLabels(labels(OTHER)), other: undefined };
    return namespace === OTHER ? other : { labels: groupLabels(labels(namespace)), other };
  };
  const resets = (by: ResetBy): Group => group((each) => ({ path, namespace: each, by }));
  return {
    flows: group((each) => ({ reporter, path, namespace: each })),
    resets: {
      client: resets('client'),
      server: resets('server'),
      agent: resets('agent'),
      network: resets('network'),
    },
    touchedAt: 0,
  };
}

/** Namespace of the pod of this node; undefined: not known. */
export function localNamespaceOf({ direction, source, destination }: FlowSubject): string | undefined {
  return (direction === 'outbound' ? source : destination)?.namespace;
}

/** Who ended it before its time; undefined: nobody, or it never came so far. */
function resetBy({ ended, stage }: FlowRecord): ResetBy | undefined {
  if (ended === 'clean') return undefined;
  return RESET_BY[ended] ?? (stage === 'connected' ? 'agent' : undefined);
}
