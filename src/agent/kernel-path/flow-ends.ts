import { type FlowRecord, type FlowSink, type FlowSubject, formatEndpoint, responseFlagsOf } from '../../mesh/index.ts';
import type { DryRunOutcome } from '../../policy/index.ts';
import type { Clock } from '../ports.ts';
import type { FlowFault } from './decide.ts';
import { type FlowAnswer, type FlowSubjects, type KnownFlow, told } from './flow-subjects.ts';
import type { LimitedLog } from './limited-log.ts';
import type { PathSeries } from './path-series.ts';
import type { PathPod } from './pods.ts';
import type { FlowEnd, FlowTable } from './ports.ts';

export interface FlowEndsDeps {
  readonly table: Pick<FlowTable, 'flowRecords'>;
  readonly subjects: FlowSubjects;
  /** Why we ended it, if we did. Told once. */
  takeFault(end: FlowEnd): FlowFault | undefined;
  /** It could not be connected. */
  failed(end: FlowEnd): void;
  /** What dry-run policies say of it. */
  dryRun(outcomes: readonly DryRunOutcome[]): void;
  /** Undefined: nothing is counted. */
  readonly series: Pick<PathSeries, 'ended' | 'commit'> | undefined;
  readonly flows: FlowSink | undefined;
  readonly clock: Pick<Clock, 'now'>;
  readonly limited: Pick<LimitedLog, 'info'>;
}

/** How a flow ended, in the words of the tunnel (docs/errors.md), and what there is to say of it. */
interface Ending {
  readonly ended: string;
  readonly error: string | undefined;
}

/** Connections of the kernel path that are over: each is counted, and told to whoever wants to know. */
export class FlowEnds {
  readonly #deps: FlowEndsDeps;
  #outbound = 0;
  #inbound = 0;

  constructor(deps: FlowEndsDeps) {
    this.#deps = deps;
  }

  /** Connections that have ended since the start, by the pod's side. One between two pods of this node counts on both. */
  totals(): { readonly outbound: number; readonly inbound: number } {
    return { outbound: this.#outbound, inbound: this.#inbound };
  }

  /** Takes what there is, for as long as `mayGoOn`. */
  read(mayGoOn: () => boolean): void {
    const { table, series, flows } = this.#deps;
    do {
      const ends = table.flowRecords();
      if (ends.length === 0) return;
      const records = ends.flatMap((end) => this.#take(end));
      series?.commit();
      if (records.length > 0) flows?.add(records);
    } while (mayGoOn());
  }

  #take(end: FlowEnd): FlowRecord[] {
    const { subjects, takeFault, dryRun, failed, series } = this.#deps;
    if (end.end === 'refused' || end.end === 'timed-out') failed(end);
    const known = subjects.of(end);
    const fault = takeFault(end);
    const ending = endingOf(end, fault);
    const answer = subjects.answerTo(end, known.destination, known.inbound?.sourceIdentity);
    const decision = fault?.decision === undefined ? answer.decision : told(fault.decision);
    if (answer.dryRun.length > 0) {
      dryRun(answer.dryRun);
      this.#tellDryRun(end, known, answer.dryRun);
    }
    const { source, destination, outbound, inbound } = known;
    const bytes = { sent: end.bytesSent, received: end.bytesReceived };
    series?.ended(end.id, subjectsOf(known), bytes, responseFlagsOf(ending.ended));
    const records: FlowRecord[] = [];
    if (source !== undefined && outbound !== undefined) {
      this.#outbound += 1;
      records.push(this.#record(end, source, outbound, ending, { ...answer, decision }));
    }
    if (destination !== undefined && inbound !== undefined) {
      this.#inbound += 1;
      records.push(this.#record(end, destination, inbound, ending, { ...answer, decision }));
    }
    return records;
  }

  #tellDryRun(end: FlowEnd, { source, outbound, inbound }: KnownFlow, outcomes: readonly DryRunOutcome[]): void {
    const subject = source === undefined ? inbound : outbound;
    const fields = {
      flow: end.id,
      'src.addr': formatEndpoint(end.client),
      'src.workload': subject?.source?.workload,
      'src.namespace': subject?.source?.namespace,
      'src.identity': subject?.sourceIdentity,
      'dst.addr': formatEndpoint(end.server),
      'dst.service': subject?.service?.hostname,
      'dst.workload': subject?.destination?.workload,
      'dst.namespace': subject?.destination?.namespace,
      direction: subject?.direction,
    };
    for (const { policy, would } of outcomes)
      if (would !== 'allow') this.#deps.limited.info({ ...fields, policy, would, path: 'kernel' }, 'policy dry run');
  }

  #record(
    end: FlowEnd,
    { cookie }: PathPod,
    subject: FlowSubject,
    { ended, error }: Ending,
    { decision, dryRun }: FlowAnswer,
  ): FlowRecord {
    return {
      ...subject,
      id: end.id,
      pod: cookie,
      stage: isConnected(end) ? 'connected' : 'addressed',
      endedAt: Math.round(this.#deps.clock.now() - end.agoMs),
      durationMs: end.durationMs,
      ended,
      error,
      decision,
      dryRun,
      attempts: 1,
      bytesSent: end.bytesSent,
      bytesReceived: end.bytesReceived,
      connectMs: end.connectMs,
      firstByteMs: undefined,
      roundTripUs: end.roundTripUs === 0 ? undefined : end.roundTripUs,
      retransmits: end.retransmits,
      kind: end.kind,
    };
  }
}

/** As whom the pods of this node see it. */
export function subjectsOf({ outbound, inbound }: KnownFlow): readonly FlowSubject[] {
  return [outbound, inbound].filter((subject) => subject !== undefined);
}

/** Plaintext from outside is a flow only when it is accepted. */
function isConnected({ kind, connectMs }: FlowEnd): boolean {
  return kind === 'plain' || connectMs !== undefined;
}

function endingOf(end: FlowEnd, fault: FlowFault | undefined): Ending {
  if (fault !== undefined) return { ended: 'policy-changed', error: fault.text };
  switch (end.end) {
    case 'refused':
      return { ended: 'dial-refused', error: `connection failed: ${formatEndpoint(end.server)} refused it` };
    case 'timed-out':
      return isConnected(end)
        ? { ended: 'server-lost', error: `io error: ${formatEndpoint(end.server)} answers no more` }
        : { ended: 'dial-timed-out', error: `connection failed: ${formatEndpoint(end.server)} did not answer` };
    case 'aborted':
      return { ended: 'client-gone', error: undefined };
    default:
      return { ended: end.end, error: undefined };
  }
}
