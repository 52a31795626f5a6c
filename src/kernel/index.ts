export { netnsCookie } from './cookie.ts';
export { errnoOf, KernelError, type KernelErrorCode, kernelErrorCodes } from './errors.ts';
export type { KernelEvent, Reason } from './events.ts';
export { Kernel, type KernelOptions, openKernel, type ReasonCount } from './kernel.ts';
export type { PodCheck, PodListener, PreparedPod } from './pods.ts';
export { type Check, preflight } from './preflight.ts';
export { type Fault, removePrograms } from './programs.ts';
export type { Timeouts } from './socket-options.ts';
export {
  createPodSockets,
  duplicate,
  type LegOptions,
  type OriginalDestination,
  type PodSockets,
  peerUid,
} from './sockets.ts';
