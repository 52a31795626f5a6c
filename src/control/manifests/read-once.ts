import { readFile, stat } from 'node:fs/promises';
import { type MeshUpdate, messageOf } from '../../mesh/index.ts';
import { silentLog } from '../../telemetry/index.ts';
import { completeUpdate } from '../build/changes.ts';
import { type BuiltMesh, buildMesh } from '../build/mesh-builder.ts';
import type { PolicyObject } from '../build/policies.ts';
import { Selectors } from '../build/selectors.ts';
import type { KubernetesObject } from '../objects/index.ts';
import type { ManifestReading, Place, ReadPolicy } from '../ports.ts';
import type { ManifestFile } from './files.ts';
import { ManifestFolder } from './folder.ts';
import { EMPTY_MANIFEST, parseManifest } from './parse.ts';
import { collect, fileProblems, findingProblems } from './problems.ts';

/** Files are taken in the order in which they are given, those of a folder in the order of their paths; each one once. */
export async function readOnce(paths: readonly string[]): Promise<ManifestReading> {
  const files = new Map<string, ManifestFile>();
  for (const path of paths) for (const file of await readPath(path)) files.set(file.path, files.get(file.path) ?? file);
  const all = [...files.values()];
  const { objects, duplicates } = collect(all);
  const built = buildMesh(objects);
  const mesh: MeshUpdate = completeUpdate(built);
  return {
    problems: [...all.flatMap(fileProblems), ...duplicates],
    findings: findingProblems(built.findings, all),
    mesh,
    policies: all.flatMap((file) => policiesOf(file, built, objects)),
  };
}

async function readPath(path: string): Promise<readonly ManifestFile[]> {
  try {
    return (await stat(path)).isDirectory() ? await readFolder(path) : [await readManifest(path)];
  } catch (error) {
    return [unread(path, messageOf(error))];
  }
}

/** The same files that are followed in a folder. */
async function readFolder(path: string): Promise<readonly ManifestFile[]> {
  const found = new Set<string>();
  const note = (file: string) => void found.add(file);
  const folder = new ManifestFolder({ log: silentLog(), touched: note, seen: note }, path);
  try {
    await folder.look();
  } finally {
    folder.close();
  }
  const files: ManifestFile[] = [...folder.faults].map(([inside, fault]) => unread(inside, fault));
  for (const file of [...found].toSorted()) files.push(await readManifest(file));
  return files;
}

async function readManifest(path: string): Promise<ManifestFile> {
  try {
    const manifest = parseManifest(await readFile(path, 'utf8'));
    return { path, manifest, issues: manifest.issues, fault: undefined };
  } catch (error) {
    return unread(path, messageOf(error));
  }
}

function unread(path: string, fault: string): ManifestFile {
  return { path, manifest: EMPTY_MANIFEST, issues: [], fault };
}

function policiesOf(
  { path, manifest }: ManifestFile,
  { conversions, settings }: BuiltMesh,
  all: readonly KubernetesObject[],
): ReadPolicy[] {
  return manifest.objects.flatMap(({ object, line, column }) => {
    if (!isPolicy(object)) return [];
    const conversion = conversions.get(object);
    // Of several with one name only the first is in the mesh.
    if (conversion === undefined) return [];
    const { kind, metadata } = object;
    const place: Place = { file: path, line, column };
    const { selector } = object.spec;
    const selected = selectedBy(object, all, settings.rootNamespace);
    const mtls = kind === 'PeerAuthentication' ? object.spec.mtls : undefined;
    const { namespace, name } = metadata;
    return [{ kind, namespace, name, place, ...conversion, selector, selected, mtls }];
  });
}

function selectedBy(
  { kind, metadata: { namespace }, spec: { selector } }: PolicyObject,
  all: readonly KubernetesObject[],
  rootNamespace: string,
): ReadPolicy['selected'] {
  const selectors = new Selectors([{ selector }]);
  const isEverywhere = kind === 'AuthorizationPolicy' && namespace === rootNamespace;
  return all.flatMap((object) => {
    if (object.kind !== 'Pod' && object.kind !== 'WorkloadEntry') return [];
    const { metadata } = object;
    const labels = object.kind === 'Pod' ? metadata.labels : { ...object.spec.labels, ...metadata.labels };
    const isReached = isEverywhere || metadata.namespace === namespace;
    if (!isReached || selectors.matching(labels).length === 0) return [];
    return [{ namespace: metadata.namespace, name: metadata.name }];
  });
}

function isPolicy(object: KubernetesObject): object is PolicyObject {
  return object.kind === 'AuthorizationPolicy' || object.kind === 'PeerAuthentication';
}
