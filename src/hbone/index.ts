export type { HboneErrorCode } from './errors.ts';
export { HBONE_ERROR_CODES, HboneError } from './errors.ts';
export type { Gather, GatherOwner } from './frames/gather.ts';
export { GATHER_BYTES, GatherPool } from './frames/gather.ts';
export type { Authority, Baggage, Forwarded } from './headers.ts';
export {
  baggageOf,
  connectHeaders,
  forwardedOf,
  headerValues,
  newTraceparent,
  parseAuthority,
  parseBaggage,
  parseForwarded,
  traceIdOf,
} from './headers.ts';
export type { TunnelPoolDeps, TunnelPoolOptions } from './pool.ts';
export { TunnelPool } from './pool.ts';
export type { Certificates, OpenSocket, TunnelTarget } from './ports.ts';
export type { PeerRefusal, TunnelPeer, TunnelServerOptions } from './server.ts';
export { TunnelServer } from './server.ts';
export type {
  HeaderFields,
  IncomingRequest,
  SessionOptions,
} from './session.ts';
export { readShared } from './shared-read.ts';
export type { StreamSink, TunnelStream } from './stream.ts';
export type { TunnelConnection } from './tunnel.ts';
