/** What a workload is called after (wire contract, sections 12.3 and 12.4). */
import type { Pod } from '../objects/index.ts';

type Labels = Readonly<Record<string, string>>;

const WORKLOAD_NAME = 'service.istio.io/workload-name';
const TIMESTAMP_SUFFIX = /-\d{8,10}$/;

export function canonicalName(labels: Labels, workloadName: string): string {
  return labels['service.istio.io/canonical-name'] || labels['app.kubernetes.io/name'] || labels.app || workloadName;
}

export function canonicalRevision(labels: Labels): string {
  return (
    labels['service.istio.io/canonical-revision'] || labels['app.kubernetes.io/version'] || labels.version || 'latest'
  );
}

/** The workload's own name if a label says one, else `otherwise`. */
export function labelledName(labels: Labels, otherwise: string): string {
  return labels[WORKLOAD_NAME] || otherwise;
}

/** What made the pod, as far as its owner's name tells. */
export function podWorkloadName({ metadata }: Pod): string {
  return labelledName(metadata.labels, ownerName(metadata));
}

function ownerName({ name, generateName, labels, ownerReferences }: Pod['metadata']): string {
  const owner = generateName === '' ? undefined : ownerReferences.find(({ controller }) => controller);
  if (owner === undefined) return name;
  switch (owner.kind) {
    case 'ReplicaSet':
      return (
        withoutSuffix(owner.name, labels['pod-template-hash']) ??
        withoutSuffix(owner.name, labels['rollouts-pod-template-hash']) ??
        owner.name
      );
    case 'ReplicationController':
      return labels.deploymentconfig || owner.name;
    case 'Job':
      return owner.name.replace(TIMESTAMP_SUFFIX, '') || owner.name;
    default:
      return owner.name;
  }
}

function withoutSuffix(name: string, hash: string | undefined): string | undefined {
  return hash && name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : undefined;
}
