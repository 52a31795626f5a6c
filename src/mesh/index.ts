export type { Address, Cidr, Endpoint } from './address.ts';
export {
  decodeAddress,
  encodeAddress,
  encodeCidr,
  familyOf,
  formatEndpoint,
  isHostAddress,
  parseAddress,
  parseCidr,
} from './address.ts';
export type { Certificate, CertificateChange } from './certificate.ts';
export type {
  FlowDecision,
  FlowDryRun,
  FlowId,
  FlowParty,
  FlowPath,
  FlowRecord,
  FlowSecurity,
  FlowService,
  FlowSink,
  FlowStage,
  FlowSubject,
} from './flow.ts';
export { FLOW_PATHS } from './flow.ts';
export { flowPartyOf, flowServiceOf } from './flow-party.ts';
export type { Identity, SpiffeId } from './identity.ts';
export { DEFAULT_TRUST_DOMAIN, formatSpiffeId, parseSpiffeId } from './identity.ts';
export { LineLimit } from './line-limit.ts';
export type { Exclusions, NetnsCookie, Pod } from './pod.ts';
export type {
  AuthorizationPolicy,
  PolicyClause,
  PolicyMatch,
  PolicyName,
  PolicyRule,
  ServiceAccountMatch,
  StringMatch,
} from './policy.ts';
export { matchOf, NO_MATCH, policyName } from './policy.ts';
export type { ApplicablePolicies } from './policy-index.ts';
export { ReadModel } from './read-model.ts';
export type { ResponseFlags } from './response-flags.ts';
export { responseFlagsOf } from './response-flags.ts';
export type { ServiceEndpoint } from './service-record.ts';
export { codeOf, messageOf } from './thrown.ts';
export type { MeshSettings, MeshUpdate } from './update.ts';
export { DEFAULT_SETTINGS } from './update.ts';
export type { WaypointModel } from './waypoints.ts';
export { isWaypointOf, waypointIdentities } from './waypoints.ts';
export type {
  GatewayAddress,
  LoadBalancing,
  LoadBalancingScope,
  Locality,
  Service,
  ServiceName,
  ServicePort,
  Workload,
} from './workload.ts';
export { identityOf, serviceName } from './workload.ts';
