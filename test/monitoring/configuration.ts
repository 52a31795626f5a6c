/** The configuration of Prometheus that is shipped, with other targets than it finds by itself. */
import { kubernetesObject, yaml } from './files.ts';

/** The name by which rules and dashboards know the agents. */
export const JOB = 'culvert-agent';

export type Labels = Readonly<Record<string, string>>;

export interface Configuration {
  readonly global: Readonly<Record<string, string>>;
  readonly rule_files: readonly string[];
  readonly scrape_configs: ReadonlyArray<{
    readonly job_name: string;
    readonly metrics_path?: string;
    readonly kubernetes_sd_configs?: unknown;
    readonly static_configs?: ReadonlyArray<{ readonly targets: readonly string[]; readonly labels?: Labels }>;
  }>;
}

/** As much of the manifest as is looked at. */
export interface DaemonSet {
  readonly metadata: { readonly namespace: string };
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: Labels; readonly annotations: Labels };
      readonly spec: {
        readonly containers: ReadonlyArray<{
          readonly ports: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>;
        }>;
      };
    };
  };
}

export const shipped = yaml<Configuration>('deploy/monitoring/prometheus.yml');
export const daemonSet = kubernetesObject<DaemonSet>('DaemonSet', 'deploy/daemonset.yaml');

/** What Kubernetes' discovery says of an agent's pod: labels and annotations are the DaemonSet's. */
export function discovered(address: string, node: string, changes: Labels = {}): Labels {
  const { labels, annotations } = daemonSet.spec.template.metadata;
  const meta = (kind: string, values: Labels): Labels =>
    Object.fromEntries(
      Object.entries(values).map(([name, value]) => [
        `__meta_kubernetes_pod_${kind}_${name.replaceAll(/[./-]/g, '_')}`,
        value,
      ]),
    );
  return {
    ...meta('label', labels),
    ...meta('annotation', annotations),
    __meta_kubernetes_pod_ip: address,
    __meta_kubernetes_pod_node_name: node,
    __meta_kubernetes_pod_name: `culvert-agent-${node}`,
    ...changes,
  };
}

/**
 * What is shipped, with targets as Kubernetes' discovery would give them: there is no cluster here, and Debian's Prometheus is
 * built without that discovery. All else is as it was.
 */
export function withTargets(targets: readonly Labels[]): Configuration {
  return {
    ...shipped,
    scrape_configs: shipped.scrape_configs.map(({ kubernetes_sd_configs: _, ...job }) => ({
      ...job,
      static_configs: targets.map((labels, at) => ({ targets: [`target-${at}:80`], labels })),
    })),
  };
}
