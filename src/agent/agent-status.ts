/** What the agent says of itself when it is asked for its status. */
import type { KernelPath } from './kernel-path/kernel-path.ts';
import type { TunnelStatus } from './ports.ts';
import type { KernelPathStatusReply, PodStatusReply, StatusReply } from './protocol.ts';
import type { PodRecord } from './reconcile.ts';
import { uncapturedOf } from './uncaptured.ts';

/** What is known of each pod beside its record, by the cookie of its namespace. */
interface OfPods {
  readonly openConnections: ReadonlyMap<bigint, number>;
  /** The kernel's counts, by its reasons. */
  readonly events: ReadonlyMap<bigint, Record<string, number>>;
}

export function podStatus(record: PodRecord, known: OfPods): PodStatusReply {
  const { pod } = record;
  const cookie = record.kind === 'enrolling' ? undefined : record.cookie;
  const error = 'error' in record ? record.error : undefined;
  const events = cookie === undefined ? {} : (known.events.get(cookie) ?? {});
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    netns: pod.netns,
    addresses: [...pod.addresses],
    path: record.kind,
    ...(error === undefined ? {} : { error }),
    ...(cookie === undefined ? {} : { netnsCookie: String(cookie) }),
    openConnections: cookie === undefined ? 0 : (known.openConnections.get(cookie) ?? 0),
    kernelEvents: events,
    uncaptured: uncapturedOf(events),
  };
}

type OfTunnel = Pick<StatusReply, 'workers' | 'totals' | 'ended' | 'paths' | 'sessions' | 'descriptors'>;

export function tunnelStatus(tunnel: TunnelStatus): OfTunnel {
  const { totals, descriptors } = tunnel;
  return {
    workers: tunnel.workers.map(({ slot, state, openConnections, restarts, descriptorStops, eventLoopDelayMs }) => ({
      slot,
      state,
      openConnections,
      restarts,
      descriptorStops,
      eventLoopDelayMs: { ...eventLoopDelayMs },
    })),
    totals: {
      accepted: totals.accepted,
      closed: totals.closed,
      failed: totals.failed,
      unattributed: totals.unattributed,
      bytesFromClients: totals.bytesFromClients,
      bytesFromServers: totals.bytesFromServers,
    },
    ended: { ...tunnel.ended },
    paths: tunnel.paths,
    sessions: tunnel.sessions,
    descriptors: { open: descriptors.open, limit: descriptors.limit },
  };
}

export function kernelPathStatus(path: Pick<KernelPath, 'status'> | undefined): KernelPathStatusReply | null {
  if (path === undefined) return null;
  const { state, error, verdicts, services, flows, beats, kubelet } = path.status();
  return {
    ...{ state, verdicts, services, flows, heartbeats: beats, kubelet: kubelet ?? null },
    ...(error === undefined ? {} : { error }),
  };
}
