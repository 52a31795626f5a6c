import type { Workload } from '../../mesh/index.ts';

export const SAME_NODE = 'culvert.dev/same-node';

/** Whoever writes something else wants something else than what holds anyway: the safer one counts. */
const SAFE = 'mtls';

export interface SaidSameNode {
  readonly value: Workload['sameNode'];
  /** The annotation says something that it cannot. */
  readonly isWrong: boolean;
}

/** How an object's workloads talk to those of their own node, by its annotation. @param otherwise if it says nothing */
export function sameNodeOf(
  annotations: Readonly<Record<string, string>> | undefined,
  otherwise: Workload['sameNode'],
): SaidSameNode {
  const said = annotations?.[SAME_NODE];
  if (said === undefined) return { value: otherwise, isWrong: false };
  if (said === 'kernel' || said === 'mtls') return { value: said, isWrong: false };
  return { value: SAFE, isWrong: true };
}
