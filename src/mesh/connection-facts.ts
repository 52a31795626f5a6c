import { type Endpoint, formatEndpoint } from './address.ts';
import type { FlowPath } from './flow.ts';
import type { SpiffeId } from './identity.ts';
import type { Service, Workload } from './workload.ts';

/**
 * What there is to say of a connection: names and order of wire contract, section 9.2, and `path`, how it travels. What is
 * not known is undefined.
 */
export type ConnectionFacts = Readonly<Record<string, string | undefined>>;

/** Fields of a line of the log; undefined ones are left out. */
export type LineFields = Readonly<Record<string, string | number | undefined>>;

/** One of the two who are connected, as far as it is known. */
export interface Party {
  readonly workload: string | undefined;
  readonly namespace: string | undefined;
  readonly cluster: string | undefined;
}

/** What is known of a connection. */
export interface KnownConnection {
  readonly direction: 'inbound' | 'outbound';
  readonly from: Endpoint | undefined;
  readonly source: Party | undefined;
  /** Where the connection was led to. */
  readonly to: Endpoint;
  readonly authority: string | undefined;
  readonly service: Service | undefined;
  readonly destination: Party | undefined;
  /** Proven: by certificates or by the kernel. Undefined: nobody has proven any. */
  readonly identities: { readonly source: SpiffeId; readonly destination: SpiffeId | undefined } | undefined;
  readonly path: FlowPath | undefined;
}

/** How a connection ended, and what it has carried. */
export interface ConnectionEnd {
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  readonly durationMs: number;
  /** `clean`, or the reason. */
  readonly ended: string;
}

export function connectionFacts(known: KnownConnection): ConnectionFacts {
  const { direction, from, source, to, authority, service, destination, identities, path } = known;
  return {
    'src.addr': from && formatEndpoint(from),
    'src.workload': source?.workload,
    'src.namespace': source?.namespace,
    'src.identity': identities?.source,
    'src.cluster': source?.cluster,
    'dst.addr': formatEndpoint(to),
    'dst.hbone_addr': authority,
    'dst.service': service?.hostname,
    'dst.workload': destination?.workload,
    'dst.namespace': destination?.namespace,
    'dst.identity': identities?.destination,
    'dst.cluster': destination?.cluster,
    direction,
    path,
  };
}

/** The fields of the line `connection complete`. Bytes are counted as the pod sees them that this agent serves. */
export function completedFields(facts: ConnectionFacts, end: ConnectionEnd): LineFields {
  const { path, ...rest } = facts;
  const { bytesFromClient, bytesFromServer, durationMs, ended } = end;
  const isOurs = facts.direction === 'outbound';
  return {
    ...rest,
    bytes_sent: isOurs ? bytesFromClient : bytesFromServer,
    bytes_recv: isOurs ? bytesFromServer : bytesFromClient,
    duration: `${Math.round(durationMs)}ms`,
    error: ended === 'clean' ? undefined : ended,
    path,
  };
}

export function partyOf(workload: Workload | undefined): Party | undefined {
  return (
    workload && { workload: workload.name, namespace: workload.namespace, cluster: workload.clusterId || undefined }
  );
}
