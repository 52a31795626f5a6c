import type { DryRunOutcome } from '../../policy/index.ts';
import type { KernelPathTotals } from './status.ts';

/** What policy has said on the kernel path, counted since the start. */
export class PolicyTally {
  readonly #decisions: Record<string, number> = {};
  readonly #dryRun = { denies: 0, allows: 0 };

  decided(reason: string): void {
    this.#decisions[reason] = (this.#decisions[reason] ?? 0) + 1;
  }

  /** A no of ALLOW policies is a denial. */
  rehearsed(outcomes: readonly DryRunOutcome[]): void {
    for (const { would } of outcomes)
      if (would === 'allow') this.#dryRun.allows += 1;
      else this.#dryRun.denies += 1;
  }

  totals(): Pick<KernelPathTotals, 'decisions' | 'dryRun'> {
    return { decisions: this.#decisions, dryRun: this.#dryRun };
  }
}
