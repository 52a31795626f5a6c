export type { AgentDeps, AgentOptions, AgentState } from './agent.ts';
export { Agent } from './agent.ts';
export type { AgentClientOptions } from './client.ts';
export { callAgent } from './client.ts';
export type { AgentErrorCode } from './errors.ts';
export { AgentError, agentErrorCodes } from './errors.ts';
export type { NodeMeshDeps, NodeMeshOptions } from './node-mesh.ts';
export { NodeMesh } from './node-mesh.ts';
export type {
  CapturedPods,
  CertificateStatus,
  Clock,
  DirectoryWatch,
  KernelUpkeep,
  MeshSource,
  NodeCertificates,
  PeerCredentials,
  PodKernel,
  PreparedPod,
  Tunnel,
  TunnelFeed,
  TunnelStatus,
  WorkerStatus,
} from './ports.ts';
export type {
  EnrolResult,
  MeshStatusReply,
  Method,
  PodStatusReply,
  Reply,
  Request,
  StatusReply,
  WirePod,
  WithdrawResult,
} from './protocol.ts';
export { parsePod } from './protocol.ts';
export type { ClaimedRunDirectory, RunDirectory } from './run-directory.ts';
export { claimRunDirectory, runDirectory } from './run-directory.ts';
export { systemClock, systemDirectories } from './system.ts';
