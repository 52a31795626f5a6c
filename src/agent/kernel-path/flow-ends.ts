import {
  type ConnectionFacts,
  completedFields,
  connectionFacts,
  type FlowRecord,
  identityOf,
  type LineFields,
  type NetnsCookie,
  partyOf,
  type Service,
  type SpiffeId,
  type Workload,
} from '../../mesh/index.ts';
import type { DryRunOutcome } from '../../policy/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { KUBELET_PROBE } from '../flow-groups.ts';
import type { Clock } from '../ports.ts';
import type { FlowFault } from './decide.ts';
import type { LimitedLog } from './limited-log.ts';
import type { PathPod, PathPods } from './pods.ts';
import type { FlowEnd, FlowMemory, FlowTable, PathModel } from './ports.ts';

interface FlowEndsDeps {
  readonly table: Pick<FlowTable, 'flowRecords'>;
  readonly model: Pick<PathModel, 'isComplete' | 'settings' | 'workloadAt' | 'serviceAt'>;
  readonly pods: Pick<PathPods, 'get'>;
  /** Why we ended it, if we did. Told once. */
  takeFault(end: FlowEnd): FlowFault | undefined;
  /** It could not be connected. */
  failed(end: FlowEnd): void;
  /** What dry-run policies say of it. */
  dryRun(outcomes: readonly DryRunOutcome[]): void;
  readonly memory: FlowMemory | undefined;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Pick<Log, 'debug'>;
  readonly limited: Pick<LimitedLog, 'info'>;
}

/** The two ends of a flow, as the mesh knows them now that it is over. */
interface Ends {
  readonly source: PathPod | undefined;
  readonly destination: PathPod | undefined;
  readonly client: Workload | undefined;
  readonly server: Workload | undefined;
  readonly service: Service | undefined;
  /** Proven by the kernel; undefined: nobody's. */
  readonly identities: { readonly source: SpiffeId; readonly destination: SpiffeId | undefined } | undefined;
  /** What dry-run policies say of it. */
  readonly dryRun: readonly DryRunOutcome[];
  readonly ended: string;
}

/** Connections of the kernel path that are over: each is told to the log, and remembered. */
export class FlowEnds {
  readonly #deps: FlowEndsDeps;
  readonly #logsConnections: boolean;
  #outbound = 0;
  #inbound = 0;

  constructor(deps: FlowEndsDeps, logsConnections: boolean) {
    this.#deps = deps;
    this.#logsConnections = logsConnections;
  }

  /** Connections that have ended since the start, by the pod's side. One between two pods of this node counts on both. */
  totals(): { readonly outbound: number; readonly inbound: number } {
    return { outbound: this.#outbound, inbound: this.#inbound };
  }

  /** Takes what there is, for as long as `mayGoOn`. */
  read(mayGoOn: () => boolean): void {
    do {
      const ends = this.#deps.table.flowRecords();
      if (ends.length === 0) return;
      const records = ends.flatMap((end) => this.#take(end));
      this.#deps.memory?.add(records);
    } while (mayGoOn());
  }

  #take(end: FlowEnd): FlowRecord[] {
    const { dryRun, failed, log } = this.#deps;
    if (end.end === 'refused' || end.end === 'timed-out') failed(end);
    const ends = this.#endsOf(end);
    if (ends.dryRun.length > 0) {
      dryRun(ends.dryRun);
      this.#tellDryRun(end, ends);
    }
    if (this.#logsConnections) log.debug(this.#line(end, ends), 'connection complete');
    const records: FlowRecord[] = [];
    if (ends.source !== undefined) {
      this.#outbound += 1;
      records.push(this.#record(end, ends, ends.source.cookie, 'outbound'));
    }
    if (ends.destination !== undefined) {
      this.#inbound += 1;
      records.push(this.#record(end, ends, ends.destination.cookie, 'inbound'));
    }
    return records;
  }

  #endsOf(end: FlowEnd): Ends {
    const { model, pods, takeFault } = this.#deps;
    const [source, destination] = [pods.get(end.source), pods.get(end.destination)];
    const { network } = model.settings;
    const client = source?.workload ?? model.workloadAt(network, end.client.address);
    const server = destination?.workload ?? model.workloadAt(network, end.server.address);
    const isProven = end.kind === 'local' && source?.workload !== undefined;
    const proven = isProven
      ? { source: identityOf(source.workload), destination: server && identityOf(server) }
      : undefined;
    const fault = takeFault(end);
    return {
      source,
      destination,
      client,
      server,
      service: end.asked && model.serviceAt(network, end.asked.address, client?.namespace),
      identities: proven,
      dryRun: this.#dryRunOf(end, destination, proven?.source),
      ended: fault === undefined ? reasonOf(end) : 'policy-changed',
    };
  }

  /** By what applies now. Nobody asked when it was made: a verdict, or an open port, had the answer. */
  #dryRunOf(
    { kind, client, server }: FlowEnd,
    destination: PathPod | undefined,
    source: SpiffeId | undefined,
  ): readonly DryRunOutcome[] {
    if (destination?.rules.hasDryRun !== true || (kind !== 'local' && kind !== 'plain')) return [];
    const attempt = { source, sourceAddress: client.address, destination: server, throughWaypoint: false };
    return destination.rules.decide(attempt).dryRun;
  }

  #tellDryRun(end: FlowEnd, ends: Ends): void {
    const { path, ...facts } = this.#facts(end, ends);
    for (const { policy, would } of ends.dryRun)
      if (would !== 'allow') this.#deps.limited.info({ ...facts, policy, would, path }, 'policy dry run');
  }

  #facts(end: FlowEnd, { source, client, server, service, identities }: Ends): ConnectionFacts {
    return connectionFacts({
      direction: source === undefined ? 'inbound' : 'outbound',
      from: end.client,
      source: partyOf(client),
      to: end.server,
      authority: undefined,
      service,
      destination: partyOf(server),
      identities,
      path: 'kernel',
    });
  }

  #line(end: FlowEnd, ends: Ends): LineFields {
    const { bytesSent, bytesReceived, durationMs } = end;
    const fields = completedFields(this.#facts(end, ends), {
      bytesFromClient: bytesSent,
      bytesFromServer: bytesReceived,
      durationMs,
      ended: ends.ended,
    });
    return { ...fields, flow: end.kind, round_trip_us: end.roundTripUs, retransmits: end.retransmits };
  }

  #record(end: FlowEnd, ends: Ends, pod: NetnsCookie, direction: FlowRecord['direction']): FlowRecord {
    return {
      pod,
      endedAt: this.#deps.clock.now(),
      direction,
      path: 'kernel',
      client: end.client,
      server: end.server,
      sourceIdentity: ends.identities?.source,
      destinationIdentity: ends.identities?.destination,
      service: ends.service?.hostname,
      ended: ends.ended,
      decision: end.kind === 'probe' ? KUBELET_PROBE : undefined,
      bytesSent: end.bytesSent,
      bytesReceived: end.bytesReceived,
      durationMs: end.durationMs,
    };
  }
}

/** In the words of the tunnel (docs/errors.md). */
function reasonOf({ end, roundTripUs }: FlowEnd): string {
  switch (end) {
    case 'refused':
      return 'dial-refused';
    case 'timed-out':
      return roundTripUs === 0 ? 'dial-timed-out' : 'server-lost';
    case 'aborted':
      return 'client-gone';
    default:
      return end;
  }
}
