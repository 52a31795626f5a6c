import { type KubernetesObject, objectName } from '../objects/index.ts';

/** The oldest first. Without a date: after those with one. */
export function byAge(one: KubernetesObject, other: KubernetesObject): number {
  return compare(ageKey(one), ageKey(other)) || compare(objectName(one), objectName(other));
}

function ageKey({ metadata }: KubernetesObject): string {
  return metadata.creationTimestamp || '~';
}

function compare(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}
