/** What goes past the mesh although it is an enrolled pod's. */

/** The kernel's reasons (docs/kernel.md), as metrics and status call them. */
const REASONS: Readonly<Record<string, string>> = {
  udp: 'udp',
  excluded_outbound: 'excluded-outbound',
  excluded_inbound: 'excluded-inbound',
  raw_socket: 'raw-socket',
  nested_netns: 'nested-netns',
  rerouted: 'rerouted',
  host_probe: 'host-probe',
  opened_before_enrolment: 'opened-before-enrolment',
};

/** By reason, of `culvert_uncaptured_total`; reasons without a count are left out. */
export type UncapturedCounts = Record<string, number>;

/**
 * Of one pod.
 *
 * @param kernelEvents the kernel's counts, by its reasons
 */
export function uncapturedOf(kernelEvents: Readonly<Record<string, number>>): UncapturedCounts {
  const counts: UncapturedCounts = {};
  for (const [reason, name] of Object.entries(REASONS)) {
    const count = kernelEvents[reason] ?? 0;
    if (count > 0) counts[name] = count;
  }
  return counts;
}

/** As much of a pod's status as is needed to add up. */
export interface UncapturedPod {
  readonly namespace: string;
  readonly netnsCookie?: string | undefined;
  readonly uncaptured: Readonly<UncapturedCounts>;
}

interface Seen {
  readonly namespace: string;
  readonly counts: UncapturedCounts;
}

/**
 * Adds up by namespace, so that no sum falls when a pod leaves and its counts with it. The sums
 * of a namespace that has lost its last pod stay: so much of it as a metric has room for.
 */
export class UncapturedTotals {
  readonly #seen = new Map<string, Seen>();
  readonly #past = new Map<string, UncapturedCounts>();
  readonly #most: number;

  /** @param most namespaces without a pod that are kept in mind. Default: 200 */
  constructor(most = 200) {
    this.#most = most;
  }

  /** To be called every few seconds: what a pod has done since the last call is not known when it has left. */
  take(pods: readonly UncapturedPod[]): void {
    const here = new Set<string>();
    for (const { namespace, netnsCookie, uncaptured } of pods) {
      if (netnsCookie === undefined) continue;
      here.add(netnsCookie);
      const seen = this.#seen.get(netnsCookie) ?? { namespace, counts: {} };
      this.#seen.set(netnsCookie, seen);
      for (const [reason, count] of Object.entries(uncaptured))
        seen.counts[reason] = Math.max(seen.counts[reason] ?? 0, count);
    }
    for (const [cookie, { namespace, counts }] of this.#seen) {
      if (here.has(cookie)) continue;
      this.#seen.delete(cookie);
      this.#keep(namespace, counts);
    }
  }

  /** By namespace, then by reason. */
  totals(): Record<string, UncapturedCounts> {
    const sums = new Map(Array.from(this.#past, ([namespace, counts]) => [namespace, { ...counts }]));
    for (const { namespace, counts } of this.#seen.values()) addTo(sums, namespace, counts);
    return Object.fromEntries(sums);
  }

  #keep(namespace: string, counts: UncapturedCounts): void {
    if (Object.keys(counts).length === 0) return;
    const label = this.#past.has(namespace) || this.#past.size < this.#most ? namespace : 'other';
    addTo(this.#past, label, counts);
  }
}

function addTo(sums: Map<string, UncapturedCounts>, namespace: string, counts: UncapturedCounts): void {
  const sum = sums.get(namespace) ?? {};
  sums.set(namespace, sum);
  for (const [reason, count] of Object.entries(counts)) sum[reason] = (sum[reason] ?? 0) + count;
}
