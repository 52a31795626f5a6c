export type { AdminAddress } from './admin/admin-address.ts';
export { parseAdminAddress } from './admin/admin-address.ts';
export type { AdminRoutesDeps, LevelControl, RequestHandler } from './admin/admin-routes.ts';
export { AdminRoutes } from './admin/admin-routes.ts';
export type { AdminServerDeps, AdminServerOptions } from './admin/admin-server.ts';
export { AdminServer } from './admin/admin-server.ts';
export { isLoopbackHost } from './admin/request-guard.ts';
export type { AgentDeps, AgentOptions, AgentState } from './agent.ts';
export { Agent } from './agent.ts';
export type { AgentClientOptions } from './client.ts';
export { callAgent } from './client.ts';
export type { ShownConnection } from './config-dump/config-dump.ts';
export { kernelConnections } from './config-dump/kernel-connections.ts';
export type { CostsDeps, NamespaceCost } from './costs.ts';
export { TunnelCosts } from './costs.ts';
export type { AgentErrorCode } from './errors.ts';
export { AgentError, agentErrorCodes } from './errors.ts';
export type { EndMeaning } from './explain/ends.ts';
export { ENDS } from './explain/ends.ts';
export type { NodeExplainOptions } from './explain/node-explain.ts';
export { NodeExplain } from './explain/node-explain.ts';
export type { ExplainDeps, ExplainedEndpoint, ExplainedRoute, ExplainRouting } from './explain/world.ts';
export { isDenied } from './flow-query.ts';
export type { PathAnswer } from './kernel-path/answer.ts';
export type { KernelPathDeps, KernelPathOptions } from './kernel-path/kernel-path.ts';
export { KernelPath } from './kernel-path/kernel-path.ts';
export type {
  ControlGroups,
  Direct,
  FlowBetween,
  FlowEnd,
  FlowSample,
  FlowSampling,
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
  PathSeriesBook,
  PathSignals,
  Place,
  PodPaths,
  ServiceBackend,
  ServiceTable,
  VerdictTable,
} from './kernel-path/ports.ts';
export type { SeriesJournalOptions } from './kernel-path/series-journal.ts';
export { SeriesJournal } from './kernel-path/series-journal.ts';
export type { KernelPathStatus, KernelPathTotals } from './kernel-path/status.ts';
export type { NodeMeshDeps, NodeMeshOptions } from './node-mesh.ts';
export { NodeMesh } from './node-mesh.ts';
export type { NodeObserverDeps } from './node-observer.ts';
export { NodeObserver } from './node-observer.ts';
export type { NodePolicyDeps } from './node-policy.ts';
export { NodePolicy } from './node-policy.ts';
export type { NodeReportDeps, NodeReportOptions } from './node-report.ts';
export { NodeReport } from './node-report.ts';
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
  KernelInventory,
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
export type { FlowQuestion, RecentFlowsOptions } from './recent-flows.ts';
export { RecentFlows } from './recent-flows.ts';
export type { ClaimedRunDirectory, RunDirectory } from './run-directory.ts';
export { claimRunDirectory, runDirectory } from './run-directory.ts';
export type { NodeStatus, PortStatus } from './status-protocol.ts';
export { systemClock, systemDirectories } from './system.ts';
export type { NamespaceUse } from './tunnel-use.ts';
export { TunnelUse } from './tunnel-use.ts';
export type { LiveTotals } from './views/live-series.ts';
export { LiveSeries } from './views/live-series.ts';
export type { NodeViewsDeps, NodeViewsOptions } from './views/node-views.ts';
export { NodeViews } from './views/node-views.ts';
