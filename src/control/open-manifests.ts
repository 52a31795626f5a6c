import type { ManifestSource, ManifestSourceDeps, ManifestSourceOptions } from './manifests/source.ts';

/**
 * Makes a source of a folder of manifests.
 *
 * Loaded when it is asked for: the agent enters this room for its client alone, and YAML, schemas and the build would cost
 * every node tens of MiB.
 *
 * @throws ControlError MANIFESTS_UNREADABLE: there is no such folder
 */
export async function openManifestSource(
  deps: ManifestSourceDeps,
  options: ManifestSourceOptions,
): Promise<ManifestSource> {
  const { ManifestSource, requireFolder } = await import('./manifests/source.ts');
  await requireFolder(options.directory);
  return new ManifestSource(deps, options);
}
