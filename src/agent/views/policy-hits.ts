import type { FlowRecord, FlowSink, PolicyName } from '../../mesh/index.ts';

export interface PolicyHits {
  readonly allowed: number;
  readonly denied: number;
  readonly wouldDeny: number;
  readonly lastDenied: number | undefined;
}

type Counted = { -readonly [K in keyof PolicyHits]: PolicyHits[K] };

const NONE: PolicyHits = { allowed: 0, denied: 0, wouldDeny: 0, lastDenied: undefined };
/** Policies with counts; the mesh of one node has far fewer. */
const MOST = 10_000;

/** What each policy has decided about connections of this node's pods, since the agent started. */
export class PolicyTally implements FlowSink {
  readonly #hits = new Map<PolicyName, Counted>();

  add(records: readonly FlowRecord[]): void {
    for (const { decision, dryRun, endedAt } of records) {
      for (const { policy, would } of dryRun) {
        const hits = would === 'allow' ? undefined : this.#of(policy);
        if (hits !== undefined) hits.wouldDeny += 1;
      }
      const hits = decision?.policy === undefined ? undefined : this.#of(decision.policy);
      if (hits === undefined) continue;
      if (decision?.allowed === true) hits.allowed += 1;
      else {
        hits.denied += 1;
        hits.lastDenied = endedAt;
      }
    }
  }

  of(policy: PolicyName): PolicyHits {
    return this.#hits.get(policy) ?? NONE;
  }

  /** Those that are gone make room. */
  keep(policies: ReadonlySet<PolicyName>): void {
    for (const policy of this.#hits.keys()) if (!policies.has(policy)) this.#hits.delete(policy);
  }

  #of(policy: PolicyName): Counted | undefined {
    const known = this.#hits.get(policy);
    if (known !== undefined || this.#hits.size >= MOST) return known;
    const made: Counted = { ...NONE };
    this.#hits.set(policy, made);
    return made;
  }
}
