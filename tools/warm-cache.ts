/**
 * Fills Node's compile cache (NODE_COMPILE_CACHE) with what `culvert` runs: every file of src is loaded once, and Node
 * writes the cache as this process ends. `./dev` calls it when src has changed; an image's build would, too.
 */
import { globSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
for (const file of globSync('src/**/*.ts', { cwd: root })) {
  // Browsers run these.
  if (file.startsWith('src/dashboard/web/')) continue;
  try {
    await import(new URL(`../${file}`, import.meta.url).href);
  } catch (error) {
    // A worker's entry cannot run here; it has been compiled all the same.
    if (!file.endsWith('-worker.ts')) throw error;
  }
}
