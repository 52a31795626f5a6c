export type { ControlClientDeps, ControlClientOptions, ControlListener, ControlStatus } from './client.ts';
export { ControlClient } from './client.ts';
export type { ControlErrorCode } from './errors.ts';
export { ControlError, controlErrorCodes } from './errors.ts';
export type { LinkEnd, LinkTraffic } from './link-counts.ts';
export type { ManifestSource, ManifestSourceDeps, ManifestSourceOptions } from './manifests/source.ts';
export { nodeSocketPath } from './node-socket.ts';
export { openManifestSource } from './open-manifests.ts';
export type {
  IgnoredPart,
  ManifestReading,
  MeshSource,
  Place,
  PolicyCondition,
  Problem,
  ProblemReason,
  ReadPolicy,
} from './ports.ts';
export { readManifests } from './read-manifests.ts';
export type { ControlServerDeps, ControlServerOptions, NodeSigner, ServedMesh } from './server.ts';
export { ControlServer } from './server.ts';
