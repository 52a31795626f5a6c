/** Which policies a workload names (wire contract, sections 5.4, 5.5 and 12.3). */
import type { PolicyName } from '../../mesh/index.ts';
import { type Labels, type Selecting, Selectors } from './selectors.ts';

/** A policy for workloads with some labels. */
export interface SelectingPolicy extends Selecting {
  readonly name: PolicyName;
}

/** A PeerAuthentication for workloads with some labels. */
export interface SelectingAuthentication extends Selecting {
  /** The first of those that select a workload decides. */
  readonly rank: number;
  /** What it makes workloads name; undefined: nothing. */
  readonly name: PolicyName | undefined;
}

/** All that decides which policies the workloads of a namespace name. Plain, so that it can be compared. */
export interface PolicyKeyParts {
  readonly policies: readonly SelectingPolicy[];
  readonly authentications: readonly SelectingAuthentication[];
  /** What a workload names that no PeerAuthentication selects. */
  readonly otherwise: PolicyName | undefined;
}

export class PolicyKeys {
  readonly parts: PolicyKeyParts;
  readonly #policies: Selectors<SelectingPolicy>;
  readonly #authentications: Selectors<SelectingAuthentication>;
  /** What those name that nothing selects: mostly all of them, so it is one array. */
  readonly #plain: readonly PolicyName[];

  constructor(parts: PolicyKeyParts) {
    this.parts = parts;
    this.#policies = new Selectors(parts.policies);
    this.#authentications = new Selectors(parts.authentications);
    this.#plain = parts.otherwise === undefined ? [] : [parts.otherwise];
  }

  /** Sorted. */
  of(labels: Labels): readonly PolicyName[] {
    const policies = this.#policies.matching(labels);
    const authentications = this.#authentications.matching(labels);
    if (policies.length === 0 && authentications.length === 0) return this.#plain;
    const names = policies.map(({ name }) => name);
    const [first, ...others] = authentications;
    const decisive = first && others.reduce((best, each) => (each.rank < best.rank ? each : best), first);
    const authentication = decisive === undefined ? this.parts.otherwise : decisive.name;
    return (authentication === undefined ? names : [...names, authentication]).toSorted();
  }
}
