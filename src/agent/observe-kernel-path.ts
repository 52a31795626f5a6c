import type { Metrics } from '../telemetry/index.ts';
import type { KernelPath } from './kernel-path/kernel-path.ts';
import type { Tunnel } from './ports.ts';
import type { MeshStatusReply } from './protocol.ts';

interface Observed {
  readonly tunnel: Pick<Tunnel, 'status'>;
  readonly mesh?: { status(): MeshStatusReply };
  readonly kernelPath?: Pick<KernelPath, 'status' | 'totals'>;
  readonly metrics: Metrics;
}

/** Lets the metrics ask for what policy and the kernel path do. The two paths' numbers are one where they mean the same. */
export function observeKernelPath({ tunnel, mesh, kernelPath, metrics }: Observed): void {
  metrics.observe({
    relayedConnections: () => {
      const { outbound, inbound } = tunnel.status().paths;
      const ended = kernelPath?.totals().ended;
      return {
        outbound: { ...outbound, kernel: ended?.outbound ?? 0 },
        inbound: { ...inbound, kernel: ended?.inbound ?? 0 },
      };
    },
    policyDecisions: () => added(tunnel.status().policy.decisions, kernelPath?.totals().decisions ?? {}),
    policyDryRun: () => {
      const [ours, theirs] = [kernelPath?.totals().dryRun, tunnel.status().policy.dryRun];
      return { deny: theirs.denies + (ours?.denies ?? 0), allow: theirs.allows + (ours?.allows ?? 0) };
    },
    policyClosed: () => ({ tunnel: tunnel.status().policy.closed, kernel: kernelPath?.totals().closed ?? 0 }),
    policies: () => {
      const known = mesh?.status();
      return {
        known: known?.policies ?? 0,
        unknown: known?.unknownPolicies.length ?? 0,
        partial: known?.partialPolicies.length ?? 0,
      };
    },
    kernelPathRequests: () => kernelPath?.totals().requests ?? {},
    kernelPath: () => {
      const status = kernelPath?.status();
      return {
        verdicts: status?.verdicts ?? 0,
        services: status?.services ?? 0,
        flows: status?.flows ?? 0,
        isOn: status?.state === 'on',
      };
    },
  });
}

function added(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): Record<string, number> {
  const sums: Record<string, number> = { ...a };
  for (const [key, count] of Object.entries(b)) sums[key] = (sums[key] ?? 0) + count;
  return sums;
}
