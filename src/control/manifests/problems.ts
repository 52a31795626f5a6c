/** What is to be told to the operator of the files and of what they say. */
import type { Finding } from '../build/finding.ts';
import { type KubernetesObject, objectName } from '../objects/index.ts';
import type { Problem } from '../ports.ts';
import type { ManifestFile } from './files.ts';

/** Of one file; a file that is broken once is often broken all over. */
const MAX_ISSUES = 20;

/** Objects in the order of their files; of several with the same kind, namespace and name the first. */
export function collect(files: readonly ManifestFile[]): {
  readonly objects: readonly KubernetesObject[];
  readonly duplicates: readonly Problem[];
} {
  const objects = new Map<string, KubernetesObject>();
  /** Where each is from. */
  const paths = new Map<string, string>();
  const duplicates: Problem[] = [];
  for (const { path, manifest } of files)
    for (const { object, key, line, column } of manifest.objects) {
      const first = paths.get(key);
      if (first === undefined) {
        objects.set(key, object);
        paths.set(key, path);
        continue;
      }
      const where = first === path ? 'in this file' : `in ${first}`;
      duplicates.push({
        reason: 'duplicate',
        text: `${objectName(object)} is ${where} already; that one counts.`,
        object: objectName(object),
        field: undefined,
        place: { file: path, line, column },
      });
    }
  return { objects: [...objects.values()], duplicates };
}

export function fileProblems({ path, issues, fault }: ManifestFile): readonly Problem[] {
  const unreadable: Problem[] =
    fault === undefined
      ? []
      : [
          {
            reason: 'unreadable',
            text: `The file cannot be read: ${fault}.`,
            object: undefined,
            field: undefined,
            place: { file: path, line: 1, column: 1 },
          },
        ];
  const wrong = issues.slice(0, MAX_ISSUES).map(
    ({ reason, text, object, field, line, column }): Problem => ({
      reason,
      text,
      object,
      field,
      place: { file: path, line, column },
    }),
  );
  return [...unreadable, ...wrong];
}

/** What a build has found, with the places of the objects. */
export function findingProblems(findings: readonly Finding[], files: readonly ManifestFile[]): readonly Problem[] {
  if (findings.length === 0) return [];
  const places = new Map<KubernetesObject, Problem['place']>();
  for (const { path, manifest } of files)
    for (const { object, line, column } of manifest.objects) places.set(object, { file: path, line, column });
  return findings.map(({ reason, text, object, field, condition }) => ({
    reason,
    text,
    object: objectName(object),
    field,
    place: places.get(object),
    ...(condition === undefined ? {} : { condition }),
  }));
}

/** `cart.yaml:12:7: Service shop/cart: spec.ports[0].port is missing.` */
export function formatProblem({ text, object, place }: Problem): string {
  const where = place === undefined ? '' : `${place.file}:${place.line}:${place.column}: `;
  return `${where}${object === undefined || text.startsWith(object) ? '' : `${object}: `}${text}`;
}
