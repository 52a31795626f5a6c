export { netnsCookie } from './cookie.ts';
export type { Place } from './epochs.ts';
export { errnoOf, KernelError, type KernelErrorCode, kernelErrorCodes } from './errors.ts';
export type { KernelEvent, Reason } from './events.ts';
export type { FlowEnd } from './flow-records.ts';
export type { FlowSample, FlowSampling } from './flow-samples.ts';
export type { FlowKind, KernelFlow } from './flows.ts';
export { Kernel, type KernelOptions, openKernel, type ReasonCount } from './kernel.ts';
export type { LostRecords, MapFill } from './map-fill.ts';
export type { OpenPortSet } from './open-ports.ts';
export type { PodCheck, PodListener, PreparedPod } from './pods.ts';
export { type Check, preflight, surroundings } from './preflight.ts';
export { type Fault, type ProgramState, removePrograms } from './programs.ts';
export type { KernelBackend } from './services.ts';
export { type ControlGroup, findControlGroup } from './signals.ts';
export type { Timeouts } from './socket-options.ts';
export {
  createPodSockets,
  duplicate,
  type LegOptions,
  type OriginalDestination,
  type PodSockets,
  peerUid,
} from './sockets.ts';
export type { KernelVerdict } from './verdicts.ts';
