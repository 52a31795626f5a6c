import { type Document, isMap, isNode, isScalar, isSeq, type LineCounter } from 'yaml';
import type { z } from 'zod';

/** Where in an object: keys and indices. */
export type FieldPath = readonly PropertyKey[];

/** What schemas say of a wrong value, to go after the field's name. Undefined: what zod says. */
export function sayIssue(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_type')
    return issue.input === undefined
      ? 'is missing'
      : `must be ${typeNames[issue.expected] ?? issue.expected}, not ${typeOf(issue.input)}`;
  if (issue.code === 'invalid_value')
    return `must be ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`;
  if (issue.code === 'unrecognized_keys') return 'is not a known field';
  if (issue.code === 'invalid_key') return issue.issues[0]?.message;
  return undefined;
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a map',
  record: 'a map',
  array: 'a list',
};

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'boolean') return String(value);
  return typeNames[typeof value] ?? typeof value;
}

/** Where the issue is; fields that nobody knows are one issue together. */
export function fieldsOf(issue: z.core.$ZodIssue): readonly FieldPath[] {
  return issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
}

/** `spec.ports[0].port`, `metadata.labels["app.kubernetes.io/name"]`; empty for the object itself. */
export function formatField(path: FieldPath): string {
  return path
    .map((part) => {
      if (typeof part === 'number') return `[${part}]`;
      return /^[A-Za-z_][\w-]*$/.test(String(part)) ? `.${String(part)}` : `[${JSON.stringify(String(part))}]`;
    })
    .join('')
    .replace(/^\./, '');
}

/**
 * Where a field stands in its document, or the nearest thing around it that does stand there.
 *
 * @param innerLine line within a text of many lines that the field holds
 */
export function lineOf(
  document: Document,
  lines: LineCounter,
  path: FieldPath,
  innerLine?: number,
): { line: number; column: number } {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => (isScalar(key) ? String(key.value) : key) === String(part));
      if (pair === undefined) break;
      offset = startOf(pair.key) ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(part)];
      offset = startOf(node) ?? offset;
    } else break;
  }
  if (innerLine !== undefined && isScalar(node) && node.type?.startsWith('BLOCK_') === true)
    return { line: lines.linePos(startOf(node) ?? offset).line + innerLine, column: 1 };
  const { line, col } = lines.linePos(offset);
  return { line, column: col };
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}
