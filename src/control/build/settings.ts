import { DEFAULT_SETTINGS, type MeshSettings, type Workload } from '../../mesh/index.ts';
import type { MeshConfig } from '../objects/index.ts';

/** What a build goes by. */
export interface BuildSettings {
  readonly mesh: MeshSettings;
  readonly serviceEntryVisibility: 'public' | 'namespace' | 'none';
  /** Of workloads that say nothing themselves. */
  readonly sameNode: Workload['sameNode'];
}

/**
 * @param rootNamespace where the ConfigMap was looked for
 * @param rootLabels of that namespace
 */
export function settingsOf(
  config: MeshConfig | undefined,
  rootNamespace: string,
  rootLabels: Readonly<Record<string, string>>,
): BuildSettings {
  return {
    mesh: {
      trustDomain: config?.trustDomain ?? DEFAULT_SETTINGS.trustDomain,
      clusterDomain: config?.clusterDomain ?? DEFAULT_SETTINGS.clusterDomain,
      rootNamespace: config?.rootNamespace ?? rootNamespace,
      network: config?.network ?? rootLabels['topology.istio.io/network'] ?? DEFAULT_SETTINGS.network,
      clusterId: config?.clusterId ?? DEFAULT_SETTINGS.clusterId,
    },
    serviceEntryVisibility: config?.serviceEntryVisibility ?? 'public',
    sameNode: config?.sameNode ?? 'kernel',
  };
}
