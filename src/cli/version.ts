import { readFileSync } from 'node:fs';

/** The project's, of package.json. */
export function version(): string {
  const described: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return typeof described === 'object' && described !== null && 'version' in described
    ? String(described.version)
    : 'unknown';
}
