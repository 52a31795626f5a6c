/**
 * Builds the dashboard's pages into build/dashboard: the types are taken out of src/dashboard/web/*.ts, as Node takes them
 * out of everything else (`./dev check` checks them), and the libraries are copied as they are. `./dev setup` runs it.
 */
import { cpSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const WEB = path.join(ROOT, 'src/dashboard/web');

/** Plain scripts, which put a name into the page. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  uplot: ['dist/uPlot.iife.min.js', 'dist/uPlot.min.css'],
  cytoscape: ['dist/cytoscape.min.js'],
  'layout-base': ['layout-base.js'],
  'cose-base': ['cose-base.js'],
  'cytoscape-fcose': ['cytoscape-fcose.js'],
};

/** A module of the pages as browsers read it. */
export function toScript(source: string): string {
  return stripTypeScriptTypes(source).replace(/(\bfrom\s*['"]\.[^'"]+)\.ts(['"])/g, '$1.js$2');
}

/** @param out is replaced as a whole */
export function buildPages(out: string): void {
  const fresh = `${out}.new`;
  const assets = path.join(fresh, 'assets');
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(path.join(assets, 'vendor'), { recursive: true });
  cpSync(path.join(WEB, 'index.html'), path.join(fresh, 'index.html'));
  for (const file of globSync('*.{css,svg}', { cwd: WEB })) cpSync(path.join(WEB, file), path.join(assets, file));
  for (const file of globSync('*.ts', { cwd: WEB })) {
    if (file.endsWith('.d.ts')) continue;
    const script = toScript(readFileSync(path.join(WEB, file), 'utf8'));
    writeFileSync(path.join(assets, file.replace(/\.ts$/, '.js')), script);
  }
  const licences: string[] = [];
  for (const [library, files] of Object.entries(LIBRARIES)) {
    const folder = path.join(ROOT, 'node_modules', library);
    for (const file of files) cpSync(path.join(folder, file), path.join(assets, 'vendor', path.basename(file)));
    licences.push(`${library}\n\n${readFileSync(path.join(folder, 'LICENSE'), 'utf8').trim()}\n`);
  }
  writeFileSync(path.join(assets, 'vendor/licences.txt'), licences.join('\n---\n\n'));
  rmSync(out, { recursive: true, force: true });
  renameSync(fresh, out);
}

if (import.meta.main) buildPages(path.join(ROOT, 'build/dashboard'));
