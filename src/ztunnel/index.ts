export type { ListedConnection } from './connection-lists.ts';
export type { EndReason, ZtunnelErrorCode } from './errors.ts';
export { END_REASONS, ZTUNNEL_ERROR_CODES, ZtunnelError } from './errors.ts';
export type { Backend, Direct } from './outbound/direct.ts';
export { backendsOf, directTo, isChosenFreely } from './outbound/direct.ts';
export type { EndpointCosts, EndpointHealth } from './outbound/endpoints.ts';
export type { EndpointState } from './outbound/foresight.ts';
export { endpointsOf, likelyRoute } from './outbound/foresight.ts';
export type { Route } from './outbound/route.ts';
export type {
  Log,
  OriginalDestination,
  PodSockets,
  SocketMeasure,
  SocketMeter,
  TimeoutFollower,
  Timeouts,
} from './ports.ts';
export { AGENT_PORTS, HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT } from './ports.ts';
export type { TunnelWorkerData } from './protocol.ts';
export type { PathRequest, SeriesSource, SeriesSources, TunnelWorkerStatus } from './seat.ts';
export type { TunnelWorkerDeps } from './worker.ts';
export { runTunnelWorker } from './worker.ts';
export type {
  ServablePod,
  TunnelWorkersDeps,
  TunnelWorkersOptions,
} from './workers.ts';
export { TunnelWorkers } from './workers.ts';
export type { TunnelWorkersStatus } from './workers-status.ts';
