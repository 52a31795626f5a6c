import { type FlowRecord, type FlowSubject, formatEndpoint, responseFlagsOf } from '../mesh/index.ts';

export type LineValue = string | number | undefined;
export type Line = Readonly<Record<string, LineValue>>;

export const COMPLETE = 'connection complete';
export const FAILED = 'connection failed';
export const OPENED = 'connection opened';

/** Peers choose some of the texts. */
const MOST_CHARACTERS = 512;
/** Written without quotes in a line of text. */
const ADDRESSES: ReadonlySet<string> = new Set(['src.addr', 'dst.addr', 'dst.hbone_addr']);
const POLICY_ENDS: ReadonlySet<string> = new Set(['policy-denied', 'policy-changed']);

/** Fields of `connection complete`: those of wire contract, section 9.2, in its order, then our own. */
export function completeLine(record: FlowRecord, repeated: number): Line {
  const { ended } = record;
  const isClean = ended === 'clean';
  const isOurs = record.direction === 'outbound';
  return {
    ...partyFields(record),
    bytes_sent: isOurs ? record.bytesSent : record.bytesReceived,
    bytes_recv: isOurs ? record.bytesReceived : record.bytesSent,
    duration: `${Math.round(record.durationMs)}ms`,
    error: isClean ? undefined : bounded(record.error ?? ended),
    path: record.path,
    ...endFields(record),
    flow: record.kind,
    round_trip_us: record.roundTripUs,
    retransmits: record.retransmits,
    waypoint: bounded(record.waypoint),
    attempts: record.attempts > 1 ? record.attempts : undefined,
    response_flags: isClean ? undefined : flagsOf(ended),
    dry_run: dryRunOf(record),
    repeated: repeated > 0 ? repeated : undefined,
  };
}

/** Fields of `connection failed`: of what never became known where it goes. */
export function failedLine(record: FlowRecord, repeated: number): Line {
  const { client, dialled, direction, error, ended } = record;
  return {
    'src.addr': client && formatEndpoint(client),
    'dst.addr': formatEndpoint(dialled),
    direction,
    error: bounded(error ?? ended),
    ...endFields(record),
    repeated: repeated > 0 ? repeated : undefined,
  };
}

/** Fields of `connection opened`. */
export function openedLine(subject: FlowSubject, id: string): Line {
  return { ...partyFields(subject), path: subject.path, flow_id: id };
}

/**
 * A line of text, fields in their order.
 *
 * @param time RFC 3339
 */
export function textLine(time: string, level: string, message: string, line: Line): string {
  let text = `${time}\t${level}\taccess\t${message}\t`;
  let separator = '';
  for (const [name, value] of Object.entries(line)) {
    if (value === undefined) continue;
    const isPlain = typeof value === 'number' || ADDRESSES.has(name);
    text += `${separator}${name}=${isPlain ? value : JSON.stringify(value)}`;
    separator = ' ';
  }
  return `${text}\n`;
}

function partyFields(subject: FlowSubject): Line {
  const { client, source, destination, authority, service } = subject;
  return {
    'src.addr': client && formatEndpoint(client),
    'src.workload': bounded(source?.workload ?? source?.workloadName ?? source?.canonicalName),
    'src.namespace': bounded(source?.namespace),
    'src.identity': subject.sourceIdentity,
    'src.cluster': bounded(source?.cluster),
    'dst.addr': formatEndpoint(subject.dialled),
    'dst.hbone_addr': bounded(authority),
    'dst.service': service?.hostname,
    'dst.workload': bounded(destination?.workload ?? destination?.workloadName ?? destination?.canonicalName),
    'dst.namespace': bounded(destination?.namespace),
    'dst.identity': subject.destinationIdentity,
    'dst.cluster': bounded(destination?.cluster),
    direction: subject.direction,
  };
}

function endFields({ ended, decision, id }: FlowRecord): Line {
  return {
    reason: ended === 'clean' ? undefined : ended,
    policy: POLICY_ENDS.has(ended) ? decision?.policy : undefined,
    flow_id: id,
  };
}

function flagsOf(ended: string): string | undefined {
  const flags = responseFlagsOf(ended);
  return flags === '-' ? undefined : flags;
}

/** E.g. `shop/no-batch deny`. */
function dryRunOf({ dryRun }: FlowRecord): string | undefined {
  const told = dryRun.filter(({ would }) => would !== 'allow').map(({ policy, would }) => `${policy} ${would}`);
  return told.length === 0 ? undefined : bounded(told.join(', '));
}

function bounded(text: string | undefined): string | undefined {
  return text === undefined || text.length <= MOST_CHARACTERS ? text : text.slice(0, MOST_CHARACTERS);
}
