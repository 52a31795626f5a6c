import type { NetnsCookie } from '../mesh/index.ts';
import type { DecisionReason } from '../policy/index.ts';
import { END_REASONS, type EndReason } from './errors.ts';
import { DECISION_REASONS } from './ledger.ts';
import type { Seat, TunnelWorkerStatus } from './seat.ts';

export interface TunnelWorkersStatus {
  readonly workers: readonly TunnelWorkerStatus[];
  readonly openConnections: ReadonlyMap<NetnsCookie, number>;
  readonly totals: {
    readonly accepted: number;
    readonly closed: number;
    /** Accepted, but there was no other leg. */
    readonly failed: number;
    /** Accepted without an original destination, so reset. */
    readonly unattributed: number;
    readonly bytesFromClients: number;
    readonly bytesFromServers: number;
  };
  /** How many connections ended for which reason, since the start. */
  readonly ended: Readonly<Record<EndReason, number>>;
  /** How many connections were relayed on which path, since the start. */
  readonly paths: {
    /** `plain`: to a workload that takes no tunnel; `passthrough`: to what is not of the mesh. */
    readonly outbound: { readonly tunnel: number; readonly plain: number; readonly passthrough: number };
    readonly inbound: { readonly tunnel: number; readonly plain: number };
  };
  /** TCP connections of the tunnel's sessions, of both directions. */
  readonly sessions: {
    readonly open: number;
    readonly opened: number;
    /** One end did not prove to be who it should, or could not. */
    readonly handshakesFailed: number;
  };
  readonly policy: {
    /** What was answered to new connections to pods of this node, since the start. */
    readonly decisions: Readonly<Record<DecisionReason, number>>;
    /** What dry-run policies would have done; a no of ALLOW policies is a denial. */
    readonly dryRun: { readonly denies: number; readonly allows: number };
    /** Open connections that were reset because policy, or what it is about, changed. */
    readonly closed: number;
  };
  readonly descriptors: { readonly open: number; readonly limit: number };
  /** Sockets that are open now: accepted on 15001 (`source`), on 15006 and 15008 (`destination`). */
  readonly socketsOpen: { readonly source: number; readonly destination: number };
  /** Endpoints that get no connections now, because they have failed. */
  readonly ejectedEndpoints: number;
  /** Records of connections that were lost on their way here, since the start. */
  readonly recordsLost: number;
}

/** Reasons of connections that never had another leg. */
const NEVER_CONNECTED: readonly EndReason[] = [
  'mesh-unknown',
  'no-endpoint',
  'unknown-waypoint',
  'other-network',
  'bad-request',
  'unknown-target',
  'policy-denied',
  'dial-refused',
  'dial-unreachable',
  'dial-timed-out',
  'dial-failed',
  'tunnel-refused',
  'tunnel-unreachable',
  'tunnel-timed-out',
  'tunnel-tls',
  'tunnel-identity',
  'tunnel-peer-identity',
  'no-descriptors',
];

/**
 * What the workers' numbers say.
 *
 * @param descriptorLimit of all workers together
 */
export function statusOf(
  seats: readonly Seat[],
  openConnections: TunnelWorkersStatus['openConnections'],
  descriptorLimit: number,
  ejectedEndpoints: number,
): TunnelWorkersStatus {
  const sum = (of: (seat: Seat) => number): number => seats.reduce((total, seat) => total + of(seat), 0);
  const ended = byName(END_REASONS, (reason) => sum((seat) => seat.ended(reason)));
  const workers = seats.map((seat) => seat.status());
  return {
    workers,
    openConnections,
    totals: {
      accepted: sum((seat) => seat.total('opened')),
      closed: END_REASONS.reduce((total, reason) => total + ended[reason], 0),
      failed: NEVER_CONNECTED.reduce((total, reason) => total + ended[reason], 0),
      unattributed: ended['no-original-destination'],
      bytesFromClients: sum((seat) => seat.total('bytesFromClients')),
      bytesFromServers: sum((seat) => seat.total('bytesFromServers')),
    },
    ended,
    paths: {
      outbound: {
        tunnel: sum((seat) => seat.total('outboundTunnel')),
        plain: sum((seat) => seat.total('outboundPlain')),
        passthrough: sum((seat) => seat.total('outboundPassthrough')),
      },
      inbound: {
        tunnel: sum((seat) => seat.total('inboundTunnel')),
        plain: sum((seat) => seat.total('inboundPlain')),
      },
    },
    sessions: {
      open: sum((seat) => seat.openSessions),
      opened: sum((seat) => seat.total('sessionsOpened')),
      handshakesFailed: sum((seat) => seat.total('handshakesFailed')),
    },
    policy: {
      decisions: byName(DECISION_REASONS, (reason) => sum((seat) => seat.decided(reason))),
      dryRun: {
        denies: sum((seat) => seat.total('dryRunDenies')),
        allows: sum((seat) => seat.total('dryRunAllows')),
      },
      closed: ended['policy-changed'],
    },
    descriptors: {
      open: workers.reduce((total, { descriptors }) => total + descriptors.open, 0),
      limit: descriptorLimit,
    },
    socketsOpen: {
      source: sum((seat) => seat.socketsOpen('outboundSockets')),
      destination: sum((seat) => seat.socketsOpen('inboundSockets')),
    },
    ejectedEndpoints,
    recordsLost: sum((seat) => seat.recordsLost),
  };
}

function byName<Name extends string>(
  names: readonly Name[],
  of: (name: Name) => number,
): Readonly<Record<Name, number>> {
  return Object.fromEntries(names.map((name) => [name, of(name)])) as Record<Name, number>;
}
