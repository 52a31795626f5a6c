import type { NoVerdictReason } from './decide.ts';

/** What the kernel path says of connections of a pod to a destination. */
export interface PathAnswer {
  /** `on` is the only state in which verdicts count. */
  readonly state: 'new' | 'off' | 'on' | 'failed' | 'stopped';
  /** Whether they may go past the tunnel: to a pod of this node, to outside; or why not. */
  readonly may: 'local' | 'outside' | NoVerdictReason;
  /** Whether that is written down for the kernel: the first connection goes through the tunnel, and has it written. */
  readonly isWritten: boolean;
}
