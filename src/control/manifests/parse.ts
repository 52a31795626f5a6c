/** The text of one manifest file to objects. Pure. */

import { type Document, LineCounter, parseAllDocuments } from 'yaml';
import { messageOf } from '../../mesh/index.ts';
import {
  type FieldIssue,
  type FieldPath,
  formatField,
  type KubernetesObject,
  lineOf,
  objectKey,
  readObject,
} from '../objects/index.ts';

/** An object and where it begins in its file; line and column begin with 1. */
export interface PlacedObject {
  readonly object: KubernetesObject;
  /** One for each kind, namespace and name. */
  readonly key: string;
  readonly line: number;
  readonly column: number;
}

/** Something in the file that is wrong. */
export interface FileIssue {
  readonly reason: 'syntax' | 'field';
  /** A sentence. */
  readonly text: string;
  /** As far as it has a name. */
  readonly object: string | undefined;
  readonly field: string | undefined;
  readonly line: number;
  readonly column: number;
}

export interface ParsedManifest {
  readonly objects: readonly PlacedObject[];
  /** If there are any, the objects are not all that is meant. */
  readonly issues: readonly FileIssue[];
  /** Kinds that the mesh is not built of, e.g. `apps/v1 Deployment`. */
  readonly foreign: readonly string[];
  /** Its documents by their text: what the next version of the file still has is not parsed again. */
  readonly documents: ReadonlyMap<string, ParsedText>;
}

/** One or more documents; lines are counted from its own first. */
type ParsedText = Pick<ParsedManifest, 'objects' | 'issues' | 'foreign'>;

export const EMPTY_MANIFEST: ParsedManifest = { objects: [], issues: [], foreign: [], documents: new Map() };

/** A line that begins with these three dashes begins a document, wherever it stands. */
const DOCUMENT_START = /^---(?=[ \t\r\n]|$)/gm;
const DIRECTIVE = /^%/m;
const MAX_ALIASES = 100;

/** @param last the version of the file before; objects of documents that have not changed stay the same objects */
export function parseManifest(text: string, last: ParsedManifest = EMPTY_MANIFEST): ParsedManifest {
  const documents = new Map<string, ParsedText>();
  const objects: PlacedObject[] = [];
  const issues: FileIssue[] = [];
  const foreign: string[] = [];
  let line = 0;
  for (const part of split(text)) {
    const parsed = documents.get(part) ?? last.documents.get(part) ?? parseText(part);
    documents.set(part, parsed);
    for (const each of parsed.objects) objects.push({ ...each, line: each.line + line });
    for (const each of parsed.issues) issues.push({ ...each, line: each.line + line });
    foreign.push(...parsed.foreign);
    line += countLines(part);
  }
  return { objects, issues: issues.toSorted((one, other) => one.line - other.line), foreign, documents };
}

/** At the starts of documents. Directives stand before those, so a file with directives is left whole. */
function split(text: string): string[] {
  if (DIRECTIVE.test(text)) return [text];
  const starts = [...text.matchAll(DOCUMENT_START)].map(({ index }) => index);
  const cuts = [0, ...starts.filter((start) => start > 0), text.length];
  return cuts.slice(1).map((end, index) => text.slice(cuts[index], end));
}

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}

function parseText(part: string): ParsedText {
  // A copy of its own: names in the objects would else keep the whole file in memory, in each version that a part is of.
  const text = Buffer.from(part).toString();
  const found = { objects: [] as PlacedObject[], issues: [] as FileIssue[], foreign: [] as string[] };
  const lines = new LineCounter();
  const options = { lineCounter: lines, merge: true, prettyErrors: false, logLevel: 'silent' } as const;
  for (const document of parseAllDocuments(text, options)) readDocument(document, lines, found);
  return found;
}

interface Found {
  readonly objects: PlacedObject[];
  readonly issues: FileIssue[];
  readonly foreign: string[];
}

function readDocument(document: Document, lines: LineCounter, found: Found): void {
  const wrong = (text: string, offset: number) => {
    const { line, col } = lines.linePos(offset);
    found.issues.push({ reason: 'syntax', text: `${text}.`, object: undefined, field: undefined, line, column: col });
  };
  for (const error of document.errors) wrong(error.message, error.pos[0]);
  if (document.errors.length > 0) return;
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    wrong(messageOf(error), document.contents?.range?.[0] ?? 0);
    return;
  }
  if (value !== null && value !== undefined) readValue(value, [], { document, lines, found });
}

interface Reading {
  readonly document: Document;
  readonly lines: LineCounter;
  readonly found: Found;
}

/** An object, or a list of them: a `List`, or what an API answers, such as a `PodList`. */
function readValue(value: unknown, path: FieldPath, reading: Reading): void {
  if (!isList(value)) {
    readOne(value, path, reading);
    return;
  }
  const { apiVersion, kind } = value;
  const common = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -'List'.length) };
  for (const [index, item] of value.items.entries())
    readValue(isMap(item) ? { ...common, ...item } : item, [...path, 'items', index], reading);
}

function readOne(value: unknown, path: FieldPath, { document, lines, found }: Reading): void {
  const read = readObject(value);
  switch (read.kind) {
    case 'object':
      found.objects.push({ object: read.object, key: objectKey(read.object), ...lineOf(document, lines, path) });
      break;
    case 'foreign':
      found.foreign.push(`${read.apiVersion} ${read.name}`);
      break;
    case 'wrong':
      for (const issue of read.issues)
        found.issues.push({
          ...fieldProblem(value, issue),
          ...lineOf(document, lines, [...path, ...issue.path], issue.innerLine),
        });
      break;
  }
}

function fieldProblem(value: unknown, issue: FieldIssue): Omit<FileIssue, 'line' | 'column'> {
  const field = formatField(issue.path) || undefined;
  return { reason: 'field', text: `${field ?? 'This'} ${issue.text}.`, object: nameOf(value), field };
}

/** What the object is called, although something about it is wrong. */
function nameOf(value: unknown): string | undefined {
  if (!isMap(value) || typeof value.kind !== 'string') return undefined;
  const { name, namespace } = isMap(value.metadata) ? value.metadata : {};
  if (typeof name !== 'string') return value.kind;
  return `${value.kind} ${typeof namespace === 'string' ? `${namespace}/` : ''}${name}`;
}

type Fields = Readonly<Record<'apiVersion' | 'kind' | 'metadata' | 'name' | 'namespace' | 'items', unknown>>;

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isList(value: unknown): value is { apiVersion: unknown; kind: string; items: readonly unknown[] } {
  return isMap(value) && typeof value.kind === 'string' && value.kind.endsWith('List') && Array.isArray(value.items);
}
