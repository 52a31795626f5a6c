import type { KubernetesObject } from '../objects/index.ts';
import type { PolicyCondition, ProblemReason } from '../ports.ts';

/** Something about an object that does not fit the others. It is left out of the mesh; the object itself stays. */
export interface Finding {
  readonly reason: ProblemReason;
  /** A sentence. */
  readonly text: string;
  readonly object: KubernetesObject;
  /** Where in the object, e.g. `metadata.labels["istio.io/use-waypoint"]`. */
  readonly field: string | undefined;
  /** Of a policy. */
  readonly condition?: PolicyCondition;
}
