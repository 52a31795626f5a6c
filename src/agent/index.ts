export type { AgentDeps, AgentOptions, AgentState } from './agent.ts';
export { Agent } from './agent.ts';
export type { AgentClientOptions } from './client.ts';
export { callAgent } from './client.ts';
export type { AgentErrorCode } from './errors.ts';
export { AgentError, agentErrorCodes } from './errors.ts';
export type { KernelPathDeps, KernelPathOptions } from './kernel-path/kernel-path.ts';
export { KernelPath } from './kernel-path/kernel-path.ts';
export type {
  ControlGroups,
  Direct,
  FlowEnd,
  FlowMemory,
  FlowTable,
  KernelBackend,
  KernelFlow,
  KernelVerdict,
  KubeletGroup,
  OpenPorts,
  PathCount,
  PathEvent,
  PathKernel,
  PathModel,
  PathRouting,
  PathSignals,
  Place,
  PodPaths,
  ServiceBackend,
  ServiceTable,
  VerdictTable,
} from './kernel-path/ports.ts';
export type { KernelPathStatus, KernelPathTotals } from './kernel-path/status.ts';
export type { NodeMeshDeps, NodeMeshOptions } from './node-mesh.ts';
export { NodeMesh } from './node-mesh.ts';
export type { NodePolicyDeps } from './node-policy.ts';
export { NodePolicy } from './node-policy.ts';
export type { AnswerDeps } from './policy-answer.ts';
export { answerQuestion } from './policy-answer.ts';
export type { FlowGroup, FlowWorkload, PolicyAnswer, RecentFlowsAnswer } from './policy-protocol.ts';
export type { QuestionSource, QuestionTarget } from './policy-question.ts';
export { parseQuestionSource, parseQuestionTarget } from './policy-question.ts';
export type {
  CapturedPods,
  CertificateStatus,
  Clock,
  DirectoryWatch,
  KernelUpkeep,
  MeshFollower,
  MeshSource,
  NodeCertificates,
  PeerCredentials,
  PodFollower,
  PodKernel,
  PreparedPod,
  Tunnel,
  TunnelFeed,
  TunnelStatus,
  WorkerStatus,
} from './ports.ts';
export type {
  EnrolResult,
  KernelPathStatusReply,
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
export type { RecentFlowsDeps, RecentFlowsOptions } from './recent-flows.ts';
export { RecentFlows } from './recent-flows.ts';
export type { ClaimedRunDirectory, RunDirectory } from './run-directory.ts';
export { claimRunDirectory, runDirectory } from './run-directory.ts';
export { systemClock, systemDirectories } from './system.ts';
