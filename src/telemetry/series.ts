import type { FlowParty, FlowSubject, ResponseFlags } from '../mesh/index.ts';

/**
 * What is counted of connections that are alike (Istio's TCP metrics; wire contract, section 9.1): one slot of a table of
 * 64-bit numbers, which its writer owns and anybody may read at any moment. Bytes are only counted in slots whose flag is `-`.
 */
export const SERIES_CELL = { opened: 0, closed: 1, failed: 2, received: 3, sent: 4 } as const;

/** Cells of a slot: those above, and what fills a line of the CPU's cache. */
export const CELLS_OF_A_SLOT = 8;

/** Label set T, in its order; missing values are `unknown`, localities are left out when neither side is known. */
export type SeriesLabels = Readonly<Record<string, string>>;

/** How the security of the kernel path is reported: by its own name, or as Istio's tools know it. */
export interface LabelOptions {
  readonly kernelPathAs: 'kernel' | 'mutual_tls';
}

/** The labels of a connection. `kernelPathAs`: see `LabelOptions`. */
export function seriesLabels(
  subject: FlowSubject,
  flags: ResponseFlags,
  kernelPathAs: LabelOptions['kernelPathAs'],
): SeriesLabels {
  const { source, destination, service } = subject;
  return {
    reporter: subject.direction === 'outbound' ? 'source' : 'destination',
    source_workload: source?.workloadName ?? 'unknown',
    source_canonical_service: source?.canonicalName ?? 'unknown',
    source_canonical_revision: source?.canonicalRevision ?? 'unknown',
    source_workload_namespace: source?.namespace ?? 'unknown',
    source_principal: subject.sourceIdentity ?? 'unknown',
    source_app: source?.canonicalName ?? 'unknown',
    source_version: source?.canonicalRevision ?? 'unknown',
    source_cluster: source?.cluster ?? 'unknown',
    destination_service: service?.hostname ?? 'unknown',
    destination_service_namespace: service?.namespace ?? 'unknown',
    destination_service_name: service?.name ?? 'unknown',
    destination_workload: destination?.workloadName ?? 'unknown',
    destination_canonical_service: destination?.canonicalName ?? 'unknown',
    destination_canonical_revision: destination?.canonicalRevision ?? 'unknown',
    destination_workload_namespace: destination?.namespace ?? 'unknown',
    destination_principal: destination?.identity ?? 'unknown',
    destination_app: destination?.canonicalName ?? 'unknown',
    destination_version: destination?.canonicalRevision ?? 'unknown',
    destination_cluster: destination?.cluster ?? 'unknown',
    request_protocol: 'tcp',
    response_flags: flags,
    connection_security_policy: securityOf(subject, kernelPathAs),
    ...localities(source, destination),
  };
}

function securityOf({ security }: FlowSubject, kernelPathAs: LabelOptions['kernelPathAs']): string {
  switch (security) {
    case 'mutual_tls':
      return 'mutual_tls';
    case 'kernel':
      return kernelPathAs;
    case 'none':
      return 'unknown';
  }
}

function localities(source: FlowParty | undefined, destination: FlowParty | undefined): SeriesLabels {
  if ((source?.region ?? source?.zone ?? destination?.region ?? destination?.zone) === undefined) return {};
  return {
    source_region: source?.region ?? 'unknown',
    source_zone: source?.zone ?? 'unknown',
    destination_region: destination?.region ?? 'unknown',
    destination_zone: destination?.zone ?? 'unknown',
  };
}
