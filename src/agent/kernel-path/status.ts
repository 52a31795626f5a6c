/** What the kernel path says of itself. */

export interface KernelPathStatus {
  /** `off`: every connection goes through the tunnel; `failed`: so it does until the kernel takes what it is told again. */
  readonly state: 'new' | 'off' | 'on' | 'failed' | 'stopped';
  /** Why it failed. */
  readonly error: string | undefined;
  readonly verdicts: number;
  /** Addresses and ports of services of which the kernel chooses a backend. */
  readonly services: number;
  /** Open at present. */
  readonly flows: number;
  /** Signs of life given since the start, or since it last failed. */
  readonly beats: number;
  /** Path of the kubelet's control group; undefined: none is found. */
  readonly kubelet: string | undefined;
  /** Policies that pods of this node name and nobody knows: these pods let nobody in. */
  readonly unknownPolicies: readonly string[];
}

export interface KernelPathTotals {
  /** Verdicts asked for, by what became of it: `given`, or why none was. */
  readonly requests: Readonly<Record<string, number>>;
  /** What policy said when it was asked, by its reason. */
  readonly decisions: Readonly<Record<string, number>>;
  /** What dry-run policies would have done. */
  readonly dryRun: { readonly denies: number; readonly allows: number };
  /** Flows ended because they were forbidden. */
  readonly closed: number;
  /** Connections that have ended, by the side of this node's pods. */
  readonly ended: { readonly outbound: number; readonly inbound: number };
}
