import type { ManifestReading } from './ports.ts';

/**
 * Reads manifests once and builds the mesh of them, without a control process.
 *
 * Loaded when it is asked for, as sources are.
 *
 * @param paths files, and folders whose `*.yaml`, `*.yml` and `*.json` are read; what cannot be read is a problem
 */
export async function readManifests(paths: readonly string[]): Promise<ManifestReading> {
  const { readOnce } = await import('./manifests/read-once.ts');
  return readOnce(paths);
}
